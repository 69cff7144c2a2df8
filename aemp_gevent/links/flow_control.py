# SPDX-License-Identifier: MIT
"""Flow control: where senders wait for room, and what native threads send to other nodes.

A message is accepted first; then, when more is unsent than the high-water mark, its
sender waits until less than half of that is. A greenlet waits in :class:`Room` like
on any event. Another native thread cannot touch a link at all: what it sends is encoded
at once, counted, and handed to the hub by :class:`Handover`; and it waits by blocking.

When there *is* room is :mod:`aemp_gevent.peers.peer`'s to say.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from gevent.event import Event

from aemp_gevent.errors import LinkBusyError
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.threads import ThreadLocal, allocate_lock
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire.framing import FRAMINGS


class Room:
    """Where senders wait until there is room: greenlets of the node's thread, and native threads."""

    def __init__(self) -> None:
        self._event = Event()
        self._waiting = 0  # greenlets that came since it was opened, whether they still wait or not
        self._locks: deque[Any] = deque()  # Any: a native lock's type has no public name

    def open(self) -> None:
        """Wake all senders that wait now. In the node's thread only; never switches."""
        # One event for each opening: it wakes those that wait at this moment. Nobody looks again
        # afterwards, as whoever comes first would take the room, and the last might wait forever.
        if self._waiting:
            event, self._event = self._event, Event()
            self._waiting = 0
            event.set()
        while self._locks:
            self._locks.popleft().release()

    def wait(self) -> None:
        """Wait until it is opened next. Switches."""
        self._waiting += 1
        self._event.wait()

    def block_while(self, is_full: Callable[[], bool]) -> None:
        """Block this native thread, which is not the node's, until it is opened, unless ``is_full()`` is false."""
        lock = allocate_lock()
        lock.acquire()
        self._locks.append(lock)
        # First say that we wait, then look: it may be opened at any moment, and not again.
        if is_full():
            lock.acquire()
        else:
            with contextlib.suppress(ValueError):  # it was opened just now
                self._locks.remove(lock)


class Sendable(Protocol):
    """A peer, as what is handed over sees it."""

    room: Room

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent to it. Any thread may ask."""
        ...

    def send_encoded(self, name: str, data: bytes) -> None:
        """Send or queue a packet, encoded as msgpack, for a port of this name. Never switches."""


class Host(Protocol):
    """The network in whose name things are handed over."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...

    def peer(self, node: str) -> Sendable:
        """Return the peer of this ID, made if need be. In the node's thread only."""
        ...

    def known_peer(self, node: str) -> Sendable | None:
        """Return the peer of this ID if there is one. Any thread may ask."""
        ...


class _Sender:
    """One native thread that sends: what it encodes with, and how far the hub is behind it."""

    def __init__(self) -> None:
        self.encode = FRAMINGS["msgpack"].encoder()
        # Two counters, each with one thread that writes it, instead of one with a lock.
        self.handed_bytes = 0  # by the thread
        self.taken_bytes = 0  # by the hub
        self.room = Room()

    @property
    def is_ahead(self) -> bool:
        """Whether the hub has not taken everything yet."""
        return self.handed_bytes != self.taken_bytes


class Handover:
    """Takes packets for other nodes from any native thread but the node's own, in each one's order.

    What a thread handed over and the hub has not taken yet counts as unsent.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.handed: deque[tuple[_Sender, str, str, bytes]] = deque()
        """What is still to be taken: before the node's own thread sends anything, which would overtake it."""
        self._is_taking = False
        self._threads = ThreadLocal()
        self._limits = host.settings.limits
        self._high_water = host.settings.high_water_bytes

    def send(self, node: str, packet: list[Any]) -> None:
        """Encode a packet for a node now, and have the hub send it. Never blocks.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        sender = self._sender()
        data = sender.encode(packet)
        self._limits.check(packet, len(data))
        sender.handed_bytes += len(data)
        self.handed.append((sender, node, packet[0], data))
        self._host.scheduler.call_on_hub(self.take)

    def pause(self, node: str) -> None:
        """Block this thread while too much is unsent to a node."""
        sender = self._sender()
        if self._unsent(sender, node) <= self._high_water:
            return
        if sender.is_ahead:
            sender.room.block_while(lambda: sender.is_ahead)
        peer = self._host.known_peer(node)
        if peer is not None and peer.unsent > self._high_water:
            peer.room.block_while(lambda: peer.unsent > self._high_water // 2)

    def check_room(self, node: str) -> None:
        """Refuse to send where :meth:`pause` would block.

        Raises:
            LinkBusyError: Too much is unsent.
        """
        unsent = self._unsent(self._sender(), node)
        if unsent > self._high_water:
            raise LinkBusyError(node, unsent, self._high_water)

    def _sender(self) -> _Sender:
        sender: _Sender | None = getattr(self._threads, "sender", None)
        if sender is None:
            sender = self._threads.sender = _Sender()
        return sender

    def _unsent(self, sender: _Sender, node: str) -> int:
        peer = self._host.known_peer(node)
        return sender.handed_bytes - sender.taken_bytes + (0 if peer is None else peer.unsent)

    def take(self) -> None:
        """Send or queue everything that was handed over. In the node's thread only; never switches."""
        if self._is_taking:
            return  # a finalizer sends, in the middle of this
        try:
            self._is_taking = True
            while self.handed:
                # Left where it is until it was sent: at the recursion limit nothing can be put back.
                sender, node, name, data = self.handed[0]
                is_done = True
                try:
                    self._host.peer(node).send_encoded(name, data)
                except (RecursionError, MemoryError):
                    is_done = False  # it is who sends just now that is struck, and others' messages wait
                    raise
                except Exception:
                    raise
                except BaseException:  # Ctrl-C
                    is_done = False
                    raise
                finally:
                    if is_done:
                        del self.handed[0]
                        self._taken(sender, data)
        finally:
            self._is_taking = False

    def _taken(self, sender: _Sender, data: bytes) -> None:
        sender.taken_bytes += len(data)
        if not sender.is_ahead:
            sender.room.open()
