# SPDX-License-Identifier: MIT
"""What gevent programs are made of, over ports: queues, events, semaphores, pools, and deaths to wait for.

For services that move to message passing piece by piece. The things that hold something
(:class:`PortQueue`, :class:`PortEvent`, :class:`PortSemaphore`) *are* gevent's, so that the code which has
them goes on as it is; whoever knows their port uses them from other nodes by way of
:class:`RemoteQueue`, :class:`RemoteEvent` and :class:`RemoteSemaphore`. :class:`RemotePool` is a gevent pool whose
functions run on other nodes. :func:`death_of` gives ``gevent.wait`` a port's death.

A map: ``queues``, ``events``, ``semaphores``, ``pools``, ``deaths``; and ``lodgers``, which wait on
behalf of somebody who is elsewhere.
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
