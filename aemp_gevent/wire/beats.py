# SPDX-License-Identifier: MIT
"""Beats: datagrams with which a node whose event loop is blocked shows a peer that it lives.

Each direction of a connection has keys of its own, which its two sides derive from the handshake: from the secret with
which the sender of the beats proved itself, all four lines of the greetings, and a salt that the receiver sends over
the link. With a secret, only who knows it can derive them; inside of TLS, only who read the salt there. So a beat
belongs to one connection of two processes, and is worth nothing for any other.

A beat is 216 bytes: the key's ID, a number, the covered content, and an HMAC of all of that. Each beat of a key has a
higher number than the one before. The content is covered with SHAKE-256 of a key and the number, because
TLS would have kept it from those who listen.

Not here: when beats are sent, and what they mean (:mod:`aemp_gevent.links.second_path`).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from aemp_gevent.wire.auth import Lines, signed_text

_ID_BYTES = 16
_NUMBER_BYTES = 8
_TAG_BYTES = 32
_KEY_BYTES = 32
_CONTENT = struct.Struct(">d152p")
"""Seconds since the loop ran, and where it is blocked."""

SIZE = _ID_BYTES + _NUMBER_BYTES + _CONTENT.size + _TAG_BYTES
"""Bytes of each beat, so that the size tells nothing."""

MAX_SECONDS = 366 * 86400.0
"""A beat that says that the loop has not run for longer is dropped."""


class Beat(NamedTuple):
    """What a beat says."""

    number: int
    seconds: float
    """How long the loop has not run; 0.0: it runs."""
    where: str
    """The file, line and function that block it; empty if the peer may not see that, or it is not known."""


def derive(secret: bytes, sender: Lines, receiver: Lines, salt: str) -> bytes:
    """Return the key of the beats from one side of a connection to the other.

    Args:
        secret: With which the sender proved itself; empty if TLS did.
        sender: The lines of its greeting.
        receiver: Those of the other side.
        salt: What the receiver sent over the link.
    """
    # An auth token signs four lines, and this six: neither can be taken for the other.
    text = signed_text(sender, receiver) + b"beats\n" + salt.encode() + b"\n"
    return hmac.new(secret, text, hashlib.sha3_512).digest()


class BeatKey:
    """The keys of one direction of one connection.

    Args:
        key: From :func:`derive`.
    """

    def __init__(self, key: bytes) -> None:
        bytes_ = hashlib.shake_256(key).digest(_ID_BYTES + 2 * _KEY_BYTES)
        self.id = bytes_[:_ID_BYTES]
        """What beats of this key begin with."""
        self._cover_key = bytes_[_ID_BYTES:-_KEY_BYTES]
        self._tag_key = bytes_[-_KEY_BYTES:]

    def seal(self, beat: Beat) -> bytes:
        """Return a beat as a datagram. Use each number once."""
        number = beat.number.to_bytes(_NUMBER_BYTES, "big")
        content = _CONTENT.pack(beat.seconds, beat.where.encode("utf-8", "replace"))  # which cuts it
        body = self.id + number + self._covered(number, content)
        return body + self._tag(body)

    def open(self, datagram: bytes) -> Beat | None:
        """Return the beat in a datagram that begins with this key's ID; None if it is forged or broken."""
        body, tag = datagram[:-_TAG_BYTES], datagram[-_TAG_BYTES:]
        if len(datagram) != SIZE or not hmac.compare_digest(self._tag(body), tag):
            return None
        number = body[_ID_BYTES : _ID_BYTES + _NUMBER_BYTES]
        seconds, where = _CONTENT.unpack(self._covered(number, body[_ID_BYTES + _NUMBER_BYTES :]))
        if not 0 <= seconds <= MAX_SECONDS:
            return None
        return Beat(int.from_bytes(number, "big"), seconds, where.decode("utf-8", "replace"))

    def _tag(self, body: bytes) -> bytes:
        # Not hmac.digest(), which releases the GIL: if another thread forks then, the child has OpenSSL's locks held.
        return hmac.new(self._tag_key, body, "sha256").digest()

    def _covered(self, number: bytes, content: bytes) -> bytes:
        """Cover a content, or uncover it."""
        cover = hashlib.shake_256(self._cover_key + number).digest(len(content))
        return (int.from_bytes(cover, "big") ^ int.from_bytes(content, "big")).to_bytes(len(content), "big")


def id_of(datagram: bytes) -> bytes:
    """Return the ID of the key that a datagram claims."""
    return datagram[:_ID_BYTES]
