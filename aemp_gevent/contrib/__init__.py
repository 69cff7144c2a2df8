# SPDX-License-Identifier: MIT
"""Nodes in other programs, such as a web server's workers on one host.

:func:`join_host` links this process to the other nodes of the same name on this host.
``aemp_gevent.contrib.gunicorn`` has hooks that do this in gunicorn's workers. ``aemp_gevent.contrib.locust`` connects
the master and the workers of Locust.
"""

from aemp_gevent.contrib.hosts import join_host

__all__ = ["join_host"]
