# SPDX-License-Identifier: MIT
"""L6: create a port, monitor it, kill it, be notified.

``chained``: the notification starts the next one, so each waits for the one before. ``burst``: all are killed, then all
notified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent
from gevent.event import Event

from benchmarks.bare import RunQueue
from benchmarks.measure import Figure, clock, figure, settle

N = 20_000
COMPARISONS = (("chained", "chained"), ("burst", "burst"))
UNIT = "deaths/s"

Once = Callable[[Callable[..., None]], None]


def deaths(n: int, variant: str, once: Once, done: Callable[[], object], wait: Callable[[], object]) -> Figure:
    """Count ``n`` notifications of whichever ``once`` (create, monitor, kill) is given."""
    left = n

    def notified(*_reason: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done()
        elif variant == "chained":
            once(notified)

    settle()
    started = clock()
    for _ in range(n if variant == "burst" else 1):
        once(notified)
    wait()
    return figure(n, UNIT, clock() - started)


def ours(n: int, variant: str = "chained") -> Figure:
    """``port``, ``mon`` with a callback, ``kil`` with a reason."""
    from aemp_gevent import SELF, attach, kil, mon, port, receive, snd

    def once(notified: Callable[..., None]) -> None:
        mortal = port()
        mon(mortal, notified)
        kil(mortal, "shot")

    with attach():
        main = SELF()
        return deaths(n, variant, once, lambda: snd(main, "done"), lambda: receive("done"))


def ceiling(n: int, variant: str = "chained") -> Figure:
    """A slot in a dict, its callbacks in a list, and one deferred hub callback that runs what the dead left."""
    bare, done = RunQueue(), Event()
    slots, port, defer = bare.slots, bare.port, gevent.get_hub().loop.run_callback
    actions: deque[tuple[Callable[..., object], tuple[str, ...]]] = deque()
    running = False

    def run() -> None:
        nonlocal running
        while actions:
            action, reason = actions.popleft()
            action(*reason)
        running = False

    def kil(port_id: str, *reason: str) -> None:
        nonlocal running
        for action in slots.pop(port_id).monitors or ():
            actions.append((action, reason))
        if not running:
            running = True
            defer(run)

    def once(notified: Callable[..., None]) -> None:
        mortal = port()
        slots[mortal].monitors = [notified]
        kil(mortal, "shot")

    return deaths(n, variant, once, done.set, done.wait)
