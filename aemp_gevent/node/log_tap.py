# SPDX-License-Identifier: MIT
"""Where the records of a node's log come from: the loggers of this process.

**What is caught.** Everything that the program's own logging would pass to handlers of the root
logger. Of this library's loggers, also the records below their level, without showing those to the program's
handlers. The level of the program's other loggers stays as it is.

Loggers belong to the process, so one tap serves all nodes in it.
"""

from __future__ import annotations

import logging
from typing import Protocol

from aemp_gevent.runtime.logs import LOGGERS, Tap, writers


class Catcher(Protocol):
    """A node's feed, which takes records."""

    def take(self, record: logging.LogRecord) -> None:
        """Take a record, in whatever native thread or greenlet it was made. Neither switches nor raises."""


class LogTap(Tap):
    """A handler that takes the records of this process while any port listens to a node's log."""

    def __init__(self) -> None:
        super().__init__()
        self._catchers: dict[Catcher, int] = {}
        self._former: dict[str, int] = {}  # the levels of this library's loggers
        self._lowered: dict[str, int] = {}

    def set(self, catcher: Catcher, level: int | None) -> None:
        """Pass records of this level or above to a catcher; with None, stop."""
        if level is not None:
            self._catchers = {**self._catchers, catcher: level}
        elif catcher in self._catchers:
            self._catchers = {other: wanted for other, wanted in self._catchers.items() if other is not catcher}
        else:
            return
        self._restore()
        root = logging.getLogger()
        if self._catchers:
            self._lower(min(self._catchers.values()))
            root.addHandler(self)
        else:
            root.removeHandler(self)

    def _lower(self, level: int) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            effective = logger.getEffectiveLevel()
            self._former[name] = logger.level
            self._lowered[name] = max(min(level, effective), 1)
            logger.addFilter(self._take_ours)
        for name, lowered in self._lowered.items():
            logging.getLogger(name).setLevel(lowered)

    def _restore(self) -> None:
        for name, level in self._former.items():
            logger = logging.getLogger(name)
            logger.removeFilter(self._take_ours)
            if logger.level == self._lowered[name]:  # otherwise the program has set another level meanwhile
                logger.setLevel(level)
        self._former.clear()
        self._lowered.clear()

    def _take_ours(self, record: logging.LogRecord) -> bool:
        """Take a record of this library; return whether the program's handlers get it, too."""
        self._hand_out(record)
        return record.levelno >= self._former_level(logging.getLogger(record.name))

    def _former_level(self, logger: logging.Logger | None) -> int:
        while logger is not None:
            level = logger.level
            if level == self._lowered.get(logger.name):
                level = self._former[logger.name]
            if level:
                return level
            logger = logger.parent
        return 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record that came to the root logger."""
        if record.name not in LOGGERS:
            self._hand_out(record)
        if (
            logging.lastResort is not None
            and record.levelno >= logging.lastResort.level
            and not any(writers(record.name))
        ):
            logging.lastResort.handle(record)  # as Python does if there are no handlers
        return True

    def _hand_out(self, record: logging.LogRecord) -> None:
        for catcher, level in self._catchers.items():
            if record.levelno >= level:
                catcher.take(record)


TAP = LogTap()
"""The tap of this process."""
