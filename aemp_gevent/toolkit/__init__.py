# SPDX-License-Identifier: MIT
"""gevent's queues, events, semaphores and pools, usable from other nodes.

For services that move to message passing step by step. :class:`PortQueue`, :class:`PortEvent` and
:class:`PortSemaphore` are subclasses of gevent's own classes, so existing code keeps working with them. Code on
other nodes uses them by their port's ID, through :class:`RemoteQueue`, :class:`RemoteEvent` and
:class:`RemoteSemaphore`. :class:`RemotePool` is a gevent pool whose functions run on other nodes.
:func:`death_of` lets ``gevent.wait`` wait for a port's death.

The modules are ``queues``, ``events``, ``semaphores``, ``pools`` and ``deaths``. ``proxy_waiters`` waits for local
objects on behalf of remote clients, ``remotes`` is what the remote classes share, and ``lifetimes`` makes a port
die with its object.
"""

from aemp_gevent.toolkit.deaths import PortDeath, death_of
from aemp_gevent.toolkit.events import PortEvent, RemoteEvent
from aemp_gevent.toolkit.pools import RemotePool
from aemp_gevent.toolkit.queues import PortQueue, RemoteQueue
from aemp_gevent.toolkit.semaphores import PortSemaphore, RemoteSemaphore

__all__ = [
    "PortDeath",
    "PortEvent",
    "PortQueue",
    "PortSemaphore",
    "RemoteEvent",
    "RemotePool",
    "RemoteQueue",
    "RemoteSemaphore",
    "death_of",
]
