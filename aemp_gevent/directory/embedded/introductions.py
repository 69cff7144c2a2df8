# SPDX-License-Identifier: MIT
"""Introducing global seeds to each other: a client that has links to several sends their IDs to its master."""

from __future__ import annotations

from collections.abc import Collection

from aemp_gevent.addresses.endpoints import is_resolved
from aemp_gevent.directory.embedded.client import DirectoryClient
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.protocol import GLOBALS, send_update
from aemp_gevent.directory.merge import Change
from aemp_gevent.peers.peer import Peer


class Introductions:
    """The global seeds that a client has introduced to its master.

    Args:
        host: The node's links.
        client: The node as a client of its master.
        global_peers: The global nodes whose links are up, as the engine knows them at any time.
    """

    def __init__(self, host: EmbeddedHost, client: DirectoryClient, global_peers: Collection[Peer]) -> None:
        self._host = host
        self._client = client
        self._globals = global_peers
        self._introduced: set[str] = set()
        self._is_over = False

    def forget(self) -> None:
        """Forget all introductions: the next master knows nothing of them."""
        self._introduced.clear()

    def introduce(self) -> None:
        """Introduce the global seeds that the master does not know."""
        if self._others():
            self._client.query("keys", GLOBALS, self._heard)

    def lost(self, peer: Peer) -> None:
        """Withdraw the introduction of a peer whose link is down."""
        if peer.node in self._introduced and self._client.master is not None:
            send_update(self._client.master, GLOBALS, Change({}, [peer.node]))
            self._introduced.discard(peer.node)  # not before: what is interrupted until here is done again

    def end(self) -> None:
        """Introduce no more seeds: the node has a directory of its own."""
        self._is_over = True

    def _others(self) -> list[str]:
        """Return the global seeds that the master may not know and can dial, which takes more than a name."""
        master = self._client.master
        if master is None or self._is_over:
            return []
        others = [peer for peer in self._host.up_seeds() if peer in self._globals and peer is not master]
        return [peer.node for peer in others if is_resolved(peer.node)]

    def _heard(self, known: Collection[str]) -> None:
        nodes = [node for node in self._others() if node not in known]
        if self._client.master is not None and nodes:
            self._introduced.update(nodes)
            send_update(self._client.master, GLOBALS, Change(dict.fromkeys(nodes), []))
