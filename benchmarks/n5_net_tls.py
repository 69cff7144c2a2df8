# SPDX-License-Identifier: MIT
"""N5: the stream of N2 inside TLS: both sides have the same certificate, as a node's ``cert``.

The ceiling feeds pyOpenSSL's memory BIOs by hand, as the library does; the handshake is not timed.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gevent import socket
from OpenSSL import SSL

from benchmarks import n2_net_oneway
from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 200_000
COMPARISONS = (("snd", "coalesced"),)
UNIT = "messages/s"
VARIABLE = "AEMP_CERT"
REQUIRED = "AEMP_REQUIRE_TLS"
RECORD = 16 * 1024  # the most that one TLS record carries


@contextmanager
def certificate() -> Generator[None, None, None]:
    """Make a certificate for this run, which the library and the peer find in the environment, and must use."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    before = {setting: os.environ.pop(setting, None) for setting in (VARIABLE, REQUIRED)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shared.pem")
        path.touch(mode=0o600)
        path.write_bytes(private + made.public_bytes(encoding))
        os.environ |= {VARIABLE: str(path), REQUIRED: "1"}
        try:
            yield
        finally:
            for setting, value in before.items():
                del os.environ[setting]
                if value is not None:
                    os.environ[setting] = value


def serve_ours(variant: str) -> str:
    """Do what N2's peer does."""
    return n2_net_oneway.serve_ours(variant)


def ours(n: int, variant: str = "snd") -> Figure:
    """Do what N2 does, with a certificate in the settings of both sides."""
    with certificate():
        return n2_net_oneway.ours(n, variant)


class Pipe:
    """A TLS connection over memory BIOs, and the socket that carries it."""

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_privatekey_file(os.environ[VARIABLE])
        context.use_certificate_file(os.environ[VARIABLE])
        self._sock = sock
        self._tls = SSL.Connection(context)
        self._buffer = bytearray(CHUNK)
        if is_client:
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()
        while not self._is_up():
            if not self.fill():
                raise ConnectionError("the other side closed the connection during the handshake")

    def _is_up(self) -> bool:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self._drain()
        return True

    def _drain(self) -> None:
        out = bytearray()
        try:
            while True:
                out += self._tls.bio_read(2 * CHUNK)
        except SSL.WantReadError:
            self._sock.sendall(out)

    def send(self, data: bytes | bytearray) -> None:
        """Encrypt data and send it."""
        view = memoryview(data)
        for start in range(0, len(view), RECORD):
            self._tls.send(view[start : start + RECORD])
        self._drain()

    def fill(self) -> int:
        """Wait for more from the socket; return how many bytes came, 0 at the end."""
        size = self._sock.recv_into(self._buffer)
        self._tls.bio_write(bytes(memoryview(self._buffer)[:size]))
        return size

    def received(self) -> Iterator[bytes]:
        """Yield what can be decrypted of what came."""
        try:
            while True:
                yield self._tls.recv(CHUNK)
        except SSL.WantReadError:
            return


def serve_ceiling(variant: str) -> str:
    """Unpack what was decrypted, call the tag's function from a dict, ack the end."""

    def count(sock: socket.socket) -> None:
        numbers = 0

        def counted(_number: int, _text: str) -> None:
            nonlocal numbers
            numbers += 1

        pipe = Pipe(sock, is_client=False)
        handlers: dict[str, Callable[..., None]] = {"tag": counted, "end": lambda: sock.sendall(b"!")}
        unpacker = msgpack.Unpacker()
        while pipe.fill():
            for plain in pipe.received():
                unpacker.feed(plain)
            for _port, tag, *rest in unpacker:
                handlers[tag](*rest)

    return serve_one(count)


def ceiling(n: int, variant: str = "coalesced") -> Figure:
    """Pack with a reused packer; encrypt and write when 64 KiB have come together."""
    pack, out = msgpack.Packer().pack, bytearray()
    with certificate(), peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        pipe = Pipe(sock, is_client=True)
        settle()
        started = clock()
        for number in range(n):
            out += pack(("bench", "tag", number, n2_net_oneway.TEXT))
            if len(out) >= CHUNK:
                pipe.send(out)
                out = bytearray()
        pipe.send(out + pack(("bench", "end")))
        await_ack(sock)
        return figure(n, UNIT, clock() - started)
