# SPDX-License-Identifier: MIT
"""Which of several connections with one peer is the link, and whether another process may take its place.

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

How a link that nobody needs is closed is in :mod:`aemp_gevent.peers.direct_peer`; what every peer does, with or
without a connection of its own, in :mod:`aemp_gevent.peers.peer`. Nothing here switches. This
module is longer than others because the five rules make sense only together.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import endpoints_of
from aemp_gevent.links.link import Link
from aemp_gevent.links.node_state import GONE, NodeState
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.peer_host import Lane, PeerHost
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.quoting import worded
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.vocabulary import AFTER, BEATS, BYE, CALL, DEVNULL, IDLE, REFUSED, STAY, TIME, UNBLOCKED

IMPOSTOR_SECONDS = 2.0
"""How long the old link of a node ID may take to answer before another process may have the ID."""

_PROBE_SECONDS = 0.1

_BETWEEN_OURS = (BYE, AFTER, REFUSED, IDLE, STAY, BEATS, UNBLOCKED)
"""Requests that to other programs are names of functions. A tuple, because a peer may send what cannot be hashed."""


class _After(NamedTuple):
    """What a link waits for: another connection's end."""

    nonce: str
    size: int | None
    """The bytes that the peer had written to it by then; None: not known."""


class LinkChoosingPeer(Peer):
    """The part of a direct peer that chooses its link. It owns all connections once they have greeted.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    link: Link | None

    def __init__(self, node: str, host: PeerHost[Peer]) -> None:
        super().__init__(node, host)
        self._links: list[Link] = []  # every open connection that greeted as this node
        self._drained: dict[str, int] = {}  # connections that ended well: the peer's nonce, and the bytes received
        self._has_spoken = False  # whether anything of the peer's was handled since the link came up
        self._held: dict[Link, _After] = {}  # links behind an "after", and what they wait for
        self._newcomer: Link | None = None  # another process with this node ID, not let in yet
        self._hopes: set[Link] = set()  # connections made by others that may come up, when ours failed
        self._probe = ["", TIME, host.node_id, DEVNULL]  # the answer ends up nowhere, having been heard

    @property
    def is_quiet(self) -> bool:
        return super().is_quiet and not (self._links or self._newcomer)

    @property
    def has_links(self) -> bool:
        """Whether there are connections that greeted as this node, be they up or not."""
        return self.is_up or bool(self._links)

    @property
    def _open_link(self) -> Link | None:
        """The link, if there is one, also while nothing may be sent on it."""
        return self.link

    @property
    def greeting(self) -> Greeting | None:
        link = self._open_link
        return None if link is None else link.greeting

    @property
    def state(self) -> NodeState:
        link = self._open_link
        return GONE if link is None else link.state

    @property
    def can_carry(self) -> bool:
        link = self._open_link  # while it comes to rest, what comes is still passed on, and what is to go waits
        return (
            link is not None
            and link.greeting is not None
            and link.greeting.is_ours
            and link.send_framing == "msgpack"  # so that what is encoded once can be wrapped as it is
        )

    # --- making a link ---

    @property
    def _is_coming(self) -> bool:
        # Not just any link in its handshake: a stranger that claims to be this node must not delay messages.
        return super()._is_coming or bool(self._hopes) or any(link.dialled for link in self._links)

    def _dial(self) -> None:
        endpoints = endpoints_of(self.node)
        if endpoints or self._host.finding.can_find(self.node):
            try:
                self._dialling = True
                self._host.dialling.dial(self, endpoints)
            except BaseException:
                self._dialling = False  # the dial may have begun all the same; then we dial twice
                raise
        else:
            is_slave = self.node.startswith(ids.SLAVE_PREFIX)
            self._unreachable("this slave is not attached to its master" if is_slave else "no known address")

    def attempt_failed(self, why: str) -> None:
        """Pause before dialling again, as a connection that we dialled did not come about."""
        self._dialling = False
        if not self.is_up:
            self.redialling.failed()
            # Those that are here now may still come up; later ones are not waited for, so that
            # strangers that take turns cannot keep us hoping.
            self._hopes = set(self._links)
            if not self._hopes:
                self._unreachable(why)

    # --- links coming and going: the owner's part ---

    def greeted(self, link: Link) -> None:
        link.owner = self
        self._dialling = self._dialling and not link.dialled
        if self.link is not None and link.incarnation == self.link.incarnation:
            link.close()  # rule 2
            return
        self._links.append(link)
        self._prove(link)

    def _prove(self, link: Link) -> None:
        """Send our auth line on a connection, unless another one is to be tried first."""
        # Other programs do not know these rules, and drop all connections that are past the
        # greeting: one after the other.
        if (link.greeting and link.greeting.is_ours) or not any(other.proved for other in self._links):
            link.prove()

    def adopt(self, link: Link) -> None:
        """Take over the first link with the peer, which is up, and has just begun."""
        link.owner = self
        self._links.append(link)
        self._has_spoken = True
        self.came_up(link)

    def _found_idle(self, link: Link) -> None:
        """Take note that a link carries nothing but heartbeats."""

    def _prove_next(self) -> None:
        """Continue a connection that waited for one that failed."""
        if self.link is None and self._links and not any(link.proved for link in self._links):
            self._links[0].prove()

    def came_up(self, link: Link) -> None:
        link.second_path = self._host.second_paths.open(link, self.review_state, lambda: self.rights.inspect)
        self._host.pulse.add(link, self._probe, self._found_idle)
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
            link.send(["", AFTER, current.nonce, current.written])
            # A lane that is a link, and never set to another.
            self.link = link  # pyright: ignore[reportIncompatibleVariableOverride]
            self._retire(current)
            self.review_state()
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

    def _use(self, link: Lane) -> None:
        assert isinstance(link, Link)  # as all of ours are
        self._hopes.clear()
        self.can_be_found = self.can_be_found and link.dialled
        super()._use(link)

    def requested(self, link: Link, message: list[Any]) -> bool:
        """Deliver a call; or handle a request that is about connections, or hand it to :meth:`take_request`.

        Those about connections are ``after``, ``refused``, ``idle``, ``stay``, ``beats`` and ``unblocked``;
        :mod:`aemp_gevent.peers.link_requests` says where each of the others is handled.
        """
        request = message[0] if message else ""
        if request == CALL and self._host.call_came(self, message):
            return True
        if request not in _BETWEEN_OURS:
            self.take_request(message)
        elif link.greeting is not None and link.greeting.is_of_another:
            self._host.node_requested(self, message)
        elif request == AFTER and len(message) >= 2:
            size = message[2] if len(message) > 2 else None
            nonce = message[1] if isinstance(message[1], str) else ""
            self._wait_for(link, _After(nonce, size if isinstance(size, int) else None))
        elif request == REFUSED:
            self._was_refused(" ".join(map(worded, message[1:3])))
        elif request in (IDLE, STAY) and link.greeting is not None and link.greeting.is_ours:
            self._asked_about_rest(link, request)
        elif request in (BEATS, UNBLOCKED) and link.second_path is not None:
            link.second_path.handle(request, message[1:])
        else:
            self.take_request(message)
        return False

    def _asked_about_rest(self, link: Link, request: str) -> None:
        """Handle a request of the protocol by which links come to rest."""

    def dropped(self, link: Link, name: str, message: list[Any]) -> None:
        self.log_dropped(name, message)

    def begins(self, link: Link, packet: list[Any]) -> bool:
        if packet[:2] != ["", REFUSED]:
            self.redialling.let_in()
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
            text = f"a connection ended in order after {received} of {after.size} bytes"
            self._lose(text)  # rule 5

    def _waits_for(self, link: Link | None, other: Link) -> bool:
        """Return whether a link is another one, or waits for it, directly or through others."""
        while link is not None and link is not other:
            after = self._held.get(link)
            link = next((former for former in self._links if after and former.peer_nonce == after.nonce), None)
        return link is not None

    def _is_abandoned(self) -> bool:
        """Whether the peer has shut down its side of the link, and there is no other it may have moved to."""
        link = self.link
        # It moves only to connections of the same process: a stranger that claims to be another
        # one of this ID must not make us wait.
        return (
            link is not None
            and link.has_ended
            and all(
                other.has_ended or not other.proved or other.incarnation != link.incarnation for other in self._links
            )
        )

    def ended(self, link: Link) -> None:
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
        # reset of that one, behind its end, shows only when one writes to it.
        is_awaited = any(after.nonce == link.peer_nonce for after in self._held.values())
        if link.is_up or is_awaited or self._is_abandoned():
            self._lose(why)  # rule 5
            return
        text, address = "connection with %s at %s closed: %s", link.transport.peer_address
        is_spare = bool(link.incarnation) and link.incarnation == self._incarnation  # of a process that had a link
        if link.is_refused or (self.link is None and not self._links and not is_spare):
            self._host.strangers.complaints.warn(text, self.node, address, why)
        else:
            # Not worth a log line if it was closed for a better one, or by a peer that shuts down.
            self._log(logging.DEBUG, text, self.node, address, why)
        self._prove_next()
        if link.dialled:
            self._dialling = True
            self._host.dialling.link_failed(self, link, why)
        elif link in self._hopes:
            self._hopes.remove(link)
            if not self._hopes:
                self._unreachable(why)
        elif not self.was_met:  # who it was is what tells later that its dead ports are dead
            self._host.forget_if_unneeded(self)

    def _lose_now(self, reason: Reason, news: list[Job]) -> None:
        super()._lose_now(reason, news)
        newcomer = self._newcomer  # let in only when the loss was reported: its link would hide that
        if newcomer is not None and not newcomer.closed:
            self._admit(newcomer)
        self._newcomer = None

    def _let_go(self) -> None:
        for link in self._links:
            link.abort()
        self._links.clear()
        self._forget_connections()

    def _forget_connections(self) -> None:
        """The link is gone: nothing of it means anything for the next."""
        self._hopes.clear()
        self._held.clear()
        self._drained.clear()
        self._has_spoken = False

    # --- restart or impostor? ---

    def _challenge(self, newcomer: Link, old: Link) -> None:
        """Check whether the old link still answers, as another process with this node ID and the secret connects."""
        newcomer.hold()
        if self._newcomer is not None:
            newcomer.close()
            return
        self._newcomer = newcomer
        heard = old.heard
        old.send(self._probe)
        # Counted in looks and not by the clock: while our own loop was blocked no peer could be heard.
        looks = 0
        start_timer = self._host.scheduler.start_timer

        def look() -> None:
            nonlocal looks
            looks += 1
            if self._newcomer is newcomer and not newcomer.closed and self.link is not None:
                if old.heard != heard or self.link is not old:  # it moved to another connection, so it is alive
                    self._refuse(newcomer)
                elif looks * _PROBE_SECONDS >= IMPOSTOR_SECONDS:
                    self._lose("the node was restarted")
                else:
                    start_timer(_PROBE_SECONDS, look)

        start_timer(_PROBE_SECONDS, look)

    def _refuse(self, newcomer: Link) -> None:
        self._newcomer = None
        address = self.link.transport.peer_address if self.link else "?"
        text = f"another node {self.node} is connected from {address}; give one of the two another nodeid"
        said = "refused a second node %s from %s: another is connected from %s; give one of the two another nodeid"
        self._log(logging.ERROR, said, self.node, newcomer.transport.peer_address, address)
        newcomer.send(["", REFUSED, text])
        # Once the text has left; nothing of what it sent is ever handled.
        newcomer.has_ended = True
        newcomer.finish()

    def _admit(self, newcomer: Link) -> None:
        self._links.append(newcomer)
        self._newcomer = None
        # Later: it runs the pump, and a caller that reached the hard limit is not on the hub. Before it is used: once
        # it is, an exception that strikes does not make all this begin again.
        self._host.scheduler.start_timer(0, newcomer.release)
        self._use(newcomer)

    # --- the end ---

    def depart(self) -> list[Link]:
        leaving: list[Link] = []
        current = self.link
        for link in (*self._links, *(() if self._newcomer is None else (self._newcomer,))):
            if not (link.is_up or link.proved):
                link.close()
                continue
            # Another process of this node ID has a link of its own.
            is_used = current is None or link is current or link.incarnation != current.incarnation
            if link.is_up or not is_used:
                link.leave(is_used=is_used)
            # Otherwise the peer, to which we have proved ourselves, may use it already: it gets its goodbye from the
            # link's next owner, once the peer has proved itself.
            if not link.closed:
                leaving.append(link)
        self._links.clear()
        self._newcomer = None
        self._hopes.clear()
        super().depart()
        return leaving
