# SPDX-License-Identifier: MIT
"""One connection with another node: packets in both directions, once the handshake is done.

A link glues a :class:`~aemp_gevent.transport.transport.Transport` to the sans-IO wire. It
delivers packets for ports itself, since that is the hot path; everything else it
reports to its *owner*: who greeted, that it is up, what the node port is asked, how it
ended. What several links with the same node mean to each other is
:mod:`aemp_gevent.peers.link_choice`'s concern; read that next. The handshake and the
end are in :mod:`aemp_gevent.links.handshaking`, packets out in :mod:`aemp_gevent.links.outgoing`. This
module is longer than others because the way of a packet into a node is kept in one piece.

Everything here runs on the hub or in whatever greenlet sends; nothing here switches.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, Protocol

from aemp_gevent.errors import FramingError
from aemp_gevent.links.handshaking import MakeTls
from aemp_gevent.links.outgoing import Outgoing
from aemp_gevent.links.traffic import Traffic
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire.decoding import Decoder
from aemp_gevent.wire.fragments import Assembler
from aemp_gevent.wire.framing import FRAMINGS, Framing, check_packet, name_of_port
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import AFTER, BYE, SPAWN, VIA

# Compiled, this name stands for 0 (c_calls.pxd). Nothing can be assigned to it.
PURE: bool
globals().update(PURE=True)

SLICE_SECONDS = 0.0001
"""How long requests of one peer are handled before others have their turn. A loop's turn costs a tenth of
it, a request 2 to 70 microseconds, and there may be 30,000 in one read."""

CALLS_SECONDS = 0.002
"""The same for calls, which are delivered like messages, but take ten times as long: there may be 9,000 in one read. A
hundred that come together are delivered together."""

JOBS_AT_ONCE = 8
"""How many jobs, such as functions to call, a peer's requests may queue before others have their turn."""


def _spawns(request: list[Any]) -> bool:
    """Return whether a request, which was handled, spawns a port, be it for a node behind the peer."""
    if request[:1] == [VIA] and request[-1].__class__ is list:
        request = request[-1]
    return SPAWN in request[:2]


class LinkOwner(Protocol):
    """What decides about a link. Called on the hub; must neither switch nor raise."""

    def greeted(self, link: Link) -> None:
        """Call ``prove()`` or ``close()`` of the link, as the peer has greeted, and TLS is up if both have it.

        Without TLS the peer has proved nothing.
        """

    def came_up(self, link: Link) -> None:
        """Take note that both sides are authenticated: packets may flow."""

    def requested(self, link: Link, message: list[Any]) -> bool | None:
        """Handle a packet for the node port; ``message`` is without the port name.

        Returns:
            True if it was a call for a port, which was delivered: many of these may have one turn.
        """
        ...

    def dropped(self, link: Link, name: str, message: list[Any]) -> None:
        """Handle a packet for a port that does not exist here; ``message`` is without the port name."""

    def begins(self, link: Link, packet: list[Any]) -> bool:
        """Return whether the first packet, which is not an ``after``, and what follows may be handled.

        This may give the link another owner and return True, but may not hold it then.
        """
        ...

    def ended(self, link: Link) -> None:
        """Take note that the peer shut its sending side down, after everything it had sent."""

    def failed(self, link: Link, why: str) -> None:
        """Take note that the link is closed, and that whatever was under way may be lost."""

    def has_room(self, link: Link) -> None:
        """Take note that everything that was sent has been handed to the system."""


class Link(Outgoing):
    """One connection.

    Args:
        transport: The connection, not started.
        handshake: A fresh one, made of our greeting.
        owner: Decides about the link, and hears what happens to it.
        scheduler: Runs the ports to deliver to.
        prefix: Our node ID and ``#``: what makes a port name a port ID.
        nonce: Our nonce in the handshake.
        dialled: Whether we made the connection.
        limits: The largest message to send or accept.
        make_tls: For a handshake that offers TLS.
        refusals: Where refusals of peers are counted; None: for this link alone.
        traffic: Where what it carried is added up when it has ended; None: nowhere.
    """

    __slots__ = (
        "_assembler",
        "_decoder",
        "_end_is_held",
        "_framing",
        "_has_begun",
        "_held",
        "_is_deaf",
        "_ports",
        "_postponed",
        "_prefix",
        "_traffic",
        "_turn",
        "dialled",
        "finished",
        "has_ended",
        "has_sent",
        "keep_alives",
        "nonce",
        "owner",
        "received_packets",
    )

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
        traffic: Traffic | None = None,
    ) -> None:
        super().__init__(transport, handshake, scheduler, limits, make_tls, refusals)
        self.owner = owner
        self._traffic = traffic
        self.dialled = dialled
        self.nonce = nonce
        self.finished = False
        """Whether our sending side was shut down."""
        self.has_ended = False
        """Whether the peer's sending side was shut down, everything before it handled."""
        self.received_packets = 0
        """Packets that came, heartbeats apart."""
        self.keep_alives = 0
        """How many empty packets came: between nodes of ours, and so in msgpack, a byte each."""
        self.has_sent = False
        """Whether anything left since this was cleared."""
        self._ports = scheduler.ports
        self._prefix = prefix
        self._decoder: Decoder | None = None
        self._framing: Framing | None = None  # what the peer sends
        self._assembler: Assembler | None = None  # if the peer may send fragments
        self._has_begun = False
        self._is_deaf = False
        self._held: list[Any] | None = None  # packets that wait for another connection's end
        self._postponed: Iterator[Any] | None = None  # packets that wait for their next turn
        self._end_is_held = False
        self._turn: int | None = None  # a timer

    def __repr__(self) -> str:
        return f"<Link with {self.greeting.node if self.greeting else '?'} at {self.transport.peer_address}>"

    @property
    def receive_framing(self) -> str:
        """What the peer sends in; ``""`` before the link is up."""
        return self._framing.name if self._framing is not None else ""

    # --- coming up ---

    def _greeted(self) -> None:
        self.owner.greeted(self)

    def _came_up(self, leftover: bytes | memoryview) -> None:
        self._begin_to_send()
        self._framing = FRAMINGS[self._handshake.receive_framing or ""]
        is_ours = self.greeting is not None and self.greeting.is_ours
        self._decoder = (self._framing.decoder if is_ours else self._framing.foreign_decoder)(self._limits)
        if self.greeting is not None and self.greeting.reads_fragments:
            self._assembler = Assembler(self._limits)
        self.owner.came_up(self)
        self._take_behind(leftover)

    def _take_behind(self, data: bytes | memoryview) -> None:
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
            self._postponed = itertools.chain(self._postponed or (), packets)

    # --- packets in ---

    def on_data(self, data: bytes | memoryview) -> None:
        self.received += len(data)
        self._take(data)

    def _take(self, data: bytes | memoryview) -> None:
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
            try:
                packets = decoder.quickly()
                self._handle(packets if self._has_begun else self._begin(packets))
            except framing.errors as error:
                packets = decoder.retry(error)
                self._handle(packets if self._has_begun else self._begin(packets))
        except framing.errors as error:
            self.refuse("message", framing.translate(error))

    def _begin(self, packets: Iterable[Any]) -> Iterable[Any]:
        """Ask the owner about the first packet, which shows whether the peer sent on another link before."""
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
            self.fail("it carries packets of a link that was lost earlier")
            break
        return ()

    def _handle(self, packets: Iterable[Any]) -> None:
        """Deliver packets in order; the hot path in.

        Raises only what iterating raises: nothing that is called in here may raise.
        """
        scheduler = self._scheduler
        ports = self._ports
        prefix = self._prefix
        # We run the pump ourselves, at once: asking the loop for it would cost a
        # callback a burst, and a loop iteration of latency.
        scheduler.pumped = True
        turn_ends, calls_end, most_jobs = 0.0, 0.0, 0
        count = 0
        try:
            iterator: Iterator[Any] = iter(packets)
            for packet in iterator:
                if type(packet) is not list:
                    self._refuse_packet(packet)
                    break
                if not packet:
                    self.keep_alives += 1
                    continue
                count += 1
                name = packet.pop(0)
                if type(name) is not str:
                    name, packet = self._take_unusual(name, packet)  # noqa: PLW2901
                    if self.closed:
                        break
                target = ports.get(prefix + name)
                if target is not None:
                    if PURE:  # Scheduler.deliver, written out: a call less per message
                        while not target.state:
                            scheduler.enqueue(target)
                        target.mailbox.append(tuple(packet))
                    else:
                        scheduler.deliver(target, tuple(packet))
                elif name:
                    self.owner.dropped(self, name, packet)
                else:
                    if not turn_ends:
                        now = perf_counter()
                        turn_ends, calls_end = now + SLICE_SECONDS, now + CALLS_SECONDS
                        most_jobs = len(scheduler.runq) + JOBS_AT_ONCE
                    if self.owner.requested(self, packet) and perf_counter() < calls_end:
                        continue
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
                        # One more: a node that spawns a port monitors it in the next packet, and should hear why it
                        # died, instead of that it does not exist, if it dies at once.
                        turn_ends = -1.0
        finally:
            self.received_packets += count
            scheduler.pump()

    def _take_unusual(self, name: Any, rest: list[Any]) -> tuple[str, list[Any]]:
        """Return the name and the rest of a packet that does not begin with a text, unless it is refused.

        A fragment that completes no packet comes back as a request without effect: each costs its turn.
        """
        if name is None and self._assembler is not None:
            try:
                whole = self._assembler.feed(rest)
            except FramingError as error:
                self.refuse("message", error)
                return "", []
            if whole is None:
                self.received_packets -= 1
                return "", []
            name, *rest = whole
        if not isinstance(name, str):
            self._refuse_packet([name])
            return "" if self.closed else name_of_port(name), rest
        return name, rest

    @property
    def unfinished(self) -> int:
        """A number that grows with each fragment of a packet that is not complete; 0 if there is no such packet."""
        return 0 if self._assembler is None else self._assembler.unfinished

    def rest(self) -> None:
        """Give memory back that only large packets need, that of an unfinished one excepted."""
        super().rest()
        for reader in (self._decoder, self._assembler):
            if reader is not None:
                reader.rest()

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
        """Handle what is left in the loop's next turn: a peer that asks much must not make others wait."""
        if packets is not self._postponed:
            left = self._all_of(packets)  # the decoder wants to be read to its end
            if not left:
                return
            self._postponed = iter(left)
            self.transport.pause()
        # A timer, behind which the loop looks at all other connections; callbacks run before that.
        self._turn = self._scheduler.start_timer(0, self._proceed)

    def _proceed(self) -> None:
        try:
            postponed = self._postponed
            self._stop_turn()
            if postponed is None or self.closed:
                return
            self._handle(postponed)
            if self._turn is None:
                self._postponed = None
                self._read_on()
        except BaseException:  # Ctrl-C, and it is not known how much was handled
            self.fail("interrupted")
            raise

    def _stop_turn(self) -> None:
        if self._turn is not None:
            self._scheduler.end_timer(self._turn)
            self._turn = None

    def _read_on(self) -> None:
        """Read again, unless something waits before what would come."""
        if self.closed or self._held is not None or self._postponed is not None:
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
        return self._held is not None or self._postponed is not None

    def hold(self) -> None:
        """Handle nothing more for now; what follows waits, unread. Idempotent."""
        if self._held is None:
            self._held = []
            self.transport.pause()

    def release(self) -> None:
        """Continue where :meth:`hold` stopped."""
        held = self._held
        if held is None or self.closed:
            return
        try:
            self._held = None
            self._handle(held if self._has_begun else self._begin(held))
            self._read_on()
        except BaseException:  # Ctrl-C, and it is not known how much was handled
            self.fail("interrupted")
            raise

    def leave(self, *, is_used: bool) -> None:
        """Send nothing more, and handle nothing more but the end, as this node shuts down.

        Args:
            is_used: Whether messages go over this connection, so that the goodbye does, too.
        """
        if is_used and not self.finished and self.greeting is not None and self.greeting.is_ours:
            self.send(["", BYE])
        self.finish()
        self.deafen()

    def deafen(self) -> None:
        """Handle nothing more of what comes, but its end."""
        self._is_deaf = True
        if not self.is_held:
            return
        self._held = self._postponed = None
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
            self._ended_early()

    def on_room(self) -> None:
        self.has_sent = True
        if self._unchecked < 0:
            self._send_more()
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

    def _failed(self, why: str) -> None:
        self.owner.failed(self, why)

    def _end(self) -> None:
        if self._traffic is not None and self.is_up and not self.closed:
            self._traffic.ended(self)
        super()._end()
        # It may have half a message of 64 MiB, and the link, which is part of a reference cycle, lives until
        # the garbage collector comes by.
        self._decoder = self._assembler = None

    def _stop_timers(self) -> None:
        super()._stop_timers()
        self._stop_turn()
