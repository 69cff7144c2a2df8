# SPDX-License-Identifier: MIT
"""A TLS 1.3 client whose records are written by hand, to send what no well-behaved implementation sends."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aemp_gevent.wire.tls import Tls
from tests.support.authority import Identity

HANDSHAKE, DATA = 22, 23


class HandWritten:
    """One that has shaken hands already. What it reads goes through Python's own ``ssl``.

    Args:
        server: Our side, fresh.
        identity: Whose certificate both have.
        folder: For files.
    """

    def __init__(self, server: Tls, identity: Identity, folder: Path) -> None:
        path, keys = identity.write(folder / "hand.pem"), folder / "keys"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_cert_chain(path)
        context.load_verify_locations(path)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(keys)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing)
        server.start()
        while not server.is_up:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            server.receive(outgoing.read())
            incoming.write(server.take())
        self.incoming, self.client = incoming, client
        lines = [line.split() for line in keys.read_text().splitlines()]
        self._change(next(bytes.fromhex(line[2]) for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"))

    def record(self, kind: int, data: bytes) -> bytes:
        """RFC 8446, 5.2."""
        inner = data + bytes([kind])
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        return head + self._key.encrypt(nonce, inner, head)

    def change_key(self) -> bytes:
        """Return a request to change keys, and change ours: RFC 8446, 4.6.3."""
        record = self.record(HANDSHAKE, b"\x18\x00\x00\x01\x01")
        self._change(_expand(self._secret, b"traffic upd", 48))
        return record

    def _change(self, secret: bytes) -> None:
        self._secret = secret
        self._key = AESGCM(_expand(secret, b"key", 32))
        self._iv = _expand(secret, b"iv", 12)
        self._count = 0


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """RFC 8446, 7.1: HKDF-Expand-Label, for results of one hash at most."""
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha384).digest()[:size]
