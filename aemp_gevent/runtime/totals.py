# SPDX-License-Identifier: MIT
"""What a node has counted since it began, for :mod:`aemp_gevent.node.metrics`: rare things, off the hot paths.

A total has a name and perhaps a label, whose values must be few: a monitoring system keeps a series for each.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeAlias

Totals: TypeAlias = "defaultdict[tuple[str, ...], float]"
"""Numbers by name and label."""

MONITORS_FIRED = "monitors_fired"
PAUSES = "pauses"
PAUSED_SECONDS = "paused_seconds"
RESTARTS = "restarts"
CHILD_RESTARTS = "child_restarts"

OTHER = "other"
"""The label of everything that has no label of its own."""

_CAUSES = (
    "call_cycle",
    "call_ended",
    "call_failed",
    "die",
    "mailbox_overflow",
    "no_such_port",
    "shutdown",
    "spawn_refused",
    "transport_error",
)


_FIRED = {cause: (MONITORS_FIRED, cause) for cause in ("normal", OTHER, *_CAUSES)}


def count_fired(totals: Totals, reason: tuple[Any, ...]) -> None:
    """Count a monitor that fires: by its reason if the library itself gives such, otherwise as ``"other"``."""
    cause = reason[0] if reason else "normal"
    # Not isinstance: the element may be anything, even something that raises there.
    totals[(cause.__class__ is str and _FIRED.get(cause)) or _FIRED[OTHER]] += 1


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
