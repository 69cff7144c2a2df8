# SPDX-License-Identifier: MIT
"""A task that may fail many times in a row: how often that is logged, and when to try again."""

from __future__ import annotations

import math
from time import monotonic

from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.logs import Log

_FIRST_DELAY = 0.1
_LOG_SECONDS = 60.0

_log = Log("aemp_gevent.etcd")


class Trouble:
    """The failures of one task: logged once a minute, and tried again after growing pauses.

    Args:
        what: The task, as log lines begin with it.
        max_delay: The longest pause between tries, in seconds, jitter included.
    """

    def __init__(self, what: str, max_delay: float) -> None:
        self._what = what
        self._pauses = Backoff(_FIRST_DELAY / 1.5, max_delay / 1.5)  # jitter adds up to half
        self._failures = 0
        self._since = 0.0
        self._logged_at = -math.inf
        self._is_known = False

    def failed(self, error: Exception, *, is_bug: bool = False) -> None:
        """Count a failure, and log it unless one was logged a moment ago.

        Args:
            error: What went wrong.
            is_bug: Whether the log needs the traceback.
        """
        now = monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            self._is_known = True
            _log.warning("%s is failing; retrying: %s", self._what, error, exc_info=error if is_bug else None)

    def over(self) -> None:
        """Record that the task works, and log that if its failure was logged."""
        if self._failures and self._is_known:
            _log.info("%s works again after %.1f s", self._what, monotonic() - self._since)
            self._is_known = False
        self._failures = 0
        self._pauses.reset()

    def delay(self) -> float:
        """Return how many seconds to wait before the next try."""
        return self._pauses.next()
