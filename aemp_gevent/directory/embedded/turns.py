# SPDX-License-Identifier: MIT
"""Calls that are made one after the other, and never inside each other.

Sending to a peer may end its link, whose end changes entries. Everybody must hear of these changes after
those that came before, so they wait until the current call has returned.

A call that is struck (by Ctrl-C, or where memory or the stack ends) stays the first, and is made again. So it must be
repeatable: what it has done already, it does again without harm, or finds done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

MAX_TRIES = 3
"""A call that raises a MemoryError or the like this often was not struck: it raises by itself, and is given up."""


class Turns:
    """Makes calls in the order in which they were asked for; none before :meth:`start` or after :meth:`stop`.

    Args:
        mend: Called before a call that was struck is made again, and after it: brings to an end what that one left
            half done. It must be repeatable, too.
    """

    def __init__(self, mend: Callable[[], object] = lambda: None) -> None:
        self._mend = mend
        self._tries = 0  # how often the first call that is due was begun
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
        # No call from here to the try, so that an interrupt finds the call due, and made, or neither.
        self._due += ((call, args),)
        if self._is_busy:
            return
        try:
            self._make_calls()
        except BaseException:
            self._make_calls()  # again what was struck
            raise

    def _make_calls(self) -> None:
        failure: Exception | None = None
        try:
            self._is_busy = True
            while self._due and self._is_open:
                was_struck = self._tries > 0
                self._tries += 1
                try:
                    if was_struck:
                        self._mend()
                    call, args = self._due[0]
                    call(*args)
                    if was_struck and self._is_open:
                        self._mend()
                except Exception as error:
                    if isinstance(error, (MemoryError, RecursionError)) and self._tries < MAX_TRIES:
                        raise
                    failure = failure or error  # the calls that are waiting must be made all the same
                # No call from here to the end of the stores, so that an interrupt finds all of them made, or none.
                if self._due:  # not stopped
                    del self._due[0]
                self._tries = 0
        finally:
            self._is_busy = False
        if failure is not None:
            raise failure
