# SPDX-License-Identifier: MIT
"""A transport on top of another, which encrypts what leaves and decrypts what arrives.

To its link it looks like any other, and counts plaintext: ``sent``, ``buffered`` and what
the link counts as received mean the same on both sides, however TLS cuts it into records.
Data is encrypted in batches, each when the one before has left: so a burst of
small messages becomes few records, and ``buffered`` is still what is unsent.

The end belongs to TLS, too. A peer that has finished sends *close_notify*; a connection
that ends without it was cut off, and counts as broken.

:mod:`aemp_gevent.wire.tls` does the work; nothing here knows certificates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from gevent.hub import Hub

from aemp_gevent.errors import TlsError
from aemp_gevent.runtime.hub_calls import hub_call, report_to
from aemp_gevent.transport.datagrams import Ends
from aemp_gevent.transport.transport import WRITE_BYTES, Sink, Transport

if TYPE_CHECKING:
    # OpenSSL takes a while to import, and nodes without TLS do not need it.
    from aemp_gevent.wire.tls import Tls


class TlsTransport(Sink):
    """A transport that encrypts what goes over another one.

    Args:
        inner: The connection; what was already written to it goes first.
        tls: A new side of a TLS connection.
        hub: The hub whose loop watches the connection.
        secured: Called once TLS is up, with the node IDs that the peer's certificate is for; None if all
            nodes share one. May close the transport.
    """

    def __init__(self, inner: Transport, tls: Tls, hub: Hub, secured: Callable[[tuple[str, ...] | None], None]) -> None:
        self.buffered = 0
        self.sent = inner.sent + inner.buffered
        self.sent_writes = 0
        self.arrived = 0
        """Encrypted bytes that arrived."""
        self.has_failed = False
        """Whether TLS itself failed: one side does not trust the other, or the bytes were not TLS."""
        self.was_cut = False
        """Whether the connection ended before TLS did."""
        self._inner = inner
        self._tls = tls
        self._hub = hub
        self._secured = secured
        self._sink: Sink | None = None
        self._chunks: deque[bytes | memoryview] = deque()
        self._leaving = 0  # bytes of plaintext, encrypted and handed to the inner transport
        self._goodbye = 0  # 1 while our close_notify is still to leave
        self._flush_asked = False
        self._flush = hub_call(self._encrypt_if_due, self._flush_again, partial(report_to, hub, context=self))
        self._finishing = False
        self._finished = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<TlsTransport to {self.peer_address}>"

    @property
    def peer_address(self) -> str:
        return self._inner.peer_address

    @property
    def ends(self) -> Ends | None:
        return self._inner.ends

    @property
    def round_trip(self) -> float | None:
        return self._inner.round_trip

    @property
    def protocol(self) -> str:
        """The TLS version and cipher; ``""`` before TLS is up."""
        return self._tls.protocol if self._tls.is_up else ""

    # --- what comes ---

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._inner.start(self)
        try:
            self._send_now(self._tls.start())
        except TlsError as error:
            self._fail(error)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def on_data(self, data: bytes | memoryview) -> None:
        """Decrypt bytes that arrived, and pass them on."""
        sink, tls = self._sink, self._tls
        was_up, had_ended = tls.is_up, tls.has_ended
        if sink is None or had_ended:
            return
        self.arrived += len(data)
        try:
            plain = tls.receive(data)
        except TlsError as error:
            self._fail(error)
            return
        if not was_up:
            self._send_now(tls.take())
            if not tls.is_up:
                return
            self._secured(tls.names)
            if self._chunks:
                self._flush_soon()
        if plain:
            # All of one read at once: the link may pause this transport, and then nothing is left over here.
            self._hand_on(plain)
        if tls.has_ended and self._sink is not None:
            self._sink.on_end()

    def _hand_on(self, plain: bytes) -> None:
        if self._sink is not None:
            self._sink.on_data(plain)

    def _fail(self, error: TlsError) -> None:
        self.has_failed = True
        if self._sink is not None:
            self._sink.on_broken(str(error))

    def on_end(self) -> None:
        """Note the end of the other side, which TLS has announced unless it is forged."""
        if not self._tls.has_ended:
            self.on_broken(
                "the connection ended without TLS's close_notify: it was cut off, or the peer was killed"
                if self._tls.is_up
                else "the peer closed the connection while TLS came up; does it trust our certificate?"
            )

    def on_broken(self, why: str) -> None:
        """Note that the connection is gone."""
        self.was_cut = True
        if self._sink is not None:
            self._sink.on_broken(why)

    # --- what goes ---

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        size = len(data)
        self._flush_soon()
        self.buffered += size
        self._chunks += (data,)  # no call in between: what an exception may end comes first

    def _flush_soon(self) -> None:
        if not self._flush_asked:
            self._hub.loop.run_callback(self._flush)
            self._flush_asked = True

    def _flush_again(self) -> None:
        """Continue after an exception on the hub."""
        self._hub.loop.run_callback(self._flush)

    def _encrypt_if_due(self) -> None:
        self._flush_asked = False
        if not self._closed and not self._leaving and self._tls.is_up:
            self._encrypt_next()

    def _encrypt_next(self) -> None:
        """Encrypt the bytes for one system call, and pass them on."""
        try:
            if self._chunks:
                batch = self._next_batch()
                self._leaving = len(batch)
                self._inner.write(self._tls.encrypt(batch))
            elif self._finishing and not self._finished:
                self._finished = True
                # Counted as unsent, so that it is not dropped by a close() that waits until everything has left.
                self._goodbye = 1
                self.buffered += 1
                self._inner.write(self._tls.finish())
                self._inner.finish()
        except BaseException:
            # Ctrl-C may raise on the hub, too, and a lost record cannot be encrypted again.
            if self._sink is not None:
                self._sink.on_broken("interrupted while encrypting")
            raise

    def _next_batch(self) -> bytes | memoryview:
        chunks = self._chunks
        first = chunks.popleft()
        if len(first) > WRITE_BYTES:
            view = memoryview(first)
            chunks.appendleft(view[WRITE_BYTES:])  # the rest counts as the one write
            return view[:WRITE_BYTES]
        batch, size = [first], len(first)
        while chunks and size + len(chunks[0]) <= WRITE_BYTES:
            batch.append(chunks.popleft())
            size += len(batch[-1])
        self.sent_writes += len(batch)
        return b"".join(batch) if len(batch) > 1 else first

    def on_room(self) -> None:
        """Note that some of what was encrypted has left."""
        if not self._inner.buffered:
            self.sent += self._leaving
            self.buffered -= self._leaving + self._goodbye
            self._leaving = self._goodbye = 0
            if self._tls.is_up:
                self._encrypt_next()
        if self._sink is not None:
            self._sink.on_room()
        if self._chunks and not self._leaving and self._tls.is_up:
            self._encrypt_next()  # now, and not in a callback: then it leaves when all sockets have been looked at

    def finish(self) -> None:
        if not self._finishing and not self._closed:
            self._finishing = True
            if not self.buffered and self._tls.is_up:
                self._encrypt_next()

    def _send_now(self, data: bytes) -> None:
        if data and not self._closed:
            self._inner.write(data)

    # --- the end ---

    def close(self, last_words: bytes = b"") -> None:
        # After an error: the alert with the reason. Otherwise nothing: only finish() confirms that nothing was cut off.
        self._forget()
        self._inner.close(last_words or self._tls.last_words)

    def abort(self) -> None:
        self._forget()
        self._inner.abort()

    def abandon(self, *, watching: bool) -> None:
        # In a forked child: the parent continues its TLS from where it was, so nothing may be encrypted here.
        self._forget()
        self._inner.abandon(watching=watching)

    def _forget(self) -> None:
        self._closed = True
        self._sink = None
        self._chunks.clear()
        self.buffered = 0
