# SPDX-License-Identifier: MIT
"""How many cases the tests try where there is no end of them: seeds, examples, points of an enumeration.

``make test-thorough`` sets ``AEMP_TEST_THOROUGH=1``, and they try all of it, or a large part of what takes minutes.
Otherwise they try a sample, which differs from run to run where it is part of an enumeration. ``AEMP_TEST_TIMES=10``
makes simulations, leak tests and hammering threads repeat that many times more. Coverage leaves out the
modules that ask: repetition takes long under its tracer, and reaches few lines that no other test reaches.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("AEMP_TEST_THOROUGH", "").lower() not in {"", "0", "false"}

TIMES = int(os.environ.get("AEMP_TEST_TIMES") or 1)

_random = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
"""Of the same seed in all processes of one run, because pytest-xdist wants them to collect the same tests."""

EXAMPLES = 100 if THOROUGH else 20
"""How many examples a property is tried with, where its test does not say it."""


def tries(usually: T, thoroughly: T) -> T:
    """Return how many seeds or examples to try, or which."""
    return thoroughly if THOROUGH else usually


def repeats(usually: int, thoroughly: int) -> int:
    """Return how often to repeat what has no natural end."""
    return TIMES * tries(usually, thoroughly)


def sampled(points: Sequence[T], most: int, thoroughly: int | None = None) -> Sequence[T]:
    """Return ``most`` of the points, evenly spread from a random begin, with the first and the last.

    If tests are thorough, return all of them, or ``thoroughly`` many.
    """
    if THOROUGH:
        most = len(points) if thoroughly is None else thoroughly
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    begin = _random.random()
    inner = [points[min(int((number + begin) * step), len(points) - 2)] for number in range(1, most - 1)]
    return [points[0], *inner, points[-1]]
