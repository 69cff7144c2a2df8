# SPDX-License-Identifier: MIT
"""Routes: how packets get to slaves and from them, which nodes pass them on, and which packets are believed.

Every node is reached through its *door*: a slave through its master, other nodes by
themselves. A route is thus at most four nodes long, ``slave, its master, the other's
master, the other slave``, and an ID says what it is. Three rules about
``["", "via", origin, destination, packet]`` follow, and they are all there are:

1. A node takes a packet for itself if it would send the answer to where that came from.
2. A master passes a packet on if the origin or the destination is a slave of its own,
   and it came in by the origin's door. So no node speaks in another's name: a slave only
   through its master, who knows its own slaves by their links.
3. A master passes on what belongs to a *conversation*, which an opening begins
   (:mod:`aemp_gevent.peers.virtual_peer`), and which ends when a door closes: the nodes behind
   the others get a packet about that, in the name of the node that is gone.

What breaks them is dropped, and logged. A master dials for its slaves: they cannot. The
conversations of each link, and the openings that wait for one, are bounded.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from time import time
from typing import Any, Protocol

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import is_resolved
from aemp_gevent.errors import AempError
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.virtual_peer import (
    MAX_RIDERS,
    VirtualPeer,
    closing,
    is_closing,
    is_opening,
    is_state_report,
    state_report,
)
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.quoting import quoted, worded
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.rules import rights_of
from aemp_gevent.wire.limits import is_long
from aemp_gevent.wire.vocabulary import VIA

MAX_CONVERSATIONS = 100_000
"""Begun by what came over one link, each of some 300 bytes."""

MAX_DIALS = 1000
"""Nodes that are dialled at once for slaves."""

MAX_WAITING = 10_000
"""Openings that wait for a node to be dialled."""

MAX_TOLD = 1000
"""Nodes to which it is reported that a slave is blocked."""

Pair = tuple[str, str]


class RoutesHost(Protocol):
    """The network whose routes these are."""

    @property
    def node_id(self) -> str: ...
    @property
    def master(self) -> str | None: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...
    def peer(self, node: str) -> Peer: ...
    def known_peer(self, node: str) -> Peer | None: ...


class Routes:
    """What one node knows about ways to slaves.

    Args:
        host: The node's network.
    """

    def __init__(self, host: RoutesHost) -> None:
        self._host = host
        self._conversations: dict[str, set[Pair]] = {}  # by door, at both ends
        self._waiting: dict[str, dict[Pair, list[Any]]] = {}  # openings, by the door that is dialled
        self._told: dict[str, dict[str, None]] = {}  # to whom it was reported that a slave of ours is blocked, by it
        self.dropped = 0
        """Packets that came from where they may not, or to where they cannot."""

    def hop_to(self, node: str) -> str | None:
        """Return the node that carries the link to another one; None if it has its own."""
        master = self._host.master
        door = self._door(node) if master is None else master
        return None if door == node else door

    def _door(self, node: str) -> str:
        master = ids.master_of(node)
        return node if master is None or master == self._host.node_id else master

    def _is_ours(self, node: str) -> bool:
        return ids.master_of(node) == self._host.node_id

    def check_greeting(self, node: str) -> str:
        """Return why there cannot be a link with a node of this ID, or ``""``."""
        if node.startswith(ids.SLAVE_PREFIX) and not self._is_ours(node):
            return f"it greets as {quoted(node)}, a slave of another node"
        if self._host.master not in (None, node):
            return "a slave has one link, to its master"
        return ""

    def may_mean_us(self, node: str) -> bool:
        """Return whether a slave greets as the slave of an address, which may be this named node's."""
        master = ids.master_of(node)
        here = self._host
        return here.master is None and not is_resolved(here.node_id) and master is not None and is_resolved(master)

    def needs(self, peer: Peer) -> bool:
        """Whether anything goes, or is to go, over the link with a peer on its way to others."""
        return peer.node in self._conversations or peer.node in self._waiting or self._is_ours(peer.node)

    # --- packets ---

    def via(self, peer: Peer, origin: object, destination: object, packet: object) -> None:
        """Take a wrapped packet that came from a peer, or pass it on. Never raises for what the peer sends.

        Args:
            peer: Whose link it came over.
            origin: The node that it claims to be from.
            destination: The node it is for.
            packet: As on any link.
        """
        limit = self._host.settings.max_name_bytes
        if not (isinstance(origin, str) and isinstance(destination, str) and isinstance(packet, list)):
            self._drop(peer, origin, destination, "it is malformed")
        elif not peer.can_carry:
            self._drop(peer, origin, destination, "the peer may not pass on messages of others")
        elif is_long(origin, limit) or is_long(destination, limit):
            self._host.refusals["name"] += 1
            self._drop(peer, origin, destination, f"a node ID has at most {limit} bytes")
            if is_opening(packet, origin):  # whose sender would wait for an answer
                here = self._host.node_id
                self._tell(peer, here, origin, _error(here, f"a node ID has at most {limit} bytes here"))
        elif not all(map(ids.is_node_id, (origin, destination))):
            self._drop(peer, origin, destination, "that is not a node ID")
        elif destination == self._host.node_id:
            self._take(peer, origin, packet)
        elif self._host.master is not None or not (self._is_ours(origin) or self._is_ours(destination)):
            self._drop(peer, origin, destination, "neither is a slave of this node")
        elif self._door(origin) != peer.node:
            self._drop(peer, origin, destination, "it came from a node that may not pass on messages of its origin")
        else:
            self._pass_on(peer, origin, destination, packet)

    def _drop(self, peer: Peer, origin: object, destination: object, why: str) -> None:
        self.dropped += 1
        peer.complaints.warn("message from %s to %s, passed on by %s, dropped: %s", origin, destination, peer.node, why)

    def _take(self, peer: Peer, origin: str, packet: list[Any]) -> None:
        host = self._host
        if origin == host.node_id and peer.node == host.master:
            return  # our own, which came back: so a slave sees that it was accepted
        if self.hop_to(origin) != peer.node:
            self._drop(peer, origin, host.node_id, "it came from a node that may not pass on messages of its origin")
            return
        if is_opening(packet, origin):
            far = host.peer(origin)
            assert isinstance(far, VirtualPeer)  # it has a hop
            if host.is_closed and not far.is_waiting:
                return  # we are about to leave
            if far.is_riding or len(peer.riders) < MAX_RIDERS:
                far.opened(*packet[3:])
            else:
                self._drop(peer, origin, host.node_id, f"{MAX_RIDERS} virtual links go over this link already")
                self._tell(peer, host.node_id, origin, _error(host.node_id, "too many virtual links"))
            return
        known = host.known_peer(origin)
        if not isinstance(known, VirtualPeer):
            return
        if is_state_report(packet, origin):
            known.reported(packet[3])
        elif is_closing(packet, origin):
            known.closed(tuple(packet[3:]))
        elif known.deliverable():
            self._deliver(known, packet)

    def _deliver(self, peer: Peer, packet: list[Any]) -> None:
        """Do what a link does with a packet that came over it."""
        if not packet:
            return
        name = packet.pop(0)
        if not isinstance(name, str):
            self._drop(peer, peer.node, self._host.node_id, "its port name is not a string")
            return
        scheduler = self._host.scheduler
        target = scheduler.ports.get(f"{self._host.node_id}#{name}")
        if target is not None:
            scheduler.deliver(target, tuple(packet))
        elif name:
            peer.log_dropped(name, packet)
        else:
            peer.take_request(packet)

    # --- passing on ---

    def _pass_on(self, peer: Peer, origin: str, destination: str, packet: list[Any]) -> None:
        if origin == destination:
            peer.send_if_connected(["", VIA, origin, destination, packet])
        elif is_opening(packet, origin):
            self._begin(peer, origin, destination, packet)
        elif (origin, destination) in self._conversations.get(peer.node, ()):
            self._forward(peer, origin, destination, packet)
            if is_closing(packet, origin):
                self._end(origin, destination)
        # Else it was under way when the conversation ended, of which its sender hears.

    def _forward(self, peer: Peer, origin: str, destination: str, packet: list[Any]) -> None:
        hop = self._host.known_peer(self._door(destination))
        if hop is None or not hop.can_carry:
            return  # when it goes its conversations go
        try:
            hop.send(["", VIA, origin, destination, packet])
        except AempError as error:  # for instance, too large for this node
            self._end(origin, destination)
            self._tell(peer, destination, origin, _error(destination, str(error)))
            self._tell(hop, origin, destination, _error(origin, str(error)))

    def _begin(self, peer: Peer, origin: str, destination: str, packet: list[Any]) -> None:
        """Begin a conversation, and dial the door for a slave of ours."""
        door = self._door(destination)
        pair = (origin, destination)
        begun = self._conversations.get(peer.node, ())
        hop = self._host.peer(door)
        refused = next((node for node in pair if not self._may_relay(node)), None)
        if refused is not None:
            self._host.refusals["relay"] += 1
            why = f"the rules of {self._host.node_id} do not let {refused} relay messages"
        elif pair not in begun and len(begun) >= 2 * MAX_CONVERSATIONS:
            why = f"{peer.node} has more conversations than its neighbour keeps"
        elif hop.is_up and not hop.is_resting:
            if hop.can_carry:
                for side in (peer.node, door):
                    self._conversations.setdefault(side, set()).update((pair, (destination, origin)))
                self._forward(peer, origin, destination, packet)
                self._report_blocked(origin, destination)
                self._report_blocked(destination, origin)
                return
            why = f"{door} does not support slave nodes"
        elif self._is_ours(destination):
            why = "this slave is not attached to its master"
        elif self._may_wait(door, pair):
            self._waiting.setdefault(door, {})[pair] = packet
            hop.connect()
            return
        else:
            why = "its master dials for too many nodes at once"
        self._tell(peer, destination, origin, _error(destination, why))

    def _may_relay(self, node: str) -> bool:
        """Return whether the rules let a node, and its master if it has one, use this one as a relay."""
        master = ids.master_of(node)
        speakers = [master] if master is not None and not self._is_ours(node) else []
        return rights_of(self._host.settings.rules, node, *speakers).relay

    def _may_wait(self, door: str, pair: Pair) -> bool:
        waiting = self._waiting
        if door not in waiting:
            return len(waiting) < MAX_DIALS
        return pair in waiting[door] or sum(map(len, waiting.values())) < MAX_WAITING

    def _end(self, one: str, other: str) -> None:
        for door in (self._door(one), self._door(other)):
            pairs = self._conversations.get(door, set())
            pairs.difference_update(((one, other), (other, one)))
            if not pairs:
                self._conversations.pop(door, None)

    def _tell(self, hop: Peer, gone: str, whom: str, reason: Reason) -> None:
        """Report to one end that the other is gone."""
        if not hop.can_carry:
            return
        for words in (reason, ()):
            try:
                hop.send(["", VIA, gone, whom, closing(gone, words)])
            except AempError:  # too large for limits as small as in tests; the opening was as large as the last
                continue
            return

    # --- doors ---

    def link_up(self, peer: Peer) -> None:
        """Open what waits for a link that is up, or that stays open after all."""
        for rider in _virtual(peer.riders):
            rider.relay_up()
        for (origin, destination), packet in self._waiting.pop(peer.node, {}).items():
            neighbour = self._host.known_peer(origin)
            if neighbour is not None and neighbour.is_up:
                self._begin(neighbour, origin, destination, packet)

    def state_changed(self, peer: Peer) -> None:
        """Report that a peer is blocked, or is not any more.

        So are the nodes behind it, as this node sees them. And if it is a slave of this node, those that it talks to
        hear of it.
        """
        for rider in _virtual(peer.riders):
            rider.review_state()
        if peer.state.since is not None:
            for slave, other in list(self._conversations.get(peer.node, ())):
                if slave == peer.node:
                    self._report_blocked(slave, other)
        else:
            for other in self._told.pop(peer.node, {}):
                self._report_state(peer.node, other, 0.0)

    def _report_blocked(self, slave: str, other: str) -> None:
        """Report to a node that a slave of ours is blocked, if it is."""
        peer = self._host.known_peer(slave)
        since = None if peer is None or not self._is_ours(slave) else peer.state.since
        if since is None:
            return
        told = self._told.setdefault(slave, {})
        # Not to all, or a hostile slave could have many packets sent for one of its own.
        if other in told or len(told) < MAX_TOLD:
            told[other] = None
            self._report_state(slave, other, max(time() - since, 0.001))

    def _report_state(self, slave: str, other: str, seconds: float) -> None:
        hop = self._host.known_peer(other)  # none if that is a slave of another node
        if hop is None or not hop.can_carry or hop.greeting is None or not hop.greeting.knows_second_path:
            return
        with contextlib.suppress(AempError):  # too large for limits as small as in tests
            hop.send(["", VIA, slave, other, state_report(slave, seconds)])

    def link_down(self, peer: Peer, reason: Reason) -> None:
        """A link is lost, and with it everything that went over it."""
        for rider in _virtual(peer.riders):
            rider.relay_lost(reason)
        self._told.pop(peer.node, None)
        for gone, other in sorted(self._conversations.pop(peer.node, ())):
            if self._door(gone) != peer.node:
                continue
            self._end(gone, other)
            hop = self._host.known_peer(self._door(other))
            if hop is None:
                continue
            if gone == peer.node and reason[:1] == ("shutdown",):
                self._tell(hop, gone, other, ("shutdown", gone))
            else:
                self._tell(hop, gone, other, _error(gone, reason[-1] if reason else "its link is lost"))

    def unreachable(self, peer: Peer, why: str) -> None:
        """A link that was wanted could not be made."""
        for rider in _virtual(peer.riders):
            rider.relay_lost(_error(peer.node, why))
        for origin, destination in self._waiting.pop(peer.node, {}):
            neighbour = self._host.known_peer(origin)
            if neighbour is not None:
                self._tell(neighbour, destination, origin, _error(destination, why))


def _virtual(riders: Iterable[object]) -> list[VirtualPeer]:
    return [rider for rider in riders if isinstance(rider, VirtualPeer)]


def _error(node: str, why: object) -> Reason:
    return ("transport_error", node, worded(why, 500))
