# SPDX-License-Identifier: MIT
"""The states of a handshake, and the table of the moves between them.

:mod:`~.handshake` moves by this table only; the picture in docs/reference/wire.md is drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .greeting import Greeting


class State(Enum):
    """How far a handshake has come."""

    FRESH = "nothing is sent yet"
    GREETING = "our lines are sent, the peer's greeting line is due"
    NONCE = "the peer's greeting line is read, its nonce is due"
    SECURING = "both sides have greeted, and TLS is not up"
    PROVING = "both sides have greeted, neither has proved that it knows the secret"
    PROVED = "our auth line is sent, the peer's is due"
    VERIFIED = "the peer's auth line is verified, ours is not sent"
    OPEN = "both sides are authenticated"
    FAILED = "the peer broke the rules"


@dataclass(frozen=True)
class Started:
    """Our two greeting lines were sent."""


@dataclass(frozen=True)
class GreetingRead:
    """The peer's greeting line was read. Not reported yet, because the nonce is missing."""


@dataclass(frozen=True)
class TlsDue:
    """The peer's two lines were read, and what follows them, on both sides, is TLS.

    :meth:`~aemp_gevent.wire.handshake.Handshake.take_rest` returns the bytes that came behind them.

    Attributes:
        is_client: Whether we are the TLS client, which does not depend on which side dialled.
    """

    is_client: bool


@dataclass(frozen=True)
class PeerGreeted:
    """The peer's two lines were read and accepted, and TLS is up if both sides offer it.

    Without TLS nothing is proved: a stranger can claim any node ID.
    """

    greeting: Greeting
    nonce: bytes


@dataclass(frozen=True)
class Proved:
    """Our auth line was sent."""


@dataclass(frozen=True)
class PeerProved:
    """The peer has proved itself; its packets will come in this framing."""

    method: str
    framing: str


@dataclass(frozen=True)
class Refused:
    """The peer broke the rules, or has nothing in common with us."""


Move = Started | GreetingRead | TlsDue | PeerGreeted | Proved | PeerProved | Refused
Event = TlsDue | PeerGreeted | PeerProved

# Every rule that changes the state. An undefined move is a missing key.
TRANSITIONS: dict[State, dict[type[Move], State]] = {
    State.FRESH: {Started: State.GREETING},
    State.GREETING: {GreetingRead: State.NONCE, Refused: State.FAILED},
    State.NONCE: {TlsDue: State.SECURING, PeerGreeted: State.PROVING, Refused: State.FAILED},
    State.SECURING: {PeerGreeted: State.PROVING, Refused: State.FAILED},
    State.PROVING: {Proved: State.PROVED, PeerProved: State.VERIFIED, Refused: State.FAILED},
    State.PROVED: {PeerProved: State.OPEN, Refused: State.FAILED},
    # A peer may send data only after it has verified *us*, which it cannot have done here.
    State.VERIFIED: {Proved: State.OPEN, Refused: State.FAILED},
    State.OPEN: {},
    State.FAILED: {},
}
