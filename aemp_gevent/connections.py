# SPDX-License-Identifier: MIT
"""Connections with one other node: which of several is the link.

**Two links at once.** Both nodes may dial each other at the same moment, and each may
see a different connection finish first. These rules leave exactly one link, and
lose nothing; a model checker walked all their interleavings, with connections
breaking anywhere (docs, *Design*):

1. The *winner* of several connections with one incarnation of a peer is the one with
   the smallest (dialler's node ID, dialler's nonce).
2. A greeting that comes while a connection is up is answered by closing; when one
   comes up, those on which we have not sent our auth line are closed.
3. When a second one comes up after all and is the winner, sending moves there: first
   ``["", "after", nonce]``, and the old one's sending side is shut. If it is not the
   winner, its sending side is shut at once.
4. What follows an ``after`` is handled only when the connection it names has
   delivered everything. Nothing else ever waits.
5. Losing a connection that is up, or one that an ``after`` waits for, loses the link:
   all connections with the peer are closed, and monitors fire.

What every peer does, with or without a connection of its own, is :mod:`aemp_gevent.peer`'s. Nothing
here switches.
"""

from __future__ import annotations

import logging
import reprlib
from typing import Any

from aemp_gevent import ids
from aemp_gevent.link import Link
from aemp_gevent.peer import Host, Lane, Peer
from aemp_gevent.port import Reason

IMPOSTOR_SECONDS = 2.0
"""How long the old link of a node ID may take to answer before another process may have the ID."""

_PROBE_SECONDS = 0.1


class DirectPeer(Peer):
    """A node that this one has connections with. Owns all of them once they have greeted.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    link: Link | None

    def __init__(self, node: str, host: Host) -> None:
        super().__init__(node, host)
        self._links: list[Link] = []  # every open connection that greeted as this node
        self._drained: set[str] = set()  # the peer's nonces of connections that ended well, with all delivered
        self._has_spoken = False  # whether anything of the peer's was handled since the link came up
        self._held: dict[Link, str] = {}  # links behind an "after", and the nonce they wait for
        self._newcomer: Link | None = None  # another process with this node ID, not let in yet
        self._hopes: set[Link] = set()  # connections made by others that may come up, when ours failed
        self._probe = ["", "time", host.node_id, "devnull"]  # the answer ends up nowhere, having been heard

    @property
    def is_quiet(self) -> bool:
        return super().is_quiet and not (self._links or self._newcomer)

    @property
    def can_carry(self) -> bool:
        link = self.link
        return (
            link is not None
            and link.greeting is not None
            and link.greeting.is_ours
            and link.send_framing == "msgpack"  # so that what is encoded once can be wrapped as it is
        )

    # --- making a link ---

    @property
    def _is_coming(self) -> bool:
        # Not just any link in its handshake: a stranger who claims to be this node must delay nobody.
        return super()._is_coming or bool(self._hopes) or any(link.dialled for link in self._links)

    def _dial(self) -> None:
        endpoints = ids.endpoints(self.node)
        if endpoints:
            self._dialling = True
            self._host.dial(self, endpoints)
        else:
            is_slave = self.node.startswith(ids.SLAVE_PREFIX)
            self._unreachable("this slave is not attached to its master" if is_slave else "no known address")

    def attempt_failed(self, why: str) -> None:
        """A connection we dialled did not come about."""
        self._dialling = False
        if self.link is None:
            self._back_off()
            # Those that are here now may still come up; for later ones nobody waits, lest
            # strangers who take turns keep us hoping.
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
        # Other programs know none of these rules, and drop all connections that are past the
        # greeting: one after the other.
        if (link.greeting and link.greeting.is_ours) or not any(other.proved for other in self._links):
            link.prove()

    def adopt(self, link: Link) -> None:
        """Take over a link that is up, and has just begun; the peer had none."""
        link.owner = self
        self._links.append(link)
        self._has_spoken = True
        self.came_up(link)

    def _prove_next(self) -> None:
        """A connection failed: let one go on that was held back for it."""
        if self.link is None and self._links and not any(link.proved for link in self._links):
            self._links[0].prove()

    def came_up(self, link: Link) -> None:
        self._host.pulse.add(link, self._probe)
        current = self.link
        if current is not None and link.incarnation != current.incarnation:
            self._links.remove(link)
            self._challenge(link, current)
            return
        for other in [other for other in self._links if not other.proved]:
            self._links.remove(other)  # rule 2
            other.close()
        if current is None:
            self._use(link)
        elif self._key(link) < self._key(current):  # rule 3
            link.send(["", "after", current.nonce])
            # A lane that is a link, and never set to another.
            self.link = link  # pyright: ignore[reportIncompatibleVariableOverride]
            self._retire(current)
        else:
            self._retire(link)

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
        self._hopes.clear()
        super()._use(link)

    def requested(self, link: Link, message: list[Any]) -> None:
        request = message[0] if message else ""
        if request == "after" and len(message) == 2:
            self._wait_for(link, str(message[1]))
        elif request == "refused":
            self._last_error = f"it refuses us: {reprlib.repr(message[1:])}"
            self._log(logging.ERROR, "node %s: %s", self.node, self._last_error)
            self._back_off_long()
            self._lose(self._last_error)
        else:
            self._host.request(self, message)

    def begins(self, link: Link, packet: list[Any]) -> bool:
        # A second connection of one link that brings messages begins with an "after", unless the
        # other ones brought nothing yet. So this one belongs to a former link, which the peer
        # has lost already, and its messages may be older than those handled since.
        if self._has_spoken:
            return False
        self._has_spoken = True
        return True

    def _wait_for(self, link: Link, nonce: str) -> None:
        """Handle what follows on a link only after everything from another one (rule 4)."""
        if nonce in self._drained:
            self._has_spoken = True
            return
        former = next((other for other in self._links if other.peer_nonce == nonce), None)
        if former is None:
            self._lose("a connection was lost while the link moved to another one")  # rule 5
        elif self._waits_for(former, link):
            link.fail("it waits for itself")
        elif not former.has_ended:
            self._held[link] = nonce
            link.hold()

    def _waits_for(self, link: Link | None, other: Link) -> bool:
        """Return whether a link is another one, or waits for it by way of others."""
        while link is not None and link is not other:
            nonce = self._held.get(link)
            link = next((former for former in self._links if former.peer_nonce == nonce), None)
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
        if self._is_abandoned():
            self._lose("the node closed the connection")
            return
        self._drained.add(link.peer_nonce)
        if link.finished and link in self._links:
            self._links.remove(link)
        for held in [held for held, nonce in self._held.items() if nonce == link.peer_nonce]:
            self._held.pop(held, None)
            self._has_spoken = True
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
        if link.is_up or link.peer_nonce in self._held.values() or self._is_abandoned():
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

    def _lose(self, why: str, reason: Reason | None = None) -> None:
        if self.link is None:
            return
        super()._lose(why, reason)
        newcomer, self._newcomer = self._newcomer, None
        if newcomer is not None and not newcomer.closed:
            self._admit(newcomer)

    def _let_go(self) -> None:
        for link in self._links:
            link.abort()
        self._links.clear()
        self._hopes.clear()
        self._held.clear()
        self._drained.clear()
        self._has_spoken = False

    # --- restart or impostor? ---

    def _challenge(self, newcomer: Link, old: Link) -> None:
        """Another process claims this node ID, and knows the secret: see whether the old one still answers."""
        newcomer.hold()
        if self._newcomer is not None:
            newcomer.close()
            return
        self._newcomer = newcomer
        reads = old.reads
        old.send(self._probe)
        # Counted in looks and not by the clock: while our own loop was blocked nobody could be heard.
        looks = 0
        timer: Any = self._host.scheduler.hub.loop.timer(_PROBE_SECONDS, _PROBE_SECONDS)

        def look() -> None:
            nonlocal looks
            looks += 1
            if self._newcomer is newcomer and not newcomer.closed and self.link is not None:
                if old.reads != reads or self.link is not old:  # it moved to another connection, so it is alive
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

    def depart(self) -> list[Link]:
        leaving: list[Link] = []
        for link in self._links:
            if not link.is_up:
                link.close()
                continue
            if link is self.link and link.greeting is not None and link.greeting.is_ours:
                link.send(["", "bye"])
            link.finish()
            link.deafen()
            if not link.closed:
                leaving.append(link)
        if self._newcomer is not None:
            self._newcomer.close()
        self._links.clear()
        self._newcomer = None
        self._hopes.clear()
        super().depart()
        return leaving
