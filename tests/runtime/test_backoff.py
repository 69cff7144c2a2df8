# SPDX-License-Identifier: MIT
"""Pauses double up to a bound, vary, and start again after a success."""

from __future__ import annotations

import pytest

from aemp_gevent.runtime import backoff
from aemp_gevent.runtime.backoff import Backoff, jittered


@pytest.fixture
def draw(monkeypatch):
    """Set the random numbers: 0 means no jitter, just below 1 the most."""
    drawn = [0.0]
    monkeypatch.setattr(backoff.random, "random", lambda: drawn[0])
    return lambda value: drawn.__setitem__(0, value)


def test_each_pause_is_twice_the_one_before_up_to_the_longest(draw):
    pauses = Backoff(0.5, 3.0)
    assert [pauses.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_adds_up_to_half_and_is_not_doubled(draw):
    pauses = Backoff(0.5, 3.0)
    draw(1.0)
    assert [pauses.next() for _ in range(4)] == [0.75, 1.5, 3.0, 4.5]


def test_reset_starts_with_the_first_pause_again(draw):
    pauses = Backoff(0.5, 3.0)
    for _ in range(3):
        pauses.next()
    pauses.reset()
    assert [pauses.next(), pauses.next()] == [0.5, 1.0]


def test_the_longest_pause_bounds_the_first_one_also_after_a_reset(draw):
    pauses = Backoff(5.0, 2.0)
    assert pauses.next() == 2.0
    pauses.reset()
    assert pauses.next() == 2.0


def test_two_jittered_numbers_differ():
    assert len({jittered(1.0) for _ in range(10)}) > 1
