# SPDX-License-Identifier: MIT
"""Budgets: how many restarts within which time, and after which pauses."""

from __future__ import annotations

import pytest

from aemp_gevent.otp.budgets import Budget, RestartLimits


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.backoff.random.random", lambda: 0.0)


def test_the_pauses_double_up_to_the_longest():
    budget = Budget(RestartLimits(None, 60, (0.1, 1)))
    assert [budget.take(now, 0.0) for now in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])


@pytest.mark.parametrize(("lived", "pause"), [(0.9, 0.4), (1.0, 0.4), (1.1, 0.1)])
def test_a_child_that_ran_longer_than_the_longest_pause_has_recovered(lived, pause):
    budget = Budget(RestartLimits(None, 60, (0.1, 1)))
    budget.take(0, 0.0)
    budget.take(1, 0.0)
    assert budget.take(10, lived) == pytest.approx(pause)


def test_one_more_restart_within_the_period_is_too_many():
    budget = Budget(RestartLimits(2, 10, None))
    assert [budget.take(now, 0.0) for now in (0, 5, 9.9)] == [0, 0, None]


def test_restarts_older_than_the_period_do_not_count():
    budget = Budget(RestartLimits(2, 10, None))
    assert [budget.take(now, 0.0) for now in (0, 5, 10, 14.9)] == [0, 0, 0, None]
    assert budget.spent == 3


def test_an_intensity_of_0_allows_no_restart_and_none_allows_all():
    assert Budget(RestartLimits(0, 10, None)).take(0, 100.0) is None
    budget = Budget(RestartLimits(None, 10, None))
    assert [budget.take(0, 0.0) for _ in range(100)] == [0.0] * 100


def test_the_usual_budget_survives_ordinary_churn_and_ends_a_crash_loop():
    """Ten crashes within five minutes are survived, and a child that crashes at once is given up within three."""
    budget = Budget(RestartLimits(10, 300, (0.1, 30)))
    pauses: list[float] = []
    while (pause := budget.take(sum(pauses), 0.0)) is not None:
        pauses.append(pause)
    assert len(pauses) == 10
    assert 60 < sum(pauses) < 180
