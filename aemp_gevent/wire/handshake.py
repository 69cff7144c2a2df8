# SPDX-License-Identifier: MIT
r"""The handshake of one side of a connection: from the first byte to the first packet.

Both sides do the same, whichever of them dialled. Each sends its two greeting lines at
once; after the peer's two it sends one auth line; it is open when its own auth
line is sent and the peer's is verified::

    FRESH -> GREETING -> NONCE -------------> PROVING -> PROVED ----> OPEN
                           \---> SECURING ----^  \---> VERIFIED ----^

If both greetings offer TLS, everything behind them goes through it: the owner of the
connection gets :class:`TlsDue`, and calls :meth:`Handshake.secured` once TLS is up. Until
then the peer does not count as having greeted.

The two branches are the two orders in which the auth lines may cross. The owner of
the connection chooses when ours is sent: it calls :meth:`Handshake.prove`, because it
checks the peer's node ID first, and may hold the line back or hang up (two links at
once: :mod:`aemp_gevent.peers.peer`).

Every fault of a peer raises :class:`~aemp_gevent.errors.GreetingError` (its
first two lines), :class:`~aemp_gevent.errors.TlsError` (they do not offer TLS where it is
needed) or :class:`~aemp_gevent.errors.AuthenticationError` (what follows), and the
object is useless from then on. Until a peer is verified, nothing that it sends has any effect
except the answers prescribed here.

Not here: deadlines, closing, TLS itself (:mod:`aemp_gevent.wire.tls`), and duplicate
connections. Read :mod:`aemp_gevent.wire.greeting` and :mod:`aemp_gevent.wire.auth` for the lines.
"""

from __future__ import annotations

from collections.abc import Iterable

from aemp_gevent.errors import AuthenticationError, GreetingError, LocalProtocolError, RemoteProtocolError, TlsError
from aemp_gevent.runtime.quoting import quoted

from . import auth, beats
from .greeting import MAX_LINE_BYTES, Greeting, is_greeting_so_far, parse_greeting
from .handshake_states import (
    TRANSITIONS,
    Event,
    GreetingRead,
    Move,
    PeerGreeted,
    PeerProved,
    Proved,
    Refused,
    Started,
    State,
    TlsDue,
)

# The kind of line that each state reads, which decides the class of the error.
_GREETING_STATES = frozenset({State.GREETING, State.NONCE})
_AUTH_STATES = frozenset({State.PROVING, State.PROVED})

# States in which a peer can break the rules, that is, in which we read; but while TLS comes up,
# TLS reads.
_LISTENING_STATES = frozenset(state for state, moves in TRANSITIONS.items() if Refused in moves) - {State.SECURING}

_SHOWN = 200  # characters: most node IDs have fewer than 30


def is_name_of(name: str, node: str) -> bool:
    """Return whether a name in a certificate is valid for a node ID; with ``*`` at its end it is a prefix of IDs."""
    return node.startswith(name[:-1]) if name.endswith("*") else node == name


def _shown(node: str) -> str:
    """Return a stranger's node ID for the log, cut: it may have 4096 bytes."""
    return quoted(node, _SHOWN)


class Handshake:
    """One side of one handshake.

    Args:
        greeting: Ours. Its lists are what we accept: a peer has to prove itself
            by one of these methods, and both directions use one of these framings.
        nonce: Ours: random, new for each connection, without line ends.
        secret: The secret all nodes share, with which we prove ourselves; None if there is none.
        also_accepted: Other secrets that peers may prove themselves with, while the secret is changed.
        require_tls: Refuse a peer that offers no TLS.

    Our greeting says whether we offer TLS.

    Raises:
        LocalProtocolError: These cannot be sent: a line is too long or broken, or a
            secret is empty.

    Source:
        PROTOCOL.md, sections 1 to 3.
    """

    def __init__(
        self,
        greeting: Greeting,
        nonce: str,
        secret: bytes | None,
        *,
        also_accepted: Iterable[bytes] = (),
        require_tls: bool = False,
    ) -> None:
        self._greeting = greeting
        self._lines: auth.Lines = (greeting.encode(), nonce.encode())
        self._secret = secret
        self._secrets = (*(() if secret is None else (secret,)), *also_accepted)
        self._peer_secret = b""  # with which the peer proved itself
        self._require_tls = require_tls
        self._has_tls = False
        self._is_identified = False
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
        if not all(self._secrets):
            raise LocalProtocolError("an empty secret proves nothing; pass None if there is none")

    def __repr__(self) -> str:
        # Written by hand: a generated one would print the secret.
        peer = self._peer.node if self._peer else None
        return f"<{type(self).__name__} {quoted(self._greeting.node)} with {quoted(peer)}: {self._state.name}>"

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
        """The peer's greeting, once it has come; proved only when its auth line is verified."""
        return self._peer

    @property
    def is_identified(self) -> bool:
        """Whether a certificate proved the peer's node ID, instead of only that it belongs to the network."""
        return self._is_identified

    @property
    def send_method(self) -> str:
        """How we prove ourselves; ``""`` before the peer has greeted."""
        return self._send_method

    @property
    def send_framing(self) -> str | None:
        """The framing we will send: the first of the peer's that we know; None before it has greeted."""
        return self._send_framing

    @property
    def receive_framing(self) -> str | None:
        """The framing the peer will send; None before its auth line is verified."""
        return self._receive_framing

    @property
    def leftover(self) -> bytes:
        """The bytes behind the peer's auth line: the first ones for the decoder.

        Empty while the handshake is not open. Not consumed by reading.
        """
        return self._buffer if self.is_open else b""

    def start(self) -> bytes:
        """Return our two lines, to be sent at once, without waiting for the peer's."""
        self._move(Started)
        return b"".join(line + b"\n" for line in self._lines)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes that the peer sent, cut anywhere, and return their events.

        Do not call it once the handshake is open: what follows goes to
        the decoder, after :attr:`leftover`. If valid bytes are followed by bytes
        that are refused, only the refusal is reported; :attr:`peer` is still set.

        Raises:
            GreetingError: The peer's greeting is broken, or we refuse it.
            TlsError: It does not offer TLS, which is needed.
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
            # It is no longer needed, and a stranger's bytes must not wait for the collector.
            self._buffer = b""
            raise

    def take_rest(self) -> bytes:
        """Take the bytes behind the peer's greeting, which belong to TLS. Called once, after :class:`TlsDue`.

        Raises:
            LocalProtocolError: TLS is not due.
        """
        if self._state is not State.SECURING:
            raise LocalProtocolError(f"no TLS is due now: {self._state.value}")
        rest, self._buffer = self._buffer, b""
        return rest

    def secured(self, names: tuple[str, ...] | None) -> list[Event]:
        """Note that TLS is up, and return the events. From here on :meth:`receive` takes plaintext.

        Args:
            names: The node IDs that the peer's certificate is for, as :func:`is_name_of` reads them;
                None: all nodes share one certificate, which proves only that the peer has it.

        Raises:
            AuthenticationError: The certificate is another node's.
            LocalProtocolError: TLS was not due.
        """
        if self._state is not State.SECURING:
            raise LocalProtocolError(f"no TLS is due now: {self._state.value}")
        greeting = self._peer
        assert greeting is not None  # the state SECURING implies it
        if names is not None and not any(is_name_of(name, greeting.node) for name in names):
            self._move(Refused)
            shown = quoted(names) if names else "no node at all"
            raise AuthenticationError(
                f"the peer says that it is {_shown(greeting.node)}, and its certificate is for {shown}"
            )
        self._has_tls = True
        self._is_identified = names is not None
        return [self._greet(greeting)]

    def prove(self) -> bytes:
        """Return our auth line, to be sent now.

        Due any time after :class:`PeerGreeted`, once, before or after the peer's.

        Raises:
            LocalProtocolError: The peer has not greeted yet, or this was called before.
        """
        # Moving first checks that the call is due; nothing below can fail.
        self._move(Proved)
        token = auth.make_token(self._send_method, self._secret or b"", self._lines, self._peer_lines)
        return f"{self._send_method};{token};{self._send_framing}\n".encode()

    def beat_key(self, salt: str, *, of_peer: bool) -> beats.BeatKey:
        """Return the keys of the beats from us to the peer, or from the peer to us; see :mod:`aemp_gevent.wire.beats`.

        Args:
            salt: What the receiver of the beats sent over the link.
            of_peer: Whether the peer sends them.
        """
        if of_peer:
            return beats.BeatKey(beats.derive(self._peer_secret, self._peer_lines, self._lines, salt))
        secret = self._secret if self._send_method == auth.HMAC_METHOD else None
        return beats.BeatKey(beats.derive(secret or b"", self._lines, self._peer_lines, salt))

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
            if self._state is State.GREETING and not is_greeting_so_far(self._buffer):
                # TLS, for example: the line may never end, and we must not wait for that.
                raise GreetingError(f"the peer does not speak aemp: it begins with {quoted(self._buffer)}")
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line[:-1] if line.endswith(b"\r") else line

    def _read_greeting(self, line: bytes) -> None:
        self._peer = parse_greeting(line)
        self._peer_lines = (line, b"")
        self._move(GreetingRead)

    def _read_nonce(self, nonce: bytes) -> Event:
        greeting = self._peer
        assert greeting is not None  # the state NONCE implies it
        self._peer_lines = (self._peer_lines[0], nonce)
        if self._peer_lines == self._lines:
            raise GreetingError("the peer sends our own lines back: an echo attack")
        if greeting.node == self._greeting.node:
            raise GreetingError(f"a node cannot link to itself ({quoted(greeting.node)})")
        if not nonce:
            raise GreetingError("the peer's nonce is empty")
        tls_is_due = self._greeting.offers_tls and greeting.offers_tls
        if self._require_tls and not tls_is_due:
            raise TlsError(f"{_shown(greeting.node)} offers no TLS, which require_tls demands here")
        self._send_method = self._choose_method(greeting, has_tls=tls_is_due)
        self._send_framing = self._choose_framing(greeting)
        if not tls_is_due:
            return self._greet(greeting)
        if nonce == self._lines[1]:
            raise GreetingError("the peer's nonce is ours, so that neither side would be the TLS client")
        self._move(TlsDue)
        return TlsDue(is_client=self._lines[1] < nonce)

    def _greet(self, greeting: Greeting) -> PeerGreeted:
        self._move(PeerGreeted)
        return PeerGreeted(greeting, self._peer_lines[1])

    def _provable(self, *, has_tls: bool) -> list[str]:
        """Return the methods that prove something here: TLS's token only inside of TLS."""
        needs = {auth.TLS_METHOD: has_tls, auth.HMAC_METHOD: bool(self._secrets)}
        return [method for method in auth.METHODS if needs.get(method)]

    def _choose_method(self, peer: Greeting, *, has_tls: bool) -> str:
        sendable = self._provable(has_tls=has_tls)
        for method in peer.auth_methods:
            if method in sendable:
                return method
        node, theirs = _shown(peer.node), quoted(peer.auth_methods)
        if self._greeting.offers_tls and not has_tls:
            raise TlsError(f"{node} offers no TLS, and accepts {theirs}, of which we could send {sendable}")
        raise GreetingError(f"no common auth method: {node} accepts {theirs}, and we can send {sendable}")

    def _choose_framing(self, peer: Greeting) -> str:
        for framing in peer.framings:
            if framing in self._greeting.framings:
                return framing
        theirs, ours = quoted(peer.framings), self._greeting.framings
        raise GreetingError(f"no common framing: {_shown(peer.node)} understands {theirs}, and we {ours}")

    def _read_proof(self, line: bytes) -> PeerProved:
        # The line must never be in an error: with 'cleartext' it is the secret.
        fields = line.split(b";")
        if len(fields) != 3:
            raise AuthenticationError(f"the peer's auth line has {len(fields)} fields, not 3")
        method = self._accepted(fields[0], self._greeting.auth_methods, "auth method")
        framing = self._accepted(fields[2], self._greeting.framings, "framing")
        if method not in self._provable(has_tls=self._has_tls):
            raise AuthenticationError(f"the peer proves itself with {quoted(method)}, which we cannot verify")
        secrets = self._secrets if method == auth.HMAC_METHOD else (b"",)
        if not auth.verify_any(method, fields[1], secrets, self._peer_lines, self._lines):
            raise AuthenticationError(
                "the peer's token is wrong: it uses a different secret, or an attacker is in between"
            )
        if method == auth.HMAC_METHOD:
            proved = (each for each in secrets if auth.verify(method, fields[1], each, self._peer_lines, self._lines))
            self._peer_secret = next(proved, b"")
        self._receive_framing = framing
        self._move(PeerProved)
        return PeerProved(method, framing)

    def _accepted(self, word: bytes, accepted: tuple[str, ...], what: str) -> str:
        for choice in accepted:
            if choice.encode() == word:
                return choice
        raise AuthenticationError(f"the peer chose the {what} {quoted(word)}, and we accept only {accepted}")
