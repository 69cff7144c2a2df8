# SPDX-License-Identifier: MIT
"""A connected socket as the link layer sees it: bytes in by callback, bytes out by ``write``.

Reading happens in an I/O callback on the hub instead of a reader greenlet, which
saves two switches (9 microseconds a round trip). Writing is deferred to the end of the
loop iteration, so that a burst costs one system call per batch instead of one per
message (0.4 instead of 4.2 microseconds each). What answers a read leaves right behind
it, because a callback of the loop costs as much as 1,000 instructions of the processor.

The sockets are gevent's own, set non-blocking, so it makes no difference whether the
program is monkey-patched. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import socket as std_socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from gevent import socket
from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent.runtime.forking import close_quietly
from aemp_gevent.runtime.hub_calls import hub_call, repeated, report_to
from aemp_gevent.transport.datagrams import LOOPBACK, Ends

READ_BYTES = 256 * 1024
"""How much is read at once: four 64 KiB messages. The buffer is shared by all transports of a hub's node."""

WRITE_BYTES = 64 * 1024
"""How much is joined for one system call. Joining copies what waits once more, and still costs a tenth of
a call for each message; larger batches save no more, and touch new memory each time. What is as large
by itself is not copied. It leaves from within :meth:`~SocketTransport.write`, so that the other side can begin while a
program sends for a long time without a switch. Until the loop has its turn it counts as unsent all the same: otherwise
a program whose receivers keep up would never be paused, and the loop never had a turn."""

LEAST_WRITE_BYTES = 4 * 1024
"""How much is joined at least before it leaves in this way, however many connections there are."""

MANY_MESSAGES = 16
"""How many messages must have come together for it. A few large ones are written sooner than the other side reads, and
the sender is soon paused: to send parts of them takes more system calls."""

TOGETHER_BYTES = 4 * 2**20
"""How much all connections of a node keep together before it leaves in this way, about: with more than 64 of them each
joins less than ``WRITE_BYTES``. Without this, 200 would keep 12 megabytes, which no cache of a processor holds."""

LOCAL_BUFFER_BYTES = 64 * 1024
"""What the system keeps of what is sent within one host; Linux takes twice as much. Of its own it keeps several
megabytes, which a small message has to wait for behind large ones: 16 ms instead of 1 ms. Between hosts its own choice
is needed to keep a long line busy. What the receiver keeps is its own choice, too: less makes both take turns."""

_READ, _WRITE = 1, 2  # libev's and libuv's event masks

_TCP_INFO: int | None = getattr(std_socket, "TCP_INFO", None) if sys.platform == "linux" else None
_RTT_AT = 68
"""The offset of ``tcpi_rtt``, in microseconds, in Linux's ``struct tcp_info``."""

# Compiled, these names stand for C functions (system_calls.pxd). Nothing can be assigned to them.
HAS_CALLS: bool
receive: Callable[[int, bytearray, memoryview], bytes | memoryview]
send: Callable[[int, bytes], int]
globals().update(HAS_CALLS=False)

_NOT_NOW = (BlockingIOError, InterruptedError)


class Sink:
    """Gets what a transport reads. Called on the hub: must not switch, must not raise."""

    __slots__ = ()

    def on_data(self, data: bytes | memoryview) -> None:
        """Take bytes that arrived; the buffer is reused afterwards."""
        raise NotImplementedError

    def on_end(self) -> None:
        """Note that the other side shut its sending side down; ours may keep sending."""
        raise NotImplementedError

    def on_broken(self, why: str) -> None:
        """Note that the connection is gone, with everything that was under way."""
        raise NotImplementedError

    def on_room(self) -> None:
        """Note that the system took some of what was written; ``buffered`` is what is left."""
        raise NotImplementedError


class Transport(Protocol):
    """What a link needs of its connection; :class:`SocketTransport` is the real one."""

    @property
    def buffered(self) -> int:
        """Bytes written, and not handed to the system before the loop's last turn."""
        ...

    @property
    def sent(self) -> int:
        """Bytes written that are not ``buffered``."""
        ...

    @property
    def sent_writes(self) -> int:
        """The number of calls of :meth:`write` whose bytes have begun to leave."""
        ...

    def start(self, sink: Sink) -> None:
        """Begin to read."""

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave at the end of the loop iteration, or sooner."""

    def finish(self) -> None:
        """Shut our sending side down once everything written has left."""

    def close(self, last_words: bytes = b"") -> None:
        """Close now; what has not left is dropped. May be called again.

        Args:
            last_words: Bytes to send before, if everything else has left and the system takes them at once.
        """

    def abort(self) -> None:
        """Close now with a reset, so that the other side knows that something was lost."""

    def abandon(self, *, watching: bool) -> None:
        """Close this process's copy of the connection, in a forked child: the parent keeps using it.

        Args:
            watching: Whether the loop that watches it is this thread's, so that its watchers can be stopped.
        """

    def pause(self) -> None:
        """Stop reading for a while."""

    def resume(self) -> None:
        """Read again."""

    @property
    def peer_address(self) -> str:
        """The address of the other side, as an endpoint, for logs and greetings."""
        ...

    @property
    def ends(self) -> Ends | None:
        """Where datagrams between its two processes go; None if it has no such addresses."""
        ...

    @property
    def round_trip(self) -> float | None:
        """Seconds to the other side and back, as the system estimates them; None: it does not."""
        ...


class SocketTransport:
    """A transport over a connected stream socket, which it owns from now on.

    Args:
        sock: A gevent socket.
        hub: The hub whose loop watches it.
        buffer: The buffer to read into; shared, because its content is not needed after ``on_data``.
        filling: The node's transports with much to send in this iteration of the loop; None: only this one.
    """

    # Faster than an instance dictionary, which CPython 3.11 reads more slowly with 30 attributes or more.
    __slots__ = (
        "__weakref__",
        "_awaits_room",
        "_batch_bytes",
        "_batch_limit",
        "_batches",
        "_buffer",
        "_chunks",
        "_closed",
        "_descriptor",
        "_filling",
        "_finishing",
        "_flush",
        "_flush_asked",
        "_has_descriptor",
        "_hub",
        "_is_filling",
        "_is_over",
        "_is_sending",
        "_loop",
        "_peer_address",
        "_read",
        "_reader",
        "_receive_into",
        "_send_error",
        "_send_some",
        "_sending",
        "_sent_ahead",
        "_sink",
        "_socket",
        "_view",
        "_writer",
        "buffered",
        "sent",
        "sent_writes",
    )

    def __init__(
        self, sock: socket.socket, hub: Hub, buffer: bytearray, filling: set[SocketTransport] | None = None
    ) -> None:
        self.buffered = 0
        self.sent = 0
        self.sent_writes = 0
        self._socket = sock
        # The system calls themselves: gevent's methods around them wait, which a socket that never blocks does not do,
        # and cost as much as all other steps of a read or of a write.
        raw: Any = getattr(sock, "_sock", sock)
        self._receive_into, self._send_some = raw.recv_into, raw.send
        self._has_descriptor = HAS_CALLS and _makes_system_calls(type(raw))
        self._descriptor = sock.fileno()  # for compiled code, until it is closed
        self._hub = hub
        loop: Any = hub.loop  # gevent's watchers have no types
        self._loop = loop
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._sink: Sink | None = None
        self._chunks: list[bytes] = []  # the batch that grows
        self._batch_bytes = 0
        self._batch_limit = LEAST_WRITE_BYTES  # what the batch is looked at for when it has so many bytes
        self._filling = set() if filling is None else filling
        self._is_filling = False
        self._sent_ahead = 0  # bytes that the system has, and that still count as unsent
        self._send_error = ""  # why sending ahead of the loop failed
        self._batches: deque[list[bytes]] = deque()  # those that are full
        self._sending: bytes | memoryview = b""
        self._flush_asked = False
        self._awaits_room = False  # whether the writer's watcher runs
        self._is_sending = False
        """Whether it is unknown how much of what was written the system has."""
        self._flush = hub_call(self._send_next, self._flush_again, partial(report_to, hub, context=self))
        self._read = repeated(hub, self._readable)
        self._finishing = False
        self._closed = False
        self._is_over = False
        """Whether everything is closed: until then, closing may be repeated."""
        self._peer_address = _describe(sock)
        sock.setblocking(False)
        _tune(sock)
        self._reader = loop.io(self._descriptor, _READ)
        self._writer = loop.io(self._descriptor, _WRITE)

    def __repr__(self) -> str:
        return f"<SocketTransport to {self._peer_address}>"

    @property
    def peer_address(self) -> str:
        return self._peer_address

    @property
    def ends(self) -> Ends | None:
        if self._closed:
            return None
        try:
            addresses = self._socket.getsockname(), self._socket.getpeername()
        except OSError:
            return None
        if _is_unix(self._socket):
            return LOOPBACK
        return Ends(*(_host_of(address) for address in addresses))

    @property
    def round_trip(self) -> float | None:
        if _TCP_INFO is None or self._closed or _is_unix(self._socket):
            return None
        try:
            told = self._socket.getsockopt(std_socket.IPPROTO_TCP, _TCP_INFO, _RTT_AT + 4)
        except OSError:
            return None
        microseconds: int = struct.unpack_from("=I", told, _RTT_AT)[0]
        return microseconds / 1e6 or None

    # --- reading, on the hub ---

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._reader.start(self._read)

    def pause(self) -> None:
        self._reader.stop()

    def resume(self) -> None:
        if not self._closed:
            self._reader.start(self._read)

    def _readable(self) -> None:
        sink = self._sink
        if self._closed or sink is None:
            return
        try:
            try:
                if self._has_descriptor:
                    data = receive(self._descriptor, self._buffer, self._view)
                else:
                    data = self._view[: self._receive_into(self._view)]
            except _NOT_NOW:
                return
            except OSError as error:
                self._break(_text_of(error))
                return
            if data:
                is_first = not self._flush_asked
                self._flush_asked = True  # what answers it leaves right behind it, without a callback
                sink.on_data(data)
                if is_first:
                    self._send_answers()
            elif self._send_error:  # which the system tells once, and then it is an end like any other
                self._break(self._send_error)
            else:
                self._reader.stop()
                sink.on_end()
        except BaseException:
            # Ctrl-C may raise on the hub, too, and then it is unknown how much was read and handled.
            self._cut_off()
            raise

    def _send_answers(self) -> None:
        """Send what was written while a read was handled, if anything was."""
        self._flush_asked = False  # first: what a finalizer or a signal handler writes from here on asks for a flush
        if self.buffered:
            self._flush_asked = True
            self._send_next()

    def _read_rest(self) -> None:
        """Pass on what had arrived before writing failed: the other side's last bytes may say why."""
        while self._reader.active and not self._closed:
            try:
                count = self._receive_into(self._view)
            except OSError:
                return
            sink = self._sink  # may change from one read to the next: TLS begins behind the greeting
            if not count or sink is None:
                return
            sink.on_data(self._view[:count])

    # --- writing ---

    def write(self, data: bytes) -> None:
        if self._batch_bytes >= self._batch_limit:
            self._end_batch()
        size = len(data)
        if not self._flush_asked:
            self._loop.run_callback(self._flush)
            self._flush_asked = True
        # No new object from here on, and one call, the last: exceptions may end what comes first, and finalizers write.
        self.buffered += size
        self._batch_bytes += size
        self._chunks.append(data)

    def _end_batch(self) -> None:
        """Begin another batch if this one is full, and hand the system what it takes at once."""
        if self._closed:
            return
        # What the hub writes, such as fragments of a large message, has to wait until it has looked at other sockets.
        is_ahead = len(self._chunks) >= MANY_MESSAGES and getcurrent() is not self._hub
        limit = WRITE_BYTES
        self._is_filling = True
        if is_ahead:
            filling = self._filling
            filling.add(self)
            limit = max(LEAST_WRITE_BYTES, min(WRITE_BYTES, TOGETHER_BYTES // len(filling)))
        if self._batch_bytes >= limit:
            self._batch_limit = sys.maxsize  # what a finalizer writes meanwhile belongs to this batch
            self._batches += (self._chunks,)  # no call in between
            self._chunks = []
            self._batch_bytes = 0
            if is_ahead:
                self._send_ahead()
        self._batch_limit = limit

    def _send_ahead(self) -> None:
        """Hand the system what it takes of the full batches; the rest is left to the flush, as is an error."""
        while self._batches and not self._is_sending and not self._send_error:
            self._is_sending = True
            sending = self._sending = self._sending or b"".join(self._next_batch())
            sent = 0
            try:
                sent = self._send_some(sending)
            except _NOT_NOW:
                pass
            except OSError as error:
                self._send_error = _text_of(error)
            self._sending = b"" if sent == len(sending) else memoryview(sending)[sent:]
            self._sent_ahead += sent
            self._is_sending = False
            if self._sending:
                return

    def _flush_again(self) -> None:
        """Continue after an exception on the hub, where that is possible."""
        if self._is_sending:
            self._cut_off()
        elif not self._closed:
            self._loop.run_callback(self._flush)

    def _send_next(self) -> None:
        """Send a batch. The next one has to wait until the loop has looked at all sockets, also at those to read."""
        if self._closed:
            return
        if self._is_sending:  # an exception ended a write
            self._cut_off()
            return
        if self._send_error:
            self._read_rest()
            self._break(self._send_error)
            return
        ahead = self._sent_ahead
        self._sent_ahead = 0  # no call in between
        self.buffered -= ahead
        self.sent += ahead
        if self.buffered:
            self._is_sending = True
            sending = self._sending = self._sending or b"".join(self._next_batch())
            try:
                if self._has_descriptor and len(sending) <= LEAST_WRITE_BYTES and type(sending) is bytes:
                    sent = send(self._descriptor, sending)
                else:
                    sent = self._send_some(sending)
            except _NOT_NOW:
                self._is_sending = False
                self._await_room()
                return
            except OSError as error:
                self._is_sending = False
                self._read_rest()
                self._break(_text_of(error))
                return
            self._sending = b"" if sent == len(sending) else memoryview(sending)[sent:]
            self.buffered -= sent
            self.sent += sent
            self._is_sending = False
        if self._finishing and not self.buffered:
            self._shut_down()
        if ahead and not self._awaits_room and not self._closed:
            self._await_room()  # senders that wait for room continue when the loop has looked at all sockets
            return
        if self._sink is not None:
            self._sink.on_room()  # which may write
        self._flush_asked = False  # first, as in _send_answers()
        if self.buffered:
            self._flush_asked = True
            self._await_room()
            return
        if self._awaits_room and not self._closed:
            self._writer.stop()
            self._awaits_room = False
        if self._is_filling:
            self._fill_no_more()

    def _await_room(self) -> None:
        self._awaits_room = True
        self._writer.start(self._flush)

    def _fill_no_more(self) -> None:
        self._filling.discard(self)
        self._batch_limit = LEAST_WRITE_BYTES
        self._is_filling = False

    def _next_batch(self) -> list[bytes]:
        empty: list[bytes] = []
        if self._batches:
            batch = self._batches.popleft()
        else:  # no new object, as a finalizer may write
            batch, self._chunks = self._chunks, empty
            self._batch_bytes = 0
        self.sent_writes += len(batch)
        return batch

    def finish(self) -> None:
        self._finishing = True
        if not self.buffered and not self._closed:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(std_socket.SHUT_WR)
        except OSError as error:
            # Already gone: the reader notices that. Anything else must be reported.
            if error.errno not in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET):
                self._break(_text_of(error))

    # --- the end ---

    def _break(self, why: str) -> None:
        sink = self._sink
        self.close()
        if sink is not None:
            sink.on_broken(why)

    def _cut_off(self) -> None:
        """Break the connection after an exception in the middle of reading or sending."""
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.on_broken("interrupted")

    def close(self, last_words: bytes = b"") -> None:
        if self._is_over:
            return
        self._closed = True
        self._sink = None
        if last_words and not self.buffered:
            with contextlib.suppress(OSError):
                self._socket.send(last_words)
        self._chunks.clear()
        self._batches.clear()
        self._sending = b""
        self.buffered = 0
        self._fill_no_more()
        for watcher in (self._reader, self._writer):
            watcher.stop()
            watcher.close()
        self._socket.close()
        self._is_over = True

    def abort(self) -> None:
        if not self._is_over:
            # A linger time of zero makes close() send a reset. If an exception ended close(), it may be closed already.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def abandon(self, *, watching: bool) -> None:
        if self._closed:
            return
        self._closed = self._is_over = True
        self._sink = None
        if watching:
            for watcher in (self._reader, self._writer):
                watcher.stop()
                watcher.close()
        close_quietly(self._socket)


_MAPPED = "::ffff:"
"""The beginning of an IPv4 address on a socket that listens for both families."""


def _host_of(address: Any) -> str:
    """Return the host of a TCP socket's address, with its zone if it has one."""
    host: str = address[0].removeprefix(_MAPPED)
    zone = address[3] if len(address) > 3 else 0
    return f"{host}%{zone}" if zone and "%" not in host and ":" in host else host


def _text_of(error: OSError) -> str:
    return error.strerror or str(error)


def _makes_system_calls(kind: type) -> bool:
    """Return whether sockets of a class read and write by the system calls, and by nothing else."""
    return all(getattr(kind, name, None) is getattr(_socket.socket, name) for name in ("recv_into", "send"))


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(std_socket, "AF_UNIX", None)


def _tune(sock: socket.socket) -> None:
    """Set how the system sends the bytes of a connection, and how many it keeps."""
    with contextlib.suppress(OSError):  # it is broken already, which the first read tells
        if not _is_unix(sock):
            # A message must not wait for the acknowledgement of the one before it.
            sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
        if _is_unix(sock) or _host_of(sock.getsockname()) == _host_of(sock.getpeername()):
            sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_SNDBUF, LOCAL_BUFFER_BYTES)


def _describe(sock: socket.socket) -> str:
    """Return the other side's address as an endpoint."""
    try:
        address = sock.getpeername()
    except OSError:
        return "?"
    if isinstance(address, tuple):
        host, port = address[:2]
        host = host.removeprefix(_MAPPED)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{address if isinstance(address, str) else ''}"
