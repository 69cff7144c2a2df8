# SPDX-License-Identifier: MIT
"""L1: messages from a greenlet to one callback port, as fast as it can send.

The sender never yields, so all messages are queued first and handled then: cost of ``snd`` plus cost of one callback.
"""

from __future__ import annotations

from collections import deque

import gevent
from gevent.event import Event

from benchmarks.measure import Figure, clock, figure, settle

N = 200_000
COMPARISONS = (("callback", "deferred"), ("callback", "deque"))
UNIT = "messages/s"


def ours(n: int, variant: str = "callback") -> Figure:
    """Send to a callback port and wait for its "done" with a blocking receive."""
    from aemp_gevent import SELF, attach, port, receive, snd

    count = 0
    with attach():
        main = SELF()

        def handle(_number: int) -> None:
            nonlocal count
            count += 1
            if count == n:
                snd(main, "done")

        target = port(handle)
        settle()
        started = clock()
        for number in range(n):
            snd(target, number)
        receive("done")
        return figure(n, UNIT, clock() - started)


def ceiling(n: int, variant: str = "deferred") -> Figure:
    """Append to a deque found by ID; drain it in one deferred hub callback, or (``deque``) right afterwards."""
    mailbox: deque[tuple[int]] = deque()
    mailboxes = {"anon/bare#1": mailbox}
    defer, deferred = gevent.get_hub().loop.run_callback, False
    done, count = Event(), 0

    def handle(_number: int) -> None:
        nonlocal count
        count += 1
        if count == n:
            done.set()

    def drain() -> None:
        nonlocal deferred
        deferred = False
        while mailbox:
            handle(*mailbox.popleft())

    def snd_deferred(port_id: str, *msg: int) -> None:
        nonlocal deferred
        mailboxes[port_id].append(msg)  # type: ignore[arg-type]
        if not deferred:
            deferred = True
            defer(drain)

    def snd_deque(port_id: str, *msg: int) -> None:
        mailboxes[port_id].append(msg)  # type: ignore[arg-type]

    snd = snd_deferred if variant == "deferred" else snd_deque
    settle()
    started = clock()
    for number in range(n):
        snd("anon/bare#1", number)
    if variant == "deque":
        drain()
    done.wait()
    return figure(n, UNIT, clock() - started)
