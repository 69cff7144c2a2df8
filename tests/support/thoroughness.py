# SPDX-License-Identifier: MIT
"""How much the tests try that could go on without end: seeds, examples, the points of an exhaustive enumeration.

In CI, which sets ``CI=true``, all that they name; elsewhere a part, so that they can be run again and again. Which part
of an enumeration differs from run to run: every point is looked at in time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("CI", "").lower() not in {"", "0", "false"}

EXAMPLES = 100 if THOROUGH else 20
"""How many examples a property is tried with, where its test does not say it."""


def tries(locally: int, in_ci: int) -> int:
    """Return how many seeds or examples to try."""
    return in_ci if THOROUGH else locally


def sampled(points: Sequence[T], most: int) -> Sequence[T]:
    """Return all points in CI, elsewhere ``most`` of them, evenly spread; the first and the last are always there."""
    if THOROUGH or len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    begin = random.random()
    inner = [points[min(int((number + begin) * step), len(points) - 2)] for number in range(1, most - 1)]
    return [points[0], *inner, points[-1]]
