# SPDX-License-Identifier: MIT
"""Budgets: how many restarts within which time, and after which pauses."""

from __future__ import annotations

import pytest

from aemp_gevent.otp import Supervisor
from aemp_gevent.otp.budgets import Budget


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.backoff.random.random", lambda: 0.0)


def test_the_pauses_double_up_to_the_longest():
    pauses = Budget(None, 60, (0.1, 1)).pauses()
    found = [pauses.next(0.0) for _ in range(6)]
    assert [pause.seconds for pause in found] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])
    assert [pause.is_longest for pause in found] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(("lived", "pause"), [(0.9, 0.4), (1.0, 0.4), (1.1, 0.1)])
def test_a_child_that_ran_longer_than_the_longest_pause_has_recovered(lived, pause):
    pauses = Budget(None, 60, (0.1, 1)).pauses()
    pauses.next(0.0)
    pauses.next(0.0)
    assert pauses.next(lived).seconds == pytest.approx(pause)


def test_without_pauses_each_restart_is_after_the_longest():
    pauses = Budget(None, 60, None).pauses()
    assert [pauses.next(100.0) for _ in range(2)] == [(0.0, True)] * 2


def test_one_more_restart_within_the_period_is_too_many():
    budget = Budget(2, 10, None)
    assert [budget.take(now) for now in (0, 5, 9.9)] == [True, True, False]


def test_restarts_older_than_the_period_do_not_count():
    budget = Budget(2, 10, None)
    assert [budget.take(now) for now in (0, 5, 10, 14.9)] == [True, True, True, False]
    assert budget.spent == 3


def test_an_intensity_of_0_allows_no_restart_and_none_allows_all():
    budget = Budget(0, 10, (1, 30))
    assert budget.pauses().next(0.0) == (0.0, True)
    assert not budget.take(0)
    budget = Budget(None, 10, None)
    assert all(budget.take(0) for _ in range(100))


@pytest.mark.parametrize(
    ("intensity", "period", "backoff", "can"),
    [(3, 300, (0.1, 30), True), (3, 5, (0.1, 30), False), (3, 5, None, True), (None, 5, (1, 30), True)],
)
def test_it_is_known_whether_one_child_can_spend_a_budget(intensity, period, backoff, can):
    assert Budget(intensity, period, backoff).one_child_can_spend_it == can


def test_the_usual_budget_ends_a_crash_loop_within_minutes_and_not_before_one_minute():
    usual = Supervisor
    budget = Budget(usual.intensity, usual.period, usual.backoff)
    assert budget.one_child_can_spend_it
    pauses = budget.pauses()
    now = 0.0
    while True:
        pause = pauses.next(0.0)
        if pause.is_longest and not budget.take(now):
            break
        now += pause.seconds
    assert budget.intensity == budget.spent - 1
    assert 120 < now < 180
