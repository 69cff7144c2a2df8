# SPDX-License-Identifier: MIT
"""One direction of a connection through a proxy: a reading greenlet, a writing one, and a queue between them.

The writer applies faults before each piece, so a fault takes effect at once, also for data that is already in the
queue; and so does the end of a fault.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic

from gevent import socket
from gevent.event import Event

from aemp_gevent.testing.faults import Faults

READ_BYTES = 64 * 1024

HELD_BYTES = 2**20
"""What waits in one direction before nothing more is read, so that the sender has to wait in turn. It bounds
our memory, and the throughput behind a delay: 1 MiB a delay."""

_THROTTLE_SECONDS = 0.05
"""A throttled direction sends what it may in so long at once: even enough, and few system calls."""


class FlowEnd(Enum):
    """How a connection ends."""

    DONE = auto()
    """Both sides have closed theirs."""
    CUT = auto()
    """Closed in order, by the proxy."""
    RESET = auto()


@dataclass(slots=True)
class _Chunk:
    """What one read gave. No data: the end of the stream, or a reset."""

    data: memoryview
    arrived: float
    luck: float
    end: FlowEnd | None = None


class Flow:
    """One direction.

    Args:
        source: Where to read: a non-blocking gevent socket.
        sink: Where to write; another one.
        dice: Decides about jitter.
        look: Called with each read, before it is passed on; with ``b""`` at the end.
        may_pass: Whether it is known yet which faults apply.
        over: Called when this direction is over, or the whole connection.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        dice: random.Random,
        look: Callable[[bytes], None],
        may_pass: Callable[[], bool],
        over: Callable[[FlowEnd], None],
    ) -> None:
        self.faults = Faults()
        self.passed = 0
        """Bytes handed on."""
        self.held = 0
        """Bytes that wait here."""
        self.has_lost = False
        """Whether something was swallowed."""
        self.is_over = False
        """Whether the end of the stream was handed on."""
        self.source_is_broken = False
        """Whether writing to the source failed: then its end is not an orderly one."""
        self.opposite: Flow | None = None
        self._source = source
        self._sink = sink
        self._dice = dice
        self._look = look
        self._may_pass = may_pass
        self._over = over
        self._chunks: deque[_Chunk] = deque()
        self._next_turn = 0.0  # when a throttled direction may send again
        self._room = Event()
        self._wake = Event()

    def changed(self) -> None:
        """Look at the faults again."""
        self._wake.set()

    # --- reading ---

    def read(self) -> None:
        """Read until the end of the stream; wait while too much is held."""
        end: FlowEnd | None = None
        while end is None:
            while self.held >= HELD_BYTES:
                self._room.clear()
                self._room.wait()
            try:
                data = self._source.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                socket.wait_read(self._source.fileno())
                continue
            except OSError:
                data, end = b"", FlowEnd.RESET
            if not data and end is None:
                end = FlowEnd.DONE
            self._look(data)
            self.held += len(data)
            self._chunks.append(_Chunk(memoryview(data), monotonic(), self._dice.random(), end))
            self._wake.set()

    # --- writing ---

    def write(self) -> None:
        """Hand on what was read, as the faults allow, until the end."""
        while True:
            pause = self._pause()
            if pause > 0:
                self._wake.clear()
                self._wake.wait(None if math.isinf(pause) else pause)
            elif self._step():
                return

    def _pause(self) -> float:
        """Return for how many seconds nothing is to be done, unless something changes."""
        faults = self.faults
        if not self._may_pass():
            return math.inf
        if self.passed >= min(faults.cut_at, faults.reset_at):
            return 0.0
        if not self._chunks or faults.is_stalled:
            return math.inf
        chunk = self._chunks[0]
        due = chunk.arrived + faults.delay + chunk.luck * faults.jitter
        if not math.isinf(faults.bytes_per_second):
            due = max(due, self._next_turn)
        return due - monotonic()

    def _step(self) -> bool:
        """Do the next thing; return whether it was the last one."""
        faults = self.faults
        if self.passed >= faults.reset_at:
            self._over(FlowEnd.RESET)
            return True
        if self.passed >= faults.cut_at:
            self._over(FlowEnd.CUT)
            return True
        chunk = self._chunks[0]
        if faults.is_swallowing:
            self.has_lost = True
            self._take(len(chunk.data))
            return False
        if chunk.end is not None:
            self._finish(chunk.end)
            return True
        return not self._send(chunk.data)

    def _send(self, data: memoryview) -> bool:
        """Send one piece of what is next; return whether there may be more."""
        faults = self.faults
        piece = data[: self._length(len(data))]
        if self.passed == faults.corrupted.next:
            piece = memoryview(bytes([piece[0] ^ faults.corrupted.mask]))
        try:
            sent = self._sink.send(piece)
        except (BlockingIOError, InterruptedError):
            socket.wait_write(self._sink.fileno())
            return True
        except OSError:
            # That is news for the other direction, whose faults it has to pass.
            assert self.opposite is not None
            self.opposite.source_is_broken = True
            if self.opposite.is_over:
                self._over(FlowEnd.RESET)
            return False
        self._take(sent)
        self.passed += sent
        if not math.isinf(faults.bytes_per_second):
            self._next_turn = max(self._next_turn, monotonic()) + sent / faults.bytes_per_second
        if self.passed > faults.corrupted.next:
            faults.corrupted.step()
        if self.passed >= faults.pieces.next:
            faults.pieces.step()
            # Readers in this process must see the piece: sleep(0) would not look for readable sockets.
            socket.wait_write(self._sink.fileno())
        return True

    def _length(self, available: int) -> int:
        """Return how many bytes may go at once."""
        faults = self.faults
        return int(
            min(
                available,
                max(faults.bytes_per_second * _THROTTLE_SECONDS, 1),
                faults.pieces.next - self.passed,
                # A byte to be changed goes by itself.
                max(faults.corrupted.next - self.passed, 1),
                faults.cut_at - self.passed,
                faults.reset_at - self.passed,
            )
        )

    def _take(self, count: int) -> None:
        """Remove bytes, or an end, from the queue."""
        chunk = self._chunks[0]
        chunk.data = chunk.data[count:]
        if not chunk.data:
            self._chunks.popleft()
        self.held -= count
        self._room.set()

    def _finish(self, end: FlowEnd) -> None:
        """Hand the end of the stream on."""
        self.is_over = True
        if self.source_is_broken:
            end = FlowEnd.RESET
        if end is FlowEnd.DONE:
            with contextlib.suppress(OSError):  # the other side was quicker, and we read that there
                self._sink.shutdown(socket.SHUT_WR)
        self._over(end)
