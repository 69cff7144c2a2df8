# SPDX-License-Identifier: MIT
"""Sending to another node: over its link, or into the outbox until there is one.

Senders pause while too much is unsent. Nothing here switches but :meth:`SendingPeer.pause`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from greenlet import getcurrent

from aemp_gevent.calls import header
from aemp_gevent.errors import LinkBusyError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.links.flow_control import Room, has_room
from aemp_gevent.peers.outbox import Outbox, packets_in
from aemp_gevent.peers.peer_host import Lane, PeerHost
from aemp_gevent.peers.remote_ports import RemotePorts
from aemp_gevent.ports.patterns import Message
from aemp_gevent.runtime import threads
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.totals import PAUSED_SECONDS, PAUSES
from aemp_gevent.runtime.tracing import TRACING, Trace
from aemp_gevent.wire.vocabulary import CALL

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)


class SendingPeer:
    """What a peer does with packets that are to be sent to it.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    is_virtual = False
    """Whether others carry its link."""

    __slots__ = (
        "_handed",
        "_handover",
        "_host",
        "_limits",
        "_log",
        "_paused_bytes",
        "_thread",
        "complaints",
        "high_water",
        "link",
        "node",
        "outbox",
        "ports",
        "reads_short_calls",
        "reads_traces",
        "riders",
        "room",
    )

    def __init__(self, node: str, host: PeerHost[Any]) -> None:
        self.node = node
        self.link: Lane | None = None
        """The link to send on; None while there is none."""
        self.reads_short_calls = False
        self.reads_traces = False
        """Whether it said, when the link came up, that it reads short headers of calls."""
        self.ports = RemotePorts(self, host.scheduler, is_virtual=self.is_virtual)
        """What this node knows of the peer's ports."""
        self.outbox = Outbox()
        """What waits for a link."""
        self.high_water = host.settings.high_water_bytes
        self.room = Room()
        """Where senders wait while too much is unsent."""
        self.riders: dict[SendingPeer, None] = {}
        """Peers whose virtual links go, or are to go, over the link with this one."""
        self.complaints = BoundedLog(host.about_peers.log, node)
        """Logs what the peer causes."""
        self._log = self.complaints.log
        self._host = host
        self._limits = host.settings.limits
        self._thread = host.scheduler.thread
        self._handover = host.handover
        self._handed = self._handover.handed
        self._paused_bytes = 0

    # --- what the peer does about its link ---

    @property
    def is_up(self) -> bool:
        """Whether there is a link."""
        return self.link is not None

    @property
    def understands_calls(self) -> bool:
        """Whether it takes ``call`` requests; also true until that is known."""
        raise NotImplementedError

    def connect(self) -> None:
        """Request a link; monitors fire if there cannot be one."""
        raise NotImplementedError

    def _give_up(self, why: str) -> None:
        """End the link, or the attempt to make one."""
        raise NotImplementedError

    # --- sending ---

    def post(self, packet: list[Any]) -> None:
        """Send or queue a message to a port; the hot path out, and the only one that may switch.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if get_ident() != self._thread:
            self._handover.send_message(self.node, packet, pausing=True)
            return
        if self._handed:
            self._handover.take()
        link = self.link
        if link is None:
            self.pause(self._queue_packet(packet))
        else:
            size = link.send(packet)
            if link.transport.buffered > self.high_water:
                self.pause(size)

    def post_call(
        self,
        name: str,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
        trace: Trace | None = None,
    ) -> None:
        """Send or queue a call in a form that the peer understands; may switch. Called in the node's thread only.

        What waits for a link has a full header: the peer may be another program by then.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if self._handed:
            self._handover.take()
        link = self.link
        if link is not None and trace is None and self.reads_short_calls:
            size = link.send(["", CALL, header.in_short(reply, left, chain), name, *message])
            if link.transport.buffered > self.high_water:
                self.pause(size)
        elif self.understands_calls:
            self.post(["", CALL, header.in_full(reply, left, chain, trace), name, *message])
        else:
            self.post([name, *message, reply])

    def answer(self, port: str, answer: object) -> bool:
        """Send the answer to a call of the peer, if there is a link and the reply port is not known; may switch.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        name = port[len(self.node) + 1 :]
        if self.link is None or not self.ports.is_unknown(name) or TRACING.tracer is not None:
            return False
        self.post([name, answer])
        return True

    @property
    def may_read_traces(self) -> bool:
        """Whether a packet may carry a trace. What waits for a link loses it there if the peer cannot read it."""
        return self.reads_traces or self.link is None

    def post_traced(self, name: str, message: Message, trace: Trace) -> None:
        """Send or queue a message to a port, like :meth:`post`, with its trace unless the peer cannot read that."""
        if self.may_read_traces and name and message:
            self.post(["", CALL, trace, name, *message])
        else:
            self.post([name, *message])

    def send(self, packet: list[Any]) -> None:
        """Send a packet, or queue it and see that a link is made.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if self._handed:
            self._handover.take()
        if self.link is not None:
            self.link.send(packet)
        else:
            self._queue_packet(packet)
        self.check_hard_limit()

    def _queue_packet(self, packet: list[Any]) -> int:
        """Queue a packet, and see that a link is made; return its size."""
        size = self.outbox.put(packet, self._limits)
        self.connect()
        return size

    def send_encoded(self, name: str, data: bytes) -> None:
        """Send or queue a packet that another native thread encoded as msgpack, for a port of this name.

        Its sender is the one to be paused, so the hard limit is not looked at.
        """
        link = self.link
        port = self.ports.get(name)
        if port.mailbox is not port:
            port.mailbox.append(())  # nothing gets there
        elif len(data) > self._limits.bytes:  # the thread did not know the way to this node, which takes less
            self._missed(name, MessageTooLargeError(len(data), self._limits.bytes))
        elif link is None:
            self.outbox.put_encoded(data)
            self.connect()
        elif self._reads_what_is_kept(link):
            link.send_encoded(data)
        else:
            self._send_translated(link, data)

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet over the link if it is up, or behind what is queued for it, without dialling."""
        if self.link is not None:
            self.link.send(packet)
            self.check_hard_limit()
        elif self.outbox.packets:
            self.send(packet)

    def check_hard_limit(self) -> None:
        """Drop the link of a peer that makes us answer, and does not read."""
        try:
            limit = self._host.settings.hard_limit_bytes
            if self.unsent > limit and self.unsent - self._all_paused_bytes > limit:
                self._give_up("more is unsent than the hard limit allows, and the sender cannot be paused")
        except RecursionError:
            # What led here was accepted, so nothing is raised for want of stack: the next to send looks again.
            pass

    @property
    def _all_paused_bytes(self) -> int:
        """Bytes that paused senders have sent, those on virtual links as well."""
        return self._paused_bytes + sum(rider._all_paused_bytes for rider in self.riders)

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent. Any native thread may read this."""
        link = self.link  # once: another thread must not fail here when it goes
        return self.outbox.size if link is None else link.transport.buffered

    def check_room(self, packet: list[Any]) -> None:
        """Refuse to send where :meth:`pause` would wait.

        Raises:
            LinkBusyError: Too much is unsent.
            UnencodableMessageError: The packet cannot be sent at all.
        """
        if self.unsent > self.high_water:
            link = self.link
            if link is None or not link.would_overtake(packet, self.high_water // 2):
                raise LinkBusyError(self.node, self.unsent, self.high_water)

    def pause(self, size: int) -> None:
        """Make the sending greenlet wait while too much is unsent; the only call here that switches.

        The message that led here is accepted already: it is sent, whatever ends the wait. On
        the hub no sender can be paused: there the link is dropped at the hard limit. A sender whose message passed
        others, which wait because they are large, is paused only if much is before that message as well.

        Args:
            size: Of that message. What paused senders have sent does not count for the hard limit.
        """
        if self.unsent <= self.high_water:
            return
        if getcurrent() is self._host.scheduler.hub:
            self.check_hard_limit()
            return
        link = self.link
        if link is not None and link.overtakes(self.high_water // 2):
            return
        self._paused_bytes += size
        totals, began = self._host.scheduler.totals, monotonic()
        totals[PAUSES,] += 1
        try:
            self.room.wait()
        finally:
            self._paused_bytes -= size
            totals[PAUSED_SECONDS,] += monotonic() - began

    def has_room(self, link: Lane) -> None:
        """Wake paused senders, as what was sent has left, if there is room enough."""
        room = self.room
        # Called for each flush, and mostly nobody waits. A thread that begins to wait after this look sees the room.
        if (room.waiting or room.locks or self.riders) and has_room(self.unsent, self.high_water):
            room.open()
            for rider in list(self.riders):
                rider.has_room(link)

    def _reads_what_is_kept(self, link: Lane) -> bool:
        """Whether the peer reads everything in the form in which it was encoded while the peer was not known."""
        return link.send_framing == "msgpack" and self.understands_calls and self.reads_traces

    def _send_queue(self, link: Lane) -> None:
        """Send what waited for a link."""
        packets = self.outbox.take()
        if self._reads_what_is_kept(link):
            for data in packets:
                link.send_encoded(data)
        else:
            self._send_translated(link, b"".join(packets))

    def _send_translated(self, link: Lane, data: bytes) -> None:
        """Send what was encoded as msgpack in another framing; what that cannot carry is lost, and reported."""
        lost: set[str] = set()  # ports with a hole: nothing later may reach them before it is reported
        for packet in packets_in(data, with_calls=self.understands_calls, with_traces=self.reads_traces):
            if packet[0] in lost:
                continue
            try:
                link.send(packet)
            except (UnencodableMessageError, MessageTooLargeError) as error:
                self._missed(packet[0], error)
                if packet[0]:
                    lost.add(packet[0])

    def _missed(self, name: str, error: Exception) -> None:
        """Report that a message for a port was accepted, and cannot be sent."""
        self._log(logging.WARNING, "lost a message for %s#%s: %s", self.node, name, error)
        if name:
            self.ports.missed(name, ("transport_error", self.node, str(error)))

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for a link, here or on the way to another node."""
        return bool(self.outbox.packets) or any(rider.is_waiting for rider in self.riders)
