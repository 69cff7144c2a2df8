# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""What a node does when something happens in its network: requests, links and seeds that come and go.

Like :mod:`aemp_gevent.node.request_host` it is a part of the node, and reads its private attributes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aemp_gevent.calls import arriving
from aemp_gevent.peers.finding import Answered
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason

if TYPE_CHECKING:
    from aemp_gevent.node.linked_node import LinkedNode


class NodeListener:
    """The :class:`~aemp_gevent.peers.network_listener.NetworkListener` of a node.

    Args:
        node: The node.
    """

    def __init__(self, node: LinkedNode) -> None:
        self._node = node
        self._handle = node._requests.handle

    def node_requested(self, peer: Peer, message: list[Any]) -> None:
        self._handle(peer, message)

    def call_came(self, peer: Peer, message: list[Any]) -> bool:
        node = self._node
        return arriving.deliver(node._ports_host, node._prefix, peer, message, node._max_name_bytes)

    def link_up(self, peer: Peer) -> None:
        node = self._node
        peer.complaints.log(logging.INFO, "link to %s is up", peer.node)
        if node._embedded is not None:
            node._embedded.link_up(peer)
        node._node_monitors.link_up(peer, node._id)

    def link_down(self, peer: Peer, reason: Reason, news: list[Job]) -> None:
        node = self._node
        if node._embedded is not None:
            node._embedded.link_down(peer)
        node._node_monitors.link_down(peer, node._id, reason, news)

    def state_changed(self, peer: Peer) -> None:
        node, state = self._node, peer.state
        if state.state == "blocked":
            peer.complaints.warn("node %s is blocked: its event loop does not run: %s", peer.node, state)
        else:
            peer.complaints.log(logging.INFO, "node %s is not blocked any more", peer.node)
        node._node_monitors.state_changed(peer.node, node._id, state)

    def seeds_changed(self) -> None:
        if self._node._embedded is not None:
            self._node._embedded.seeds_changed()

    def needs(self, peer: Peer) -> bool:
        return self._node._embedded is not None and self._node._embedded.needs(peer)

    def find(self, node: str, answered: Answered) -> None:
        self._node._directory.find(node, answered)
