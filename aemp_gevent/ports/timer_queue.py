# SPDX-License-Identifier: MIT
"""All timers of a node, behind one timer of the event loop: the alarm, which rings when the first of them is due.

Most timers are those of calls and of ``receive``, which end long before they are due. To make, start, stop and close
a timer of the loop for each of them would take a tenth of a call. So a timer is a number here, with an entry in a
dictionary and one in a heap. The entry in the heap stays there when a timer is ended, until those of ended timers are
the larger part. The alarm is left running then: when it rings too early, it is set again.

What an exception strikes on the hub is made again soon, so a timer's call must tolerate being made twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from time import monotonic
from typing import Any

from aemp_gevent.runtime.hub_calls import hub_call, report_to

RETRY_SECONDS = 0.05
"""Seconds after which a timer's call that raised is made again."""

MAX_TRIES = 10
"""How often a timer's call is made at most. Otherwise a call that always raises would be repeated forever."""

LEAST_SECONDS = 0.001
"""The shortest time that the loops wait for anything. libuv warns of timers that are shorter."""

SPARE = 256
"""How many entries of ended timers the heap may have besides as many as there are timers."""


class TimerQueue:
    """Timers, each of which makes one call on the hub. Belongs to the thread of that hub.

    Args:
        hub: The hub; None: it is set before the first timer is set off.
    """

    def __init__(self, hub: Any) -> None:  # its stubs do not know the loop's timers
        self.hub = hub
        self._timers: dict[int, tuple[float, Callable[..., object], tuple[Any, ...], int]] = {}
        self._heap: list[tuple[float, int]] = []  # when each of them is due, and ended ones
        self._numbers = itertools.count(1)
        self._alarm: Any = None  # gevent's watchers have no types
        self._rings_at = inf  # when the alarm rings, at the latest when the first timer is due
        self._holds_loop = False
        self._ring = hub_call(self._expire, self._recover, self._report)

    def __len__(self) -> int:
        return len(self._timers)

    def new(self) -> int:
        """Return a timer that nothing has set off yet: its user can keep it first, and end it wherever it is struck."""
        return next(self._numbers)

    def set_off(self, timer: int, due: float, call: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
        """Start a timer, which will call ``call(*args)`` on the hub once ``monotonic()`` is ``due``."""
        entry = (due, call, args, 0)
        try:
            heappush(self._heap, (due, timer))
            if self._is_untidy():
                due = monotonic()  # not here: where this is struck, others would lose their entries
            if due < self._rings_at:
                self._set_alarm(due)
            if not self._holds_loop:
                self._alarm.ref = True
                self._holds_loop = True
            self._timers[timer] = entry  # last, and without a call since the test: a finalizer may end all others
        except BaseException:
            self.end(timer)
            raise

    def end(self, timer: int) -> None:
        """Stop a timer and forget it. Idempotent."""
        self._timers.pop(timer, None)
        if self._holds_loop and not self._timers:
            self._alarm.ref = False  # the loop may end although this still runs
            self._holds_loop = False

    def end_all(self) -> None:
        """Stop and forget every timer: no call of theirs is made any more."""
        for timer in list(self._timers):
            self.end(timer)

    def stop(self) -> None:
        """Make no calls any more, in a forked child."""
        if self._alarm is not None:
            self._alarm.stop()

    # --- the alarm ---

    def _set_alarm(self, due: float) -> None:
        """Make the alarm ring at ``due``."""
        seconds = due - monotonic()
        alarm = self.hub.loop.timer(max(seconds, LEAST_SECONDS) if seconds > 0 else 0.0)
        # update: the loop's time may be as old as a whole turn of ours.
        alarm.start(self._ring, update=True)
        former, self._alarm = self._alarm, alarm
        self._rings_at, self._holds_loop = due, True
        _close(former)

    def _expire(self) -> None:  # on the hub
        """Make the calls that are due. What these set off waits until sockets and other timers had their turn."""
        self._silence()
        if self._is_untidy():
            self._tidy()
        until = (monotonic(), self.new())
        while self._heap and self._heap[0] < until:
            _, timer = heappop(self._heap)
            if timer in self._timers:
                _, call, args, tries = self._timers[timer]
                # Before the call, which may be struck: then it is made again, but not forever.
                if tries + 1 < MAX_TRIES:
                    self._timers[timer] = (monotonic() + RETRY_SECONDS, call, args, tries + 1)
                else:
                    self.end(timer)
                call(*args)
                self.end(timer)
        self._set_next()

    def _recover(self) -> None:  # on the hub
        """Set the alarm again after an exception: calls that ended it are made again later, others right now."""
        self._silence()
        self._tidy()
        self._set_next()

    def _report(self, error: BaseException) -> None:
        report_to(self.hub, error, self)

    def _silence(self) -> None:
        """Forget the alarm, which has rung."""
        former, self._alarm = self._alarm, None
        self._rings_at, self._holds_loop = inf, False
        _close(former)

    def _set_next(self) -> None:
        """Set the alarm for the first timer, if there is one."""
        while self._heap:
            first = heappop(self._heap)
            if first[1] in self._timers:
                heappush(self._heap, first)
                if first[0] < self._rings_at:
                    self._set_alarm(first[0])
                break

    def _is_untidy(self) -> bool:
        """Return whether the heap has too many entries of ended timers."""
        return len(self._heap) > 2 * len(self._timers) + SPARE

    def _tidy(self) -> None:
        """Leave just the entries in the heap that belong there."""
        self._heap = []  # first: a finalizer may set off timers meanwhile, of which a second entry does no harm
        for timer in list(self._timers):
            if timer in self._timers:
                heappush(self._heap, (self._timers[timer][0], timer))


def _close(alarm: Any) -> None:
    if alarm is not None:
        alarm.stop()
        alarm.close()
