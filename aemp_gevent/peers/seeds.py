# SPDX-License-Identifier: MIT
"""The seeds of a node, and other nodes to which it keeps links: each is dialled again whenever its link is lost.

What one seed is, and how it is found, is in :mod:`aemp_gevent.peers.seed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.seed import Seed, SeedsHost, is_up, new_pauses, next_attempt
from aemp_gevent.runtime.forking import Helper, helpers

_LOOK_SECONDS = 30.0
"""How long to wait for a change before looking whether a link is still up."""


class Seeds:
    """Keeps links to all seeds of a node, and to other nodes to which there must always be one.

    Args:
        host: The network.
        texts: The seeds.
        master: The node that this one is a slave of; then there is one seed, and it is that node always.
    """

    def __init__(self, host: SeedsHost, texts: Iterable[str], *, master: str = "") -> None:
        self._host = host
        self._seeds = [
            Seed(text, host, self.refresh, is_name=not master and _is_name(text), node=master) for text in texts
        ]
        self._keepers: dict[str, Any] = {}  # greenlets, by the node's ID
        self._workers = helpers()
        self._told: tuple[bool, bool, list[str]] = (False, False, [])

    def start(self) -> None:
        """Dial, from now on."""
        for seed in self._seeds:
            self._workers.spawn(seed.run)

    def stop(self) -> None:
        """Stop dialling. Idempotent."""
        self._workers.kill(block=False)
        self._keepers.clear()
        for seed in self._seeds:
            seed.stop()

    @property
    def workers(self) -> list[Helper]:
        """The greenlets that dial and wait."""
        found = [*self._workers, *(worker for seed in self._seeds for worker in seed.tries)]
        return [worker for worker in found if isinstance(worker, Helper)]  # as all of them are

    def up(self) -> list[Peer]:
        """Return the seeds whose links are up and kept, in an order that is the same on all nodes."""
        nodes = {node for seed in self._seeds for node in seed.chosen}
        found = [peer for peer in map(self._host.peers.get, nodes) if peer is not None and peer.is_up]
        return sorted(found, key=lambda peer: peer.node.encode())

    def refresh(self) -> None:
        """Check whether other seeds are up than before, none can come up soon, or this node is one. Never switches."""
        news = (self.are_own, self.are_settled, [peer.node for peer in self.up()])
        if news != self._told:
            self._told = news
            self._host.changed()  # for those who wait for seeds
            self._host.seeds_changed()

    @property
    def are_settled(self) -> bool:
        """Whether every seed that can be linked to is linked."""
        return all(seed.is_settled for seed in self._seeds)

    def wait(self, timeout: float) -> bool:
        """Wait until each seed is linked to, or did not answer; return whether that came in time. Switches."""
        deadline = monotonic() + timeout
        while not self.are_settled:
            left = deadline - monotonic()
            if left <= 0:
                return False
            self._host.wait_for_change(left)
        return True

    def dial_soon(self) -> None:
        """Dial again soon wherever nobody accepted the last connection. Never switches."""
        shortened = [seed.dial_soon() for seed in self._seeds]
        if any(shortened):
            self._host.changed()

    @property
    def are_own(self) -> bool:
        """Whether this node itself is among the seeds."""
        return any(seed.is_own for seed in self._seeds)

    def why_down(self) -> dict[str, str]:
        """Return, for each other seed without a link, the reason; ``""``: it is not known yet."""
        return {seed.text: seed.why_down for seed in self._seeds if not (seed.chosen or seed.is_own)}

    def is_kept(self, node: str) -> bool:
        """Return whether there must always be a link to this node."""
        return node in self._keepers or any(node in seed.chosen for seed in self._seeds)

    # --- other nodes ---

    def keep(self, node: str) -> None:
        """Keep a link to this node, until :meth:`unkeep`. Idempotent; never switches."""
        if node not in self._keepers:
            self._keepers[node] = self._workers.spawn(self._keep, node)

    def unkeep(self, node: str) -> None:
        """Release the link to this node: it is closed when nothing else needs it. Idempotent; never switches."""
        keeper = self._keepers.pop(node, None)
        if keeper is not None:
            keeper.kill(block=False)

    def _keep(self, node: str) -> None:
        pauses = new_pauses()
        while True:
            if self._is_up(node):
                pauses.reset()
                while self._is_up(node):
                    self._host.wait_for_change(_LOOK_SECONDS)
                # All others may have lost it, too: not in step.
                gevent.sleep(next_attempt(self._host, node, pauses) - monotonic())
            self._host.peer(node).connect()
            deadline = next_attempt(self._host, node, pauses)
            while not self._is_up(node) and (left := deadline - monotonic()) > 0:
                self._host.wait_for_change(left)

    def _is_up(self, node: str) -> bool:
        return is_up(self._host, node)


def _is_name(seed: str) -> bool:
    """Return whether a seed is a single host name, or a folder."""
    if not seed or "," in seed or seed.isdigit():
        return False
    endpoint = parse_endpoint(seed)
    return endpoint.is_folder or not endpoint.is_numeric
