# SPDX-License-Identifier: MIT
"""When a node may be dialled again: soon after a failure, and later and later after refusals."""

from __future__ import annotations

import pytest

from aemp_gevent.peers import redialling
from aemp_gevent.peers.redialling import Redialling
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(redialling, "monotonic", clock)
    return clock


def pause_after(call: object, pauses: Redialling, clock: Clock) -> float:
    call()  # type: ignore[operator]
    seconds = pauses.at - clock.now
    assert not pauses.may_dial
    clock.now = pauses.at
    assert pauses.may_dial
    return seconds


def test_a_node_that_was_never_dialled_may_be_dialled() -> None:
    assert Redialling().may_dial
    assert Redialling().refused_until == 0.0


def test_pauses_after_failures_double_up_to_a_second_and_begin_again_after_a_success(clock: Clock) -> None:
    pauses = Redialling()
    for seconds in (0.2, 0.4, 0.8, 1.0, 1.0):
        assert seconds <= pause_after(pauses.failed, pauses, clock) <= 1.5 * seconds
    pauses.failed()
    pauses.succeeded()
    assert pauses.may_dial
    assert 0.2 <= pause_after(pauses.failed, pauses, clock) <= 0.3


def test_pauses_after_refusals_double_up_to_a_minute_until_the_node_lets_this_one_in(clock: Clock) -> None:
    pauses = Redialling()
    for seconds in (5, 10, 20, 40, 60, 60):
        assert seconds <= pause_after(pauses.refused, pauses, clock) <= 1.5 * seconds
        assert pauses.refused_until == pauses.at
    pauses.let_in()
    assert pauses.refused_until == 0.0
    assert 5 <= pause_after(pauses.refused, pauses, clock) <= 7.5


def test_only_the_first_refusal_is_news(clock: Clock) -> None:
    pauses = Redialling()
    assert [pauses.refused() for _ in range(3)] == [True, False, False]
    pauses.let_in()
    assert pauses.refused()
