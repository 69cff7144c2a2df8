# SPDX-License-Identifier: MIT
"""Calls that are made one after the other, and never inside each other.

Sending to a peer may end its link, whose end changes entries. Everybody must hear of these changes after
those that came before, so they wait until the current call has returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class Turns:
    """Makes calls in the order in which they were asked for; none before :meth:`start` or after :meth:`stop`."""

    def __init__(self) -> None:
        self._due: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_open = False
        self._is_busy = False

    def start(self) -> None:
        """Begin to make calls."""
        self._is_open = True

    def stop(self) -> None:
        """Drop the calls that are waiting, and ignore later ones. Idempotent."""
        self._is_open = False
        self._due.clear()

    def take(self, call: Callable[..., None], *args: Any) -> None:
        """Make a call now, or after those that are running or waiting.

        If calls fail, the first exception is raised after all of them were made.
        """
        if not self._is_open:
            return
        self._due.append((call, args))
        if self._is_busy:
            return
        failure: Exception | None = None
        self._is_busy = True
        try:
            while self._due and self._is_open:
                call, args = self._due.popleft()
                try:
                    call(*args)
                except Exception as error:  # noqa: BLE001  # the calls that are waiting must be made all the same
                    failure = failure or error
        finally:
            self._is_busy = False
        if failure is not None:
            raise failure
