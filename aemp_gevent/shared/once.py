# SPDX-License-Identifier: MIT
"""Flags that one caller of all gets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from aemp_gevent.node.node import Node
from aemp_gevent.runtime.batches import in_batches, size_of
from aemp_gevent.shared import owned
from aemp_gevent.shared.handles import SharedState
from aemp_gevent.shared.owned import MAX_PART, Owned, check_number, check_text
from aemp_gevent.shared.ownership import KINDS

_LONGEST = 10.0 * 365 * 86400


class OwnedOnce(Owned):
    """Flags on their owner."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._until: OrderedDict[str, float | None] = OrderedDict()

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        return {"first": self._first, "forget": self._forget}

    def _first(self, key: Any = "", ttl: Any = None) -> bool:
        check_text("key", key, may_be_empty=True)
        until = self._until.get(key, 0.0)
        if until is None or until > monotonic():
            self._until.move_to_end(key)
            return False
        self._set(key, None if ttl is None else monotonic() + check_number("ttl", ttl, 0, _LONGEST))
        return True

    def _set(self, key: str, until: float | None) -> None:
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > owned.MAX_KEYS:
            self._until.popitem(last=False)

    def _forget(self, key: Any = "") -> bool:
        until = self._until.pop(check_text("key", key, may_be_empty=True), 0.0)
        return until is None or until > monotonic()

    def parts(self) -> Iterator[Any]:
        """Return the keys, with the seconds that are left."""
        now = monotonic()
        flags = [(key, until) for key, until in self._until.items() if until is None or until > now]
        sized = (([key, None if until is None else until - now], size_of(key) + 10) for key, until in flags)
        return in_batches(sized, MAX_PART)

    def merge(self, state: Any) -> None:
        """Add the keys that another node had. If both have one, it lasts until the later end."""
        now = monotonic()
        for key, left in state:
            known = self._until.get(check_text("key", key, may_be_empty=True), 0.0)
            until = None if left is None else now + check_number("seconds left", left, 0, _LONGEST)
            self._set(key, None if known is None or until is None else max(known, until))


KINDS["once"] = OwnedOnce


class Once(SharedState):
    """Flags: of all callers, on whatever nodes, one is the first.

    When the node that has the flags shuts down, another one takes them over. When it is killed, or is cut off from
    the others, they are lost, and there is a first caller again: so use them to avoid work that is done twice, not to
    forbid it.
    """

    _kind = "once"

    def first(self, key: str = "", ttl: float | None = None) -> bool:
        """Return True to the first caller with this key, and False to all others. Switches.

        Args:
            key: Any text up to 200 characters; of 100,000 keys the one that was asked for longest ago is forgotten.
            ttl: Seconds after which there is a first caller again; None: never.

        Raises:
            InvalidSharedError: The key or the time cannot be used.
            StateUnavailableError: No node could be asked in time.
        """
        check_text("key", key, may_be_empty=True)
        is_first: bool = self._ask("first", key, None if ttl is None else check_number("ttl", ttl, 0, _LONGEST))
        return is_first

    def forget(self, key: str = "") -> bool:
        """Make the next caller the first one; return whether there was one. Switches."""
        was_set: bool = self._ask("forget", check_text("key", key, may_be_empty=True))
        return was_set
