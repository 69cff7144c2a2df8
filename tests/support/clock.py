# SPDX-License-Identifier: MIT
"""A monotonic clock that a test sets."""

from __future__ import annotations


class Clock:
    """Stands in for ``time.monotonic`` in one module.

    Attributes:
        now: What it shows, in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
