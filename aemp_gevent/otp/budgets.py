# SPDX-License-Identifier: MIT
"""How often, and after which pauses, one child is restarted."""

from __future__ import annotations

from collections import deque

from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.quantities import Seconds, to_count, to_limited_seconds
from aemp_gevent.runtime.quoting import quoted


class RestartLimits:
    """The limits of restarts, which all children of a supervisor have.

    Args:
        intensity: The most restarts of one child within ``period``; None: no limit.
        period: Seconds.
        backoff: The first and the longest pause before a restart, in seconds; None: no pauses.

    Raises:
        TypeError, ValueError: They are not such numbers.
    """

    def __init__(self, intensity: int | None, period: Seconds, backoff: tuple[Seconds, Seconds] | None) -> None:
        self.intensity = None if intensity is None else to_count(intensity, "Supervisor", "intensity", least=0)
        self.period = to_limited_seconds(period, "Supervisor", "period")
        if backoff is not None and not (isinstance(backoff, (tuple, list)) and len(backoff) == 2):
            raise TypeError(f"Supervisor: backoff must be the first and the longest pause, not {quoted(backoff)}")
        first, longest = backoff or (0.0, 0.0)
        self.first = to_limited_seconds(first, "Supervisor", "backoff")
        self.longest = to_limited_seconds(longest, "Supervisor", "backoff")


class Budget:
    """The restarts of one child.

    Args:
        limits: What they are limited by.
    """

    __slots__ = ("_backoff", "_limits", "_times")

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._times: deque[float] = deque()
        self._backoff = Backoff(limits.first, limits.longest)

    @property
    def spent(self) -> int:
        """The number of restarts within the last period."""
        return len(self._times)

    def take(self, now: float, lived: float) -> float | None:
        """Return after how many seconds the child is restarted; None: the budget is spent.

        Args:
            now: The time.
            lived: How long the child ran. If that is longer than the longest pause, it has recovered, and the pauses
                begin with the first one again.
        """
        limits = self._limits
        self._times.append(now)
        while self._times[0] <= now - limits.period:
            self._times.popleft()
        if limits.intensity is not None and len(self._times) > limits.intensity:
            return None
        if lived > limits.longest:
            self._backoff.reset()
        return self._backoff.next()
