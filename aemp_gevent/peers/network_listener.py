# SPDX-License-Identifier: MIT
"""What a network needs of its node: the node gets what happens, and answers questions of the network."""

from __future__ import annotations

from typing import Any, Protocol

from aemp_gevent.peers.finding import Answered
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason


class NetworkListener(Protocol):
    """The node of a network. Called on the hub or by a sender; must neither switch nor raise."""

    def node_requested(self, peer: Peer, message: list[Any]) -> None:
        """Handle a request of a peer that is not about the link."""

    def call_came(self, peer: Peer, message: list[Any]) -> bool:
        """Deliver a call of a peer, if it is a usual one; return whether it is."""
        ...

    def link_up(self, peer: Peer) -> None:
        """Note that a link to a node came up."""

    def link_down(self, peer: Peer, reason: Reason, news: list[Job]) -> None:
        """Note that it went down; see :meth:`aemp_gevent.peers.peer_host.PeerHost.link_down`."""

    def state_changed(self, peer: Peer) -> None:
        """Note that a node with a link is blocked, or is not any more."""

    def seeds_changed(self) -> None:
        """Note that other seeds are up than before, or that this node turned out to be a seed."""

    def needs(self, peer: Peer) -> bool:
        """Return whether the directory needs the link to a peer."""
        ...

    def find(self, node: str, answered: Answered) -> None:
        """Ask where a named node listens."""
