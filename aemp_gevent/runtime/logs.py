# SPDX-License-Identifier: MIT
"""The library's logger, which cuts and escapes the values in every log line.

A line consists of a text of the library and of values that anybody may have sent. Each value is cut and escaped before
it reaches the :mod:`logging` module, so that no peer can begin a line of its own, control a terminal, or fill a disk
with one message; and no handler keeps the value itself alive. Numbers stay numbers.

How many lines a peer can cause is the concern of :mod:`aemp_gevent.runtime.bounded_log`.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from aemp_gevent.runtime.quoting import cut_text, escaped, quoted, worded

LOGGERS = ("aemp_gevent", "aemp_gevent.etcd")
"""The names of the loggers of a node."""

MAX_VALUE = 500
"""Characters of one value in a line."""

MAX_LINES = 20_000
"""Characters of a value that has several lines."""

_MAX_CHAIN = 100
"""The most exceptions of one chain that are looked at."""

_CAUSE = BaseException.__dict__["__cause__"].__get__
_CONTEXT = BaseException.__dict__["__context__"].__get__
_TRACEBACK = BaseException.__dict__["__traceback__"].__get__

_MAX_TAG = 40
"""A text longer than this is data, and not a tag."""

RECORD_KEYS = frozenset({"node", "time", "level", "name", "text"})
"""What a log record says when it travels to those that follow a node's log."""


class Brief:
    """A message as log lines show it: its tag and size, and nothing else that is in it.

    Args:
        message: The elements, the first of which may be a tag.
    """

    __slots__ = ("message",)

    def __init__(self, message: Sequence[Any]) -> None:
        self.message = message

    def __str__(self) -> str:
        if not self.message:
            return "empty message"
        tag, *rest = self.message
        is_tag = issubclass(type(tag), str) and len(tag) < _MAX_TAG
        shown = quoted(tag, _MAX_TAG) if is_tag else f"<{type(tag).__name__}>"
        more = f" with {len(rest)} more element{'' if len(rest) == 1 else 's'}" if rest else ""
        return f"message {shown}{more}"


class Tap(logging.Handler):
    """A handler of this library that only takes note of records: others have to write them."""

    def createLock(self) -> None:  # noqa: N802  # as it is called
        # No lock is needed, and code that logs must not wait here for another thread that logs.
        self.lock = None


def writers(name: str) -> Iterator[logging.Handler]:
    """Return the handlers that get the records of a logger, without taps."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        for handler in logger.handlers:
            if not isinstance(handler, Tap):
                yield handler
        logger = logger.parent if logger.propagate else None


class Lines(str):
    """A text of several lines, all written by this process: they stay separate lines."""

    __slots__ = ()


class Log:
    """A logger of this library.

    Args:
        name: As for ``logging.getLogger``.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str = LOGGERS[0]) -> None:
        self._logger = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Return whether lines of a level are logged."""
        # As Logger.isEnabledFor says it, which looks into a cache, and takes a lock where nothing is in there. In a
        # monkey-patched program it is one of gevent's, and another thread that waits for it may do so forever.
        logger = self._logger
        return not logger.disabled and logger.manager.disable < level >= logger.getEffectiveLevel()

    def log(self, level: int, text: str, *args: object, exc_info: BaseException | None = None, depth: int = 1) -> None:
        """Log a line.

        Args:
            level: One of the ``logging`` module's.
            text: A text of the library, with ``%s``, ``%d`` and ``%g`` for the values.
            args: The values.
            exc_info: An exception whose traceback is shown.
            depth: The number of calls between this one and the code that the line names as its place.
        """
        if self.is_enabled_for(level):
            shown = [arg if isinstance(arg, (int, float)) else _shown(arg) for arg in args]
            is_echo = any(isinstance(arg, Brief) and _holds_record(arg.message) for arg in args)
            extra = {"is_echo": True} if is_echo else None  # for what sends this node's log to others
            self._hand_over(level, text, shown, exc_info, extra, depth + 2)

    def _hand_over(
        self,
        level: int,
        text: str,
        args: list[Any],
        error: BaseException | None,
        extra: dict[str, bool] | None,
        depth: int,
    ) -> None:
        """Log as ``logging.Logger.log`` does, but with a cut and escaped traceback."""
        logger = self._logger
        if error is None:
            logger.log(level, text, *args, extra=extra, stacklevel=depth)
            return
        # Counted here: Logger.findCaller counts from elsewhere in Python 3.10. Compiled modules have no frames.
        frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
        for _ in range(depth - 1):
            frame = frame.f_back or frame
        where, function = frame.f_code.co_filename, frame.f_code.co_name
        exc_info = (type(error), error, frames_of(error))
        record = logger.makeRecord(
            logger.name, level, where, frame.f_lineno, text, tuple(args), exc_info, function, extra
        )
        record.exc_text = traceback_of(error)  # formatters use this text if there is one
        logger.handle(record)

    def debug(self, text: str, *args: object) -> None:
        """Log a line at this level."""
        self.log(logging.DEBUG, text, *args, depth=2)

    def info(self, text: str, *args: object) -> None:
        """Log a line at this level."""
        self.log(logging.INFO, text, *args, depth=2)

    def warning(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log a line at this level."""
        self.log(logging.WARNING, text, *args, exc_info=exc_info, depth=2)

    def error(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log a line at this level."""
        self.log(logging.ERROR, text, *args, exc_info=exc_info, depth=2)


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, cut, and with no line that begins with an exception's own text.

    That text may be what a peer sent to the code that raised the exception.
    """
    chain = _chain(error)
    text = ""
    if all(cut_text(each) is None for each in chain):
        with suppress(Exception):  # of a class whose attributes are not what Python expects
            text = _formatted(error, chain)
    if not text:
        frames = "".join(traceback.format_tb(frames_of(error)))
        text = f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {cut_text(error) or _shown(error)}"
    if len(text) > MAX_LINES:  # the first lines say where it began, the last what went wrong
        text = f"{text[: MAX_LINES // 2]}\n[…]\n    {text[-MAX_LINES // 2 :]}"
    return escaped(text, None, "\n")


def _formatted(error: BaseException, chain: list[BaseException]) -> str:
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    for each in chain:
        last = "".join(traceback.format_exception_only(each)).rstrip("\n")
        if "\n" in last and last in text:
            text = text.replace(last, last.replace("\n", "\n    "))
    return text


def cause_of(error: BaseException) -> BaseException | None:
    """Return what an exception was raised ``from``, whatever its class calls ``__cause__``."""
    cause: BaseException | None = _CAUSE(error)
    return cause


def frames_of(error: BaseException) -> TracebackType | None:
    """Return the traceback object of an exception, whatever its class calls ``__traceback__``."""
    frames: TracebackType | None = _TRACEBACK(error)
    return frames


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and those that led to it."""
    found: list[BaseException] = []
    due: list[BaseException | None] = [error]
    while due and len(found) < _MAX_CHAIN:
        each = due.pop()
        if each is not None and not any(each is other for other in found):
            found.append(each)
            due += [cause_of(each), _CONTEXT(each)]
    return found


def _shown(value: object) -> str:
    if isinstance(value, Lines):
        return escaped(value, MAX_LINES, "\n")
    if isinstance(value, (str, bytes, bytearray)) or type(value).__str__ is object.__str__:
        return worded(value, MAX_VALUE)  # which cuts before it writes
    try:
        return worded(str(value), MAX_VALUE)
    except Exception:  # noqa: BLE001  # of the value's own code
        return quoted(value, MAX_VALUE)


def _holds_record(value: object, depth: int = 3) -> bool:
    """Return whether a value is, or holds, a log record of a node: a line about one is not sent to listeners."""
    if isinstance(value, Mapping):
        return value.keys() >= RECORD_KEYS
    return depth > 0 and isinstance(value, (list, tuple)) and any(_holds_record(item, depth - 1) for item in value)
