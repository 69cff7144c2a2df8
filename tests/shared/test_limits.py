# SPDX-License-Identifier: MIT
"""Limiters: never more than allowed in any window, and as much as allowed in the end."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aemp_gevent.shared.owned
from aemp_gevent.errors import InvalidSharedError, RemoteError
from aemp_gevent.shared import Limiter, Verdict
from aemp_gevent.shared.limits import Rate, _Bucket, _Fixed, _Sliding
from tests.support.networking import MakeNode

HITS = st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 3)), max_size=40)


@given(hits=HITS)
@pytest.mark.parametrize("kind", [_Sliding, _Fixed, _Bucket])
def test_no_window_has_more_than_is_allowed(kind: Any, hits: list[tuple[float, int]]) -> None:
    rate = Rate("bucket" if kind is _Bucket else "sliding", 4, 1.0, 4)
    meter, now = kind(), 100.0
    allowed: list[tuple[float, int]] = []
    for pause, cost in hits:
        now += pause
        verdict = meter.hit(rate, cost, now)
        if verdict.allowed:
            allowed.append((now, cost))
            assert verdict.retry_after == 0
        else:
            assert 0 < verdict.retry_after < 1.001
            again = kind()
            for part in meter.export(now):
                again.merge(part, now)
            assert again.hit(rate, cost, now + verdict.retry_after + 1e-6).allowed, "it may be tried again then"
        assert 0 <= verdict.remaining <= 4
    most = {_Sliding: 4, _Fixed: 8, _Bucket: 8}[kind]  # of the latter two, in a window that is laid at worst
    for begin, _ in allowed:
        assert sum(cost for when, cost in allowed if begin <= when < begin + 1.0 - 1e-9) <= most


@given(hits=HITS)
@pytest.mark.parametrize("kind", [_Sliding, _Fixed, _Bucket])
def test_state_that_moves_allows_the_same(kind: Any, hits: list[tuple[float, int]]) -> None:
    """The clocks of the two nodes differ."""
    rate = Rate("bucket" if kind is _Bucket else "fixed", 4, 1.0, 4)
    stays, moves, now, clock = kind(), kind(), 1000.0, 0.0
    for number, (pause, cost) in enumerate(hits):
        now += pause
        if number % 5 == 4:
            parts = moves.export(now + clock)
            clock += 50.0
            moves = kind()
            for part in parts:
                moves.merge(part, now + clock)
        one, other = stays.hit(rate, cost, now), moves.hit(rate, cost, now + clock)
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], abs=1e-6)


@pytest.mark.parametrize("kind", [_Sliding, _Fixed, _Bucket])
def test_what_is_over_does_not_count_when_two_states_become_one(kind: Any) -> None:
    rate = Rate("bucket" if kind is _Bucket else "fixed", 10, 60.0, 10)
    old, new, now = kind(), kind(), 10_000.0
    old.hit(rate, 9, now - 3600)
    new.hit(rate, 1, now)
    assert old.export(now) == []
    for part in new.export(now):
        old.merge(part, now)
    assert old.hit(rate, 9, now).allowed
    assert not old.hit(rate, 1, now).allowed


@pytest.mark.parametrize("age", [float("nan"), float("inf"), -1.0, "1", None])
@pytest.mark.parametrize("kind", [_Sliding, _Fixed, _Bucket])
def test_state_with_numbers_that_cannot_be_changes_nothing(kind: Any, age: Any) -> None:
    rate = Rate("bucket" if kind is _Bucket else "fixed", 10, 60.0, 10)
    meter = kind()
    meter.hit(rate, 1, 100.0)
    bad = {_Sliding: [60.0, [1.0, 1], [age, 1]], _Fixed: [age, 1, 60.0], _Bucket: [age, 1.0]}[kind]
    with pytest.raises(InvalidSharedError):
        meter.merge(bad, 100.0)
    assert meter.hit(rate, 1, 100.0).remaining == 8


def test_all_nodes_together_get_what_is_allowed(make_node: MakeNode) -> None:
    seed = make_node()
    nodes = [seed, make_node("127.0.0.1:0", seed.NODE())]
    limiters = [Limiter("api", 10, 1000.0, node=node, timeout=20) for node in nodes]
    work = [gevent.spawn(limiter.hit, "alice") for limiter in limiters * 10]
    gevent.joinall(work, timeout=20, raise_error=True)
    verdicts = [greenlet.value for greenlet in work]
    assert sorted(verdict.remaining for verdict in verdicts if verdict.allowed) == list(range(10))
    assert all(900 < verdict.retry_after <= 1000 for verdict in verdicts if not verdict.allowed)
    assert limiters[0].hit("bob") == Verdict(True, 9, 0.0)
    limiters[1].reset("alice")
    assert limiters[0].hit("alice", cost=10) == Verdict(True, 0, 0.0)


def test_each_algorithm_counts_its_own(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(None)
    for algorithm in ("sliding", "fixed", "bucket"):
        limiter = Limiter("api", 1, 1000, algorithm=algorithm, node=node)  # type: ignore[arg-type]
        assert [limiter.hit().allowed for _ in range(2)] == [True, False]
    burst = Limiter("burst", 1, 1000, algorithm="bucket", burst=3, node=node)
    assert [burst.hit().allowed for _ in range(4)] == [True, True, True, False]
    monkeypatch.setattr(aemp_gevent.shared.owned, "MAX_KEYS", 2)
    keyed = Limiter("keyed", 1, 1000, node=node)
    assert [keyed.hit(key).allowed for key in "abacab"] == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        pytest.param({"limit": 0}, "at least 1", id="zero"),
        pytest.param({"limit": -1}, "at least 1", id="negative"),
        pytest.param({"limit": 1.5}, "whole number", id="fraction"),
        pytest.param({"limit": True}, "finite number", id="bool"),
        pytest.param({"limit": "5"}, "finite number", id="text"),
        pytest.param({"limit": 10_001}, "take 'bucket'", id="long-window"),
        pytest.param({"per": 0}, "at least 0.001", id="no-time"),
        pytest.param({"per": float("nan")}, "finite number", id="nan"),
        pytest.param({"per": float("inf")}, "finite number", id="infinite"),
        pytest.param({"algorithm": "leaky"}, "'sliding', 'fixed' or 'bucket'", id="algorithm"),
        pytest.param({"algorithm": ["bucket"]}, "'sliding', 'fixed' or 'bucket'", id="list"),
        pytest.param({"burst": 7}, "only a 'bucket'", id="burst"),
        pytest.param({"burst": 0, "algorithm": "bucket"}, "at least 1", id="no-burst"),
    ],
)
def test_rates_that_make_no_sense_are_refused_with_the_reason(
    make_node: MakeNode, numbers: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidSharedError, match=says):
        Limiter("api", **{"limit": 5, "per": 1, **numbers}, node=make_node(None))


def test_hits_that_can_never_be_allowed_are_refused(make_node: MakeNode) -> None:
    node = make_node(None)
    limiter = Limiter("api", 5, 1, node=node)
    for key, cost in (("a", 6), ("a", 0), ("a", 1.5), ("a", None), (5, 1), ("x" * 201, 1)):
        with pytest.raises(InvalidSharedError):
            limiter.hit(key, cost)  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="algorithm"):  # what comes from peers is checked again
        limiter._ask("hit", "a", 1, "leaky", 1, 1, 1)
    assert limiter.hit("a", 5).allowed
