# SPDX-License-Identifier: MIT
"""How often, and after which pauses, the children of a supervisor are restarted.

As in Erlang, a supervisor has one budget for all of its children together: more than ``intensity`` restarts within
``period`` are too many. But a restart is first delayed, and each time longer, before it counts: only those after the
longest pause do. So children that crash now and then, or all of them at once because a database was away for a minute,
cost nothing, and a child that cannot run ends its supervisor soon after its pauses have become the longest.
Without a back-off there are no pauses, and each restart counts: this is Erlang's rule.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.quantities import Seconds, to_count, to_limited_seconds
from aemp_gevent.runtime.quoting import quoted


class Pause(NamedTuple):
    """What comes before a restart."""

    seconds: float
    is_longest: bool


class Pauses:
    """The pauses before the restarts of one child.

    Args:
        first: The first pause in seconds.
        longest: The longest pause in seconds.
    """

    __slots__ = ("_backoff", "_longest")

    def __init__(self, first: float, longest: float) -> None:
        self._longest = longest
        self._backoff = Backoff(first, longest)

    def next(self, lived: float) -> Pause:
        """Return the pause before the next restart.

        Args:
            lived: How many seconds the child ran. If that is longer than the longest pause, it has recovered, and the
                pauses begin with the first one again.
        """
        if lived > self._longest:
            self._backoff.reset()
        seconds = self._backoff.next()
        return Pause(seconds, seconds >= self._longest)


class Budget:
    """The restarts that a supervisor may make.

    Args:
        intensity: The most restarts after the longest pause within ``period``; 0: no restart at all; None: no limit.
        period: Seconds.
        backoff: The first and the longest pause before a restart, in seconds; None: no pauses.

    Raises:
        TypeError, ValueError: They are not such numbers.
    """

    def __init__(self, intensity: int | None, period: Seconds, backoff: tuple[Seconds, Seconds] | None) -> None:
        self.intensity = None if intensity is None else to_count(intensity, "Supervisor", "intensity", least=0)
        self.period = to_limited_seconds(period, "Supervisor", "period")
        if self.period == 0:
            raise ValueError(f"Supervisor: period must be more than 0 seconds, not {quoted(period)}")
        if backoff is not None and not (isinstance(backoff, (tuple, list)) and len(backoff) == 2):
            raise TypeError(f"Supervisor: backoff must be the first and the longest pause, not {quoted(backoff)}")
        first, longest = backoff or (0.0, 0.0)
        self._first = to_limited_seconds(first, "Supervisor", "backoff")
        self.longest = to_limited_seconds(longest, "Supervisor", "backoff")
        if self._first > self.longest or self._first <= 0 < self.longest:
            why = "the first pause must be more than 0, and at most the longest"
            raise ValueError(f"Supervisor: backoff is {quoted(backoff)}; {why}")
        if self.intensity == 0:  # not even after a pause
            self._first = self.longest = 0.0
        self._times: deque[float] = deque()

    @property
    def one_child_can_spend_it(self) -> bool:
        """Whether one child that crashes at once each time makes the supervisor give up, if there is a limit."""
        return self.intensity is None or self.intensity * 1.5 * self.longest < self.period

    @property
    def spent(self) -> int:
        """How many restarts count at the moment."""
        return len(self._times)

    def pauses(self) -> Pauses:
        """Return the pauses of a new child."""
        return Pauses(self._first, self.longest)

    def take(self, now: float) -> bool:
        """Count a restart, and return whether it may be made.

        Args:
            now: The time in seconds.
        """
        self._times.append(now)
        while self._times[0] <= now - self.period:
            self._times.popleft()
        return self.intensity is None or len(self._times) <= self.intensity
