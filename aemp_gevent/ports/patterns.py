# SPDX-License-Identifier: MIT
"""Patterns: which messages match a handler of ``rcv``, or a ``receive``.

A pattern is compiled once into a predicate of the whole message, so that the
scheduler and ``receive`` know a single kind of thing. Compiled predicates take the
message as *one tuple*; what users write as predicates takes ``*msg``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.runtime.quoting import quoted

# Any: the elements of messages may be any objects.
Message: TypeAlias = "tuple[Any, ...]"
Tag: TypeAlias = str
# Handlers get the elements of messages. Their return values are ignored, except DONE and True.
Handler: TypeAlias = Callable[..., Any]
Matcher: TypeAlias = Callable[[Message], Any]
Pattern: TypeAlias = "str | list[Any] | type | Callable[..., Any]"


class _Any:
    """The type of :data:`any_`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "any_"


any_: Final = _Any()
"""In a pattern: matches any one element."""


def _element_test(wanted: Any) -> Callable[[Any], Any]:
    """Return the test for one element of a list pattern."""
    if isinstance(wanted, type):
        isinstance(None, wanted)  # raises here for types without an instance check, such as most protocols

        def is_instance(element: Any) -> bool:
            try:
                return isinstance(element, wanted)
            except Exception:  # noqa: BLE001  # a proxy without a class
                return False

        return is_instance
    if isinstance(wanted, re.Pattern):
        kind = type(wanted.pattern)  # str, or bytes for a pattern of bytes
        return lambda element: issubclass(type(element), kind) and wanted.search(element)
    if callable(wanted):
        check_callable("a pattern's predicate", wanted)
        return wanted  # type: ignore[no-any-return]  # a user's predicate: its result is tested for truth only

    def is_equal(element: Any) -> bool:
        try:
            return bool(element == wanted)
        except Exception:  # noqa: BLE001  # from its own __eq__; or it is an array, which is neither true nor false
            return False

    return is_equal


def tag_of(message: Message) -> str | None:
    """Return a message's tag, its first element, as a plain ``str``; None if that is not a string.

    Of a subclass of ``str`` the text counts, not how it compares or hashes.
    """
    if not message:
        return None
    tag = message[0]
    if type(tag) is str:
        return tag
    return str.__str__(tag) if issubclass(type(tag), str) else None  # not isinstance: proxies may raise there


def match_elements(pattern: Sequence[Any]) -> Matcher:
    """Compile a list pattern: true for messages whose first elements match it one by one."""
    length = len(pattern)
    tests = [(index, _element_test(wanted)) for index, wanted in enumerate(pattern) if wanted is not any_]

    def matches(message: Message) -> bool:
        return len(message) >= length and all(test(message[index]) for index, test in tests)

    return matches


def _matcher(pattern: Pattern) -> Matcher:
    if isinstance(pattern, str):
        wanted = str.__str__(pattern)

        def has_tag(message: Message) -> bool:
            if not message:
                return False
            tag = message[0]
            return (tag if type(tag) is str else tag_of(message)) == wanted  # saves a call in nearly all cases

        return has_tag
    if isinstance(pattern, (list, tuple)):
        return match_elements(pattern)
    if isinstance(pattern, type):
        return match_elements([pattern])
    if callable(pattern):
        check_callable("a pattern's predicate", pattern)
        return lambda message: pattern(*message)
    raise TypeError(
        f"{quoted(pattern)} is not a pattern: "
        "give a tag (str), a list of elements, a type, or a predicate called with *msg"
    )


def match_any_of(patterns: Sequence[Pattern]) -> Matcher | None:
    """Compile the patterns of a ``receive``: true when one matches. None, without patterns, means every message.

    Raises:
        TypeError: One of them is not a pattern.
    """
    if not patterns:
        return None
    if len(patterns) == 1:
        return _matcher(patterns[0])
    strings = [pattern for pattern in patterns if isinstance(pattern, str)]
    if len(strings) == len(patterns):
        tags = frozenset(map(str.__str__, strings))
        return lambda message: tag_of(message) in tags
    matchers = [_matcher(pattern) for pattern in patterns]
    return lambda message: any(matches(message) for matches in matchers)
