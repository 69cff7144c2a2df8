# SPDX-License-Identifier: MIT
"""Attempts to reach a node: in which order its endpoints are tried, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.addresses.endpoints import endpoints_of
from aemp_gevent.peers import attempts
from aemp_gevent.peers.attempts import QUICK_SECONDS, Attempt
from tests.support.clock import Clock

HANDSHAKE = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attempts, "monotonic", clock)
    return clock


def attempt_at(clock: Clock, count: int) -> Attempt:
    peer: Any = None  # not used by what is tested here
    noderef = ",".join(f"10.0.0.{number}:4040" for number in range(count))
    return Attempt(peer, endpoints_of(noderef), clock.now + 30)


def tried(attempt: Attempt, clock: Clock, takes: dict[int, float]) -> list[tuple[int, float]]:
    """Try endpoints that all fail; return which were tried, by number, and how long after the beginning.

    Args:
        attempt: The attempt.
        clock: Set to when all is over.
        takes: How many seconds pass before each connection fails; those that are not named never answer.
    """
    begin, found = clock.now, []
    while not attempt.is_over:
        endpoint, connecting, proving = attempt.next(HANDSHAKE)
        number = int(endpoint.host.rpartition(".")[2])
        found.append((number, clock.now - begin))
        clock.now += min(takes.get(number, connecting + proving), connecting + proving)
        attempt.failed("it did not answer")
    return found


def test_the_only_endpoint_has_all_the_time(clock: Clock) -> None:
    attempt = attempt_at(clock, 1)
    assert attempt.next(HANDSHAKE)[1:] == (20.0, HANDSHAKE)
    clock.now += 30
    attempt.failed("why")
    assert attempt.is_over
    assert attempt.why == "why"


def test_slow_endpoints_delay_the_next_one_little_and_are_tried_again_with_the_time_that_is_left(clock: Clock) -> None:
    order = tried(attempt_at(clock, 3), clock, {1: 0.1})
    assert [number for number, _ in order] == [0, 1, 2, 0, 2]
    assert order[1][1] < 2 * QUICK_SECONDS + 0.1
    assert order[2][1] < 2 * QUICK_SECONDS + 0.2
    assert order[4][1] - order[3][1] > 2 * QUICK_SECONDS


def test_endpoints_that_fail_at_once_are_tried_once_and_the_last_one_has_all_the_time(clock: Clock) -> None:
    attempt = attempt_at(clock, 3)
    for _ in range(2):
        attempt.next(HANDSHAKE)
        attempt.failed("refused")
    _, connecting, proving = attempt.next(HANDSHAKE)
    assert (connecting, proving) == (20.0, HANDSHAKE)
    attempt.failed("refused")
    assert attempt.is_over
    assert attempt.why == "; ".join(f"10.0.0.{number}:4040: refused" for number in range(3))


@pytest.mark.parametrize("count", range(2, 17))
def test_all_of_them_take_as_long_as_one_may(clock: Clock, count: int) -> None:
    order = tried(attempt_at(clock, count), clock, {})
    assert [number for number, _ in order[:count]] == list(range(count))
    assert order[-1][1] < 30
    assert clock.now - 1000.0 <= 30 + HANDSHAKE
