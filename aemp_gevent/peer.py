# SPDX-License-Identifier: MIT
"""One other node: the link to it, and what waits for one.

**Two links at once.** Both nodes may dial each other at the same moment, and each may
see a different connection finish first. These rules leave exactly one link, and
lose nothing; a model checker walked all their interleavings, with connections
breaking anywhere (docs, *Design*):

1. The *winner* of several connections with one incarnation of a peer is the one with
   the smallest (dialler's node ID, dialler's nonce).
2. A greeting that comes while a connection is up is answered by closing; when one
   comes up, those on which we have not sent our auth line are closed.
3. When a second one comes up after all and is the winner, sending moves there: first
   ``["", "after", nonce, bytes]``, and the old one's sending side is shut. If it is not the
   winner, its sending side is shut at once.
4. What follows an ``after`` is handled only when the connection it names has
   delivered everything, all the bytes that were written to it. Nothing else ever waits.
5. Losing a connection that is up, or one that an ``after`` waits for, loses the link:
   all connections with the peer are closed, and monitors fire.

**Rest.** A link that neither side needs is closed by agreement, so that nothing is lost and
nobody has a loss to report:

1. Who finds it idle and could do without says ``idle``, and sends nothing more on it; what
   is to be sent waits, as it does for a link that is being made.
2. The other side, if it could do without, too, and if it said ``idle`` itself, shuts its
   sending side. Else it says ``stay``, and everything goes on as it was.
3. At the end of what the other side sent, the first shuts its sending side as well. A side
   that has shut its own and seen the other's end is *at rest*: if anything waits, it dials.
4. Until then it answers no greeting: the peer may be at rest already and dial anew, and what
   it sends then must not overtake what it sent before.

What the two nodes know of each other's ports is :mod:`aemp_gevent.remote`'s. Nothing here
switches but :meth:`Peer.pause`.
"""

from __future__ import annotations

import logging
import random
import reprlib
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, Protocol

from greenlet import getcurrent

from aemp_gevent import ids
from aemp_gevent.errors import LinkBusy, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.flow import Handover, Room
from aemp_gevent.heartbeat import Pulse
from aemp_gevent.ids import Endpoint
from aemp_gevent.link import Link
from aemp_gevent.port import Reason
from aemp_gevent.remote import RemotePorts, Watchers
from aemp_gevent.scheduler import Scheduler
from aemp_gevent.settings import Settings
from aemp_gevent.threads import get_ident
from aemp_gevent.wire.framing import FRAMINGS

IMPOSTOR_SECONDS = 2.0
"""How long the old link of a node ID may take to answer before another process may have the ID."""

_PROBE_SECONDS = 0.1

_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 5.0
"""After a failed dial the next waits this long, doubling each time: a tight loop of sends to a dead
node must not become a tight loop of dialling."""


class Host(Protocol):
    """The node that a peer is a peer of."""

    @property
    def node_id(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def pulse(self) -> Pulse: ...
    @property
    def handover(self) -> Handover: ...

    def send_from_afar(self, node: str, packet: list[Any], *, pausing: bool) -> None:
        """Send a message from another native thread, which may block."""

    def dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        """Begin to make a connection; ``attempt_failed`` tells the peer if it does not come about."""

    def request(self, peer: Peer, message: list[Any]) -> None:
        """A message for our node port came from a peer. Must not switch; nothing may raise."""

    def can_find(self, node: str) -> bool:
        """Return whether there is anybody to ask where a node listens that its ID does not say of."""
        ...

    def locate(self, node: str, answered: Callable[[tuple[Endpoint, ...]], None]) -> None:
        """Ask where a node listens; ``()`` when that is not known. Never switches."""

    def is_kept(self, node: str) -> bool:
        """Return whether there must always be a link to this node."""
        ...

    def link_up(self, peer: Peer) -> None: ...
    def link_down(self, peer: Peer, reason: Reason) -> None: ...


class _After(NamedTuple):
    """What a link waits for: another connection's end."""

    nonce: str
    size: int | None
    """The bytes that the peer had written to it by then; None: it does not say."""


class Nobody:
    """The owner of a link that is at rest, while the last heartbeat leaves."""

    def greeted(self, link: Link) -> None: ...
    def came_up(self, link: Link) -> None: ...
    def begins(self, link: Link) -> bool:
        return False

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def ended(self, link: Link) -> None: ...
    def failed(self, link: Link, why: str) -> None: ...
    def has_room(self, link: Link) -> None: ...


_NOBODY = Nobody()


class Peer:
    """One other node. Owns all links with it once they have greeted.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    def __init__(self, node: str, host: Host) -> None:
        self.node = node
        self.link: Link | None = None
        """The link to send on; None while there is none."""
        self.ports = RemotePorts(self, host.scheduler)
        """What this node knows of the peer's ports."""
        self.watchers = Watchers(self)
        """What the peer watches of ours."""
        self.can_be_found = False
        """Whether somebody knew where it listens, when asked for the sake of this link; needless if its ID says it."""
        self.high_water = host.settings.high_water_bytes
        self.room = Room()
        """Where senders wait while too much is unsent."""
        self._host = host
        self._thread = host.scheduler.thread
        self._handover = host.handover
        self._links: list[Link] = []  # every open connection that greeted as this node
        self._drained: dict[str, int] = {}  # connections that ended well: the peer's nonce, and the bytes received
        self._has_spoken = False  # whether anything of the peer's was handled since the link came up
        self._held: dict[Link, _After] = {}  # links behind an "after", and what they wait for
        self._newcomer: Link | None = None  # another process with this node ID, not let in yet
        self._resting: Link | None = None  # the link, from the moment that we send no more until it is at rest
        self._incarnation: str | None = None  # of the last link; None: there never was one
        self._queue: list[bytes] = []  # packets as msgpack, while there is no link
        self._queued_bytes = 0
        self._answers = 0  # how many packets at the head of the queue are worth no new link
        self._paused_bytes = 0
        self._encode = FRAMINGS["msgpack"].encoder()
        self._dialling = False
        self._hopes: set[Link] = set()  # connections made by others that may come up, when ours failed
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._last_error = ""
        self._log = host.scheduler.log_soon
        self._probe = ["", "time", host.node_id, "devnull"]  # the answer ends up nowhere, having been heard

    def __repr__(self) -> str:
        return f"<Peer {self.node} {'up' if self.link else 'down'}>"

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happens with the peer, or is waited for."""
        return (
            self.link is None
            and not (self._links or self._dialling or self._queue or self._newcomer)
            and monotonic() >= self._retry_at
            and not self.ports.are_monitored
            and not self._host.is_kept(self.node)
        )

    @property
    def is_idle(self) -> bool:
        """Whether forgetting the peer changes nothing."""
        return self.is_quiet and self.ports.are_idle

    @property
    def is_up(self) -> bool:
        return self.link is not None or self._resting is not None

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
        self._check_hard_limit()

    def _queue_packet(self, packet: list[Any]) -> int:
        """Queue a packet for the link to be made; return its size."""
        data = self._encode(packet)
        if len(data) > self._host.settings.max_message_bytes:
            raise MessageTooLargeError(len(data), self._host.settings.max_message_bytes)
        self._enqueue(data)
        return len(data)

    def _enqueue(self, data: bytes) -> None:
        """Keep a packet, as msgpack, until there is a link, and see that one is made."""
        self._queue.append(data)
        self._queued_bytes += len(data)
        self.connect()

    def send_encoded(self, name: str, data: bytes) -> None:
        """Send or queue a packet that another native thread encoded as msgpack, for a port of this name.

        Its sender is the one to be paused, so the hard limit is not looked at.
        """
        link = self.link
        port = self.ports.get(name)
        if port.mailbox is not port:
            self._log(logging.DEBUG, "dropped, %s#%s was reported dead", self.node, name)
        elif link is None:
            self._enqueue(data)
        elif link.send_framing == "msgpack":
            link.send_encoded(data)
        else:
            self._send_translated(link, data)

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet over the link if it is up, or behind what is queued for it; dial nobody."""
        if self.link is not None:
            self.link.send(packet)
            self._check_hard_limit()
        elif self._resting is not None and len(self._queue) == self._answers:
            self.send(packet)
            self._answers = len(self._queue)
        elif self._queue:
            self.send(packet)

    def _check_hard_limit(self) -> None:
        """Drop the link of a peer that makes us answer, and does not read."""
        if self.unsent - self._paused_bytes > self._host.settings.hard_limit_bytes:
            self._give_up("more is unsent than the hard limit allows, and the sender cannot be paused")

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent. Any native thread may ask."""
        link = self.link  # once: another thread's look must not fail when it goes
        return self._queued_bytes if link is None else link.transport.buffered

    def check_room(self) -> None:
        """Refuse to send where :meth:`pause` would wait.

        Raises:
            LinkBusy: Too much is unsent.
        """
        if self.unsent > self.high_water:
            raise LinkBusy(self.node, self.unsent, self.high_water)

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
            self._check_hard_limit()
            return
        self._paused_bytes += size
        try:
            self.room.wait()
        finally:
            self._paused_bytes -= size

    def has_room(self, link: Link) -> None:
        if self.unsent <= self.high_water // 2:
            self.room.open()

    # --- making a link ---

    def connect(self) -> None:
        """See that there is a link, soon; monitors fire if there cannot be one."""
        if self.link is not None or self._resting is not None or self._dialling or self._hopes:
            return
        # Not just any link in its handshake: a stranger who claims to be this node must delay nobody.
        if any(link.dialled for link in self._links):
            return
        if monotonic() < self._retry_at:
            self._unreachable(self._last_error)
            return
        endpoints = ids.endpoints(self.node)
        if not endpoints and not self._host.can_find(self.node):
            self._unreachable("no known address")
            return
        self._dialling = True
        self._host.dial(self, endpoints)

    def attempt_failed(self, why: str) -> None:
        """A connection we dialled did not come about."""
        self._dialling = False
        if not self.is_up:
            # With jitter, so that a whole network does not dial a returning node in step.
            self._retry_at = monotonic() + self._retry_seconds * (1 + random.random() / 2)  # noqa: S311
            self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY_SECONDS)
            # Those that are here now may still come up; for later ones nobody waits, lest
            # strangers who take turns keep us hoping.
            self._hopes = set(self._links)
            if not self._hopes:
                self._unreachable(why)

    def _unreachable(self, why: str) -> None:
        """Drop what waits for a link, and tell whoever monitors anything over there."""
        self._last_error = why
        self._log(logging.INFO, "node %s cannot be reached: %s", self.node, why)
        self._clear_queue()
        # A port that was reported dead must not be alive again for having been monitored in vain.
        shun = self._incarnation is not None
        self.ports.all_lost(("transport_error", self.node, why), shun=shun, was_up=False)
        self.room.open()

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._answers = 0
        self._queued_bytes = 0

    # --- links coming and going: the owner's part ---

    def greeted(self, link: Link) -> None:
        link.owner = self
        self._dialling = self._dialling and not link.dialled
        if self.link is not None and link.incarnation == self.link.incarnation:
            link.close()  # rule 2
            return
        self._links.append(link)
        if self._resting is None:
            self._prove(link)

    def _prove(self, link: Link) -> None:
        # Other programs know none of these rules, and drop all connections that are past the
        # greeting: one after the other.
        if (link.greeting and link.greeting.is_ours) or not any(other.proved for other in self._links):
            link.prove()

    def _prove_next(self) -> None:
        """A connection failed: let one go on that was held back for it."""
        if self.link is None and self._links and not any(link.proved for link in self._links):
            self._links[0].prove()

    def came_up(self, link: Link) -> None:
        self._host.pulse.add(link, self._probe, self._may_rest)
        current = self.link
        if current is not None and link.incarnation != current.incarnation:
            self._links.remove(link)
            self._challenge(link, current)
            return
        self._close_newer()
        if current is None:
            self._use(link)
        elif self._key(link) < self._key(current):  # rule 3
            # With its size: a proxy between us may end it in order in the middle of everything.
            link.send(["", "after", current.nonce, current.written])
            self.link = link
            self._retire(current)
        else:
            self._retire(link)

    def _close_newer(self) -> None:
        """A connection is up: close those that we have not sent our auth line on (rule 2)."""
        for other in [other for other in self._links if not other.proved]:
            self._links.remove(other)
            other.close()

    def _retire(self, link: Link) -> None:
        """Send nothing more on a link; it goes when the peer has done the same."""
        link.finish()
        if link.has_ended:
            self._links.remove(link)

    def _key(self, link: Link) -> tuple[bytes, bytes]:
        """Return what decides which of two links wins: the same on both sides."""
        node, nonce = (self._host.node_id, link.nonce) if link.dialled else (self.node, link.peer_nonce)
        return node.encode(), nonce.encode()

    def _use(self, link: Link) -> None:
        """The first link is up: send what waits."""
        self.link = link
        self._hopes.clear()
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self.can_be_found = self.can_be_found and link.dialled
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

    def _send_queue(self, link: Link) -> None:
        """Send what waited for a link."""
        queue, self._queue = self._queue, []
        self._clear_queue()
        if link.send_framing == "msgpack":
            for data in queue:
                link.send_encoded(data)
        else:
            self._send_translated(link, b"".join(queue))

    def _send_translated(self, link: Link, data: bytes) -> None:
        """Send what was queued as msgpack in another framing; what that cannot carry is lost, and reported."""
        decoder = FRAMINGS["msgpack"].decoder(len(data) + 1)
        decoder.feed(data)
        lost: set[str] = set()  # ports with a hole: nothing later may reach them before it is reported
        for packet in decoder:
            if packet[0] in lost:
                continue
            try:
                link.send(packet)
            except (UnencodableMessageError, MessageTooLargeError) as error:
                self._log(logging.WARNING, "lost a message for %s#%s: %s", self.node, packet[0], error)
                if packet[0]:
                    lost.add(packet[0])
                    self.ports.missed(packet[0], ("transport_error", self.node, str(error)))

    def requested(self, link: Link, message: list[Any]) -> None:
        request = message[0] if message else ""
        if request == "after" and len(message) >= 2:
            size = message[2] if len(message) > 2 else None
            self._wait_for(link, _After(str(message[1]), size if isinstance(size, int) else None))
        elif request == "refused":
            self._last_error = f"it refuses us: {reprlib.repr(message[1:])}"
            self._log(logging.ERROR, "node %s: %s", self.node, self._last_error)
            self._retry_at = monotonic() + _LAST_RETRY_SECONDS
            self._lose(self._last_error)
        elif request == "idle" and link.greeting is not None and link.greeting.is_ours:
            self._asked_to_rest(link)
        elif request == "stay" and link is self._resting:
            self._stay(link)
        else:
            self._host.request(self, message)

    def begins(self, link: Link) -> bool:
        # A second connection of one link that brings messages begins with an "after", unless the
        # other ones brought nothing yet. So this one belongs to a former link, which the peer
        # has lost already, and its messages may be older than those handled since.
        if self._has_spoken:
            return False
        self._has_spoken = True
        return True

    def _wait_for(self, link: Link, after: _After) -> None:
        """Handle what follows on a link only after everything from another one (rule 4)."""
        received = self._drained.get(after.nonce)
        former = next((other for other in self._links if other.peer_nonce == after.nonce), None)
        if received is not None:
            self._has_spoken = True
            self._check_size(after, received)
        elif former is None:
            self._lose("a connection was lost while the link moved to another one")  # rule 5
        elif self._waits_for(former, link):
            link.fail("it waits for itself")
        elif not former.has_ended:
            self._held[link] = after
            link.hold()

    def _check_size(self, after: _After, received: int) -> None:
        """Lose the link if a connection brought less than the peer had sent."""
        if after.size is not None and received != after.size:
            text = f"a connection ended in order, and had brought {received} of {after.size} bytes"
            self._lose(text)  # rule 5

    def _waits_for(self, link: Link | None, other: Link) -> bool:
        """Return whether a link is another one, or waits for it by way of others."""
        while link is not None and link is not other:
            after = self._held.get(link)
            link = next((former for former in self._links if after and former.peer_nonce == after.nonce), None)
        return link is not None

    def _is_abandoned(self) -> bool:
        """Whether the peer has shut down its side of the link, and there is no other it may have moved to."""
        link = self.link
        # It moves only to connections of the same process: a stranger who claims to be another
        # one of this ID must not make us wait.
        return (
            link is not None
            and link.has_ended
            and all(
                other.has_ended or not other.proved or other.incarnation != link.incarnation for other in self._links
            )
        )

    def ended(self, link: Link) -> None:
        if link is self._resting:
            self._rest(link)
            return
        if self._is_abandoned():
            self._lose("the node closed the connection")
            return
        self._drained[link.peer_nonce] = link.received
        if link.finished and link in self._links:
            self._links.remove(link)
        for held, after in [item for item in self._held.items() if item[1].nonce == link.peer_nonce]:
            self._held.pop(held, None)
            self._has_spoken = True
            self._check_size(after, link.received)
            held.release()

    def failed(self, link: Link, why: str) -> None:
        if link.is_up and link.incarnation != self._incarnation:
            # A newcomer, refused by now or not: it never was part of the link.
            if link is self._newcomer:
                self._newcomer = None
            return
        if link in self._links:
            self._links.remove(link)
        # The last: the peer had moved to this connection, and shut the one that is up for us. A
        # reset of that one, behind its end, shows only to who writes.
        is_awaited = any(after.nonce == link.peer_nonce for after in self._held.values())
        if link.is_up or is_awaited or self._is_abandoned():
            self._lose(why)  # rule 5
            return
        # One that was closed because there is a better one is no news.
        level = logging.DEBUG if self.link is not None or self._links else logging.WARNING
        self._log(level, "connection with %s at %s closed: %s", self.node, link.transport.peer_address, why)
        self._prove_next()
        if link.dialled:
            self.attempt_failed(why)
        elif link in self._hopes:
            self._hopes.remove(link)
            if not self._hopes:
                self._unreachable(why)

    def _give_up(self, why: str) -> None:
        """End the link, or the attempt to make one."""
        if self.link is not None:
            self._lose(why)
        else:
            self._unreachable(why)

    def _lose(self, why: str, reason: Reason | None = None) -> None:
        """The link is lost: close everything, and tell everybody."""
        if not self.is_up:
            return
        self._log(logging.INFO if reason else logging.WARNING, "link to %s lost: %s", self.node, why)
        self.link = self._resting = None
        self._clear_queue()
        for link in self._links:
            link.abort()
        self._links.clear()
        self._forget_connections()
        reason = reason or ("transport_error", self.node, why)
        self.ports.all_lost(reason, shun=True, was_up=True)
        self._host.link_down(self, reason)
        self.room.open()
        newcomer, self._newcomer = self._newcomer, None
        if newcomer is not None and not newcomer.closed:
            self._admit(newcomer)

    def _forget_connections(self) -> None:
        """The link is gone: nothing of it means anything for the next."""
        self._hopes.clear()
        self._held.clear()
        self._drained.clear()
        self._has_spoken = False
        self.watchers.remove_all()

    # --- rest ---

    def _may_rest(self, link: Link) -> None:
        """The link is idle: see whether it may be closed."""
        if not self._can_rest(link):
            return
        if ids.is_resolved(self.node):
            self._say_idle(link)
        elif self._host.can_find(self.node):
            # Whoever has something to say must find it again.
            self._host.locate(self.node, lambda endpoints: self._located(link, endpoints))

    def _located(self, link: Link, endpoints: tuple[Endpoint, ...]) -> None:
        self._found(endpoints)
        if endpoints and self._can_rest(link):
            self._say_idle(link)

    def _can_rest(self, link: Link) -> bool:
        """Return whether nobody here would miss this link, and nothing is under way on it."""
        is_ours = link.greeting is not None and link.greeting.is_ours
        is_only = link is self.link and self._links == [link] and not self._dialling and self._newcomer is None
        is_whole = not (link.finished or link.has_ended or link.is_held or link.transport.buffered)
        is_needed = self.ports.need_a_link or self.watchers.are_any or self._host.is_kept(self.node)
        return is_ours and is_only and is_whole and not is_needed

    def _is_within_reach(self, *, is_known: bool) -> bool:
        """Return whether it could be found again; if that is not known, it will be when it asks once more."""
        if not (is_known or ids.is_resolved(self.node)) and self._host.can_find(self.node):
            self._host.locate(self.node, self._found)
        return is_known or ids.is_resolved(self.node)

    def _found(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.can_be_found = bool(endpoints)

    def _say_idle(self, link: Link) -> None:
        link.send(["", "idle"])
        self.link, self._resting = None, link

    def _asked_to_rest(self, link: Link) -> None:
        timeout = self._host.settings.idle_timeout
        is_known, self.can_be_found = self.can_be_found, False  # that holds for this time only
        if link is self._resting:
            link.finish()  # both asked, and must answer the same
        elif (
            timeout is not None
            and self._host.pulse.quiet(link) >= timeout / 2
            and self._can_rest(link)
            and self._is_within_reach(is_known=is_known)
        ):
            self.link, self._resting = None, link
            link.finish()
        elif not link.finished:
            link.send(["", "stay"])

    def _stay(self, link: Link) -> None:
        """The peer needs the link: go on."""
        if link.finished:
            return  # it said that it does not
        self.link, self._resting = link, None
        self._close_newer()
        self._send_queue(link)
        self.has_room(link)

    def _rest(self, link: Link) -> None:
        """Both sides have sent their last, and nothing was lost."""
        self._log(logging.INFO, "link to %s closed, as nobody needs it", self.node)
        self._resting = None
        self._links.remove(link)
        self._forget_connections()
        link.finish()
        link.owner = _NOBODY
        self._queued_bytes -= sum(map(len, self._queue[: self._answers]))
        del self._queue[: self._answers]
        self._answers = 0
        self._host.link_down(self, ("idle", self.node))
        for newer in list(self._links):
            if newer in self._links and not newer.proved:
                self._prove(newer)
        if self._queue or self.ports.are_monitored:
            self.connect()
        self.has_room(link)

    def said_goodbye(self) -> None:
        """The peer shuts down in order."""
        self._lose("it shuts down", ("shutdown", self.node))

    # --- restart or impostor? ---

    def _challenge(self, newcomer: Link, old: Link) -> None:
        """Another process claims this node ID, and knows the secret: see whether the old one still answers."""
        newcomer.hold()
        if self._newcomer is not None:
            newcomer.close()
            return
        self._newcomer = newcomer
        received = old.received
        old.send(self._probe)
        # Counted in looks and not by the clock: while our own loop was blocked nobody could be heard.
        looks = 0
        timer: Any = self._host.scheduler.hub.loop.timer(_PROBE_SECONDS, _PROBE_SECONDS)

        def look() -> None:
            nonlocal looks
            looks += 1
            if self._newcomer is newcomer and not newcomer.closed and self.link is not None:
                if old.received != received or self.link is not old:  # it moved to another connection, so it is alive
                    self._refuse(newcomer)
                elif looks * _PROBE_SECONDS >= IMPOSTOR_SECONDS:
                    self._lose("the node was restarted")
                else:
                    return
            timer.stop()
            timer.close()

        timer.start(look, update=True)

    def _refuse(self, newcomer: Link) -> None:
        self._newcomer = None
        text = f"a node {self.node} is alive at {self.link.transport.peer_address if self.link else '?'}"
        self._log(
            logging.ERROR, "refused a second node with the ID %s at %s", self.node, newcomer.transport.peer_address
        )
        newcomer.send(["", "refused", text])
        # Once the text has left; nothing of what it sent is ever handled.
        newcomer.has_ended = True
        newcomer.finish()

    def _admit(self, newcomer: Link) -> None:
        self._links.append(newcomer)
        self._use(newcomer)
        # Later: it runs the pump, and whoever reached the hard limit is not on the hub.
        self._host.scheduler.hub.loop.run_callback(newcomer.release)

    # --- the end ---

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for a link."""
        return bool(self._queue)

    def depart(self) -> list[Link]:
        """Tell the peer that we shut down, and send it nothing more; monitors of its ports here fire.

        Returns:
            Its links, which close by themselves when the peer has heard everything.
        """
        leaving: list[Link] = []
        if self._resting is not None:
            # The peer may have shut its side, and yet reads to our end.
            self.link, self._resting = self._resting, None
        for link in self._links:
            if not link.is_up:
                link.close()
                continue
            is_ours = link.greeting is not None and link.greeting.is_ours
            if link is self.link and is_ours and not link.finished:
                link.send(["", "bye"])
            link.finish()
            link.deafen()
            if not link.closed:
                leaving.append(link)
        if self._newcomer is not None:
            self._newcomer.close()
        self._links.clear()
        self._newcomer = None
        self._dialling = False
        self._hopes.clear()
        why, reason = "this node shuts down", ("shutdown", self._host.node_id)
        if self.link is not None:
            self._lose(why, reason)
        else:
            self._clear_queue()
            self.ports.all_lost(reason, shun=False, was_up=False)
            self.room.open()
        return leaving
