# SPDX-License-Identifier: MIT
"""An attempt to reach a node: its endpoints, one after the other, until one of them leads to it.

Where a node listens is what others say of it, and they may be wrong, or lie. So an endpoint where
another node answers, or somebody who cannot prove to be the node, must not keep
anybody from trying the next one. All of them together take no longer than one alone may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.peers.peer import Peer

_SHORTEST_SECONDS = 1.0


class Attempt:
    """One attempt to reach a node.

    Args:
        peer: The node.
        endpoints: Where it may listen, the likeliest first.
        deadline: When all of it must be over, on the monotonic clock.
    """

    def __init__(self, peer: Peer, endpoints: Iterable[Endpoint], deadline: float) -> None:
        self.peer = peer
        self._untried = deque(endpoints)
        self._deadline = deadline
        self._is_one = len(self._untried) == 1
        self._current: Endpoint | None = None
        self._failures: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether there is no other endpoint to try."""
        return not self._untried

    def next(self, handshake_timeout: float) -> tuple[Endpoint, float, float]:
        """Return the next endpoint, and the seconds that the connection and the handshake may take.

        What is left until the deadline is shared equally among the endpoints that are left.
        """
        share = (self._deadline - monotonic()) / len(self._untried)
        connecting = max(share - handshake_timeout, share / 2, _SHORTEST_SECONDS)
        proving = min(handshake_timeout, max(share / 2, _SHORTEST_SECONDS))
        self._current = self._untried.popleft()
        return self._current, connecting, handshake_timeout if self.is_over else proving

    def failed(self, why: str) -> None:
        """Note why the endpoint that was tried last did not lead to the node."""
        self._failures.append(why if self._is_one or self._current is None else f"{self._current}: {why}")

    @property
    def why(self) -> str:
        """Why the node could not be reached."""
        return "; ".join(self._failures) or "no endpoint"
