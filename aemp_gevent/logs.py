# SPDX-License-Identifier: MIT
"""The library's loggers: what every log line goes through.

A line is a text of ours and values that may be anybody's. Each value is cut and escaped before it reaches the
:mod:`logging` module, so that no peer can begin a line of its own, speak to a terminal, or fill a disk with one
message; and no handler keeps the value itself alive. Numbers stay numbers.

How many lines a peer can cause is the concern of :mod:`aemp_gevent.complaints`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aemp_gevent.quoting import escaped, quoted, worded

LOGGERS = ("aemp_gevent", "aemp_gevent.etcd")
"""The names of the loggers of a node."""

MAX_VALUE = 500
"""Characters of one value in a line."""

MAX_LINES = 20_000
"""Characters of a value that has several lines."""

_MAX_TAG = 40
"""A text longer than this is data, and not a tag."""

RECORD_KEYS = frozenset({"node", "time", "level", "name", "text"})
"""What a log record says when it travels to who listens to a node's log."""


class Brief:
    """A message, as log lines have it: its tag and size. What else is in it is not the log's business.

    Args:
        message: The elements, the first of which may be a tag.
    """

    __slots__ = ("message",)

    def __init__(self, message: Sequence[Any]) -> None:
        self.message = message

    def __str__(self) -> str:
        tag, *rest = self.message or ("",)
        shown = quoted(tag, _MAX_TAG) if isinstance(tag, str) and len(tag) < _MAX_TAG else f"<{type(tag).__name__}>"
        return f"a message {shown}" + (f" with {len(rest)} more elements" if rest else "")


class Lines(str):
    """A text of several lines, all of which this process wrote: they stay apart."""

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
        """Return whether anybody wants to see lines of a level."""
        return self._logger.isEnabledFor(level)

    def log(self, level: int, text: str, *args: object, exc_info: BaseException | None = None, depth: int = 1) -> None:
        """Log a line.

        Args:
            level: One of the ``logging`` module's.
            text: A text of ours, with ``%s``, ``%d`` and ``%g`` for the values.
            args: The values.
            exc_info: An exception whose traceback is shown.
            depth: How many calls away the code is that the line is about.
        """
        if self._logger.isEnabledFor(level):
            shown = [arg if isinstance(arg, (int, float)) else _shown(arg) for arg in args]
            is_echo = any(isinstance(arg, Brief) and _holds_record(arg.message) for arg in args)
            extra = {"is_echo": True} if is_echo else None  # for who tells others of this node's log
            self._logger.log(level, text, *shown, exc_info=exc_info, extra=extra, stacklevel=depth + 1)

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


def _shown(value: object) -> str:
    if isinstance(value, Lines):
        return escaped(value, MAX_LINES, "\n")
    if isinstance(value, (str, bytes, bytearray, list, tuple, dict, set, frozenset)):
        return worded(value, MAX_VALUE)  # which cuts before it writes
    try:
        return worded(str(value), MAX_VALUE)
    except Exception:  # noqa: BLE001  # of the value's own code
        return quoted(value, MAX_VALUE)


def _holds_record(value: object, depth: int = 3) -> bool:
    """Return whether a value is, or holds, a record of some node's log: a line about one is not told to listeners."""
    if isinstance(value, Mapping):
        return value.keys() >= RECORD_KEYS
    return depth > 0 and isinstance(value, (list, tuple)) and any(_holds_record(item, depth - 1) for item in value)
