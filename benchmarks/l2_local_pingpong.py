# SPDX-License-Identifier: MIT
"""L2: two callback ports send one message back and forth."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from benchmarks.bare import RunQueue
from benchmarks.measure import Figure, clock, figure, settle

N = 100_000
COMPARISONS = (("callbacks", "run queue"),)
UNIT = "round trips/s"


def pingpong(
    n: int, port: Callable[..., str], snd: Callable[..., None], done: Callable[[], None], wait: Callable[[], object]
) -> Figure:
    """Play ``n`` round trips with whichever ``port`` and ``snd`` are given: both sides do the very same work."""

    def ping(left: int) -> None:
        if left:
            snd(ponger, left)
        else:
            done()

    def pong(left: int) -> None:
        snd(pinger, left - 1)

    pinger, ponger = port(ping), port(pong)
    settle()
    started = clock()
    snd(pinger, n)
    wait()
    return figure(n, UNIT, clock() - started)


def ours(n: int, variant: str = "callbacks") -> Figure:
    """Two miniports."""
    from aemp_gevent import SELF, attach, port, receive, snd

    with attach():
        main = SELF()
        return pingpong(n, port, snd, lambda: snd(main, "done"), lambda: receive("done"))


def ceiling(n: int, variant: str = "run queue") -> Figure:
    """Two callbacks behind a run queue without features, on the hub."""
    queue, done = RunQueue(), Event()
    return pingpong(n, queue.port, queue.snd, done.set, done.wait)
