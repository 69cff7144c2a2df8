# SPDX-License-Identifier: MIT
r"""The handshake: from the first byte to the first packet, as a state table.

Both sides do the same, whoever dialled. Each sends its two greeting lines at
once; after the peer's two it sends one auth line; it is open when its own auth
line is sent and the peer's is verified::

    FRESH -> GREETING -> NONCE -> PROVING -> PROVED ----> OPEN
                                     \---> VERIFIED ----^

The two branches are the two orders in which the auth lines may cross. We choose
when ours is due: :meth:`Handshake.prove` is a call of its own, because whoever
owns the connection looks at the peer's node ID first, and may hold the line back
or hang up (two links at once: :mod:`aemp_gevent.peer`).

Everything a peer can do wrong raises :class:`~aemp_gevent.errors.GreetingError`
(its first two lines) or :class:`~aemp_gevent.errors.AuthenticationError` (what
follows), and the object is useless from then on. Nothing it says before
it is verified has any effect but the answers prescribed here.

Not here: deadlines, closing, TLS, and duplicate connections. Read
:mod:`aemp_gevent.wire.greeting` and :mod:`aemp_gevent.wire.auth` for the lines.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from enum import Enum

from aemp_gevent.errors import AuthenticationError, GreetingError, LocalProtocolError, RemoteProtocolError

from . import auth
from .greeting import MAX_LINE_BYTES, Greeting, parse_greeting


class State(Enum):
    """How far a handshake has come."""

    FRESH = "nothing is sent yet"
    GREETING = "our lines are sent, the peer's greeting line is due"
    NONCE = "the peer's greeting line is read, its nonce is due"
    PROVING = "both sides have greeted, neither has proved anything"
    PROVED = "our auth line is sent, the peer's is due"
    VERIFIED = "the peer's auth line is verified, ours is not sent"
    OPEN = "both sides know whom they talk to"
    FAILED = "the peer broke the rules"


@dataclass(frozen=True)
class Started:
    """Our two greeting lines are under way."""


@dataclass(frozen=True)
class GreetingRead:
    """The peer's greeting line can be read. Not yet told to anybody: the nonce is missing."""


@dataclass(frozen=True)
class PeerGreeted:
    """The peer's two lines are there, and we are willing to talk to it.

    Nothing is proved: anybody can claim any node ID.
    """

    greeting: Greeting
    nonce: bytes


@dataclass(frozen=True)
class Proved:
    """Our auth line is under way."""


@dataclass(frozen=True)
class PeerProved:
    """The peer knows the secret; its packets will come in this framing."""

    method: str
    framing: str


@dataclass(frozen=True)
class Refused:
    """The peer broke the rules, or has nothing in common with us."""


Move = Started | GreetingRead | PeerGreeted | Proved | PeerProved | Refused
Event = PeerGreeted | PeerProved

# Every rule that changes the state. An undefined move is a missing key.
TRANSITIONS: dict[State, dict[type[Move], State]] = {
    State.FRESH: {Started: State.GREETING},
    State.GREETING: {GreetingRead: State.NONCE, Refused: State.FAILED},
    State.NONCE: {PeerGreeted: State.PROVING, Refused: State.FAILED},
    State.PROVING: {Proved: State.PROVED, PeerProved: State.VERIFIED, Refused: State.FAILED},
    State.PROVED: {PeerProved: State.OPEN, Refused: State.FAILED},
    # A peer may send data only once it verified *us*: here it cannot have.
    State.VERIFIED: {Proved: State.OPEN, Refused: State.FAILED},
    State.OPEN: {},
    State.FAILED: {},
}

# Which kind of line each state reads, and thereby whose fault a bad one is.
_GREETING_STATES = frozenset({State.GREETING, State.NONCE})
_AUTH_STATES = frozenset({State.PROVING, State.PROVED})

# States in which a peer can still do wrong, that is, in which we listen to it.
_LISTENING_STATES = frozenset(state for state, moves in TRANSITIONS.items() if Refused in moves)


class Handshake:
    """One side of one handshake.

    Args:
        greeting: Ours. Its lists are what we accept: a peer has to prove itself
            by one of these methods, and both directions use one of these framings.
        nonce: Ours: random, new for each connection, without line ends.
        secret: The secret all nodes share; None if there is none.

    Raises:
        LocalProtocolError: These cannot be sent: a line too long or broken, or a
            secret so empty that everybody knows it.

    Source:
        PROTOCOL.md, sections 1 and 3.
    """

    def __init__(self, greeting: Greeting, nonce: str, secret: bytes | None) -> None:
        self._greeting = greeting
        self._lines: auth.Lines = (greeting.encode(), nonce.encode())
        self._secret = secret
        self._state = State.FRESH
        self._buffer = b""
        self._peer_lines: auth.Lines = (b"", b"")
        self._peer: Greeting | None = None
        self._send_method = ""
        self._send_framing: str | None = None
        self._receive_framing: str | None = None
        for line in self._lines:
            if not line or b"\r" in line or b"\n" in line or len(line) >= MAX_LINE_BYTES:
                raise LocalProtocolError("a greeting line of ours is empty, too long, or has a line end in it")
        if secret is not None and not secret:
            raise LocalProtocolError("an empty secret proves nothing; pass None if there is none")

    def __repr__(self) -> str:
        # Written by hand: a generated one would print the secret.
        peer = self._peer.node if self._peer else None
        return f"<{type(self).__name__} {self._greeting.node!r} with {peer!r}: {self._state.name}>"

    @property
    def state(self) -> State:
        """How far this handshake has come."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether our auth line is sent and the peer's is verified."""
        return self._state is State.OPEN

    @property
    def peer(self) -> Greeting | None:
        """What the peer says it is, once it has greeted; proved only when its auth line is verified."""
        return self._peer

    @property
    def send_framing(self) -> str | None:
        """The framing we shall send: the first of the peer's that we know; None before it has greeted."""
        return self._send_framing

    @property
    def receive_framing(self) -> str | None:
        """The framing the peer will send; None before its auth line is verified."""
        return self._receive_framing

    @property
    def leftover(self) -> bytes:
        """What came behind the peer's auth line: the first bytes for the decoder.

        Empty while the handshake is not open. Not consumed by reading.
        """
        return self._buffer if self.is_open else b""

    def start(self) -> bytes:
        """Return our two lines, to be sent at once, without waiting for the peer's."""
        self._move(Started)
        return b"".join(line + b"\n" for line in self._lines)

    def receive(self, data: bytes) -> list[Event]:
        """Take what the peer sent, cut however it comes, and return what it means.

        Not to be called any more once the handshake is open: what follows goes to
        the decoder, after :attr:`leftover`. If bytes that mean something are
        followed by bytes that are refused, only the refusal is reported;
        :attr:`peer` still tells who it was.

        Raises:
            GreetingError: The peer's greeting is broken, or we refuse it.
            AuthenticationError: The peer has not proved itself.
            LocalProtocolError: The handshake has not started, is open, or has failed.
        """
        if self._state not in _LISTENING_STATES:
            raise LocalProtocolError(f"the handshake takes no bytes now: {self._state.value}")
        self._buffer += data
        try:
            return self._read_lines()
        except RemoteProtocolError:
            self._move(Refused)
            # Nothing of it is needed any more, and a stranger's bytes need not wait for the collector.
            self._buffer = b""
            raise

    def prove(self) -> bytes:
        """Return our auth line, to be sent now.

        Due any time after :class:`PeerGreeted`, once, before or after the peer's.

        Raises:
            LocalProtocolError: The peer has not greeted yet, or this was called before.
        """
        # Moving first checks that the call is due; nothing below can fail.
        self._move(Proved)
        assert self._secret is not None  # _choose_method found a method, and all need it
        token = auth.make_token(self._send_method, self._secret, self._lines, self._peer_lines)
        return f"{self._send_method};{token};{self._send_framing}\n".encode()

    # --- reading -------------------------------------------------------------

    def _move(self, move: type[Move]) -> None:
        try:
            self._state = TRANSITIONS[self._state][move]
        except KeyError:
            raise LocalProtocolError(f"{move.__name__} is not possible now: {self._state.value}") from None

    def _read_lines(self) -> list[Event]:
        events: list[Event] = []
        while self._state in _GREETING_STATES or self._state in _AUTH_STATES:
            line = self._next_line()
            if line is None:
                return events
            if self._state is State.GREETING:
                self._read_greeting(line)
            elif self._state is State.NONCE:
                events.append(self._read_nonce(line))
            else:
                events.append(self._read_proof(line))
        if self._state is State.VERIFIED and self._buffer:
            raise AuthenticationError("the peer sent data before it could have verified us")
        return events

    def _next_line(self) -> bytes | None:
        """Take one line off the buffer, without its end; None if it is not complete."""
        end = self._buffer.find(b"\n", 0, MAX_LINE_BYTES)
        if end < 0:
            # As many bytes as a line may have, and its end is not among them.
            if len(self._buffer) >= MAX_LINE_BYTES:
                fault = GreetingError if self._state in _GREETING_STATES else AuthenticationError
                raise fault(f"the peer sent a line of more than {MAX_LINE_BYTES} bytes")
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line[:-1] if line.endswith(b"\r") else line

    def _read_greeting(self, line: bytes) -> None:
        self._peer = parse_greeting(line)
        self._peer_lines = (line, b"")
        self._move(GreetingRead)

    def _read_nonce(self, nonce: bytes) -> PeerGreeted:
        greeting = self._peer
        assert greeting is not None  # the state NONCE implies it
        self._peer_lines = (self._peer_lines[0], nonce)
        if self._peer_lines == self._lines:
            raise GreetingError("the peer sends our own lines back: an echo attack")
        if greeting.node == self._greeting.node:
            raise GreetingError(f"I refuse to talk to myself ({greeting.node!r})")
        if not nonce:
            raise GreetingError("the peer's nonce is empty")
        self._send_method = self._choose_method(greeting)
        self._send_framing = self._choose_framing(greeting)
        self._move(PeerGreeted)
        return PeerGreeted(greeting, nonce)

    def _choose_method(self, peer: Greeting) -> str:
        # Every method so far needs the secret; without one we can prove nothing.
        sendable = auth.METHODS if self._secret is not None else {}
        for method in peer.auth_methods:
            if method in sendable:
                return method
        theirs = reprlib.repr(peer.auth_methods)
        raise GreetingError(f"no common auth method: {peer.node!r} accepts {theirs}, and we can send {list(sendable)}")

    def _choose_framing(self, peer: Greeting) -> str:
        for framing in peer.framings:
            if framing in self._greeting.framings:
                return framing
        theirs, ours = reprlib.repr(peer.framings), self._greeting.framings
        raise GreetingError(f"no common framing: {peer.node!r} understands {theirs}, and we {ours}")

    def _read_proof(self, line: bytes) -> PeerProved:
        # The line never shows up in an error: with 'cleartext' it is the secret.
        fields = line.split(b";")
        if len(fields) != 3:
            raise AuthenticationError(f"the peer's auth line has {len(fields)} fields, not 3")
        method = self._accepted(fields[0], self._greeting.auth_methods, "auth method")
        framing = self._accepted(fields[2], self._greeting.framings, "framing")
        if method not in auth.METHODS or self._secret is None:
            raise AuthenticationError(f"the peer proves itself with {method!r}, which we cannot verify")
        if not auth.verify(method, fields[1], self._secret, self._peer_lines, self._lines):
            raise AuthenticationError("the peer's token is wrong: it has another secret, or somebody is in between")
        self._receive_framing = framing
        self._move(PeerProved)
        return PeerProved(method, framing)

    def _accepted(self, word: bytes, accepted: tuple[str, ...], what: str) -> str:
        for choice in accepted:
            if choice.encode() == word:
                return choice
        raise AuthenticationError(f"the peer chose the {what} {reprlib.repr(word)}, and we accept only {accepted}")
