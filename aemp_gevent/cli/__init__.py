# SPDX-License-Identifier: MIT
"""The commands of ``aemp``, with which operators set up, run and watch nodes.

:mod:`aemp_command.table` lists them. Each is imported only when it runs, and imports gevent's loop, ``rich`` and the
node only inside its functions. Several commands share these modules:

- :mod:`~aemp_gevent.cli.connecting`: joining the network while a command runs;
- :mod:`~aemp_gevent.cli.asking`: requests to nodes, and the walk from node to node;
- :mod:`~aemp_gevent.cli.arguments`: values on the command line;
- :mod:`~aemp_gevent.cli.output`: tables for people, JSON for scripts.

The others are named after what their commands do: ``looking`` (nodes, ports, groups), ``listening`` (log), ``watching``
(top), ``tracing`` (trace), ``talking`` (snd, call, mon, …), ``dumping`` (dump), ``prompt`` (shell), ``setting_up`` and
``showing`` (settings), ``running`` (run).
"""
