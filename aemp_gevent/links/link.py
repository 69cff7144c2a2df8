# SPDX-License-Identifier: MIT
"""One connection with another node: handshake, then packets in both directions.

A link glues a :class:`~aemp_gevent.transport.transport.Transport` to the sans-IO wire. It
delivers packets for ports itself, since that is the hot path; everything else it
tells its *owner*: who greeted, that it is up, what the node port is asked, how it
ended. What several links with the same node mean to each other is
:mod:`aemp_gevent.peers.peer`'s concern; read that next.

Everything here runs on the hub or in whatever greenlet sends; nothing here switches.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from aemp_gevent.errors import FramingError, RemoteProtocolError, TlsError
from aemp_gevent.ports.hub_thread import RETRY_SECONDS
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import repeated, see_through
from aemp_gevent.transport.tls_transport import TlsTransport
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire.framing import FRAMINGS, Decoder, Framing, check_packet, name_of_port
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import Event, PeerGreeted, TlsDue
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import AFTER, SPAWN, VIA

if TYPE_CHECKING:
    from aemp_gevent.wire.tls import Tls

MakeTls = Callable[[bool], "Tls"]
"""Makes one side of a TLS connection, the client's or the server's."""

SLICE_SECONDS = 0.0001
"""How long requests of one peer are handled before others have their turn. A loop's turn costs a tenth of
it, a request 2 to 70 microseconds, and there may be 30,000 in one read."""

JOBS_AT_ONCE = 8
"""How many jobs, such as functions to call, a peer's requests may queue before others have their turn."""


def _spawns(request: list[Any]) -> bool:
    """Return whether a request, which was handled, spawns a port, be it for a node behind the peer."""
    if request[:1] == [VIA] and request[-1].__class__ is list:
        request = request[-1]
    return SPAWN in request[:2]


class LinkOwner(Protocol):
    """Who is told what happens to a link. Called on the hub; must neither switch nor raise."""

    def greeted(self, link: Link) -> None:
        """The peer said who it is, and TLS is up if both have it: ``prove()`` or ``close()`` the link.

        Without TLS nothing is proved.
        """

    def came_up(self, link: Link) -> None:
        """Both sides are authenticated: packets may flow."""

    def requested(self, link: Link, message: list[Any]) -> None:
        """A packet for the node port came; ``message`` is without the port name."""

    def dropped(self, link: Link, name: str, message: list[Any]) -> None:
        """A packet came for a port that does not exist here; ``message`` is without the port name."""

    def begins(self, link: Link, packet: list[Any]) -> bool:
        """This is the first packet, and no ``after``; return whether it, and what follows, may be handled.

        Who returns True may have given the link another owner, but may not hold it.
        """
        ...

    def ended(self, link: Link) -> None:
        """The peer shut its sending side down, after everything it had sent."""

    def failed(self, link: Link, why: str) -> None:
        """The link is closed, and whatever was under way may be lost."""

    def has_room(self, link: Link) -> None:
        """Everything that was sent has been handed to the system."""


class Link:
    """One connection.

    Args:
        transport: The connection, not started.
        handshake: A fresh one, made of our greeting.
        owner: Who is told of everything.
        scheduler: Runs the ports to deliver to.
        prefix: Our node ID and ``#``: what makes a port name a port ID.
        nonce: Our nonce in the handshake.
        dialled: Whether we made the connection.
        limits: The largest message to send or accept.
        make_tls: For a handshake that offers TLS.
        refusals: Where is counted what peers are refused; None: for this link alone.
    """

    def __init__(
        self,
        transport: Transport,
        handshake: Handshake,
        owner: LinkOwner,
        scheduler: Scheduler,
        *,
        prefix: str,
        nonce: str,
        dialled: bool,
        limits: Limits,
        make_tls: MakeTls | None = None,
        refusals: Counter[str] | None = None,
    ) -> None:
        self.transport = transport
        self.owner = owner
        self.dialled = dialled
        self.nonce = nonce
        self.peer_nonce = ""
        self.proved = False
        """Whether our auth line was sent: the peer may be up with us from then on."""
        self.is_up = False
        self.finished = False
        """Whether our sending side was shut down."""
        self.has_ended = False
        """Whether the peer's sending side was shut down, everything before it handled."""
        self.closed = False
        self.is_refused = False
        """Whether it failed because of what the peer said, or did not say in time."""
        self.why = ""
        """Why it failed; ``""``: it has not."""
        self.received = 0
        """Bytes that came, from the first of the greeting on; what TLS adds to them does not count."""
        self.received_packets = 0
        """Packets that came, heartbeats apart."""
        self.up_since = 0.0
        """When the link came up, on the monotonic clock."""
        self.keep_alives = 0
        """How many empty packets came: between nodes of ours, and so in msgpack, a byte each."""
        self.has_sent = False
        """Whether anything left; whoever wants to know clears it first."""
        self.send_framing = ""
        self._other_writes = 0  # to the transport, of what is no packet
        self._handshake = handshake
        self._scheduler = scheduler
        self._prefix = prefix
        self._limits = limits
        self._unchecked = limits.unchecked_bytes
        self._make_tls = make_tls
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._secure: TlsTransport | None = None
        self._encode: Any = None
        self._decoder: Decoder | None = None
        self._framing: Framing | None = None  # what the peer sends
        self._has_begun = False
        self._is_deaf = False
        self._held: list[Any] | None = None  # packets that wait for another connection's end
        self._rest: Iterator[Any] | None = None  # packets that wait for their next turn
        self._end_is_held = False
        self._timer: Any = None  # gevent's watchers have no types
        self._turn: Any = None

    def __repr__(self) -> str:
        return f"<Link with {self.greeting.node if self.greeting else '?'} at {self.transport.peer_address}>"

    @property
    def greeting(self) -> Greeting | None:
        """What the peer says it is; None before it has greeted."""
        return self._handshake.peer

    @property
    def incarnation(self) -> str:
        """Which process of its node the peer is; ``""`` for peers that do not tell."""
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
    def receive_framing(self) -> str:
        """What the peer sends in; ``""`` before the link is up."""
        return self._framing.name if self._framing is not None else ""

    @property
    def was_cut(self) -> bool:
        """Whether the connection ended while TLS was coming up, or up, and nobody had done wrong."""
        return self._secure is not None and self._secure.was_cut

    @property
    def is_identified(self) -> bool:
        """Whether a certificate proved that the peer may have the node ID it says."""
        return self._handshake.is_identified

    @property
    def heard(self) -> int:
        """A number that changes with whatever comes: ``received`` tells nothing of half a TLS record."""
        return self.received if self._secure is None else self._secure.arrived

    # --- handshake ---

    def start(self, timeout: float) -> None:
        """Greet, and fail unless everything is settled within ``timeout`` seconds."""
        # Again and again until it ends the link, which ends it: an interrupt may strike.
        hub = self._scheduler.hub
        self._timer = hub.loop.timer(timeout, RETRY_SECONDS)
        self._timer.start(repeated(hub, self._too_slow, timeout), update=True)
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

    def _shake(self, data: memoryview) -> None:
        # In pieces: who has proved nothing is not to choose how much of a read is copied.
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
                self.owner.greeted(self)
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
        self._begin_with(memoryview(rest))

    def _begin_with(self, data: memoryview) -> None:
        """Take what came in one read with the greeting, and is TLS's."""
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

    def _check_open(self) -> None:
        if self.closed or self.is_up or not self._handshake.is_open:
            return
        self._stop_timer()
        self.is_up = True
        self.up_since = monotonic()
        self.send_framing = self._handshake.send_framing or ""
        self._encode = FRAMINGS[self.send_framing].encoder()
        self._framing = FRAMINGS[self._handshake.receive_framing or ""]
        is_ours = self.greeting is not None and self.greeting.is_ours
        self._decoder = (self._framing.decoder if is_ours else self._framing.foreign_decoder)(self._limits)
        leftover = self._handshake.leftover
        self.owner.came_up(self)
        self._take_behind(memoryview(leftover))

    def _take_behind(self, data: memoryview) -> None:
        """Take what came in the same read as the auth line."""
        if not data or self.closed:
            return
        if not self.is_held:
            self._take(data)
            return
        # came_up() had us wait, or something that came before this.
        decoder, framing = self._decoder, self._framing
        assert decoder is not None  # set a moment ago, like the other
        assert framing is not None
        decoder.feed(data)
        try:
            packets = list(decoder)  # which is not the quick way: nothing has to be tried again
        except framing.errors as error:
            self.refuse("message", framing.translate(error))
            return
        if self._held is not None:
            self._held += packets
        else:
            self._rest = itertools.chain(self._rest or (), packets)

    # --- packets out ---

    def send(self, packet: list[Any]) -> int:
        """Encode a packet now and queue it; return its size in bytes.

        Raises:
            UnencodableMessageError: An element cannot travel in this link's framing.
            MessageTooLargeError: It is too large.
        """
        data = self._encode(packet)
        if len(data) > self._unchecked:
            self._limits.check(packet, len(data))
        self.transport.write(data)
        return len(data)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._other_writes += 1
        self.transport.write(self._encode([]))

    @property
    def sent_packets(self) -> int:
        """Packets that were handed to the system, heartbeats apart.

        The transport counts them, a batch at a time: to count here would cost a tenth of :meth:`send`.
        """
        return max(self.transport.sent_writes - self._other_writes, 0)

    @property
    def written(self) -> int:
        """Bytes that were sent or queued, from the first of the greeting on: what the peer's ``received`` comes to."""
        return self.transport.sent + self.transport.buffered

    def send_encoded(self, data: bytes) -> None:
        """Queue a packet that is encoded in this link's framing already."""
        self.transport.write(data)

    # --- packets in ---

    def on_data(self, data: memoryview) -> None:
        self.received += len(data)
        self._take(data)

    def _take(self, data: memoryview) -> None:
        if self._is_deaf:
            return
        decoder, framing = self._decoder, self._framing
        if framing is None:
            self._shake(data)
            return
        if decoder is None:  # it is closed
            return
        decoder.feed(data)
        try:
            packets = decoder.quickly()
            try:
                self._handle(packets if self._has_begun else self._begin(packets))
            except framing.errors as error:
                packets = decoder.retry(error)
                self._handle(packets if self._has_begun else self._begin(packets))
        except framing.errors as error:
            self.refuse("message", framing.translate(error))

    def _begin(self, packets: Iterable[Any]) -> Iterable[Any]:
        """Ask the owner about the first packet, which tells whether the peer sent on another link before."""
        iterator = iter(packets)
        for packet in iterator:
            if packet == []:
                self.keep_alives += 1
                continue
            self._has_begun = True
            is_foreign = self.greeting is not None and self.greeting.is_of_another
            if packet.__class__ is not list or (not is_foreign and packet[:2] == ["", AFTER]):
                return itertools.chain((packet,), iterator)
            if self.owner.begins(self, packet):
                return itertools.chain((packet,), iterator)
            self.fail("it brings what was sent over a link that is lost")
            break
        return ()

    def _handle(self, packets: Iterable[Any]) -> None:
        """Deliver packets in order; the hot path in.

        Raises only what iterating raises: nothing that is called in here may raise.
        """
        scheduler = self._scheduler
        find = scheduler.ports.get
        prefix = self._prefix
        # We run the pump ourselves, at once: asking the loop for it would cost a
        # callback a burst, and a loop iteration of latency.
        scheduler.pumped = True
        turn_ends, most_jobs = 0.0, 0
        count = 0
        try:
            iterator: Iterator[Any] = iter(packets)
            for packet in iterator:
                if packet.__class__ is not list:
                    self._refuse_packet(packet)
                    break
                if not packet:
                    self.keep_alives += 1
                    continue
                count += 1
                name = packet.pop(0)
                if name.__class__ is not str:
                    self._refuse_packet([name])
                    if self.closed:
                        break
                    name = name_of_port(name)
                target = find(prefix + name)
                if target is not None:
                    # Scheduler.deliver, written out: a call less per message.
                    while not target.state:
                        scheduler.enqueue(target)
                    target.mailbox.append(tuple(packet))
                elif name:
                    self.owner.dropped(self, name, packet)
                else:
                    if not turn_ends:
                        turn_ends = perf_counter() + SLICE_SECONDS
                        most_jobs = len(scheduler.runq) + JOBS_AT_ONCE
                    self.owner.requested(self, packet)
                    if self.closed:
                        break
                    if self._held is not None:
                        # What came behind it in the same read waits as well.
                        self._held += self._all_of(iterator)
                        break
                    if perf_counter() > turn_ends or len(scheduler.runq) > most_jobs:
                        if turn_ends < 0 or not _spawns(packet):
                            self._let_others(iterator)
                            break
                        # One more: whoever spawns a port monitors it in the next packet, and is to hear why it
                        # died, not that there is none, if it does so at once.
                        turn_ends = -1.0
        finally:
            self.received_packets += count
            scheduler.pump()

    def _all_of(self, packets: Iterator[Any]) -> list[Any]:
        """Return what is left of a read."""
        assert self._decoder is not None  # it is read
        assert self._framing is not None
        left: list[Any] = []
        try:
            left.extend(packets)  # which keeps what came before an error
        except self._framing.errors as error:
            left += self._decoder.retry(error)
        return left

    def _let_others(self, packets: Iterator[Any]) -> None:
        """Handle what is left in the loop's next turn: whoever asks much must not make others wait."""
        if packets is not self._rest:
            left = self._all_of(packets)  # the decoder wants to be read to its end
            if not left:
                return
            self._rest = iter(left)
            self.transport.pause()
        # A timer, behind which the loop looks at all other connections; callbacks run before that.
        hub = self._scheduler.hub
        self._turn = hub.loop.timer(0, RETRY_SECONDS)
        self._turn.start(repeated(hub, self._go_on))

    def _go_on(self) -> None:
        try:
            rest = self._rest
            self._stop_turn()
            if rest is None or self.closed:
                return
            self._handle(rest)
            if self._turn is None:
                self._rest = None
                self._read_on()
        except BaseException:  # Ctrl-C, and nobody knows how much was handled
            self.fail("interrupted")
            raise

    def _stop_turn(self) -> None:
        if self._turn is not None:
            self._turn.stop()
            self._turn.close()
            self._turn = None

    def _read_on(self) -> None:
        """Read again, unless something waits before what would come."""
        if self.closed or self._held is not None or self._rest is not None:
            return
        if self._end_is_held:
            self.on_end()
        else:
            self.transport.resume()

    def _refuse_packet(self, packet: object) -> None:
        try:
            check_packet(packet)
        except FramingError as error:
            self.refuse("message", error)

    @property
    def is_held(self) -> bool:
        """Whether what comes is not even read."""
        return self._held is not None or self._rest is not None

    def hold(self) -> None:
        """Handle nothing more for now; what follows waits, unread. Idempotent."""
        if self._held is None:
            self._held = []
            self.transport.pause()

    def release(self) -> None:
        """Go on where :meth:`hold` stopped."""
        held = self._held
        if held is None or self.closed:
            return
        try:
            self._held = None
            self._handle(held if self._has_begun else self._begin(held))
            self._read_on()
        except BaseException:  # Ctrl-C, and nobody knows how much was handled
            self.fail("interrupted")
            raise

    def deafen(self) -> None:
        """Handle nothing more of what comes, but its end."""
        self._is_deaf = True
        if not self.is_held:
            return
        self._held = self._rest = None
        self._stop_turn()
        # On the hub, which is where ends belong, and our caller need not be: release() would run the pump.
        self._scheduler.start_timer(0, self.on_end if self._end_is_held else self.transport.resume)

    # --- the end ---

    def on_end(self) -> None:
        if self.closed:
            return
        if self.is_held:
            self._end_is_held = True
            return
        self.has_ended = True
        if self.is_up:
            self.owner.ended(self)
            self._close_if_done()
        else:
            what = "secret" if self._secure is None else "secret or certificate"
            self.fail(f"the peer closed the connection during the handshake; does it use a different {what}?")

    def on_broken(self, why: str) -> None:
        if self._secure is not None and not self.is_up:
            if self._secure.has_failed:
                self.refuse("tls", why)
                return
            if self.protection:
                why += "; or it did not let us in, and its log says why"
        self.fail(why)

    def on_room(self) -> None:
        self.has_sent = True
        self.owner.has_room(self)
        self._close_if_done()

    def finish(self) -> None:
        """Send nothing more; the link closes once everything has left and the peer, too, has finished."""
        self.finished = True
        self.transport.finish()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.finished and self.has_ended and not self.transport.buffered:
            self.close()

    @property
    def _is_securing(self) -> bool:
        return self._secure is not None and not self.is_up

    def refuse(self, what: str, why: object) -> None:
        """Fail because of what the peer said, or did not say, and count that as ``what``. Idempotent."""
        if not self.closed:
            self.is_refused = True
            self._refusals[what] += 1
            self.fail(str(why))

    def fail(self, why: str) -> None:
        """Close the connection because of ``why``, and tell the owner. Idempotent."""
        if not self.closed:
            self.why = why
            see_through(self._fail, why)

    def _fail(self, why: str) -> None:
        if self.is_up:
            self.abort()
        else:
            self.close()  # nothing of anybody's can be lost
        self.owner.failed(self, why)

    def close(self) -> None:
        """Close in silence; nobody is told. Idempotent."""
        self._end()
        self.transport.close()

    def abort(self) -> None:
        """Close with a reset, which tells the peer that something was lost; nobody here is told."""
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
        # It may have half a message of 64 MiB, and the link, which others know that it knows, lives until
        # the garbage collector comes by.
        self._decoder = None

    def _stop_timers(self) -> None:
        self._stop_timer()
        self._stop_turn()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
