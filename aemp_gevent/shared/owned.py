# SPDX-License-Identifier: MIT
"""State on the node that owns it: an object with a port, which changes it in one flow of control."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from aemp_gevent.errors import AempError, InvalidSharedError, StateMovedError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log
from aemp_gevent.wire.values import lone_surrogate

_log = Log()

MAX_KEYS = 100_000
"""Keys of one object; beyond that the one that was used longest ago is forgotten."""

MAX_CHARACTERS = 200
"""Characters of a name, a key or a tag."""


def check_text(what: str, text: object, *, may_be_empty: bool = False) -> str:
    """Return a name, key or tag.

    Raises:
        InvalidSharedError: It is not one.
    """
    if not isinstance(text, str) or not (text or may_be_empty):
        raise InvalidSharedError(what, text, "it must be a str" + ("" if may_be_empty else " that is not empty"))
    if len(text) > MAX_CHARACTERS:
        raise InvalidSharedError(what, text, f"it has {len(text)} characters, and {MAX_CHARACTERS} are allowed")
    objection = lone_surrogate(text)
    if objection is not None:
        raise InvalidSharedError(what, text, f"it {objection}")
    return text


def check_number(what: str, number: Any, least: float, most: float = math.inf) -> Any:
    """Return a number that is not NaN and not a bool.

    Raises:
        InvalidSharedError: It is not one, or is out of range.
    """
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise InvalidSharedError(what, number, "it must be a finite number")
    if not least <= number <= most:
        raise InvalidSharedError(what, number, f"it must be at least {least:g} and at most {most:g}")
    return number


class Owned:
    """State with a port, on the node that owns it. Its methods never switch, so that each call is one step.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.has_moved = False
        """Whether another node has the state now: nothing may change it here any more."""
        self.port = node.port()
        node.serve(self.port, **{tag: self._guarded(function) for tag, function in self.served().items()})
        node.rcv(self.port, "merge", self._merge)

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        raise NotImplementedError

    def export(self) -> Any:
        """Return the state, as message data."""
        raise NotImplementedError

    def merge(self, state: Any) -> None:
        """Add state that another node had."""
        raise NotImplementedError

    def _merge(self, state: Any = None, *_more: Any) -> None:
        if not self.has_moved:
            try:
                self.merge(state)
            except (AempError, TypeError, ValueError, KeyError) as error:
                _log.warning("port %s: state that another node has handed over is lost: %s", self.port, error)

    def check_is_here(self) -> None:
        """Raise :class:`~aemp_gevent.errors.StateMovedError` if another node has the state now."""
        if self.has_moved:
            raise StateMovedError("another node has this state now")

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def serve(*args: Any) -> Any:
            self.check_is_here()
            return function(*args)

        return serve

    def move(self) -> Any:
        """Return the state for another node; calls from now on are answered with an error, until the port is dead."""
        self.has_moved = True
        state = self.export()
        self.node.kil(self.port)
        return state
