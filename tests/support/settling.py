# SPDX-License-Identifier: MIT
"""Waiting for a :class:`LocalNode` to come to rest, without bare sleeps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import gevent
import gevent.event

from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.scheduler import Scheduler
from tests.support.seams import ports_of


def settle(node: LocalNode, within: float = 5.0) -> None:
    """Give way until nothing is due on this node any more: no port, no job, no death."""
    scheduler = node.scheduler
    deadline = monotonic() + within
    while scheduler.runq or scheduler._deaths or scheduler.pumped:
        assert monotonic() < deadline, f"still due after {within} s: {list(scheduler.runq)}, {list(scheduler._deaths)}"
        gevent.sleep(0)


def wait_for_timers(node: LocalNode, seconds: float) -> None:
    """Wait until every timer due within ``seconds`` has fired, and what came of it is done."""
    passed = gevent.event.Event()
    with node.after(seconds, passed.set):
        assert passed.wait(5.0), "a timer of the node never fired"
    settle(node)


@contextmanager
def fresh_node() -> Iterator[LocalNode]:
    """A node of its own for one test; afterwards every port of it can be killed, and none is left."""
    node = LocalNode()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)
    assert ports_of(node) == {}, "these ports survived their kill"
    assert node.scheduler.table._aliases == {}, "these aliases survived their ports"


def set_aside() -> None:
    """Keep what there is out of later collections, once the nodes of the last test are gone.

    A closed link lets go of its node in a later round of the loop. Set aside before that, the node would never be
    collected: with what tests of full links had not sent, a process grew to 3 GB. Nodes of fixtures with a wider scope
    stay; the number of rounds is bounded for them.
    """
    gc.collect()
    for _ in range(10):
        if not any(issubclass(type(thing), Scheduler) for thing in gc.get_objects()):
            break
        gevent.sleep(0.001)
        gc.collect()
    gc.freeze()


class PortLike:
    """An object whose ``str()`` is a port ID, and which is not even hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, port: object) -> None:
        self._port = port

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    def __str__(self) -> str:
        return str(self._port)
