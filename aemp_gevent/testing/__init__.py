# SPDX-License-Identifier: MIT
"""Tests of programs that use :mod:`aemp_gevent`, and of the library itself: real nodes, and real faults.

A map:

=============  ==================================================================
``waiting``    ``wait_until``: a condition with a deadline, instead of a sleep
``proxy``      ``Proxy``: between two nodes; delays, throttles, splits, corrupts, cuts,
               resets, swallows; ``connection``, ``flow``, ``faults``: how it is done
=============  ==================================================================

Everything is cooperative: the test goes on while it waits, patched or not. Whatever was
started is ended by its ``with`` block, whichever way that is left.
"""

from aemp_gevent.testing.connection import Connection
from aemp_gevent.testing.proxy import Proxy, ProxyError
from aemp_gevent.testing.waiting import NotInTimeError, wait_until

__all__ = [
    "Connection",
    "NotInTimeError",
    "Proxy",
    "ProxyError",
    "wait_until",
]
