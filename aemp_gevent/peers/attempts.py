# SPDX-License-Identifier: MIT
"""An attempt to reach a node: its endpoints, one after the other, until one of them leads to it.

The addresses of a node come from other nodes, which may be wrong, or lie. So an endpoint where
another node answers, or a stranger that cannot prove to be the node, must not prevent
the next one from being tried. All of them together take no longer than one alone may.

**Slow ones come last.** Where there are several, each is first given little time. What has not answered by then is
tried once more behind all others, with the time that is left. So a peer that announces false addresses of a node, and
answers slowly there, delays a link to that node by a few seconds, not by half of all the time there is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from time import monotonic

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.peers.peer import Peer

_SHORTEST_SECONDS = 1.0

QUICK_SECONDS = 2.0
"""For the connection to one of several endpoints, and as long for the handshake, before the next one is tried."""

_NEARLY = 0.95
"""An endpoint that fails after this part of its time has not answered: timers are not exact."""


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
        self._slow: deque[Endpoint] = deque()  # to be tried once more
        self._is_first_round = True
        self._deadline = deadline
        self._is_one = len(self._untried) == 1
        self._current: Endpoint | None = None
        self._slow_at = math.inf  # when the current one has taken more than the little time that it was given
        self._failures: dict[Endpoint | None, str] = {}

    @property
    def is_over(self) -> bool:
        """Whether there is no other endpoint to try, or no time to try one once more."""
        return not (self._untried or self._slow) or (self._has_tried_all and monotonic() >= self._deadline)

    @property
    def _has_tried_all(self) -> bool:
        return not (self._untried and self._is_first_round)

    def next(self, handshake_timeout: float) -> tuple[Endpoint, float, float]:
        """Return the next endpoint, and the seconds that the connection and the handshake may take.

        That is little the first time, unless no other is left. The second time what is left until the deadline is
        shared equally among the endpoints that are left.
        """
        if not self._untried:
            self._untried, self._slow = self._slow, self._untried
            self._is_first_round = False
        count = len(self._untried) + len(self._slow)
        self._current = self._untried.popleft()
        now = monotonic()
        share = (self._deadline - now) / count
        connecting = max(share - handshake_timeout, share / 2, _SHORTEST_SECONDS)
        is_last = count == 1
        proving = handshake_timeout if is_last else min(handshake_timeout, max(share / 2, _SHORTEST_SECONDS))
        if self._is_first_round and not is_last:
            # Half of the share for both: so there is as much for those that are tried once more.
            quick = min(QUICK_SECONDS, max(share / 4, _SHORTEST_SECONDS / 2))
            connecting, proving = min(connecting, quick), min(proving, quick)
            self._slow_at = now + min(connecting, proving) * _NEARLY
        else:
            self._slow_at = math.inf
        return self._current, connecting, proving

    def failed(self, why: str) -> None:
        """Note why the endpoint that was tried last did not lead to the node."""
        self._failures[self._current] = why if self._is_one or self._current is None else f"{self._current}: {why}"
        if self._current is not None and monotonic() >= self._slow_at:
            self._slow.append(self._current)

    @property
    def why(self) -> str:
        """Why the node could not be reached."""
        return "; ".join(self._failures.values()) or "no endpoint"
