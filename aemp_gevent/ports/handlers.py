# SPDX-License-Identifier: MIT
"""Handlers: what ``rcv`` registers on a port, and how a message finds them.

Not here: which handler a crash is blamed on in the log (:mod:`aemp_gevent.ports.blame`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from types import CodeType, CoroutineType
from typing import Any, TypeAlias

from aemp_gevent.ports.blame import blame
from aemp_gevent.ports.callbacks import DONE, check_callable, is_python_function
from aemp_gevent.ports.patterns import Handler, Matcher, Message, match_elements, tag_of
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

# What a handler is registered for: a tag, or the elements of a list pattern.
Registration: TypeAlias = "tuple[str | list[Any], Handler | None]"


_log = Log()

_told_of_true: weakref.WeakSet[CodeType] = weakref.WeakSet()
"""Code of the functions for which it was logged that True removed them."""


def is_done(handler: Handler, value: object) -> bool:
    """Return whether a handler's return value, which is not None, means that its work is done.

    ``DONE`` says so. True says so only from a Python function: methods of gevent and of
    extension modules return True to report success.

    Raises:
        TypeError: It is a coroutine: what the handler called with ``async def`` has not run.
    """
    if value is DONE:
        return True
    if value is not True or not is_python_function(handler):
        if type(value) is CoroutineType:  # not isinstance: it may be anything, even a proxy that raises there
            value.close()  # otherwise Python warns as well, and gives a line of this library
            called = f"{quoted(handler)} returned the coroutine {value.__qualname__}(), whose body did not run"
            raise TypeError(f"{called}; give a plain function, which may block")
        return False
    code = _code_of(handler)
    if code not in _told_of_true:
        _told_of_true.add(code)
        where = f"{code.co_filename}:{code.co_firstlineno}"
        text = "handler %s (%s) returned True, which removes it; write `return DONE` if that is meant, else return None"
        _log.info(text, code.co_name, where)
    return True


def _code_of(handler: Any) -> CodeType:
    while isinstance(handler, partial):
        handler = handler.func
    code: CodeType = handler.__code__
    return code


def parse_registrations(
    what: tuple[Any, ...], tags: Mapping[str, Handler | None], call: str = "rcv()"
) -> tuple[Handler | None, list[Registration]]:
    """Read the arguments of ``rcv`` after the port: the new default handler, if any, and the others.

    Args:
        what: Those given by position.
        tags: Those given by name.
        call: What the user called, for error texts.

    Raises:
        TypeError: They do not have one of the forms that ``rcv`` takes. The text says which argument is wrong.
    """
    pairs = list(what)
    default: Handler | None = None
    if len(pairs) % 2:
        default = pairs.pop(0) if callable(pairs[0]) else pairs.pop()
        if not callable(default):
            raise TypeError(f"{call}: {quoted(default)} has no handler; give tag, handler pairs")
        check_callable(call, default)
    found: list[Registration] = []
    for match, handler in [*zip(pairs[::2], pairs[1::2], strict=True), *tags.items()]:
        if handler is not None:
            check_callable(f"{call}, the handler of {quoted(match)}", handler)
        if isinstance(match, str):
            found.append((match, handler))
        elif isinstance(match, (list, tuple)) and handler is not None:
            found.append((list(match), handler))
        else:
            raise TypeError(f"{call}: {quoted(match)} is neither a tag (str) nor a pattern (list) with a handler")
    return default, found


class Handlers:
    """The tag handlers and patterns that ``rcv`` registered on one port."""

    __slots__ = ("_patterns", "_tags")

    def __init__(self) -> None:
        self._tags: dict[str, Handler] = {}
        self._patterns: list[tuple[Matcher, Handler]] = []

    @property
    def tags(self) -> list[str]:
        """The tags that have handlers."""
        return list(self._tags)

    @property
    def outline(self) -> tuple[object, ...]:
        """The number of tags and the first few of them, which distinguish kinds of ports in constant time."""
        return (len(self._tags), *islice(self._tags, 3))

    @property
    def has_patterns(self) -> bool:
        """Whether there are handlers for patterns."""
        return bool(self._patterns)

    def set_tag(self, tag: str, handler: Handler | None) -> None:
        """Set the handler for a tag, in place of any other; None removes it."""
        if handler is None:
            self._tags.pop(tag, None)
        else:
            self._tags[tag] = handler

    def add_pattern(self, pattern: list[Any], handler: Handler) -> None:
        """Add a handler for messages whose first elements match."""
        self._patterns.append((match_elements(pattern), handler))

    def register(self, registrations: list[Registration]) -> None:
        """Take over what ``rcv`` was given."""
        for match, handler in registrations:
            if isinstance(match, str):
                self.set_tag(match, handler)
            elif handler is not None:
                self.add_pattern(match, handler)

    def find(self, message: Message) -> list[Callable[[], None]]:
        """Return the calls of the handlers that match a message: its tag's first, then those of patterns."""
        calls: list[Callable[[], None]] = []
        tag = tag_of(message)
        handler = None if tag is None else self._tags.get(tag)
        if tag is not None and handler is not None:
            calls.append(partial(self._call_tag, tag, handler, message[1:]))
        calls += [partial(self._call_pattern, entry, message) for entry in self._patterns if entry[0](message)]
        return calls

    def serve(self, message: Message) -> bool:
        """Call the handlers that match a message; return whether one did."""
        if not self._patterns:  # the usual case: at most one call, so no list of calls
            if not message:
                return False
            tag = message[0]
            if type(tag) is not str:  # saves a call in nearly all cases
                tag = tag_of(message)
                if tag is None:
                    return False
            handler = self._tags.get(tag)
            if handler is None:
                return False
            try:
                value = handler(*message[1:])
                if value is not None and is_done(handler, value) and self._tags.get(tag) is handler:
                    del self._tags[tag]
            except BaseException as error:
                blame(error, handler, f"handler of {quoted(tag)}")
                raise
            return True
        calls = self.find(message)
        for call in calls:
            call()
        return bool(calls)

    def _call_tag(self, tag: str, handler: Handler, rest: Message) -> None:
        try:
            value = handler(*rest)
            # A handler that is done is removed, unless it put another in its place meanwhile.
            if value is not None and is_done(handler, value) and self._tags.get(tag) is handler:
                del self._tags[tag]
        except BaseException as error:
            blame(error, handler, f"handler of {quoted(tag)}")
            raise

    def _call_pattern(self, entry: tuple[Matcher, Handler], message: Message) -> None:
        # An earlier handler of this very message may have removed the pattern.
        if entry not in self._patterns:
            return
        try:
            value = entry[1](*message)
            if value is not None and is_done(entry[1], value) and entry in self._patterns:
                self._patterns.remove(entry)
        except BaseException as error:
            blame(error, entry[1], "handler of a pattern")
            raise
