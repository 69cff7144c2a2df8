# SPDX-License-Identifier: MIT
"""A node as its settings make it: its limits, its ID, and the links and the directory that it has because of them.

It is a module of its own so that :mod:`aemp_gevent.node.request_host` can be below the node that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemp_gevent.errors import InvalidPortError
from aemp_gevent.node.directory_calls import DirectoryNode
from aemp_gevent.wire.limits import Limits, is_long

if TYPE_CHECKING:
    from aemp_gevent.directory.embedded.engine import EmbeddedEngine
    from aemp_gevent.directory.etcd.engine import EtcdEngine
    from aemp_gevent.links.node_state import NodeState
    from aemp_gevent.node.log_feed import LogFeed
    from aemp_gevent.peers.network import Network
    from aemp_gevent.settings.fields import Settings


class ConfiguredNode(DirectoryNode):
    """A node with settings, or with the defaults while it is private."""

    _log_feed: LogFeed
    """The listeners to its log."""

    def _begin(self) -> None:
        super()._begin()
        self._network: Network | None = None
        self._embedded: EmbeddedEngine | None = None  # the directory's engine, if it depends on links
        self._etcd: EtcdEngine | None = None  # the directory's engine, if it is etcd's
        self._former_id = self._id

    @property
    def settings(self) -> Settings | None:
        """The settings with which this node was initialised; None before."""
        return None if self._network is None else self._network.settings

    # --- what changes with them ---

    def _was_met(self, node: str) -> bool:
        if self._network is None:
            return node == self._id
        peer = self._network.peers.get(node)
        return peer.was_met if peer is not None else node == self._id

    def _split_any_port(self, port: object) -> tuple[str, str]:
        """Accept names that are refused elsewhere, for example with blanks, of nodes that were linked to this one.

        Nodes of other programs may have such names.
        """
        try:
            return super()._split_any_port(port)
        except InvalidPortError:
            node, _, name = port.partition("#") if isinstance(port, str) else ("", "", "")
            is_odd = is_long(name, self._max_name_bytes) or not name.isprintable()
            if is_odd or node == self._id or not self._was_met(node):
                raise
            return node, name

    def _rename(self, node_id: str) -> None:
        self._former_id = self._id
        super()._rename(node_id)

    def _is_here(self, node: str) -> bool:
        return node in (self._id, self._former_id)

    def _wants_strict(self) -> bool:
        return super()._wants_strict() if self._network is None else self._network.settings.strict

    @property
    def _limits(self) -> Limits:
        return super()._limits if self._network is None else self._network.settings.limits

    @property
    def _directory_seconds(self) -> float:
        return super()._directory_seconds if self._network is None else self._network.settings.monitor_timeout

    # --- links ---

    def up_nodes(self) -> list[str]:
        """Return the IDs of all nodes to which a link is up, without this node."""
        # A list, made in one step: other native threads may call this, too.
        peers = list(self._network.peers.values()) if self._network is not None else []
        return [peer.node for peer in peers if peer.is_up]

    def node_state(self, node: object) -> NodeState:
        """Return whether a node is up, blocked or gone, as far as this node knows. Takes a node ID or a port of it.

        A blocked node has a link to this one, and runs, but its event loop does not, for example because code computes
        for seconds. Monitors of its ports fire, and its entries in the directory vanish, only when it is gone.

        Returns:
            The state; it also says since when a node is blocked, and where. This node itself is up.
        """
        from aemp_gevent.links.node_state import GONE, UP  # noqa: PLC0415  # only nodes with links need it

        node_id = self._split_port(node)[0]
        if self._is_here(node_id):
            return UP
        peer = None if self._network is None else self._network.known_peer(node_id)
        return GONE if peer is None else peer.state

    def node_is_up(self, node: object) -> bool:
        """Return whether a link to a node is up; True for this node. Takes a node ID or a port of the node."""
        node_id = self._split_port(node)[0]
        return self._is_here(node_id) or node_id in self.up_nodes()
