# SPDX-License-Identifier: MIT
"""When a node may be dialled again, for messages to it, after it could not be reached or refused this one.

Seeds have pauses of their own in :mod:`aemp_gevent.peers.seed`, masters in :mod:`aemp_gevent.peers.master_search`.
"""

from __future__ import annotations

from time import monotonic

from aemp_gevent.runtime.backoff import Backoff

_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 1.0
"""After a failed dial the next waits this long, doubling each time: a tight loop of sends to a dead
node must not become a tight loop of dialling. Not longer: meanwhile every message is reported as lost, and the
node may be back."""

_FIRST_REFUSED_RETRY_SECONDS = 5.0
_LAST_REFUSED_RETRY_SECONDS = 60.0
"""After the node itself refused this one, doubling each time until it lets this one in."""


class Redialling:
    """The pauses between attempts to reach one node."""

    __slots__ = ("_pauses", "_refused_pauses", "at")

    def __init__(self) -> None:
        self.at = 0.0
        """When the node may be dialled again, on the monotonic clock."""
        self._pauses = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        self._refused_pauses: Backoff | None = None  # while it refuses this node

    @property
    def may_dial(self) -> bool:
        """Whether the node may be dialled now."""
        return monotonic() >= self.at

    def failed(self) -> None:
        """Pause, as an attempt led to nothing."""
        self.at = monotonic() + self._pauses.next()

    def succeeded(self) -> None:
        """Begin with short pauses again, as there is a link."""
        self.at = 0.0
        self._pauses.reset()

    def refused(self) -> bool:
        """Pause, as the node let a link come up only to refuse this one; return whether that is news."""
        is_first = self._refused_pauses is None
        if self._refused_pauses is None:
            self._refused_pauses = Backoff(_FIRST_REFUSED_RETRY_SECONDS, _LAST_REFUSED_RETRY_SECONDS)
        self.at = monotonic() + self._refused_pauses.next()
        return is_first

    def let_in(self) -> None:
        """Forget that the node refused this one."""
        self._refused_pauses = None

    @property
    def refused_until(self) -> float:
        """When a node that refuses this one may be dialled again, on the monotonic clock; 0.0: it does not refuse."""
        return 0.0 if self._refused_pauses is None else self.at
