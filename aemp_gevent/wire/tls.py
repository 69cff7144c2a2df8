# SPDX-License-Identifier: MIT
"""TLS without sockets: bytes in, plaintext and bytes out.

A :class:`Tls` is one side of one connection; :mod:`~.credentials` makes it. Both sides present a certificate, and
both verify the other's.

Not here: the versions and ciphers that are allowed, and how certificates are verified (:mod:`~.credentials`);
which side is the client, and when TLS is due (:mod:`aemp_gevent.wire.handshake`);
how plaintext is counted, cut and sent (:mod:`aemp_gevent.transport.tls_transport`). The clock
that certificates expire by is OpenSSL's own.
"""

from __future__ import annotations

import re

from OpenSSL import SSL

from aemp_gevent.errors import TlsError

from .certified_names import UNREADABLE, names_of

MAX_HANDSHAKE_BYTES = 24 * 1024
"""The most bytes from a peer until TLS is up. A chain of four certificates with RSA keys of 4096 bits is 8 KiB. More
would let strangers fill our memory: a connection takes about 100 KiB even so, mostly in OpenSSL, which keeps a message
until it is complete."""

_PIECE_BYTES = 4 * 1024
"""The bytes of these that OpenSSL gets at once: its buffer grows with its content, and never shrinks."""

MAX_ANSWER_BYTES = 16 * 1024
"""The most bytes that a peer can make us answer between two messages of ours: 600 changes of keys. One is needed
only after 300 GiB."""

_RECORD_BYTES = 16 * 1024  # of plaintext; the most that a TLS record may hold
_OVERHEAD_BYTES = 64  # of a record; 22 in TLS 1.3, and some more for what else may be waiting


class Tls:
    """One side of one TLS connection, fed with what comes.

    Made by :meth:`~aemp_gevent.wire.credentials.Credentials.connect`.
    The order of use: :meth:`start`, then :meth:`receive` and :meth:`take` until :attr:`is_up`;
    then :meth:`receive` for what comes and :meth:`encrypt` for what goes, and :meth:`finish`
    when nothing more goes. After an error only :attr:`last_words` means anything.
    """

    def __init__(self, context: SSL.Context, *, is_client: bool, is_shared: bool) -> None:
        self.is_client = is_client
        self.is_up = False
        """Whether TLS is up: both sides' certificates are verified, as far as this side knows."""
        self.has_ended = False
        """Whether the peer said that it sends nothing more."""
        self.last_words = b""
        """After an error: the alert to be sent to the peer."""
        self._is_shared = is_shared
        self._faults: list[tuple[int, int]] = []
        self._shaken_bytes = 0
        self._overhead = 0  # bytes received that were not plaintext, since the answers were last checked
        self._answers = b""  # not taken yet
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(self._faults)
        if is_client:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    def __repr__(self) -> str:
        return f"<Tls {'client' if self.is_client else 'server'}{', up' if self.is_up else ''}>"

    @property
    def protocol(self) -> str:
        """The version and the cipher agreed on, such as ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
        return f"{self._connection.get_protocol_version_name()} {self._connection.get_cipher_name()}"

    @property
    def names(self) -> tuple[str, ...] | None:
        """The node IDs that the peer's certificate is for; None when all nodes share one certificate."""
        if self._is_shared:
            return None
        try:
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
            return () if certificate is None else names_of(certificate)
        except UNREADABLE:
            return ()

    def start(self) -> bytes:
        """Return the bytes to send first; the server has none yet."""
        self._shake()
        return self.take()

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take bytes that the peer sent, cut anywhere, and return their plaintext.

        What follows the peer's end is ignored. Until TLS is up, and after the call in which it comes
        up, :meth:`take` returns the answer to send.

        Raises:
            TlsError: One side does not trust the other's certificate, or the bytes are not TLS.
        """
        if self.has_ended or not data:
            return b""
        if not self.is_up:
            data = self._shake_with(data)
            if not self.is_up:
                return b""
        if data:
            self._connection.bio_write(data)
        plain = self._decrypt()
        self._overhead += len(data) - len(plain)
        if self._overhead > MAX_ANSWER_BYTES:  # an answer is at most as long as what it answers
            self._check_answers()
        return plain

    def _shake_with(self, data: bytes | memoryview) -> bytes | memoryview:
        """Take the bytes of the handshake, and return the rest, of which OpenSSL may have a part already."""
        while data and not self.is_up:
            piece, data = data[:_PIECE_BYTES], data[_PIECE_BYTES:]
            self._shaken_bytes += len(piece)
            if self._shaken_bytes > MAX_HANDSHAKE_BYTES:
                raise TlsError(f"TLS is not up after {MAX_HANDSHAKE_BYTES} bytes")
            self._connection.bio_write(piece)
            self._shake()
        return data

    def _shake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise self._failed(error) from None
        self.is_up = True

    def _decrypt(self) -> bytes:
        pieces: list[bytes] = []
        receive = self._connection.recv
        try:
            while True:
                pieces.append(receive(_RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.has_ended = True
        except SSL.Error as error:
            raise self._failed(error) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_answers(self) -> None:
        """Check that a peer does not make us keep too many answers (to new keys, in TLS 1.3).

        They leave with our next message, which may take long if the peer reads nothing.

        Raises:
            TlsError: There are too many.
        """
        self._overhead = 0
        self._answers = self.take()
        if len(self._answers) > MAX_ANSWER_BYTES:
            raise TlsError("the peer changes keys too often")

    def take(self, expected_bytes: int = 8 * 1024) -> bytes:
        """Return all bytes to send that were not returned yet."""
        pieces: list[bytes] = [self._answers] if self._answers else []
        self._answers = b""
        try:
            while True:
                piece = self._connection.bio_read(expected_bytes)
                pieces.append(piece)
                if len(piece) < expected_bytes:  # reading once more would cost an exception
                    break
        except SSL.WantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return plaintext encrypted, in as few records as possible."""
        send = self._connection.send
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += send(view[sent : sent + _RECORD_BYTES])
        return self.take(len(data) + _OVERHEAD_BYTES * (len(data) // _RECORD_BYTES + 2))

    def finish(self) -> bytes:
        """End our side, while the peer may keep sending. Return the bytes to send for that."""
        self._connection.shutdown()
        return self.take()

    def _failed(self, error: SSL.Error) -> TlsError:
        self.last_words = self.take()
        if self._faults:
            fault, depth = self._faults[0]
            which = "the peer's certificate" if depth == 0 else "the certificate of the CA that issued the peer's"
            return TlsError(f"{which} is refused: {_FAULTS.get(fault, f'OpenSSL calls it X509_V_ERR {fault}')}")
        return TlsError(_explain(reason_of(error)))


# --- what OpenSSL reports, in words for the log ------------------------------

# X509_V_ERR_…: man X509_STORE_CTX_get_error.
_FAULTS = {
    2: "the certificate of the CA that issued it is not known here",
    7: "its signature is wrong",
    9: "it is not valid yet; are the clocks right?",
    10: "it has expired; issue a new one",
    18: "it is self-signed, and different from ours",
    19: "the CA at the end of its chain is not trusted here",
    20: "the certificate of the CA that issued it is not known here",
    21: "the certificate of the CA that issued it is not known here",
    23: "it was revoked",
    24: "it is used as a CA's certificate, and is not one",
    26: "it is not made for this: its key usage must be both serverAuth and clientAuth",
    66: "its key is too short",
    67: "a CA's key is too short",
    68: "it is signed with a weak hash",
    79: "it is used as a CA's certificate, and is not one",
}

_ALERT = re.compile(r"\S+ alert (.+)")

_REASONS = {
    "wrong version number": "the peer sent something other than TLS",
    "data length too long": "the peer sent something other than TLS",
    "packet length too long": "the peer sent something other than TLS",
    "http request": "the peer sent HTTP instead of TLS",
    "https proxy request": "the peer sent HTTP instead of TLS",
    "record layer failure": "the peer sent something other than TLS",
    "peer did not return a certificate": "the peer has no certificate",
    "unsupported protocol": "the peer supports neither TLS 1.2 nor TLS 1.3",
    "no shared cipher": "both sides have no cipher in common",
    "decryption failed or bad record mac": "data was changed on its way",
    "unexpected eof while reading": "the peer ended the connection",
    "ZeroReturnError": "the peer ended TLS before it was up",
}


def reason_of(error: Exception) -> str:
    """Return OpenSSL's first reason: the others follow from it."""
    for detail in error.args[0] if error.args and isinstance(error.args[0], list) else ():
        if isinstance(detail, tuple) and detail[-1]:
            return str(detail[-1])
    return str(error) or type(error).__name__


def _explain(reason: str) -> str:
    alert = _ALERT.fullmatch(reason)
    if alert:
        return f"the peer ended TLS: {alert[1]} (its log says more)"
    return _REASONS.get(reason, f"TLS failed: {reason}")
