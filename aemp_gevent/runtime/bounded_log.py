# SPDX-License-Identifier: MIT
"""Complaints: log lines that others can cause, bounded, as it is they who choose how many there are.

One :class:`Complaints` has the lines about one peer, about all strangers, or about one served function. Those about
peers pass another one, about all peers together: whoever knows the secret can have a new node ID for each connection.
Exceptions of the program's own code, which a message of a peer may have raised, are counted by the place that raised
them: who sent a message is not known any more where it is handled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from aemp_gevent.runtime.logs import Log

MAX_LINES = 100
"""A minute, of each level. Whoever reads the log knows by then; a flood of a day is 20 MB of it."""

ALL_PEERS = 10
"""All peers together have this many times as many lines: many may be lost at once."""

MAX_PLACES = 1000
"""Places that raised, and are told apart."""

_SECONDS = 60.0

_log = Log()


class Complaints:
    """What is logged about one subject.

    Args:
        log: As ``Scheduler.log_soon``, or the ``log`` of what has to let the lines pass, too.
        about: The subject.
        share: How many times as many lines it may have as others.
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


class Failures:
    """Exceptions, counted by the place that raised them.

    Args:
        log: As ``Scheduler.log``.
    """

    __slots__ = ("_log", "_places")

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._places: dict[str, Complaints] = {}

    def log(self, error: BaseException, text: str, *args: object) -> None:
        """Log an exception with its traceback, or count it."""
        place = f"{type(error).__name__}{_place_of(error)}"
        complaints = self._places.get(place)
        if complaints is None:
            if len(self._places) >= MAX_PLACES:
                self._places = {}
            complaints = self._places[place] = Complaints(self._log, place)
        complaints.log(logging.ERROR, text, *args, exc_info=error)


def _place_of(error: BaseException) -> str:
    frame = error.__traceback__
    if frame is None:
        return ""
    while frame.tb_next is not None:
        frame = frame.tb_next
    return f" in {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
