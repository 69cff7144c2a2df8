# SPDX-License-Identifier: MIT
"""The part of a link that sends packets: encoded at once, and the large ones in fragments if the peer reads these.

The hot path is :meth:`Outgoing.send`. It compares the size of each packet with one number: above that the packet is
large, and while a large one waits, the number is negative, so that each packet is looked at more closely. What must
wait then is decided in :mod:`aemp_gevent.wire.fragments`; where it waits is
:mod:`aemp_gevent.links.backlog_transport`. Nothing here switches.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from aemp_gevent.addresses.ids import is_unique_name
from aemp_gevent.links.backlog_transport import BacklogTransport
from aemp_gevent.links.handshaking import Handshaking, MakeTls
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire import fragments, framing_msgpack
from aemp_gevent.wire.fragments import goes_whole, head_of, order_of
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.long_binaries import PartedPacket


class Outgoing(Handshaking):
    """A connection that packets can be sent on.

    Args:
        transport: The connection, not started.
        handshake: A fresh one, made of our greeting.
        scheduler: Its hub watches the connection.
        limits: The largest message to send.
        make_tls: For a handshake that offers TLS.
        refusals: Where refusals of peers are counted; None: for this link alone.
    """

    __slots__ = (
        "_encode",
        "_limits",
        "_sends_fragments",
        "_sent_packets",
        "_unchecked",
        "_usually_unchecked",
        "send_framing",
    )

    def __init__(
        self,
        transport: Transport,
        handshake: Handshake,
        scheduler: Scheduler,
        limits: Limits,
        make_tls: MakeTls | None,
        refusals: Counter[str] | None,
    ) -> None:
        super().__init__(transport, handshake, scheduler, make_tls, refusals)
        self.send_framing = ""
        self._limits = limits
        self._encode: Any = None
        self._unchecked = self._usually_unchecked = limits.unchecked_bytes
        self._sends_fragments = False
        self._sent_packets = 0  # when that was asked for the last time

    def _begin_to_send(self) -> None:
        """Prepare for packets, as both sides are authenticated."""
        self.send_framing = self._handshake.send_framing or ""
        if self.greeting is not None and self.greeting.reads_fragments and self.send_framing == "msgpack":
            self._sends_fragments = True
            self._unchecked = self._usually_unchecked = min(fragments.WHOLE_BYTES, self._limits.unchecked_bytes)
        self._make_encoder()

    def _make_encoder(self) -> None:
        if self._sends_fragments:
            self._encode = framing_msgpack.make_parting_encoder(fragments.WHOLE_BYTES)
        else:
            self._encode = FRAMINGS[self.send_framing].encoder()

    def send(self, packet: list[Any]) -> int:
        """Encode a packet now and queue it; return its size in bytes.

        Raises:
            UnencodableMessageError: An element cannot travel in this link's framing.
            MessageTooLargeError: It is too large.
        """
        data = self._encode(packet)
        size = len(data)
        if size > self._unchecked:
            if size > self._limits.unchecked_bytes:
                self._limits.check(packet, size)
            self._send_in_turn(packet, data)
        else:
            self.transport.write(data)
        return size

    def send_encoded(self, data: bytes) -> None:
        """Queue a packet that is encoded in this link's framing already."""
        if len(data) > self._unchecked and self._sends_fragments:
            self._send_in_turn(head_of(data), data)
        else:
            self.transport.write(data)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._other_writes += 1
        self.transport.write(self._encode([]))

    def rest(self) -> None:
        """Give memory back that only large packets need, those that were refused included."""
        # Whatever was sent: a new encoder takes a microsecond, and an old one does not show how much memory it has.
        self._make_encoder()

    @property
    def sent_packets(self) -> int:
        """Packets that were handed to the system, heartbeats apart.

        The transport counts them, a batch at a time: to count here would cost a tenth of :meth:`send`. What is not a
        packet is counted when it is written, which is earlier; but the number must not become smaller.
        """
        self._sent_packets = max(self._sent_packets, self.transport.sent_writes - self._other_writes)
        return self._sent_packets

    @property
    def written(self) -> int:
        """Bytes that were sent or queued, from the first of the greeting on: what the peer's ``received`` comes to."""
        return self.transport.sent + self.transport.buffered

    # --- in fragments ---

    def _send_in_turn(self, head: list[Any], data: bytes | PartedPacket) -> None:
        """Queue a packet that is large, or may have to wait for one.

        Args:
            head: Its beginning, or all of it.
            data: The packet, encoded.
        """
        transport = self.transport
        if not self._sends_fragments or self.closed:
            transport.write(bytes(data))
            return
        order = order_of(head, is_unique_name)
        if goes_whole(order, len(data)):
            if not isinstance(transport, BacklogTransport):
                transport.write(bytes(data))
                return
            if not transport.backlog.holds_up(order):
                transport.was_overtaken = True
                transport.write(bytes(data))
                return
        while not isinstance(transport, BacklogTransport):
            waiting = BacklogTransport(transport)
            # On the hub: there may be no stack left here, and a fragment that is lost ends the link.
            self._scheduler.start_timer(0, self._send_more)
            if self.transport is transport:  # no call between test and store, because a finalizer may send
                self.transport = waiting
            transport = self.transport
        self._unchecked = -1  # from now on every packet comes here
        transport.was_overtaken = False
        transport.backlog.put(order, data)

    def _send_more(self) -> None:  # on the hub
        """Hand the next of what waits to the transport, if it has room."""
        transport = self.transport
        if self.closed or not isinstance(transport, BacklogTransport):
            return
        try:
            self._other_writes += transport.feed()
            packets = transport.backlog.packets
            if not packets:  # no call in between, because a finalizer may send
                self.transport = transport.inner
                self._unchecked = self._usually_unchecked
                if transport.is_finishing:
                    self.transport.finish()
        except BaseException:  # Ctrl-C, and it is not known how much was handed over
            self.fail("interrupted")
            raise

    def would_overtake(self, packet: list[Any], most: int) -> bool:
        """Return whether a packet would pass others, and at most so many bytes are before it.

        Raises:
            UnencodableMessageError: It cannot travel in this link's framing.
        """
        transport = self.transport
        if not isinstance(transport, BacklogTransport) or transport.inner.buffered > most:
            return False
        order = order_of(packet, is_unique_name)
        return goes_whole(order, len(self._encode(packet))) and not transport.backlog.holds_up(order)

    def overtakes(self, most: int) -> bool:
        """Return whether the packet that was sent last passed others, and at most so many bytes are before it."""
        transport = self.transport
        return isinstance(transport, BacklogTransport) and transport.was_overtaken and transport.inner.buffered <= most
