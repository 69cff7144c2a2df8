# SPDX-License-Identifier: MIT
"""One other node: what waits for a link to it, and what goes over the link.

What every peer does, however its link is made: queue, send, pause, and tell everybody
who monitors anything over there when the link is lost. Where the link comes from is for
the two kinds of peers to say: :class:`~aemp_gevent.peers.direct_peer.DirectPeer` has
connections of its own, :class:`~aemp_gevent.peers.virtual_peer.VirtualPeer` sends over the link of
another peer, a slave's master for instance.

What the two nodes know of each other's ports is :mod:`aemp_gevent.peers.remote_ports`'s. Nothing here
switches but :meth:`Peer.pause`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.errors import LinkBusyError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.links.flow_control import Room
from aemp_gevent.peers import link_requests
from aemp_gevent.peers.link_requests import ABOUT_LINKS
from aemp_gevent.peers.outbox import Outbox, packets_in
from aemp_gevent.peers.peer_host import Lane, PeerHost
from aemp_gevent.peers.redialling import Redialling
from aemp_gevent.peers.remote_ports import RemotePorts
from aemp_gevent.peers.watchers import Watchers
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.runtime.logs import Brief
from aemp_gevent.runtime.threads import get_ident
from aemp_gevent.settings.rules import PeerRule, rights_of
from aemp_gevent.wire.greeting import Greeting

if TYPE_CHECKING:
    from aemp_gevent.links.link import Link


class Peer:
    """One other node; what is common to all kinds of them.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    is_virtual = False
    """Whether others carry its link."""

    def __init__(self, node: str, host: PeerHost) -> None:
        self.node = node
        self.link: Lane | None = None
        """The link to send on; None while there is none."""
        self.ports = RemotePorts(self, host.scheduler, is_virtual=self.is_virtual)
        """What this node knows of the peer's ports."""
        self.watchers = Watchers(self, host.settings.max_watched_ports)
        """What the peer watches of ours."""
        self.rights = self._rights_with(host)
        """What it may do here."""
        self.can_be_found = False
        """Whether somebody knew where it listens, when asked for the sake of this link; needless if its ID says it."""
        self.high_water = host.settings.high_water_bytes
        self.room = Room()
        """Where senders wait while too much is unsent."""
        self.riders: dict[Peer, None] = {}
        """Peers whose virtual links go, or are to go, over the link with this one."""
        self._host = host
        self._limits = host.settings.limits
        self._thread = host.scheduler.thread
        self._handover = host.handover
        self._incarnation: str | None = None  # of the last link; "": it tells none; None: there never was one
        self.outbox = Outbox()
        """What waits for a link."""
        self._paused_bytes = 0
        self._dialling = False
        self.redialling = Redialling()
        """When it may be dialled again."""
        self._last_error = ""
        self.complaints = BoundedLog(host.about_peers.log, node)
        """What is logged about it."""
        self._log = self.complaints.log

    def _rights_with(self, host: PeerHost, *speakers: str) -> PeerRule:
        """Return what the peer may do, of whom its master, if it has one, and others speak."""
        master = ids.master_of(self.node)
        if master is not None and master != host.node_id:
            speakers = (master, *speakers)
        return rights_of(host.settings.rules, self.node, *speakers)

    def review_rights(self) -> None:
        """Look at the rules again, which may have changed since this peer was met."""
        self.rights = self._rights_with(self._host)

    def __repr__(self) -> str:
        return f"<Peer {self.node} {'up' if self.link else 'down'}>"

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happens with the peer, or is waited for."""
        return (
            self.link is None
            and not (self._dialling or self.outbox.packets or self.riders)
            and self.redialling.may_dial
            and not self.ports.are_monitored
            and not self._host.is_kept(self.node)
        )

    @property
    def is_idle(self) -> bool:
        """Whether forgetting the peer changes nothing."""
        return self.is_quiet and self.ports.are_idle

    @property
    def is_up(self) -> bool:
        return self.link is not None

    @property
    def last_error(self) -> str:
        """Why it could not be reached the last time; ``""``: it always could."""
        return self._last_error

    @property
    def was_met(self) -> bool:
        """Whether there ever was a link."""
        return self._incarnation is not None

    @property
    def is_resting(self) -> bool:
        """Whether the link is about to be closed because nobody needs it, if the peer agrees: nothing is sent on it."""
        return False

    @property
    def greeting(self) -> Greeting | None:
        """What the peer said of itself; None while there is no link of its own to it."""
        return None

    @property
    def understands_calls(self) -> bool:
        """Whether it takes ``call`` requests: it is of this library, as far as is known."""
        return self.greeting is None or self.greeting.is_ours

    @property
    def can_carry(self) -> bool:
        """Whether there is a link, and virtual links may go over it."""
        return False

    # --- sending ---

    def post(self, packet: list[Any]) -> None:
        """Send or queue a message to a port; the hot path out, and the only one that may switch.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if get_ident() != self._thread:
            self._host.send_from_afar(self.node, packet, pausing=True)
            return
        if self._handover.handed:
            self._handover.take()
        link = self.link
        if link is None:
            self.pause(self._queue_packet(packet))
        else:
            size = link.send(packet)
            if link.transport.buffered > self.high_water:
                self.pause(size)

    def send(self, packet: list[Any]) -> None:
        """Send a packet, or queue it and see that a link is made.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if self._handover.handed:
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
        elif len(data) > self._limits.bytes:  # it was let pass by who did not know the way to this node
            self._missed(name, MessageTooLargeError(len(data), self._limits.bytes))
        elif link is None:
            self.outbox.put_encoded(data)
            self.connect()
        elif link.send_framing == "msgpack":
            link.send_encoded(data)
        else:
            self._send_translated(link, data)

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet over the link if it is up, or behind what is queued for it; dial nobody."""
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
            # What led here was accepted, so nothing is raised for want of stack: who sends next looks again.
            pass

    @property
    def _all_paused_bytes(self) -> int:
        """What senders have sent that are paused, those on virtual links as well."""
        return self._paused_bytes + sum(rider._all_paused_bytes for rider in self.riders)

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent. Any native thread may ask."""
        link = self.link  # once: another thread's look must not fail when it goes
        return self.outbox.size if link is None else link.transport.buffered

    def check_room(self) -> None:
        """Refuse to send where :meth:`pause` would wait.

        Raises:
            LinkBusyError: Too much is unsent.
        """
        if self.unsent > self.high_water:
            raise LinkBusyError(self.node, self.unsent, self.high_water)

    def pause(self, size: int) -> None:
        """Make the sending greenlet wait while too much is unsent; the only call here that switches.

        The message that led here is accepted already: it is sent, whatever ends the wait. On
        the hub nobody can be paused: there the link is dropped at the hard limit.

        Args:
            size: Of that message. What paused senders have sent does not count for the hard limit.
        """
        if self.unsent <= self.high_water:
            return
        if getcurrent() is self._host.scheduler.hub:
            self.check_hard_limit()
            return
        self._paused_bytes += size
        try:
            self.room.wait()
        finally:
            self._paused_bytes -= size

    def has_room(self, link: Lane) -> None:
        if self.unsent <= self.high_water // 2:
            self.room.open()
            for rider in list(self.riders):
                rider.has_room(link)

    # --- making a link ---

    def connect(self) -> None:
        """See that there is a link, soon; monitors fire if there cannot be one."""
        if self.is_up or self._is_coming:
            return
        if self.redialling.may_dial:
            self._dial()
        else:
            see_through(self._give_up_queue, self._last_error)  # which was logged

    @property
    def _is_coming(self) -> bool:
        """Whether there may be a link soon."""
        return self._dialling

    def _dial(self) -> None:
        """Begin to make a link, or say at once that there is no way."""
        raise NotImplementedError

    def attempt_failed(self, why: str) -> None:
        """The link that we tried to make did not come about."""
        self._dialling = False
        if not self.is_up:
            self.redialling.failed()
            self._unreachable(why)

    def _was_refused(self, why: str) -> None:
        """The node let the link come up only to say that it refuses this one."""
        self._last_error = f"it refuses this node: {why}"
        if self.redialling.refused():
            text = "node %s refuses this node: %s; trying again, less and less often"
            self._log(logging.ERROR, text, self.node, why)
        self._lose(self._last_error, ("transport_error", self.node, self._last_error))

    def _unreachable(self, why: str) -> None:
        """Drop what waits for a link, and tell whoever monitors anything over there."""
        self._last_error = why
        self._log(logging.INFO, "node %s cannot be reached: %s", self.node, why)
        self._see_through(self._give_up_queue, why)

    def _give_up_queue(self, why: str) -> None:
        self.outbox.clear()
        # A port that was reported dead must not be alive again for having been monitored in vain.
        self.ports.all_lost(("transport_error", self.node, why), shun=bool(self._incarnation), was_up=False)
        self.room.open()
        self._host.unreachable(self, why)

    # --- the link coming and going ---

    def _use(self, link: Lane) -> None:
        """The first link is up: send what waits."""
        self.link = link
        self.redialling.succeeded()
        if link.incarnation == self._incarnation:
            self.ports.returned()
        else:
            self.ports.reincarnated()
            self._incarnation = link.incarnation
        self._host.link_up(self)
        self._send_queue(link)
        if self.link is link:
            self.ports.see_orphans_die()
        self.has_room(link)

    def _send_queue(self, link: Lane) -> None:
        """Send what waited for a link."""
        packets = self.outbox.take()
        if link.send_framing == "msgpack" and self.understands_calls:
            for data in packets:
                link.send_encoded(data)
        else:
            self._send_translated(link, b"".join(packets))

    def _send_translated(self, link: Lane, data: bytes) -> None:
        """Send what was encoded as msgpack in another framing; what that cannot carry is lost, and reported."""
        lost: set[str] = set()  # ports with a hole: nothing later may reach them before it is reported
        for packet in packets_in(data, with_calls=self.understands_calls):
            if packet[0] in lost:
                continue
            try:
                link.send(packet)
            except (UnencodableMessageError, MessageTooLargeError) as error:
                self._missed(packet[0], error)
                if packet[0]:
                    lost.add(packet[0])

    def _missed(self, name: str, error: Exception) -> None:
        """A message for a port was accepted, and cannot be sent."""
        self._log(logging.WARNING, "lost a message for %s#%s: %s", self.node, name, error)
        if name:
            self.ports.missed(name, ("transport_error", self.node, str(error)))

    def _give_up(self, why: str) -> None:
        """End the link, or the attempt to make one."""
        if self.link is not None:
            self._lose(why)
        else:
            self._unreachable(why)

    def _lose(self, why: str, reason: Reason | None = None) -> None:
        """The link, if there is one, is lost: close everything, and tell everybody."""
        if not self.is_up:
            return
        text = "link to %s lost: %s"
        if reason is None:
            self.complaints.warn(text, self.node, why)
        else:
            self._log(logging.INFO, text, self.node, why)
        self._see_through(self._lose_now, reason or ("transport_error", self.node, why), [])

    def _see_through(self, call: Callable[..., object], *args: Any) -> None:
        """Make a call that must come to its end: here, once more if something strikes it, and else on the hub.

        At the recursion limit only the hub can. So it is asked first, and when that raises nothing was begun.
        """
        is_done: list[bool] = []

        def make() -> None:
            if not is_done:
                call(*args)
                is_done.append(True)

        self._host.scheduler.call_on_hub(make)
        see_through(make)

    def _lose_now(self, reason: Reason, news: list[Job]) -> None:
        self.link = None
        self.outbox.clear()
        self._let_go()
        self.watchers.remove_all()
        self.ports.all_lost(reason, shun=bool(self._incarnation), was_up=True)
        self._host.link_down(self, reason, news)
        self.room.open()

    def _let_go(self) -> None:
        """Close what carried the link."""

    def log_dropped(self, name: str, message: list[Any]) -> None:
        """The peer sent a message to a port that does not exist here."""
        text = "%s from %s to port %s#%s dropped: there is no such port"
        self._log(logging.DEBUG, text, Brief(message), self.node, self._host.node_id, name)

    # --- requests ---

    def asked(self, message: list[Any]) -> None:
        """Do what the peer asks our node port. Must not switch; nothing may raise.

        Args:
            message: The request, and its arguments.
        """
        request = message[0] if message else ""
        if request.__class__ is str and request in ABOUT_LINKS:
            self.handle(request, message[1:])
        else:
            self._host.request(self, message)

    def handle(self, request: str, args: Sequence[Any]) -> None:
        """Do what the peer asks about its link or the ports across it; see :mod:`aemp_gevent.peers.link_requests`."""
        link_requests.handle(self, self._host, request, args)

    def pass_on(self, origin: object, destination: object, packet: object) -> None:
        """Take a wrapped packet that came over the link, or pass it on."""
        self._host.routes.via(self, origin, destination, packet)

    def said_goodbye(self) -> None:
        """Lose the link, as the peer shuts down in order."""
        self._lose("it shuts down", ("shutdown", self.node))

    # --- the end ---

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for a link, here or on the way to another node."""
        return bool(self.outbox.packets) or any(rider.is_waiting for rider in self.riders)

    def depart(self) -> list[Link]:
        """Tell the peer that we shut down, and send it nothing more; monitors of its ports here fire.

        Returns:
            Its links, which close by themselves when the peer has heard everything.
        """
        self._dialling = False
        why, reason = "this node shuts down", ("shutdown", self._host.node_id)
        if self.link is not None:
            self._lose(why, reason)
        else:
            self.outbox.clear()
            self.ports.all_lost(reason, shun=False, was_up=False)
            self.room.open()
        return []
