# SPDX-License-Identifier: MIT
"""The commands of ``aemp``, with which operators set up, run and watch nodes.

:mod:`aemp_command.table` lists them. Each is imported only when it runs, and imports gevent's loop, ``rich`` and the
node only inside its functions. Their modules are named after the commands (``log``, ``top``, ``trace``, …), or after
the heading of several commands in ``aemp --help``: ``set_up`` and ``talk``. The others belong to one of them:

- ``run``: ``node_runner``, ``supervisor`` and ``readiness``;
- ``set_up``, ``show`` and ``import_perl``: ``profile_file``, ``private_files`` and ``completion``;
- ``dump``: ``wire_dump``;

or are shared by many:

- :mod:`~aemp_gevent.cli.command_node`: the node that joins the network while a command runs;
- :mod:`~aemp_gevent.cli.node_queries`: requests to nodes, and the walk from node to node;
- :mod:`~aemp_gevent.cli.arguments`: values on the command line;
- :mod:`~aemp_gevent.cli.output`: tables for people, JSON for scripts.
"""
