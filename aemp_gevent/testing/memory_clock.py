# SPDX-License-Identifier: MIT
"""The clock of a simulated network: it calls functions when they are due."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Hub


class MemoryClock:
    """Call functions on the hub when they are due, in order."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._calls: list[tuple[float, int, Callable[[], None]]] = []  # a heap
        self._serial = itertools.count()
        self._timer: Any = None  # gevent's watchers have no types
        self._timer_is_due_at = 0.0
        self._is_ticking = False
        self._closed = False

    @property
    def hub(self) -> Hub:
        """The hub that all nodes of the network belong to."""
        if self._hub is None:
            self._hub = gevent.get_hub()
        return self._hub

    def close(self) -> None:
        """Forget all calls, and accept no more. Idempotent."""
        self._closed = True
        self._calls.clear()
        self._disarm()

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call a function on the hub when ``time.monotonic()`` is ``due``, never inside of this call."""
        if not self._closed:
            heappush(self._calls, (due, next(self._serial), call))
            self._arm()

    def _arm(self) -> None:
        if self._is_ticking or not self._calls:
            return
        due = self._calls[0][0]
        if self._timer is not None:
            if self._timer_is_due_at <= due:
                return
            self._disarm()
        # One timer for all calls: several would not fire in order, and each would cost a microsecond.
        self._timer_is_due_at = due
        self._timer = self.hub.loop.timer(max(due - monotonic(), 0.0))
        self._timer.start(self._tick, update=True)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _tick(self) -> None:  # on the hub
        self._disarm()
        self._is_ticking = True
        now, last = monotonic(), next(self._serial)
        try:
            # Calls that these add wait until sockets and timers had their turn.
            while self._calls and self._calls[0][0] <= now and self._calls[0][1] < last:
                heappop(self._calls)[2]()
        finally:
            self._is_ticking = False
            self._arm()
