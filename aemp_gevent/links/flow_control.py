# SPDX-License-Identifier: MIT
"""Flow control: where senders wait while too much is unsent.

A message is accepted first. Then, when more than the high-water mark is unsent, its
sender waits until some of that has left (:func:`has_room`): a greenlet waits in :class:`Room` like
on any event, another native thread blocks there. :mod:`aemp_gevent.peers.sending` decides when to look.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from aemp_gevent.runtime.threads import allocate_lock

REFILL_BYTES = 256 * 1024
"""How much has to leave before senders that wait continue. Small messages to other ports wait as long as a sender takes
to send as much again; to pause and to continue costs a hundredth of that."""


def has_room(unsent: int, high_water: int) -> bool:
    """Return whether senders that wait may continue, with this high-water mark."""
    return unsent <= max(high_water // 2, high_water - REFILL_BYTES)


class Room:
    """Where senders wait until there is room: greenlets of the node's thread, and native threads."""

    def __init__(self) -> None:
        self._event = Event()
        self.waiting = 0
        """Greenlets that came since it was opened, whether they still wait or not."""
        self.locks: deque[Any] = deque()  # Any: a native lock's type has no public name
        """Those at which native threads wait."""

    def open(self) -> None:
        """Wake all senders that wait now. In the node's thread only; never switches."""
        # One event for each opening: it wakes those that wait at this moment. They do not look again
        # afterwards, since the first to look would take the room, and the last might wait forever.
        if self.waiting:
            event, self._event = self._event, Event()
            self.waiting = 0
            event.set()
        while self.locks:
            self.locks.popleft().release()

    def wait(self) -> None:
        """Wait until it is opened next. Switches."""
        self.waiting += 1
        self._event.wait()

    def block_while(self, is_full: Callable[[], bool]) -> None:
        """Block this native thread, which is not the node's, until it is opened, unless ``is_full()`` is false."""
        lock = allocate_lock()
        lock.acquire()
        self.locks.append(lock)
        # First say that we wait, then look: it may be opened at any moment, and not again.
        if is_full():
            lock.acquire()
        else:
            with contextlib.suppress(ValueError):  # it was opened just now
                self.locks.remove(lock)
