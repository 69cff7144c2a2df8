# SPDX-License-Identifier: MIT
"""What a node has counted since it began, for :mod:`aemp_gevent.node.metrics`: rare things, off the hot paths.

A total has a name and perhaps a label, whose values must be few: a monitoring system keeps a series for each.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable
from zlib import crc32

PAUSES = "pauses"
PAUSED_SECONDS = "paused_seconds"
RESTARTS = "restarts"
CHILD_RESTARTS = "child_restarts"

OTHER = "other"
"""The label of everything that has no label of its own."""

MAX_LABEL = 200
"""Characters of a label."""

MOST_GIVEN = 10
"""How many times as many values as have labels at once ever have one. If they come in no particular order, that is
enough for a million values."""

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


def short_label(text: str) -> str:
    """Return a text as a label: not too long, and without what UTF-8 cannot express."""
    return text[:MAX_LABEL].encode("utf-8", "replace").decode()


class Labels:
    """Gives labels to a few values, and :data:`OTHER` to the rest.

    Which ones does not depend on their order: those with the lowest checksums. So processes that see the same values
    choose the same, and all that any of them adds to :data:`OTHER` is there in their sum as well: a value with a label
    in the sum had one in each of them from its first moment on.

    A value can lose its label, but gets it back never. To bound how many labels there ever are, whatever values peers
    make up, those that come later have none once :data:`MOST_GIVEN` times ``limit`` values had one.

    Args:
        limit: How many values have labels of their own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit * MOST_GIVEN
        self._known: set[str] = set()
        self._ranked: list[tuple[int, str]] = []

    def see(self, values: Iterable[str]) -> None:
        """Choose again, with these values."""
        for value in values:
            if value == OTHER or value in self._known or not self._left:
                continue
            rank = (crc32(value.encode("utf-8", "replace")), value)
            if len(self._ranked) == self._limit:
                if rank > self._ranked[-1]:
                    continue
                self._known.remove(self._ranked.pop()[1])
            insort(self._ranked, rank)
            self._known.add(value)
            self._left -= 1

    def of(self, value: str) -> str:
        """Return the label of a value that was seen."""
        return value if value in self._known else OTHER
