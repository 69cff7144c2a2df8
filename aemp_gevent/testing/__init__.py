# SPDX-License-Identifier: MIT
"""Tools for testing programs that use :mod:`aemp_gevent`: node processes, faulty networks, and pytest fixtures.

A map:

=============  ==================================================================
``waiting``    ``wait_until``: a condition with a deadline, instead of a sleep
``processes``  ``NodeProcess``: a node in another process, to be stopped, killed, restarted
``errors``     what goes wrong with that; ``control``, ``channel``, ``_child``: how it is done
``proxy``      ``Proxy``: between two nodes; delays, throttles, splits, corrupts, cuts,
               resets, swallows; ``connection``, ``flow``, ``faults``: how it is done
``memory_…``   ``MemoryNetwork``: many nodes in this process, their links in memory; ``memory_network``
               has the faults and delays, ``memory_connection`` delivers with them
``crashes``    what died of an exception, and nobody monitored it
``fixtures``   all of it for pytest; not imported here
=============  ==================================================================

Everything is cooperative: other greenlets of the test run while it waits, patched or not. Whatever was
started is ended by its ``with`` block, whichever way that is left.
"""

from aemp_gevent.testing.connection import Connection
from aemp_gevent.testing.errors import NodeProcessError, NodeProcessTimeout, RemoteCodeError
from aemp_gevent.testing.memory_network import MemoryNetwork
from aemp_gevent.testing.processes import SECRET, NodeProcess
from aemp_gevent.testing.proxy import Proxy, ProxyError
from aemp_gevent.testing.virtual_time import VirtualTime
from aemp_gevent.testing.waiting import NotInTimeError, wait_until

__all__ = [
    "SECRET",
    "Connection",
    "MemoryNetwork",
    "NodeProcess",
    "NodeProcessError",
    "NodeProcessTimeout",
    "NotInTimeError",
    "Proxy",
    "ProxyError",
    "RemoteCodeError",
    "VirtualTime",
    "wait_until",
]
