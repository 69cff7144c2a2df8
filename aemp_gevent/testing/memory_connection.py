# SPDX-License-Identifier: MIT
"""A connection in memory that behaves like TCP, including its unpleasant sides.

An :class:`MemoryEnd` is a :class:`~aemp_gevent.transport.transport.Transport`; a :class:`Pipe` is one
direction: the sender's kernel, the line and the receiver's kernel in one. What is kept
of the real thing:

- The kernels hold a bounded number of bytes; what is beyond stays with the sender, in
  ``buffered``, until the receiver reads.
- Bytes for an end that is closed are answered with a reset, and so is closing an end
  before everything that had arrived was read.
- A reset behind an orderly end shows only to the side that writes.
- What a line swallows is not lost: once the line works again it comes late, as TCP would
  send it again. It is lost permanently when its sender, or its connection, is gone meanwhile.

Which lines work, and how fast, the :class:`MemoryLines` say: :mod:`aemp_gevent.testing.memory_network`.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum
from time import monotonic
from typing import Protocol

from aemp_gevent.testing.memory_clock import MemoryClock
from aemp_gevent.transport.datagrams import Ends
from aemp_gevent.transport.transport import Sink


class Mark(Enum):
    """Signals that are transmitted besides bytes."""

    END = "end"
    """The sender shut its sending side down."""
    RESET = "reset"
    """The sender's kernel knows nothing of the connection, or no more."""
    CUT = "cut"
    """Something between the two ended the connection; no line can swallow it."""


class Home(Protocol):
    """The node that an end of a connection belongs to."""

    @property
    def name(self) -> str:
        """Its ID; another incarnation has the same."""
        ...


class MemoryLines(Protocol):
    """The network, as its connections use it."""

    dice: random.Random
    buffer_bytes: int
    split: float

    @property
    def clock(self) -> MemoryClock:
        """The network's clock."""
        ...

    def draw_latency(self, source: str, target: str) -> float:
        """Return how many seconds what is sent now is under way."""
        ...

    def draw_skew(self) -> float:
        """Return how many seconds longer everything takes on one direction of one connection."""
        ...

    def is_blocked(self, source: str, target: str) -> bool:
        """Return whether nothing arrives over the line from one node to another."""
        ...

    def opened(self, end: MemoryEnd) -> None: ...

    def closed(self, end: MemoryEnd) -> None: ...


class Pipe:
    """One direction of a connection."""

    def __init__(self, lines: MemoryLines, source: MemoryEnd, target: MemoryEnd) -> None:
        self.room = lines.buffer_bytes
        """How many bytes more it takes."""
        self._lines = lines
        self._skew = lines.draw_skew()
        self._source = source
        self._target = target
        self._items: deque[tuple[float, bytes | Mark]] = deque()  # with the moment when it arrives
        self._is_due_at = 0.0  # of the last one: nothing overtakes
        self._reset_at: float | None = None
        self._asked_for: float | None = None

    def put(self, item: bytes | Mark) -> None:
        """Send something, after everything before it. Never calls anybody."""
        now = monotonic()
        due = now
        if item is not Mark.CUT:
            due += self._lines.draw_latency(self._source.node, self._target.node) + self._skew
        self._is_due_at = due = max(due, self._is_due_at)
        if isinstance(item, bytes):
            self.room -= len(item)
        elif item is not Mark.END:
            self._reset_at = due if self._reset_at is None else min(due, self._reset_at)
            # A side that waits for room instead of reading is notified as well.
            self._lines.clock.at(due, self._target.has_room)
        self._items.append((due, item))
        self.wake()

    def lose(self, keep: int = 0) -> None:
        """Lose what is under way, but for the first ``keep`` pieces."""
        while len(self._items) > keep:
            item = self._items.pop()[1]
            if isinstance(item, bytes):
                self.room += len(item)
        self._is_due_at = self._items[-1][0] if self._items else 0.0

    def lose_some(self) -> None:
        """Lose the later part of what is under way, as much as the dice say."""
        self.lose(self._lines.dice.randint(0, len(self._items)))

    @property
    def has_reset(self) -> bool:
        """Whether the news of a reset has arrived; the reader may not have seen it yet."""
        return self._reset_at is not None and self._reset_at <= monotonic() and not self._is_blocked(Mark.RESET)

    @property
    def has_unread(self) -> bool:
        """Whether bytes have arrived and were not read."""
        if not self._items:
            return False
        due, item = self._items[0]
        return isinstance(item, bytes) and due <= monotonic() and not self._is_blocked(item)

    def _is_blocked(self, item: bytes | Mark) -> bool:
        return item is not Mark.CUT and self._lines.is_blocked(self._source.node, self._target.node)

    def wake(self) -> None:
        """Schedule the next delivery for when it is due. Never calls anybody."""
        if self._items:
            due = self._items[0][0]
            if self._asked_for is None or due < self._asked_for:
                self._asked_for = due
                self._lines.clock.at(due, self._deliver)

    def _deliver(self) -> None:  # on the hub
        self._asked_for = None
        # Code that reads again, or makes a line work again, wakes this greenlet.
        if not self._items or not self._target.reads or self._is_blocked(self._items[0][1]):
            return
        due, item = self._items[0]
        if due > monotonic():
            self.wake()
        elif isinstance(item, bytes):
            self._deliver_bytes()
        else:
            self._items.popleft()
            self.wake()
            self._target.take_mark(item)

    def _deliver_bytes(self) -> None:
        now = monotonic()
        data = bytearray()
        items = self._items
        while items and items[0][0] <= now and isinstance(items[0][1], bytes):
            data += items.popleft()[1]  # type: ignore[arg-type]  # bytes: that was just asked
        if len(data) > 1 and self._lines.dice.random() < self._lines.split:
            cut = self._lines.dice.randint(1, len(data) - 1)
            items.appendleft((now, bytes(data[cut:])))
            del data[cut:]
        self.room += len(data)
        self.wake()
        self._source.has_room()
        self._target.take_bytes(data)


class MemoryEnd:
    """One end of a connection; a :class:`~aemp_gevent.transport.transport.Transport`.

    Args:
        lines: The network.
        home: The node it belongs to.
        peer_address: Where the other end is, as an endpoint.
    """

    other: MemoryEnd
    incoming: Pipe
    outgoing: Pipe

    def __init__(self, lines: MemoryLines, home: Home, peer_address: str) -> None:
        self.home = home
        self.node = home.name
        self.buffered = 0
        self.sent = 0
        self.sent_writes = 0
        self.is_closed = False
        self._lines = lines
        self._peer_address = peer_address
        self._sink: Sink | None = None
        self._reading = False
        self._has_ended = False
        self._unsent: deque[bytes] = deque()
        self._flush_asked = False
        self._finishing = False
        self._finished = False

    def __repr__(self) -> str:
        return f"<MemoryEnd at {self.node} to {self._peer_address}{', closed' if self.is_closed else ''}>"

    @property
    def peer_address(self) -> str:
        return self._peer_address

    @property
    def ends(self) -> Ends | None:
        return None  # there is no network beside the simulated one

    @property
    def round_trip(self) -> float | None:
        return None  # what lines do is drawn again for each piece

    # --- reading ---

    def start(self, sink: Sink) -> None:
        if self.is_closed:  # its node crashed before it read anything, and what comes now is for nobody
            self._lines.clock.hub.loop.run_callback(sink.on_broken, "Connection reset by peer")
            return
        self._sink = sink
        self.resume()

    def pause(self) -> None:
        self._reading = False

    def resume(self) -> None:
        if not self.is_closed:
            self._reading = True
            self.incoming.wake()

    @property
    def reads(self) -> bool:
        """Whether what arrives is taken: by the reader, or by the kernel of a process that is gone."""
        return self.is_closed or (self._reading and not self._has_ended)

    def take_bytes(self, data: bytearray) -> None:
        """Read, on the hub."""
        if self._sink is not None:
            with memoryview(data) as view:
                self._sink.on_data(view)
        elif self.is_closed:
            self.outgoing.put(Mark.RESET)

    def take_mark(self, mark: Mark) -> None:
        """Read something that is not bytes, on the hub."""
        if self.is_closed:
            return
        if mark is not Mark.END:
            self._break("Connection reset by peer")
            return
        self._has_ended = True
        if self._sink is not None:
            self._sink.on_end()

    # --- writing ---

    def write(self, data: bytes) -> None:
        if self.is_closed:
            return
        self._unsent.append(data)
        self.buffered += len(data)
        self._flush_soon()

    def has_room(self) -> None:
        """Note that the other end has read."""
        if self._unsent:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_asked:
            self._flush_asked = True
            self._lines.clock.hub.loop.run_callback(self._flush)

    def _flush(self) -> None:  # on the hub
        self._flush_asked = False
        if self.is_closed:
            return
        if self._unsent and self.incoming.has_reset:
            self._break("Broken pipe")
            return
        if not self._hand_over():
            return
        if self._finishing:
            self._shut_down()
        if self._sink is not None:
            self._sink.on_room()

    def _hand_over(self) -> bool:
        """Pass to the kernel what it takes; return whether that was anything."""
        room = self.outgoing.room
        taken: list[bytes] = []
        while self._unsent and room > 0:
            data = self._unsent.popleft()
            if len(data) > room:
                self._unsent.appendleft(data[room:])
                data = data[:room]
            else:
                self.sent_writes += 1
            room -= len(data)
            taken.append(data)
        if not taken:
            return False
        joined = b"".join(taken)
        self.outgoing.put(joined)
        self.buffered -= len(joined)
        self.sent += len(joined)
        return True

    def finish(self) -> None:
        self._finishing = True
        self._shut_down()

    def _shut_down(self) -> None:
        if not self.buffered and not self.is_closed:
            self._send_end()

    def _send_end(self) -> None:
        if not self._finished:
            self._finished = True
            self.outgoing.put(Mark.END)

    # --- the end ---

    def cut(self) -> None:
        """Lose what is under way to here, and the connection."""
        self.incoming.lose()
        self.incoming.put(Mark.CUT)

    def _break(self, why: str) -> None:
        sink = self._sink
        self._forget()
        if sink is not None:
            sink.on_broken(why)

    def close(self, last_words: bytes = b"") -> None:
        if self.is_closed:
            return
        if last_words and not self.buffered and len(last_words) <= self.outgoing.room:
            self.outgoing.put(last_words)
        unread = self.incoming.has_unread
        self._forget()
        if unread:
            self.outgoing.put(Mark.RESET)
        else:
            self._send_end()

    def abandon(self, *, watching: bool) -> None:
        self._forget()  # a forked child has both ends for itself

    def abort(self) -> None:
        if not self.is_closed:
            self._forget()
            # The kernel forgets what has not left; some of it has.
            self.outgoing.lose_some()
            self.outgoing.put(Mark.RESET)

    def vanish(self) -> None:
        """Vanish without a sign, as if somebody had pulled the plug."""
        if not self.is_closed:
            self._forget()
            self.outgoing.lose_some()

    def _forget(self) -> None:
        self.is_closed = True
        self._sink = None
        self._unsent.clear()
        self.buffered = 0
        self._lines.closed(self)
        self.incoming.wake()


def connect(
    lines: MemoryLines, dialler: Home, dialler_address: str, acceptor: Home, acceptor_address: str
) -> tuple[MemoryEnd, MemoryEnd]:
    """Return the two ends of a new connection: the dialler's and the acceptor's."""
    near, far = MemoryEnd(lines, dialler, acceptor_address), MemoryEnd(lines, acceptor, dialler_address)
    near.other, far.other = far, near
    near.outgoing = far.incoming = Pipe(lines, near, far)
    far.outgoing = near.incoming = Pipe(lines, far, near)
    lines.opened(near)
    lines.opened(far)
    return near, far
