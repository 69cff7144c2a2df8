# SPDX-License-Identifier: MIT
"""The commands of ``aemp``: what operators do with nodes.

Which there are, :mod:`aemp_command.table` says; each is imported only when it runs, and
imports gevent's loop, ``rich`` and the node only inside of itself. What several share:

- :mod:`~aemp_gevent.cli.connecting`: being a node of the network while a command runs;
- :mod:`~aemp_gevent.cli.arguments`: what users write to mean a value;
- :mod:`~aemp_gevent.cli.output`: tables for people, JSON for scripts.
"""
