# SPDX-License-Identifier: MIT
"""L4: one message round a ring of 1000 ports, callbacks or greenlets.

One untimed round comes first, so that started greenlets and first mailboxes do not count as hops.
"""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event
from greenlet import getcurrent, greenlet

from benchmarks.bare import RunQueue
from benchmarks.measure import Figure, clock, figure, settle

N = 200_000
COMPARISONS = (("callbacks", "run queue"), ("greenlets", "switches"))
UNIT = "hops/s"
PORTS = 1000


def go_round(n: int, start: Callable[[int], object], wait: Callable[[], object]) -> Figure:
    """Send a first message round once, then time ``n`` hops."""
    start(PORTS)
    wait()
    settle()
    started = clock()
    start(n)
    wait()
    return figure(n, UNIT, clock() - started)


def callback_ring(port: Callable[..., str], snd: Callable[..., None], done: Callable[[], object]) -> list[str]:
    """Make a ring of callback ports with whichever ``port`` and ``snd`` are given, and return it."""
    ring: list[str] = []

    def member(following: int) -> Callable[[int], None]:
        def hop(left: int) -> None:
            if left:
                snd(ring[following], left - 1)
            else:
                done()

        return hop

    ring.extend([port(member((index + 1) % PORTS)) for index in range(PORTS)])
    return ring


def ours(n: int, variant: str = "callbacks") -> Figure:
    """Miniports, or ``port_async`` loops around ``receive``."""
    from aemp_gevent import SELF, attach, port, port_async, receive, snd

    with attach():
        main = SELF()
        if variant == "callbacks":
            ring = callback_ring(port, snd, lambda: snd(main, "done"))
        else:
            ring = []

            def member(following: int) -> None:
                while True:
                    (left,) = receive()
                    if left:
                        snd(ring[following], left - 1)
                    else:
                        snd(main, "done")

            ring.extend([port_async(member, (index + 1) % PORTS) for index in range(PORTS)])
        return go_round(n, lambda left: snd(ring[0], left), lambda: receive("done"))


def ceiling(n: int, variant: str = "run queue") -> Figure:
    """Callbacks behind a run queue without features, or greenlets that each switch to the next."""
    return switch_ring(n) if variant == "switches" else queue_ring(n)


def queue_ring(n: int) -> Figure:
    """The ring on the prototype's run queue."""
    queue, done = RunQueue(), Event()
    ring = callback_ring(queue.port, queue.snd, done.set)

    def start(left: int) -> None:
        done.clear()
        queue.snd(ring[0], left)

    return go_round(n, start, done.wait)


def switch_ring(n: int) -> Figure:
    """The ring as plain greenlets. All are started from here: a greenlet inherits its starter's recursion depth."""
    main, ring = getcurrent(), list[greenlet]()

    def member(following: int) -> None:
        left = main.switch()
        while True:
            left = ring[following].switch(left - 1) if left else main.switch()

    ring.extend([greenlet(member) for _ in range(PORTS)])
    for index, each in enumerate(ring):
        each.switch((index + 1) % PORTS)
    return go_round(n, ring[0].switch, lambda: None)
