# SPDX-License-Identifier: MIT
"""Waiting for a condition."""

from __future__ import annotations

import time
from time import monotonic

import gevent
import pytest

from aemp_gevent.testing import NotInTimeError, wait_until


def test_condition_that_is_true_is_returned_without_a_switch() -> None:
    others: list[int] = []
    other = gevent.spawn(others.append, 1)
    assert wait_until(lambda: "yes") == "yes"
    assert others == []
    other.join()


def test_others_run_until_the_condition_is_true() -> None:
    seen: list[int] = []
    gevent.spawn_later(0.02, seen.append, 7)
    assert wait_until(lambda: seen) == [7]


def test_failure_tells_what_was_seen_and_how_long_it_took() -> None:
    start = monotonic()
    with pytest.raises(
        AssertionError, match=r"^not met within 0\.0\d s \((\d+) checks\); last seen: \[1, 2\]$"
    ) as caught:
        wait_until(lambda: False, within=0.05, show=lambda: [1, 2])
    assert 0.05 <= monotonic() - start < 1.0
    assert isinstance(caught.value, NotInTimeError)
    assert caught.value.waited >= 0.05
    with pytest.raises(NotInTimeError, match=r"\(1 check\); last seen: 0$"):
        wait_until(lambda: 0, within=0)


def test_condition_is_looked_at_once_more_after_a_pause_that_took_all_the_time() -> None:
    looks: list[int] = []

    def condition() -> bool:
        looks.append(1)
        time.sleep(0.05)
        return len(looks) == 2

    assert wait_until(condition, within=0.01)


def test_long_wait_leaves_the_processor_to_others() -> None:
    looks = 0

    def condition() -> bool:
        nonlocal looks
        looks += 1
        return False

    begin = time.process_time()
    with pytest.raises(NotInTimeError):
        wait_until(condition, within=0.2)
    assert time.process_time() - begin < 0.1
    assert looks > 10


def test_exception_of_the_condition_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0)
