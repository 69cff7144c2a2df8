# SPDX-License-Identifier: MIT
"""Counters, whose every change is counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aemp_gevent.errors import InvalidSharedError
from aemp_gevent.node.node import Node
from aemp_gevent.shared.handles import SharedState
from aemp_gevent.shared.owned import Owned, check_number
from aemp_gevent.shared.ownership import KINDS

MOST = 2**53
"""The largest value; all nodes can carry it exactly."""


class OwnedCounter(Owned):
    """A counter on its owner."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._value: float = 0

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        return {"add": self._add, "swap": self._swap}

    def _add(self, number: Any = 0) -> float | None:
        sum_ = self._value + check_number("number", number, -MOST, MOST)
        if not -MOST <= sum_ <= MOST:
            return None
        self._value = sum_
        return self._value

    def _swap(self) -> float:
        value, self._value = self._value, 0
        return value

    def parts(self) -> Iterator[Any]:
        """Return the value."""
        yield self._value

    def merge(self, state: Any) -> None:
        """Add the value that another node had; a sum beyond the limits becomes the limit."""
        self._value = max(-MOST, min(self._value + check_number("number", state, -MOST, MOST), MOST))


KINDS["counter"] = OwnedCounter


class Counter(SharedState):
    """A number that all nodes change: each change is counted once, also if others make changes at the same time.

    It begins with 0. When its node shuts down, another one takes the value over. When its node is killed, it begins
    with 0 again.
    """

    _kind = "counter"

    def add(self, number: float = 1) -> float:
        """Add a number, and return the sum. Switches.

        Raises:
            InvalidSharedError: It is not a finite number, or the sum would be beyond 2**53.
            StateUnavailableError: No node could be asked in time. It may have been added all the same.
        """
        sum_: float | None = self._ask("add", check_number("number", number, -MOST, MOST))
        if sum_ is None:
            raise InvalidSharedError("number", number, "the sum would be beyond 2**53; nothing was added")
        return sum_

    def value(self) -> float:
        """Return the value. Switches."""
        return self.add(0)

    def reset(self) -> float:
        """Set it to 0, and return what it was: nothing that is added at the same time is lost. Switches."""
        value: float = self._ask("swap")
        return value
