# SPDX-License-Identifier: MIT
"""What the master has not read yet, in an order in which Locust's master can follow.

When a worker comes or goes during a test, Locust's master gives the users to others in the greenlet that reads all
messages, and waits there, a second by default, for reports that nobody reads meanwhile. If ten workers are lost at
once, it would read no heartbeats for ten seconds, take all workers for missing, and end the test. So between two such
*changes* it gets everything else that has come.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from gevent.lock import Semaphore

T = TypeVar("T")


class PacedInbox(Generic[T]):
    """A queue of reports and changes: all in order, except that a change waits for the reports before it to be read.

    Those that came before it are read first, and those that came while the former change was handled. Unbounded, like
    the mailbox of a port: workers report a few times a second.
    """

    def __init__(self) -> None:
        self._reports: deque[T] = deque()
        self._changes: deque[tuple[int, T]] = deque()  # with the number of reports that came before
        self._put = 0
        self._read = 0
        self._until = 0  # how many reports must be read before the next change
        self._is_handling = False  # whether the reader has had a change last
        self._waiting = Semaphore(0)

    def put(self, item: T, *, is_change: bool = False) -> None:
        """Add an item. Never switches."""
        if is_change:
            self._changes.append((self._put, item))
        else:
            self._put += 1
            self._reports.append(item)
        self._waiting.release()

    def get(self) -> T:
        """Wait for the next item. Switches."""
        self._waiting.acquire()
        if self._is_handling:
            self._is_handling, self._until = False, self._put
        if self._changes and self._read >= max(self._until, self._changes[0][0]):
            self._is_handling = True
            return self._changes.popleft()[1]
        self._read += 1
        return self._reports.popleft()

    def __len__(self) -> int:
        return len(self._reports) + len(self._changes)
