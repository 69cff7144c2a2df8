# SPDX-License-Identifier: MIT
"""The two sides of a handshake, and what they send, for the tests of the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aemp_gevent.wire import auth
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import Event, PeerGreeted, TlsDue

Cut = Callable[[bytes], Iterator[bytes]]

SECRET = b"geheim"
METHOD = "hmac_sha3_512"
OURS = Greeting("a", (METHOD,), ("msgpack", "json"), (("provider", "aemp_gevent-0"),))
OUR_LINES = (OURS.encode(), b"nonce-a")
THEIRS = Greeting("b", ("tls_sha3_512", METHOD), ("cbor", "json", "msgpack"), (("uniq", "u"),))
THEIR_LINES = (THEIRS.encode(), b"nonce-b")
THEIR_GREETING = b"\n".join(THEIR_LINES) + b"\n"


def auth_line(
    *,
    method: str = METHOD,
    token: str | None = None,
    framing: str = "json",
    theirs: auth.Lines = THEIR_LINES,
    secret: bytes = SECRET,
) -> bytes:
    token = auth.hmac_token(secret, theirs, OUR_LINES) if token is None else token
    return f"{method};{token};{framing}\n".encode()


def started(greeting: Greeting = OURS, secret: bytes | None = SECRET) -> Handshake:
    handshake = Handshake(greeting, "nonce-a", secret)
    handshake.start()
    return handshake


def feed(handshake: Handshake, pieces: Iterator[bytes]) -> list[Event]:
    return [event for piece in pieces for event in handshake.receive(piece)]


TLS = "tls_sha3_512"
OURS_TLS = Greeting("a", (TLS, METHOD), ("msgpack", "json"), (("tls", "1.0"),))
THEIRS_TLS = Greeting("b", (TLS, METHOD), ("json",), (("tls", "1.3"),))
THEIR_TLS_GREETING = THEIRS_TLS.encode() + b"\nnonce-b\n"
TLS_LINES = (THEIRS_TLS.encode(), b"nonce-b"), (OURS_TLS.encode(), b"nonce-a")


def secured(greeting: Greeting = OURS_TLS, secret: bytes | None = None) -> Handshake:
    """A handshake inside of TLS that is up, with a peer that has the shared certificate."""
    handshake = started(greeting, secret)
    assert handshake.receive(THEIR_TLS_GREETING) == [TlsDue(is_client=True)]
    assert handshake.secured(None) == [PeerGreeted(THEIRS_TLS, b"nonce-b")]
    return handshake
