# SPDX-License-Identifier: MIT
"""Turns of the loop, how late they are, and what commands say about that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.testing.waiting import wait_until

_STOOD_STILL = re.compile(
    r"^aemp: the event loop was blocked for [0-9.]+ s, "
    r"(in:\n(  File .*\n(    .*\n)*)*\n?|but no stack was captured.*\n)",
    re.MULTILINE,
)


def turns(count: int) -> None:
    """Run ``count`` whole turns of the hub's loop, timers and sockets included.

    Not ``sleep(0)``, of which gevent makes many within one turn, so that ports whose turn was over did not run at all.
    """
    for _ in range(count):
        gevent.sleep(1e-9)


def on_hub(function: Callable[[], Any]) -> None:
    """Run a function on the hub, as a socket's or timer's callback would be, and return when it ran."""
    done: list[bool] = []

    def call() -> None:
        try:
            function()
        finally:
            done.append(True)

    gevent.get_hub().loop.run_callback(call)
    wait_until(lambda: done)


@contextmanager
def lateness(pause: float = 0.05) -> Iterator[Callable[[], float]]:
    """Yield a function that returns by how many seconds the loop was late at worst since the block began.

    An idle loop is late when the machine stands still, or takes the processor away. It is looked at after each pause,
    in seconds; a delay that is shorter may not be seen.
    """
    before = [monotonic()]
    worst = [0.0]

    def look() -> float:
        now = monotonic()
        worst[0], before[0] = max(worst[0], now - before[0] - pause), now
        return worst[0]

    timer: Any = gevent.get_hub().loop.timer(pause, pause, ref=False)
    timer.start(look)
    try:
        yield look
    finally:
        timer.close()


def without_standstills(printed: str) -> str:
    """Return what a command printed, but for what it says when the whole machine stood still for a second."""
    return _STOOD_STILL.sub("", printed)


class Proxy:
    """Behaves as werkzeug's proxies do outside of a request: nothing can be asked, not even its class."""

    __slots__ = ()  # so that it is not found when the objects of the process are looked through

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            raise RuntimeError("working outside of a request")
        return super().__getattribute__(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("working outside of a request")

    __hash__ = None  # type: ignore[assignment]
