# SPDX-License-Identifier: MIT
"""Nodes in the programs of others: web servers' workers, and whatever else runs on one host.

:func:`join_host` makes this process one of the nodes of a name on this host.
``aemp_gevent.contrib.gunicorn`` has the hooks by which gunicorn's workers do it.
"""

from aemp_gevent.contrib.hosts import join_host

__all__ = ["join_host"]
