# SPDX-License-Identifier: MIT
"""Shortens and escapes values for logs, terminals and error texts, so that they are one harmless line.

A value from a peer or a caller may be 60 MB long, have line ends that begin a log line of its own, escapes that a
terminal obeys, or marks that reverse the reading direction. So all code that shows such a text shows what
:func:`escaped` returns. Nothing else in the package calls ``repr``, or formats with ``!r`` or ``%r``: those write
the whole value before it can be cut. A test looks for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

LIMIT = 120
"""The most characters of a value to show, unless the caller gives another number."""

_DEPTH = 6
"""Containers inside containers that are shown."""

_PLAIN_BITS = 256
"""Integers beyond this are shown by their size: writing one in decimal takes quadratic time."""


def escaped(text: str, limit: int | None = LIMIT, keep: str = "") -> str:
    r"""Return a text with everything that is not printable written as an escape such as ``\n``, and cut.

    Args:
        text: The text.
        limit: The most characters to return, a ``…`` for what was cut included; None: all of it.
        keep: Characters to leave alone all the same, such as line ends.
    """
    shown = text if limit is None else text[: limit + 1]
    if not shown.isprintable():
        # isprintable() follows Unicode: neither controls, nor surrogates, nor marks of direction.
        shown = "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in shown)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(value: object, limit: int = LIMIT) -> str:
    """Return a value as ``repr`` would write it, escaped and cut. Never raises.

    Takes time only for what is shown. Any exception of the value's own code is caught.

    Args:
        value: Any object. An unknown class's own ``__repr__`` is called, and may fail.
        limit: The most characters to return.
    """
    text = ""
    try:
        for piece in _pieces(value, limit, _DEPTH):
            text += piece
            if len(text) > limit:
                break
    except GeneratorExit:  # raised by the value's own code: _pieces() takes it for the end
        text += f"<{type(value).__name__} object, whose repr() fails>"
    return escaped(text, limit)


def of_type(value: object) -> str:
    """Return the type of a value with its article, such as "a list" or "an object"."""
    name = escaped(type(value).__qualname__)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def worded(value: object, limit: int = LIMIT) -> str:
    """Return a value for use in a sentence: a text escaped but without quotes, anything else quoted.

    Never raises, like :func:`quoted`.
    """
    # By the type, as isinstance() runs the value's own code, and so do methods of a class derived from str.
    if issubclass(type(value), str):
        return escaped(str.__str__(value), limit)  # pyright: ignore[reportArgumentType]
    return quoted(value, limit)


def said(error: BaseException) -> str:
    """Return the text of an exception, as ``str`` does, but cut if it has long arguments.

    Raises:
        BaseException: The class's own ``__str__`` raised it.
    """
    cut = cut_text(error)
    return str(error) if cut is None else cut


def cut_text(error: BaseException) -> str | None:
    """Return the beginning of the text of an exception with long arguments; None if they are short.

    ``table[key]`` with a key of 30 MB raises an exception whose ``str`` takes a third of a second, and its
    traceback takes more than one: Python writes out the arguments in full.
    """
    if type(error).__str__ not in _ARGUMENT_WRITERS:
        return None
    args = error.args
    if isinstance(error, OSError) and error.filename is not None:
        args = (*args, error.filename)
    if len(args) == 1 and isinstance(args[0], str) and type(error).__str__ is BaseException.__str__:
        return None  # str() returns this text itself
    text = quoted(args[0] if len(args) == 1 else args, _LONG)
    return text if len(text) == _LONG else None


_LONG = 4000
"""The most characters of an exception's arguments to show."""

_ARGUMENT_WRITERS = {BaseException.__str__, KeyError.__str__, OSError.__str__}


def _pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    """Yield the beginning of a value's ``repr``, in pieces; at least ``limit`` characters, if it has as many."""
    write = _WRITERS.get(type(value).__repr__)
    try:
        if write is None:
            yield repr(value)
        elif depth:
            yield from write(value, limit, depth - 1)
        else:
            yield "…"
    except GeneratorExit:
        raise  # the caller needs no more
    except BaseException:  # noqa: BLE001  # of the value's own code; nothing may raise where deaths are reported
        yield f"<{type(value).__name__} object, whose repr() fails>"


def _text(value: Any, limit: int, _depth: int) -> Iterator[str]:
    yield repr(value[: limit + 1])


def _binary(value: Any, limit: int, _depth: int) -> Iterator[str]:
    yield repr(bytes(value[: limit + 1]))


def _number(value: Any, _limit: int, _depth: int) -> Iterator[str]:
    bits = value.bit_length()
    yield repr(value) if bits <= _PLAIN_BITS else f"<an integer of {bits} bits>"


def _several(opening: str, closing: str) -> Callable[[Any, int, int], Iterator[str]]:
    def write(value: Any, limit: int, depth: int) -> Iterator[str]:
        yield opening
        # Another thread may add to it while this is written: what can be shown is copied in one step.
        for number, item in enumerate(list(islice(value, limit))):
            if number:
                yield ", "
            yield from _pieces(item, limit, depth)
        yield ",)" if closing == ")" and len(value) == 1 else closing

    return write


def _map(value: Any, limit: int, depth: int) -> Iterator[str]:
    yield "{"
    for number, (key, item) in enumerate(list(islice(value.items(), limit))):
        if number:
            yield ", "
        yield from _pieces(key, limit, depth)
        yield ": "
        yield from _pieces(item, limit, depth)
    yield "}"


_WRITERS: dict[Any, Callable[[Any, int, int], Iterable[str]]] = {
    str.__repr__: _text,
    bytes.__repr__: _binary,
    bytearray.__repr__: _binary,
    int.__repr__: _number,
    list.__repr__: _several("[", "]"),
    tuple.__repr__: _several("(", ")"),
    set.__repr__: _several("set({", "})"),
    frozenset.__repr__: _several("frozenset({", "})"),
    deque.__repr__: _several("deque([", "])"),
    dict.__repr__: _map,
}
"""By a class's ``__repr__``, so that only subclasses with one of their own have it called."""
