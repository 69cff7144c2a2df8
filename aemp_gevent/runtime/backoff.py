# SPDX-License-Identifier: MIT
"""Pauses between attempts that fail: each about twice the one before, with jitter.

Without jitter all the nodes that lost the same peer would try to reach it at the same moment.
"""

from __future__ import annotations

import random


class Backoff:
    """Computes the pauses between attempts at one thing.

    Args:
        first: The first pause in seconds, before jitter.
        longest: The longest pause in seconds, before jitter. It also bounds the first one.
    """

    __slots__ = ("_first", "_longest", "_seconds")

    def __init__(self, first: float, longest: float) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self._seconds = self._first

    def next(self) -> float:
        """Return the next pause in seconds, and double the one after it."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._longest)
        return jittered(seconds)

    def reset(self) -> None:
        """Start with the first pause again, after a success."""
        self._seconds = self._first


def jittered(seconds: float) -> float:
    """Return a number of seconds, increased by up to half of it at random."""
    return seconds * (1 + random.random() / 2)  # noqa: S311  # not a secret
