# SPDX-License-Identifier: MIT
"""Raw peers that switch to TLS with Python's own ``ssl`` instead of our code, as a Perl node would."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

from gevent import socket

from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import PeerGreeted, TlsDue
from aemp_gevent.wire.limits import Limits
from tests.support.authority import Identity
from tests.support.networking import RawPeer

LOWEST, HIGHEST = "!", "~"
"""Nonces that decide who is the TLS client."""


class TlsSocket:
    """A socket as :class:`RawPeer` uses it, with TLS in between."""

    def __init__(self, sock: Any, context: ssl.SSLContext, rest: bytes, *, is_client: bool) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=not is_client)
        self.incoming.write(rest)

    def begin_with(self, before: bytes) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.sock.sendall(before + self.outgoing.read())

    def shake(self) -> None:
        self._until_done(self.tls.do_handshake)

    def recv(self, size: int) -> bytes:
        try:
            return self._until_done(lambda: self.tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def sendall(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def say_end(self) -> None:
        """Send close_notify, and shut the sending side down."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()
        self.sock.shutdown(1)

    def flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def close(self) -> None:
        self.sock.close()

    def _until_done(self, step: Any) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert
                raise
            else:
                self.flush()
                return result


class TlsPeer(RawPeer):
    """A raw peer with a certificate."""

    def __init__(
        self,
        sock: socket.socket,
        name: str = "127.0.0.1:9",
        *,
        cert: str | None,
        ca: str | None = None,
        nonce: str = LOWEST,
        framing: str = "msgpack",
        extras: tuple[tuple[str, str], ...] = (),
        version: ssl.TLSVersion | None = None,
    ) -> None:
        super().__init__(sock, name)
        self._nonce = nonce
        self.nonce = nonce + self.nonce
        greeting = Greeting(name, ("tls_sha3_512",), (framing,), (*extras, ("mproto", "1"), ("tls", "1.0")))
        self.handshake = Handshake(greeting, self.nonce, None)
        self.encode, self._decoder = _codec(framing)
        self._cert, self._ca, self._version = cert, ca or cert, version

    def greet(self, *, at_once: bool = False) -> Greeting:
        """Exchange greetings, and bring TLS up.

        Args:
            at_once: Whether to send the greeting together with the beginning of TLS; only for clients.
        """
        lines = self.handshake.start()
        if not at_once:
            self.sock.sendall(lines)
        due: list[Any] = []
        while not due:
            due = self.handshake.receive(self._read())
        assert isinstance(due[0], TlsDue), due
        is_client = self._nonce == LOWEST  # the lower one is the client's
        self.secure = TlsSocket(self.sock, self._context(is_client), self.handshake.take_rest(), is_client=is_client)
        if at_once:
            self.secure.begin_with(lines)
        self.secure.shake()
        self.sock: Any = self.secure
        events = self.handshake.secured(None)
        assert isinstance(events[0], PeerGreeted)
        return events[0].greeting

    def _context(self, is_client: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_client else ssl.PROTOCOL_TLS_SERVER)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED if self._ca else ssl.CERT_NONE
        if self._cert:
            context.load_cert_chain(self._cert)
        if self._ca:
            context.load_verify_locations(self._ca)
        if self._version:
            context.minimum_version = context.maximum_version = self._version
        return context


def _codec(framing: str) -> tuple[Any, Any]:
    from aemp_gevent.wire.framing import FRAMINGS

    return FRAMINGS[framing].encoder(), FRAMINGS[framing].decoder(Limits(2**26))


class Files:
    """Certificates of one network, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def write(self, identity: Identity, *others: Identity) -> str:
        self._count += 1
        return identity.write(self.folder / f"{self._count}.pem", *others)
