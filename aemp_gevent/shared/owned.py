# SPDX-License-Identifier: MIT
"""State on the node that owns it: an object with a port, which changes it in one flow of control."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

from aemp_gevent.errors import InvalidSharedError, StateMovedError
from aemp_gevent.node.access import kept_for
from aemp_gevent.node.node import Node
from aemp_gevent.wire.values import lone_surrogate

MAX_KEYS = 100_000
"""Keys of one object; beyond that the one that was used longest ago is forgotten."""

MAX_PART = 500
"""Keys in one message of those that carry state to another node, or hits of one key. It is limited in bytes, too."""

MAX_ANSWERS = 10_000
"""Answers that a node remembers, for calls that are made again because their answers were lost."""

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


class Answers:
    """The newest answers of one node's objects, by the names of the calls.

    A caller who does not get the answer, because the link was lost, asks again with the same name: what it asked for
    is not done twice.
    """

    def __init__(self, _node: Node) -> None:
        self._by_call: OrderedDict[str, Any] = OrderedDict()

    def answer(self, call: object, function: Callable[[], Any]) -> Any:
        """Return what a function returns, or returned when this call was made before."""
        name = check_text("call", call)
        if name in self._by_call:
            return self._by_call[name]
        answer = self._by_call[name] = function()
        if len(self._by_call) > MAX_ANSWERS:
            self._by_call.popitem(last=False)
        return answer


class Owned:
    """State with a port, on the node that owns it. Its methods never switch, so that each call is one step.

    The first argument of each call is its name, which no other call has.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.has_moved = False
        """Whether another node is getting the state: nothing may change it here any more."""
        self.is_incomplete = False
        """Whether some of the state is still at the node that had it before: so far it may only be added."""
        self._left: deque[tuple[str, Any]] | None = None
        self.port = node.port()
        self._answers = kept_for(node, Answers)
        functions = {tag: self._guarded(function) for tag, function in self.served().items()}
        node.serve(self.port, merge=self._merge, **functions)

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        raise NotImplementedError

    def parts(self) -> Iterator[Any]:
        """Return the state as message data, in parts that are not too large for one message each."""
        raise NotImplementedError

    def merge(self, state: Any) -> None:
        """Add a part of the state that another node had."""
        raise NotImplementedError

    def freeze(self, new_call: Callable[[], str]) -> deque[tuple[str, Any]]:
        """Change nothing any more, and return the parts that no other node has confirmed yet.

        Each comes with the name of the call that carries it. They are the same at each attempt, so that a part whose
        confirmation was lost is not added twice. The caller removes those that are confirmed.
        """
        if self._left is None:
            self.has_moved = True
            self._left = deque((new_call(), part) for part in self.parts())
        return self._left

    def _merge(self, call: Any = None, state: Any = None) -> None:
        def merge() -> None:
            self._check_has_not_moved()
            self.merge(state)

        self._answers.answer(call, merge)

    def _check_has_not_moved(self) -> None:
        if self.has_moved:
            raise StateMovedError("another node has this state now")

    def check_is_here(self) -> None:
        """Raise :class:`~aemp_gevent.errors.StateMovedError` if the state is at another node, or some of it."""
        self._check_has_not_moved()
        if self.is_incomplete:
            raise StateMovedError("this node does not have all of this state yet")

    def complete(self) -> None:
        """Begin to answer calls: the node that had the state has handed all of it over, or is gone."""
        self.is_incomplete = False

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def serve(call: Any = None, *args: Any) -> Any:
            def checked() -> Any:
                self.check_is_here()
                return function(*args)

            return self._answers.answer(call, checked)

        return serve
