# SPDX-License-Identifier: MIT
"""L3: two greenlets, each with a port, wait for one another with a blocking ``receive``."""

from __future__ import annotations

import gevent
from greenlet import getcurrent, greenlet

from benchmarks.measure import Figure, clock, figure, settle

N = 100_000
COMPARISONS = (("receive", "direct"), ("receive", "hub"))
UNIT = "round trips/s"


def ours(n: int, variant: str = "receive") -> Figure:
    """Two ``port_async`` loops; the first round trip, which starts the greenlets, is not timed."""
    from aemp_gevent import SELF, attach, port_async, receive, snd

    def pong() -> None:
        while True:
            (pinger,) = receive()
            snd(pinger, "pong")

    def ping(ponger: str, main: str) -> None:
        me = SELF()
        snd(ponger, me)
        receive()
        settle()
        started = clock()
        for _ in range(n):
            snd(ponger, me)
            receive()
        snd(main, "done", clock() - started)

    with attach():
        port_async(ping, port_async(pong), SELF())
        _, seconds = receive("done")
    return figure(n, UNIT, seconds)


def ceiling(n: int, variant: str = "direct") -> Figure:
    """Two greenlets that switch to one another (``direct``), or wake one another through the hub (``hub``)."""
    return through_hub(n) if variant == "hub" else direct(n)


def direct(n: int) -> Figure:
    """Switch back and forth, with nothing else in the loops."""
    main = getcurrent()

    def pong() -> None:
        while True:
            main.switch()

    switch = greenlet(pong).switch
    switch()
    settle()
    started = clock()
    for _ in range(n):
        switch()
    return figure(n, UNIT, clock() - started)


def through_hub(n: int) -> Figure:
    """Order the other's wake-up from the hub, then go to the hub: what queues and events amount to."""
    hub, main = gevent.get_hub(), getcurrent()
    wake, wait = hub.loop.run_callback, hub.switch

    def pong() -> None:
        while True:
            wait()
            wake(main.switch)

    other = gevent.spawn(pong)
    gevent.sleep(0)
    settle()
    started = clock()
    for _ in range(n):
        wake(other.switch)
        wait()
    return figure(n, UNIT, clock() - started)
