# SPDX-License-Identifier: MIT
"""What a peer sends on, and what it needs of the node that it is a peer of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.links.heartbeat import Pulse
from aemp_gevent.links.second_path import SecondPaths
from aemp_gevent.peers.thread_handover import Handover
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.settings.fields import Settings

if TYPE_CHECKING:
    from aemp_gevent.links.link import Link


PeerT = TypeVar("PeerT")
"""The peers, whose class is above: it needs these protocols."""

PeerT_contra = TypeVar("PeerT_contra", contravariant=True)


class Outlet(Protocol):
    """What carries bytes away, as far as a peer looks at it."""

    @property
    def buffered(self) -> int: ...
    @property
    def peer_address(self) -> str: ...


class Lane(Protocol):
    """What a peer sends on: a :class:`~aemp_gevent.links.link.Link`, or a virtual one."""

    @property
    def transport(self) -> Outlet: ...
    @property
    def send_framing(self) -> str: ...
    @property
    def incarnation(self) -> str: ...

    @property
    def sent_packets(self) -> int:
        """Heartbeats apart, like the next."""
        ...

    received_packets: int
    up_since: float
    """On the monotonic clock."""

    def send(self, packet: list[Any]) -> int:
        """Encode a packet now and queue it; return its size in bytes."""
        ...

    def send_encoded(self, data: bytes) -> None:
        """Queue a packet that is encoded in this framing already."""

    def would_overtake(self, packet: list[Any], most: int) -> bool:
        """Return whether a packet would pass others, and at most so many bytes are before it."""
        ...

    def overtakes(self, most: int) -> bool:
        """Return whether the packet that was sent last passed others, and at most so many bytes are before it."""
        ...


class Router(Protocol[PeerT_contra]):
    """The part of :class:`aemp_gevent.peers.relaying.Routes` that peers use."""

    def via(self, peer: PeerT_contra, origin: object, destination: object, packet: object) -> None:
        """Take a wrapped packet that came from a peer, or pass it on."""

    def link_up(self, peer: PeerT_contra) -> None:
        """Open what waits for a link that is up, or that was about to rest and stays open."""

    def unreachable(self, peer: PeerT_contra, why: str) -> None:
        """Report to what waits for a link that it could not be made."""


class PeerDialler(Protocol[PeerT_contra]):
    """The part of :class:`aemp_gevent.peers.dialling.Dialling` that peers use."""

    def dial(self, peer: PeerT_contra, endpoints: tuple[Endpoint, ...]) -> None:
        """Begin to make a connection; ``attempt_failed`` of the peer is called if that leads to nothing."""

    def link_failed(self, peer: PeerT_contra, link: Link, why: str) -> None:
        """Try the next endpoint of a peer, or call its ``attempt_failed`` if none is left.

        Args:
            peer: The peer that was dialled.
            link: The connection that closed after it had greeted as this peer.
            why: What happened.
        """


class PeerFinder(Protocol):
    """The part of :class:`aemp_gevent.peers.finding.Finding` that peers use."""

    def can_find(self, node: str) -> bool:
        """Return whether anybody can be asked where a node listens whose ID does not say so."""
        ...

    def locate(self, node: str, answered: Callable[[tuple[Endpoint, ...]], None]) -> None:
        """Ask where a node listens; ``()`` when that is not known. Never switches."""


class StrangersLog(Protocol):
    """The part of :class:`aemp_gevent.peers.strangers.Strangers` that peers use."""

    @property
    def complaints(self) -> BoundedLog: ...


class PeerHost(Protocol[PeerT]):
    """The node that a peer is a peer of."""

    @property
    def node_id(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def about_peers(self) -> BoundedLog: ...
    @property
    def pulse(self) -> Pulse: ...
    @property
    def second_paths(self) -> SecondPaths: ...
    @property
    def handover(self) -> Handover: ...
    @property
    def dialling(self) -> PeerDialler[PeerT]: ...
    @property
    def finding(self) -> PeerFinder: ...
    @property
    def strangers(self) -> StrangersLog: ...

    def peer(self, node: str) -> PeerT:
        """Return the peer with this node ID."""
        ...

    @property
    def routes(self) -> Router[PeerT]:
        """The ways to slave nodes, and from them."""
        ...

    @property
    def refusals(self) -> Counter[str]: ...

    def node_requested(self, peer: PeerT, message: list[Any]) -> None:
        """Handle a request about the node, in :mod:`aemp_gevent.node.requests`. Must neither switch nor raise."""

    @property
    def call_came(self) -> Callable[[PeerT, list[Any]], bool]:
        """Delivers a call, if it is a usual one, and returns whether it is."""
        ...

    def is_kept(self, node: str) -> bool:
        """Return whether there must always be a link to this node."""
        ...

    def forget_if_unneeded(self, peer: PeerT) -> None:
        """Forget a peer that may be a stranger's invention."""

    def link_up(self, peer: PeerT) -> None: ...
    def state_changed(self, peer: PeerT) -> None:
        """Report that a peer is blocked, or is not any more."""

    def link_down(self, peer: PeerT, reason: Reason, news: list[Job]) -> None:
        """Report that a link went down.

        Args:
            peer: To whom.
            reason: As monitors get it.
            news: Empty at first, and filled here with the jobs that report it: jobs are done once, so when this
                is struck, and called again with the same list, nothing is reported twice.
        """
