# SPDX-License-Identifier: MIT
"""Complaints: log lines about what others do wrong, bounded, as it is they who choose how many there are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

MAX_LINES = 100
"""A minute. Whoever reads the log knows by then; a flood of a day is 20 MB of it."""

_SECONDS = 60.0


class Complaints:
    """What is logged about one peer, or about all strangers.

    Args:
        log: As ``Scheduler.log_soon``.
        about: Whom.
    """

    __slots__ = ("_about", "_left_out", "_lines", "_log", "_until")

    def __init__(self, log: Callable[..., None], about: str) -> None:
        self._log = log
        self._about = about
        self._lines = 0
        self._left_out = 0
        self._until = 0.0

    def warn(self, text: str, *args: object) -> None:
        """Log a warning, or count it. Never switches."""
        now = monotonic()
        if now >= self._until:
            if self._left_out:
                self._log(logging.WARNING, "%d more warnings about %s were left out", self._left_out, self._about)
            self._lines = self._left_out = 0
            self._until = now + _SECONDS
        if self._lines == MAX_LINES:
            if not self._left_out:
                self._log(logging.WARNING, "too many warnings about %s: the next ones are only counted", self._about)
            self._left_out += 1
            return
        self._lines += 1
        self._log(logging.WARNING, text, *args)
