# SPDX-License-Identifier: MIT
"""The seam through which tests look into a node: what users cannot see, in one place.

A test reads a node's private state only by these functions, so that a change of the node's insides changes this module
and not a hundred tests. What belongs to one of the node's parts is read from that part.
"""

from __future__ import annotations

from collections.abc import Mapping

from aemp_gevent.directory.embedded.engine import EmbeddedEngine
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.node.log_feed import LogFeed
from aemp_gevent.node.node import Node
from aemp_gevent.node.request_host import RequestHost
from aemp_gevent.peers.network import Network
from aemp_gevent.ports.port import Port


def network_of(node: Node) -> Network:
    """Return the links of a node, which must have been initialised."""
    assert node._network is not None, "the node is private"
    return node._network


def end_kept_watches(node: Node) -> None:
    """Ask a node's peers to stop at once to watch ports that nobody monitors any more."""
    for peer in node._network.peers.values() if node._network else ():
        peer.ports.kept.end_all()


def ports_of(node: LocalNode) -> Mapping[str, Port]:
    """Return the table of a node's ports, also those of other nodes, by their IDs."""
    return node._ports


def embedded_of(node: Node) -> EmbeddedEngine:
    """Return the engine of a node's directory, which must be the embedded one."""
    assert node._embedded is not None, "the node has no embedded directory"
    return node._embedded


def log_feed_of(node: Node) -> LogFeed:
    """Return the listeners to a node's log."""
    return node._log_feed


def request_host_of(node: Node) -> RequestHost:
    """Return the part of a node that serves requests."""
    return node._request_host
