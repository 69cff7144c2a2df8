# SPDX-License-Identifier: MIT
"""Waiting for a condition instead of sleeping: no longer than needed, and with a report if it fails."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import gevent

from aemp_gevent.errors import Copyable
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds
from aemp_gevent.runtime.quoting import quoted

T = TypeVar("T")

_EAGER_SECONDS = 0.005
"""How long the condition is checked in each turn of the loop, because most become true by other greenlets at once."""

_EAGER_LOOKS = 200
"""How often at most: in virtual time, these turns take no time."""

_PAUSE_SECONDS = 0.002
"""After this, the condition depends on something slower, which may need this processor."""


class NotInTimeError(Copyable, AssertionError):
    """A condition did not come true in time; a test that waits for it fails."""

    def __init__(self, waited: float, looks: int, seen: str) -> None:
        checks = "1 check" if looks == 1 else f"{looks} checks"
        super().__init__(f"not met within {waited:.2f} s ({checks}); last seen: {seen}")
        self.waited = waited


def wait_until(condition: Callable[[], T], *, within: Seconds | None = 5.0, show: Callable[[], Any] | None = None) -> T:
    """Give way until ``condition()`` is true, and return that. Switches, unless it is true already.

    Args:
        condition: Checked again and again; cheap, and without effects. What it raises passes through.
        within: Seconds; None: no limit. It is checked once more after they have passed.
        show: What to report if it never came true, instead of the condition's last value.

    Raises:
        NotInTimeError: An ``AssertionError`` that says how long the wait was, and what the condition last returned.
    """
    seconds = to_limited_seconds(within, "wait_until()", "within")
    begin = monotonic()
    looks = 0
    while True:
        now = monotonic()
        seen = condition()
        looks += 1
        if seen:
            return seen
        if now >= begin + seconds:
            shown = quoted(seen) if show is None else str(show())
            raise NotInTimeError(monotonic() - begin, looks, shown)
        is_eager = looks < _EAGER_LOOKS and now < begin + _EAGER_SECONDS
        gevent.sleep(0 if is_eager else _PAUSE_SECONDS)
