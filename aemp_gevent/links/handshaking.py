# SPDX-License-Identifier: MIT
"""A connection until both sides are authenticated, and its end: greetings, TLS if both have it, auth lines.

What is sent, and in which order, is decided in :mod:`aemp_gevent.wire.handshake`; this module feeds that with
bytes and time. Once the connection is up, :class:`~aemp_gevent.links.link.Link` sends packets over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from aemp_gevent.errors import RemoteProtocolError, TlsError
from aemp_gevent.links.node_state import UP, NodeState
from aemp_gevent.links.second_path import SecondPath
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.transport.datagrams import Ends
from aemp_gevent.transport.tls_transport import TlsTransport
from aemp_gevent.transport.transport import Sink, Transport
from aemp_gevent.wire.beats import BeatKey
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import Event, PeerGreeted, TlsDue

if TYPE_CHECKING:
    from aemp_gevent.wire.tls import Tls

MakeTls = Callable[[bool], "Tls"]
"""Makes one side of a TLS connection, the client's or the server's."""


class Handshaking(Sink):
    """What a link does before it is up, and when it ends.

    Args:
        transport: The connection, not started.
        handshake: A fresh one, made of our greeting.
        scheduler: Whose hub keeps the time.
        make_tls: For a handshake that offers TLS.
        refusals: Where refusals of peers are counted; None: for this link alone.
    """

    __slots__ = (
        "__weakref__",
        "_handshake",
        "_make_tls",
        "_other_writes",
        "_refusals",
        "_scheduler",
        "_secure",
        "_timer",
        "beats",
        "closed",
        "is_refused",
        "is_up",
        "peer_nonce",
        "proved",
        "received",
        "second_path",
        "state",
        "transport",
        "up_since",
        "why",
    )

    def __init__(
        self,
        transport: Transport,
        handshake: Handshake,
        scheduler: Scheduler,
        make_tls: MakeTls | None,
        refusals: Counter[str] | None,
    ) -> None:
        self.transport = transport
        self.peer_nonce = ""
        self.proved = False
        """Whether our auth line was sent: the peer may be up with us from then on."""
        self.is_up = False
        self.up_since = 0.0
        """When the link came up, on the monotonic clock."""
        self.closed = False
        self.is_refused = False
        """Whether it failed because of what the peer sent, or did not send in time."""
        self.why = ""
        """Why it failed; ``""``: it has not."""
        self.received = 0
        """Bytes that came, from the first of the greeting on; what TLS adds to them does not count."""
        self.state: NodeState = UP
        """Whether the peer is blocked, once the link is up."""
        self.second_path: SecondPath | None = None
        """How the peers show each other that they are blocked."""
        self.beats = 0
        """How many beats came over the second path."""
        self._other_writes = 0  # to the transport, of what is not a packet
        self._handshake = handshake
        self._scheduler = scheduler
        self._make_tls = make_tls
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._secure: TlsTransport | None = None
        self._timer: int | None = None

    # --- what the link does about it ---

    def _greeted(self) -> None:
        """Decide about a peer that has greeted."""
        raise NotImplementedError

    def _came_up(self, leftover: bytes | memoryview) -> None:
        """Begin to send and to receive packets, the first of which came with the auth line."""
        raise NotImplementedError

    def _take_behind(self, data: bytes | memoryview) -> None:
        """Take what came in the same read as the auth line."""
        raise NotImplementedError

    def _failed(self, why: str) -> None:
        """Take note that the connection failed, and is closed."""
        raise NotImplementedError

    # --- what is known of the peer ---

    @property
    def greeting(self) -> Greeting | None:
        """What the peer says it is; None before it has greeted."""
        return self._handshake.peer

    @property
    def incarnation(self) -> str:
        """Which process of its node the peer is; ``""`` for peers that do not say so."""
        return (self.greeting.uniq if self.greeting else None) or ""

    @property
    def protection(self) -> str:
        """The TLS version and cipher; ``""`` while nothing is encrypted."""
        return self._secure.protocol if self._secure is not None else ""

    @property
    def auth_method(self) -> str:
        """How we proved ourselves."""
        return self._handshake.send_method

    @property
    def was_cut(self) -> bool:
        """Whether the connection ended while TLS was coming up, or up, without a fault of either side."""
        return self._secure is not None and self._secure.was_cut

    @property
    def is_identified(self) -> bool:
        """Whether a certificate proved that the peer may have the node ID it says."""
        return self._handshake.is_identified

    @property
    def arrived(self) -> int:
        """Bytes that came, also those of half a TLS record, which ``received`` does not count."""
        return self.received if self._secure is None else self._secure.arrived

    @property
    def heard(self) -> int:
        """A number that grows with everything that comes, over the second path, too."""
        return self.arrived + self.beats

    @property
    def ends(self) -> Ends | None:
        """Where datagrams between its two processes go; None if that is not known."""
        return self.transport.ends

    def beat_key(self, salt: str, *, of_peer: bool) -> BeatKey:
        """Return the keys of the beats from us to the peer, or from the peer to us."""
        return self._handshake.beat_key(salt, of_peer=of_peer)

    # --- the handshake ---

    def start(self, timeout: float) -> None:
        """Greet, and fail unless everything is settled within ``timeout`` seconds."""
        self._timer = self._scheduler.start_timer(timeout, self._too_slow, timeout)
        self.transport.start(self)
        self._other_writes = 1
        self.transport.write(self._handshake.start())

    def _too_slow(self, timeout: float) -> None:
        self.refuse("tls" if self._is_securing else "handshake", f"no handshake within {timeout} s")

    def prove(self) -> None:
        """Send our auth line."""
        self.proved = True
        self._other_writes += 1
        self.transport.write(self._handshake.prove())
        self._check_open()

    def _shake(self, data: bytes | memoryview) -> None:
        # In pieces: a peer that has proved nothing must not choose how much of a read is copied.
        was_secure = self._secure is not None
        for begin in range(0, len(data), MAX_LINE_BYTES):
            rest = data[begin + MAX_LINE_BYTES :]
            self._shake_piece(bytes(data[begin : begin + MAX_LINE_BYTES]))
            if self.closed:
                return
            if self.is_up:
                self._take_behind(rest)
                return
            if self._secure is not None and not was_secure:
                self._begin_with(rest)
                return

    def _shake_piece(self, data: bytes) -> None:
        try:
            events = self._handshake.receive(data)
        except RemoteProtocolError as error:
            self.refuse("tls" if isinstance(error, TlsError) else "handshake", error)
            return
        self._act_on(events)
        self._check_open()

    def _act_on(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, PeerGreeted):
                self.peer_nonce = event.nonce.decode("latin-1")
                self._greeted()
            elif isinstance(event, TlsDue):
                self._begin_tls(is_client=event.is_client)

    def _begin_tls(self, *, is_client: bool) -> None:
        """Send everything from here on through TLS, beginning with what came behind the greeting."""
        assert self._make_tls is not None  # our greeting offers TLS
        rest = self._handshake.take_rest()
        hub = self._scheduler.hub
        self._secure = TlsTransport(self.transport, self._make_tls(is_client), hub, self._secured)
        self.transport = self._secure
        self._other_writes = 0
        self._secure.start(self)
        self._begin_with(rest)

    def _begin_with(self, data: bytes | memoryview) -> None:
        """Take what came in one read with the greeting, and belongs to TLS."""
        assert self._secure is not None  # it has just begun
        self.received -= len(data)
        if not self.closed:
            self._secure.on_data(data)

    def _secured(self, names: tuple[str, ...] | None) -> None:
        try:
            events = self._handshake.secured(names)
        except RemoteProtocolError as error:
            self.refuse("tls", error)
            return
        self._act_on(events)

    @property
    def _is_securing(self) -> bool:
        return self._secure is not None and not self.is_up

    def _check_open(self) -> None:
        if self.closed or self.is_up or not self._handshake.is_open:
            return
        self._stop_timers()
        self.is_up = True
        self.up_since = monotonic()
        self._came_up(self._handshake.leftover)

    # --- the end ---

    def _ended_early(self) -> None:
        """Fail, as the peer shut its sending side before the link was up."""
        what = "secret" if self._secure is None else "secret or certificate"
        self.fail(
            f"the peer closed the connection during the handshake; does it use a different {what}, or do more nodes "
            "connect to it at once than its max_strangers_per_address allows?"
        )

    def on_broken(self, why: str) -> None:
        if self._is_securing and self._secure is not None:
            if self._secure.has_failed:
                self.refuse("tls", why)
                return
            if self.protection:
                why += "; or it refused this node, and its log says why"
        self.fail(why)

    def refuse(self, what: str, why: object) -> None:
        """Fail because of what the peer sent, or did not send, and count that as ``what``. Idempotent."""
        if not self.closed:
            self.is_refused = True
            self._refusals[what] += 1
            self.fail(str(why))

    def fail(self, why: str) -> None:
        """Close the connection because of ``why``, and report that to the owner. Idempotent."""
        if not self.closed:
            self.why = why
            see_through(self._fail, why)

    def _fail(self, why: str) -> None:
        if self.is_up:
            self.abort()
        else:
            self.close()  # no message can be lost
        self._failed(why)

    def close(self) -> None:
        """Close without reporting it to the owner. Idempotent."""
        self._end()
        self.transport.close()

    def abort(self) -> None:
        """Close with a reset, from which the peer sees that something was lost; the owner gets no report."""
        self._end()
        self.transport.abort()

    def abandon(self, *, watching: bool) -> None:
        """Close this process's copy of the connection, in a forked child; see :meth:`Transport.abandon`."""
        if watching:
            self._stop_timers()
        self.closed = True
        self.transport.abandon(watching=watching)

    def _end(self) -> None:
        self._stop_timers()
        self.closed = True

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._scheduler.end_timer(self._timer)
            self._timer = None
