# SPDX-License-Identifier: MIT
"""Ports that die with an object.

gevent's own objects are freed when nothing refers to them any more. Objects with a port behave the same way: the
port's handlers refer to them weakly, and the port dies with the object.
"""

from __future__ import annotations

import sys
import weakref

from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler
from aemp_gevent.ports.scheduler import Scheduler

UNREFERENCED = "unreferenced"
"""First element of the reason with which such a port dies; a text follows."""


def port_of(thing: object, node: LocalNode, default: Handler | None = None) -> str:
    """Create a port that dies as soon as nothing refers to an object any more.

    If this raises, no port is left.

    Args:
        thing: The object.
        node: The node to create it on.
        default: Its default callback; None: messages that no handler accepts are dropped.
    """
    node.scheduler.check_thread(f"{type(thing).__name__}()")
    port = ports_host_of(node).make()
    if default is not None:
        port.default = default
    try:
        node.scheduler.table.add(port)
        _end_with(thing, node, port.id)
    except BaseException:
        node.kil(port.id)
        raise
    return port.id


def _end_with(thing: object, node: LocalNode, port: str) -> None:
    """Kill a port as soon as nothing refers to an object any more."""
    end = weakref.finalize(thing, _end, node.scheduler, port, type(thing).__name__)
    end.atexit = False  # the node says goodbye by itself
    ports_host_of(node).monitor(port, lambda *_reason: end.detach(), None)


def _end(scheduler: Scheduler, port: str, kind: str) -> None:  # wherever the collector runs
    found = None if sys.is_finalizing() or scheduler.is_abandoned else scheduler.table.find(port)
    if found is None:
        return
    reason = (UNREFERENCED, f"nothing refers to the {kind} any more; keep it as long as others use its port")
    if scheduler.is_foreign:
        scheduler.kill_from_afar(found, reason)
    else:
        scheduler.kill_now(found, reason)  # the messages in its mailbox were for the object


def cancel_with(thing: object, scheduler: Scheduler, guard: Monitor) -> None:
    """Cancel a monitor as soon as nothing refers to an object any more."""
    weakref.finalize(thing, _cancel, scheduler, guard).atexit = False


def _cancel(scheduler: Scheduler, guard: Monitor) -> None:  # wherever the collector runs
    if not scheduler.is_abandoned:
        scheduler.leave(guard.cancel)
