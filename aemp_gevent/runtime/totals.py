# SPDX-License-Identifier: MIT
"""What a node has counted since it began, for :mod:`aemp_gevent.node.metrics`: rare things, off the hot paths.

A total has a name and perhaps a label, whose values must be few: a monitoring system keeps a series for each.
"""

from __future__ import annotations

from collections import defaultdict

PAUSES = "pauses"
PAUSED_SECONDS = "paused_seconds"
RESTARTS = "restarts"
CHILD_RESTARTS = "child_restarts"

OTHER = "other"
"""The label of everything that has no label of its own."""

CAUSES = (
    "normal",
    "call_cycle",
    "call_ended",
    "call_failed",
    "die",
    "mailbox_overflow",
    "no_such_port",
    "shutdown",
    "spawn_refused",
    "transport_error",
    OTHER,
)
"""Why a port died: normally, for a reason that the library itself gives, or for another one."""


class Totals(defaultdict[tuple[str, ...], float]):
    """Numbers by name and label."""

    __slots__ = ("fired",)

    def __init__(self) -> None:
        super().__init__(float)
        self.fired = dict.fromkeys(CAUSES, 0)
        """Monitors that fired, by :data:`cause <CAUSES>`. They are not rare, and the hash of a tuple costs more."""


class Labels:
    """Gives labels to the first few values, and :data:`OTHER` to those that come later.

    Args:
        limit: How many values get labels of their own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """Return the label of a value, which is the same each time."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value
