# SPDX-License-Identifier: MIT
"""S2: messages to callback ports of this process, against how many ports there are; a variant is their number.

The ports get messages in an order that was shuffled once, in bursts of 1000. Their first mailboxes are not timed: each
port that is used gets a message before.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from gevent.event import Event

from benchmarks.bare import RunQueue
from benchmarks.measure import Figure, clock, figure, settle

N = 200_000
COUNTS = tuple(10**power for power in range(7))
COMPARISONS = tuple((str(count), str(count)) for count in COUNTS)
UNIT = "messages/s"
BURST = 1000


def deliver(
    n: int,
    count: int,
    port: Callable[..., str],
    snd: Callable[..., None],
    done: Callable[[], object],
    wait: Callable[[], object],
) -> Figure:
    """Send ``n`` messages to ``count`` ports with whichever ``port`` and ``snd`` are given."""
    left = 0

    def handle(_number: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            done()

    ports = [port(handle) for _ in range(count)]
    random.Random(1).shuffle(ports)

    def send(targets: list[str]) -> None:
        nonlocal left
        for begin in range(0, len(targets), BURST):
            burst = targets[begin : begin + BURST]
            left = len(burst)
            for target in burst:
                snd(target, begin)
            wait()

    send(ports[:n])
    targets = list(itertools.islice(itertools.cycle(ports), n))
    settle()
    started = clock()
    send(targets)
    return figure(n, UNIT, clock() - started)


def ours(n: int, variant: str = "1000") -> Figure:
    """Miniports."""
    from aemp_gevent import SELF, attach, port, receive, snd

    with attach():
        main = SELF()
        return deliver(n, int(variant), port, snd, lambda: snd(main, "done"), lambda: receive("done"))


def ceiling(n: int, variant: str = "1000") -> Figure:
    """Callbacks behind a run queue without features, on the hub."""
    queue, done = RunQueue(), Event()

    def wait() -> None:
        done.wait()
        done.clear()

    return deliver(n, int(variant), queue.port, queue.snd, done.set, wait)
