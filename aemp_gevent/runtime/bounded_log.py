# SPDX-License-Identifier: MIT
"""Bounds the number of log lines that peers, strangers and failing code can cause.

A :class:`BoundedLog` takes the lines about one subject: one peer, all strangers, one served function. Those of peers
go through another one for all peers together, because a peer that knows the secret can use a new node ID for each
connection. An :class:`ErrorLog` bounds the exceptions of the program's own code, by the line that raised them: the
sender of a message is no longer known where the message is handled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from aemp_gevent.runtime.logs import Log, frames_of

MAX_LINES = 100
"""Lines a minute, of each level. They are enough to see what happens; a flood of one day takes 20 MB."""

ALL_PEERS = 10
"""All peers together may cause this many times as many lines, because many links can be lost at once."""

MAX_PLACES = 1000
"""Lines of code whose exceptions are counted separately."""

_SECONDS = 60.0

_log = Log()


class BoundedLog:
    """Logs lines about one subject, and counts those beyond the bound.

    Args:
        log: A function like ``Scheduler.log_soon``, or the ``log`` of another bounded log, which bounds them as well.
        about: The subject.
        share: How many times as many lines it may log as other subjects.
    """

    __slots__ = ("_about", "_left_out", "_lines", "_log", "_share", "_until")

    def __init__(self, log: Callable[..., None], about: str, share: int = 1) -> None:
        self._log = log
        self._about = about
        self._share = share
        self._lines: dict[int, int] = {}
        self._left_out: dict[int, int] = {}
        self._until = 0.0

    def log(self, level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log a line, or count it. Switches only if ``log`` does."""
        if not _log.is_enabled_for(level):
            return
        now = monotonic()
        if now >= self._until:
            left_out, self._left_out = self._left_out, {}
            self._lines = {}
            self._until = now + _SECONDS
            for former, count in left_out.items():
                self._log(former, "%d more log lines about %s were left out", count, self._about)
        lines = self._lines.get(level, 0)
        if lines < MAX_LINES * self._share:
            self._lines[level] = lines + 1
            self._log(level, text, *args, exc_info=exc_info)
            return
        count = self._left_out[level] = self._left_out.get(level, 0) + 1
        if count == 1:
            self._log(level, "too many log lines about %s: the next ones are only counted", self._about)

    def warn(self, text: str, *args: object) -> None:
        """Log a warning, or count it."""
        self.log(logging.WARNING, text, *args)


class ErrorLog:
    """Logs exceptions, and bounds them by the line of code that raised them.

    Args:
        log: A function like ``Scheduler.log``.
    """

    __slots__ = ("_log", "_places")

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._places: dict[str, BoundedLog] = {}

    def log(self, error: BaseException, text: str, *args: object) -> None:
        """Log an exception with its traceback, or count it."""
        place = f"{type(error).__name__}{_place_of(error)}"
        bounded = self._places.get(place)
        if bounded is None:
            if len(self._places) >= MAX_PLACES:
                self._places = {}
            bounded = self._places[place] = BoundedLog(self._log, place)
        bounded.log(logging.ERROR, text, *args, exc_info=error)


def _place_of(error: BaseException) -> str:
    frame = frames_of(error)
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    return f" in {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
