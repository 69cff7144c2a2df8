# SPDX-License-Identifier: MIT
"""Calls that are made one after the other, and never inside each other.

Sending to a peer may end its link, whose end changes entries. Everybody must hear of these changes after
those that came before, so they wait until the current call has returned.

A call that is struck (by Ctrl-C, or where memory or the stack ends) stays the first, and is made again: at once, and
then by the event loop, whose stack is empty. So it must be repeatable: what it has done already, it does again without
harm, or finds done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aemp_gevent.ports.scheduler import Scheduler

MAX_TRIES = 3
"""A call that raises a MemoryError or the like this often in the event loop raises by itself, and is given up."""


class Turns:
    """Makes calls in the order in which they were asked for; none before :meth:`start` or after :meth:`stop`.

    Args:
        scheduler: The node's; has the event loop make what was struck twice.
        mend: Called before a call that was struck is made again, and after it: brings to an end what that one left
            half done. It must be repeatable, too.
    """

    def __init__(self, scheduler: Scheduler, mend: Callable[[], object] = lambda: None) -> None:
        self._scheduler = scheduler
        self._mend = mend
        self._due: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_begun = False  # the first call that is due
        self._tries = 0  # how often the event loop began it
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

        If calls fail, the first exception is raised after all of them were made. If a call is struck when it is made
        again, too, the exception is raised now, and the event loop makes the calls soon.
        """
        if not self._is_open:
            return
        mine = (call, args)
        # No call from here to the try, so that an interrupt finds the call due, and made, or neither.
        self._due += (mine,)
        if self._is_busy:
            return
        try:
            self._make_calls()
        except BaseException as first:
            try:
                self._make_calls()  # again what was struck
            except BaseException:
                if self._due:
                    try:
                        self._scheduler.call_on_hub(self._scheduler.start_timer, 0, self._resume)
                    except RecursionError:
                        # So little stack is left that the call cannot have changed anything.
                        if self._due[-1] is mine:
                            del self._due[-1]
                if isinstance(first, Exception):
                    raise
            raise

    def _resume(self) -> None:  # on the hub
        self._make_calls(on_hub=True)

    def _make_calls(self, *, on_hub: bool = False) -> None:
        failure: Exception | None = None
        try:
            self._is_busy = True
            while self._due and self._is_open:
                was_struck, self._is_begun = self._is_begun, True
                self._tries += on_hub
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
                self._is_begun = False
                self._tries = 0
        finally:
            self._is_busy = False
        if failure is not None:
            raise failure
