# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""The way to a node's insides for the folders above: the toolkit, the ``aemp`` command, ``contrib`` and the tests.

None of this is meant for programs, so it is not part of :class:`~aemp_gevent.node.node.Node`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemp_gevent.directory.engine import NODES

if TYPE_CHECKING:
    from aemp_gevent.node.directory_calls import DirectoryNode
    from aemp_gevent.node.linked_node import LinkedNode
    from aemp_gevent.node.local_node import LocalNode
    from aemp_gevent.node.ports_host import PortsHost
    from aemp_gevent.node.request_host import RequestHost
    from aemp_gevent.peers.network import Network


def ports_host_of(node: LocalNode) -> PortsHost:
    """Return the part of a node that makes, finds, watches and asks ports."""
    return node._ports_host


def request_host_of(node: LinkedNode) -> RequestHost:
    """Return the part of a node that serves requests."""
    return node._request_host


def network_of(node: LinkedNode) -> Network | None:
    """Return a node's links; None while it is private."""
    return node._network


def seeds_down(node: LinkedNode) -> dict[str, str]:
    """Return the seeds to which a node has no link, with the reason; ``""`` if it is not known yet."""
    return {} if node._network is None else node._network.seeds.why_down()


def is_shut_down(node: DirectoryNode) -> bool:
    """Return whether ``shutdown()`` was called; it may still be saying goodbye."""
    return node._directory.is_over


def known_nodes(node: DirectoryNode, timeout: float | None) -> list[str]:
    """Return the IDs of the nodes in a node's directory, which slaves are not. Switches.

    Raises:
        DirectoryUnavailableError: There was no answer in time.
    """
    found: list[str] = node._wait_for("keys", NODES, timeout)
    return found
