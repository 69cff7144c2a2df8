# SPDX-License-Identifier: MIT
"""Limits of rates: how often something may happen on all nodes together."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

from aemp_gevent import Node, default_node
from aemp_gevent.errors import InvalidSharedError
from aemp_gevent.runtime.batches import in_batches, size_of
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.shared import owned
from aemp_gevent.shared.handles import SharedState
from aemp_gevent.shared.owned import MAX_PART, Owned, check_number, check_text
from aemp_gevent.shared.ownership import KINDS

Algorithm = Literal["sliding", "fixed", "bucket"]

_LONGEST = 365.0 * 86400
_MOST = 10**9
MOST_SLIDING = 10_000
"""The largest limit of a sliding window, which remembers each hit."""


class Verdict(NamedTuple):
    """The answer of a limiter."""

    allowed: bool
    """Whether it may happen."""
    remaining: int
    """How often it may happen again at once."""
    retry_after: float
    """Seconds until the same may be allowed; 0 if it is."""


class Rate(NamedTuple):
    """What a limiter allows."""

    algorithm: Algorithm
    limit: int
    per: float
    burst: int

    def check(self) -> None:
        """Check the numbers.

        Raises:
            InvalidSharedError: One of them makes no sense.
        """
        if self.algorithm not in ("sliding", "fixed", "bucket"):  # not a set: peers may send a list
            raise InvalidSharedError("algorithm", self.algorithm, "it must be 'sliding', 'fixed' or 'bucket'")
        for what, number in (("limit", self.limit), ("burst", self.burst)):
            if not isinstance(check_number(what, number, 1, _MOST), int):
                raise InvalidSharedError(what, number, "it must be a whole number")
        if self.algorithm == "sliding" and self.limit > MOST_SLIDING:
            why = f"a sliding window remembers at most {MOST_SLIDING} hits; take 'bucket'"
            raise InvalidSharedError("limit", self.limit, why)
        if self.algorithm != "bucket" and self.burst != self.limit:
            raise InvalidSharedError("burst", self.burst, "only a 'bucket' has one")
        check_number("per", self.per, 0.001, _LONGEST)

    def check_cost(self, cost: Any) -> None:
        """Check that something of this cost can be allowed at all."""
        most = self.burst if self.algorithm == "bucket" else self.limit
        if not isinstance(check_number("cost", cost, 1, most), int):
            raise InvalidSharedError("cost", cost, "it must be a whole number")


class _Fixed:
    """The hits of one key in the current window, which begins with its first hit."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._hits = 0
        self._per = 0.0

    def hit(self, rate: Rate, cost: int, now: float) -> Verdict:
        self._per = rate.per
        if not self._hits or now - self._begin >= rate.per:
            self._begin, self._hits = now, 0
        if self._hits + cost > rate.limit:
            return Verdict(False, max(rate.limit - self._hits, 0), self._begin + rate.per - now)
        self._hits += cost
        return Verdict(True, rate.limit - self._hits, 0.0)

    def export(self, now: float) -> list[list[Any]]:
        """Return what still counts, by its age, in parts to merge; none, if nothing does."""
        age = now - self._begin
        return [[age, self._hits, self._per]] if self._hits and age < self._per else []

    def merge(self, state: Sequence[Any], now: float) -> None:
        age, hits, per = state
        check_number("age", age, 0, _LONGEST)
        check_number("hits", hits, 1, _MOST)
        check_number("per", per, 0, _LONGEST)
        if not self.export(now):
            self._begin, self._hits, self._per = now - age, 0, per
        self._begin = max(self._begin, now - age)
        self._hits += hits


class _Sliding:
    """The hits of one key in the last seconds, each with its time and cost."""

    def __init__(self) -> None:
        self._hits: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._per = 0.0

    def hit(self, rate: Rate, cost: int, now: float) -> Verdict:
        self._per = rate.per
        while self._hits and now - self._hits[0][0] >= rate.per:
            self._sum -= self._hits.popleft()[1]
        if self._sum + cost > rate.limit:
            surplus, wait = self._sum + cost - rate.limit, 0.0
            for when, weight in self._hits:
                surplus, wait = surplus - weight, when + rate.per - now
                if surplus <= 0:
                    break
            return Verdict(False, max(rate.limit - self._sum, 0), wait)
        self._hits.append((now, cost))
        self._sum += cost
        return Verdict(True, rate.limit - self._sum, 0.0)

    def export(self, now: float) -> list[list[Any]]:
        """Return the hits that still count, by their ages, in parts to merge; none, if none does."""
        hits = [[now - when, cost] for when, cost in self._hits if now - when < self._per]
        return [[self._per, *hits[begin : begin + MAX_PART]] for begin in range(0, len(hits), MAX_PART)]

    def merge(self, state: Sequence[Any], now: float) -> None:
        per, *added = state
        check_number("per", per, 0, _LONGEST)
        hits = [
            (now - check_number("age", age, 0, _LONGEST), check_number("cost", cost, 1, _MOST)) for age, cost in added
        ]
        self._per = max(self._per, per)
        self._hits = deque(sorted([*self._hits, *hits]), maxlen=MOST_SLIDING)  # the newest fill any window
        self._sum = sum(cost for _, cost in self._hits)


class _Bucket:
    """The tokens of one key, as what is missing from a full bucket at some time."""

    def __init__(self) -> None:
        self._missing = 0.0
        self._at = 0.0
        self._speed = 0.0

    def hit(self, rate: Rate, cost: int, now: float) -> Verdict:
        self._speed = speed = rate.limit / rate.per
        self._refill(now)
        surplus = self._missing + cost - rate.burst
        if surplus > 1e-9:  # not 0: what was refilled is not exact
            return Verdict(False, max(int(rate.burst - self._missing), 0), surplus / speed)
        self._missing += cost
        return Verdict(True, max(int(rate.burst - self._missing + 1e-9), 0), 0.0)

    def _refill(self, now: float) -> None:
        self._missing = max(self._missing - (now - self._at) * self._speed, 0.0)
        self._at = now

    def export(self, now: float) -> list[list[Any]]:
        """Return how many tokens are missing, and how fast they come back, in parts to merge; none, if it is full."""
        self._refill(now)
        return [[self._missing, self._speed]] if self._missing else []

    def merge(self, state: Sequence[Any], now: float) -> None:
        missing, speed = state
        check_number("missing", missing, 0, _MOST)
        check_number("speed", speed, 0)
        self._refill(now)
        self._missing += missing
        self._speed = self._speed or speed


_METERS: dict[str, type[_Fixed | _Sliding | _Bucket]] = {"fixed": _Fixed, "sliding": _Sliding, "bucket": _Bucket}


class OwnedLimiter(Owned):
    """The hits of all keys, on their owner. What is allowed comes with each hit."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._meters: OrderedDict[tuple[str, str], _Fixed | _Sliding | _Bucket] = OrderedDict()

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        return {"hit": self._hit, "reset": self._reset}

    def _meter(self, algorithm: str, key: str) -> _Fixed | _Sliding | _Bucket:
        meter = self._meters.get((algorithm, key))
        if meter is None:
            meter = self._meters[algorithm, key] = _METERS[algorithm]()
            if len(self._meters) > owned.MAX_KEYS:
                self._meters.popitem(last=False)
        else:
            self._meters.move_to_end((algorithm, key))
        return meter

    def _hit(self, key: Any, cost: Any, *numbers: Any) -> Verdict:
        rate = Rate(*numbers)
        rate.check()
        rate.check_cost(cost)
        return self._meter(rate.algorithm, check_text("key", key, may_be_empty=True)).hit(rate, cost, monotonic())

    def _reset(self, key: Any = "") -> None:
        check_text("key", key, may_be_empty=True)
        for algorithm in _METERS:
            self._meters.pop((algorithm, key), None)

    def parts(self) -> Iterator[Any]:
        """Return the hits of all keys that still count, with their ages in seconds."""
        now = monotonic()
        sized = (
            ([algorithm, key, hits], size_of(algorithm) + size_of(key) + 10 + 19 * len(hits))
            for (algorithm, key), meter in self._meters.items()
            for hits in meter.export(now)
        )
        return in_batches(sized, MAX_PART)

    def merge(self, state: Any) -> None:
        """Add the hits that another node had."""
        for algorithm, key, hits in state:
            self._meter(algorithm, check_text("key", key, may_be_empty=True)).merge(hits, monotonic())


KINDS["limiter"] = OwnedLimiter


class Limiter(SharedState):
    """A limit of how often something may happen, on all nodes together.

    When the node that counts shuts down, another one takes the counts over. When it is killed, counting begins again,
    so that up to twice as much may be allowed at that time.

    Args:
        name: Its name, up to 200 characters. Limiters of one name share their counts.
        limit: How often it may happen.
        per: In how many seconds.
        algorithm: ``"sliding"``: at most ``limit`` times in any ``per`` seconds; up to 10,000. ``"fixed"``: the
            seconds begin with the first hit, and when they are over, counting begins again. ``"bucket"``: a bucket of
            ``burst`` tokens, which is refilled steadily by ``limit`` tokens in ``per`` seconds.
        burst: How often it may happen at once, if it did not happen for a while; for a bucket only. None: ``limit``.
        timeout: Seconds that a call may take, while another node takes over for example; None waits forever.
        node: This node.

    Raises:
        InvalidSharedError: The name or a number makes no sense.
    """

    _kind = "limiter"

    def __init__(
        self,
        name: str,
        limit: int,
        per: float,
        *,
        algorithm: Algorithm = "sliding",
        burst: int | None = None,
        timeout: Seconds | None = 5.0,
        node: Node = default_node,
    ) -> None:
        super().__init__(name, timeout=timeout, node=node)
        self._rate = Rate(algorithm, limit, per, limit if burst is None else burst)
        self._rate.check()

    def hit(self, key: str = "", cost: int = 1) -> Verdict:
        """Ask whether something may happen now, and count it if it may. Switches.

        Args:
            key: What is limited, such as a user or an address: each key has a count of its own. Of 100,000
                keys the one that was used longest ago is forgotten.
            cost: How often it happens.

        Raises:
            InvalidSharedError: The key cannot be used, or so much can never be allowed.
            StateUnavailableError: No node could be asked in time.
        """
        check_text("key", key, may_be_empty=True)
        self._rate.check_cost(cost)
        return Verdict(*self._ask("hit", key, cost, *self._rate))

    def reset(self, key: str = "") -> None:
        """Forget what was counted for a key. Switches."""
        self._ask("reset", check_text("key", key, may_be_empty=True))
