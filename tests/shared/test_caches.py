# SPDX-License-Identifier: MIT
"""The cache: one computation at a time, and nothing that was invalidated."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

import aemp_gevent.shared.caches
from aemp_gevent.errors import InvalidSharedError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.node.node import Node
from aemp_gevent.shared import Cache, cached, invalidate
from aemp_gevent.shared.ownership import ownership_of
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode, settled_tables

WAIT = 20.0


@pytest.fixture
def nodes(make_node: MakeNode) -> list[Node]:
    seed = make_node()
    return [seed, make_node("127.0.0.1:0", seed.NODE())]


@pytest.fixture
def caches(nodes: list[Node]) -> list[Cache]:
    return [Cache("pages", node=node, timeout=WAIT) for node in nodes]


def never() -> Any:
    raise AssertionError("it is in the cache")


def test_one_of_all_computes_and_the_others_wait_for_it(caches: list[Cache]) -> None:
    computed: list[int] = []
    free = Event()

    def compute() -> dict[str, tuple[int, ...]]:
        computed.append(1)
        free.wait()
        return {"a": (1, 2)}

    work = [gevent.spawn(cache.get, "k", compute, ttl=1000) for cache in caches * 5]
    wait_until(lambda: computed, within=WAIT)
    gevent.sleep(0.01)
    free.set()
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    assert len(computed) == 1
    assert [greenlet.value for greenlet in work] == [{"a": [1, 2]}] * 10
    assert [cache.get("k", never, ttl=1) for cache in caches] == [{"a": [1, 2]}] * 2


def test_what_was_invalidated_is_not_seen_by_anybody_who_asks_later(caches: list[Cache]) -> None:
    """Not even if it was being computed at that moment."""
    one, other = caches
    free, begun = Event(), Event()

    def old() -> str:
        begun.set()
        free.wait()
        return "old"

    for drop in (lambda: other.invalidate("k"), lambda: other.invalidate(tags=["user 1"])):
        free.clear()
        begun.clear()
        computing = gevent.spawn(one.get, "k", old, ttl=1000, tags=["user 1"])
        assert begun.wait(WAIT)
        drop()
        assert other.get("k", lambda: "new", ttl=1000, tags=["user 1"]) == "new"
        free.set()
        assert computing.get(timeout=WAIT) == "old"  # who asked before may get it
        assert [cache.get("k", never, ttl=1) for cache in caches] == ["new"] * 2
        assert drop() == 1
        assert drop() == 0


def test_next_one_computes_when_the_first_fails_or_dies(caches: list[Cache], nodes: list[Node]) -> None:
    one, other = caches
    begun = Event()

    def hang() -> None:
        begun.set()
        gevent.sleep(1000)

    def fail() -> None:
        raise ZeroDivisionError

    dying = gevent.spawn(one.get, "k", hang, ttl=1000)
    assert begun.wait(WAIT)
    failing = gevent.spawn(other.get, "k", fail, ttl=1000)
    gevent.sleep(0.01)
    dying.kill()
    with pytest.raises(ZeroDivisionError):
        failing.get(timeout=WAIT)
    assert one.get("k", lambda: 3, ttl=1000) == 3
    assert other.get("k", never, ttl=1) == 3


def test_values_live_for_their_time_and_the_oldest_go_first(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(None)
    cache = Cache("pages", node=node)
    assert cache.get("short", lambda: 1, ttl=0.0) == 1
    assert cache.get("short", lambda: None, ttl=1000, tags=["a", "b"]) is None
    assert cache.get("short", never, ttl=1000) is None
    monkeypatch.setattr(aemp_gevent.shared.caches, "MAX_ENTRIES", 2)
    cache.get("x", lambda: 1, ttl=1000)
    cache.get("short", never, ttl=1000)
    cache.get("y", lambda: 2, ttl=1000)
    assert cache.get("short", never, ttl=1000) is None
    assert cache.get("x", lambda: 3, ttl=1000, tags=["a"]) == 3  # it was dropped
    assert cache.invalidate("nothing", tags=["a", "b"]) == 2
    owned = ownership_of(node)._owned["cache pages"][0]
    cache.invalidate("x", "y", "short")
    assert (owned._entries, owned._tagged, owned._flights, owned._current) == ({}, {}, {}, {})  # type: ignore[attr-defined]


def test_functions_are_cached_by_their_arguments(nodes: list[Node]) -> None:
    one, other = nodes
    calls: list[Any] = []

    def load(user: int, *, full: bool = False) -> list[Any]:
        """Load somebody."""
        calls.append((user, full))
        return [user, full, len(calls)]

    here, there = (
        cached(ttl=1000, tags=lambda user, **_: [f"user {user}"], timeout=WAIT, node=node)(load) for node in nodes
    )
    assert here(1) == there(1) == [1, False, 1]
    assert here(1, full=True) == there(1, full=True) == [1, True, 2]
    assert here.__doc__ == "Load somebody."
    assert there.invalidate(1)
    assert here(1) == [1, False, 3]
    assert invalidate("user 1", node=other) == 2
    assert there(1) == [1, False, 4]
    with pytest.raises(UnencodableMessageError):
        here(object())  # type: ignore[arg-type]
    assert one.node_is_up(other.NODE())


def test_values_that_cannot_be_kept_are_refused_and_nothing_is_left(caches: list[Cache], nodes: list[Node]) -> None:
    one, other = caches
    one.get("k", lambda: 1, ttl=1000)
    other.get("k", never, ttl=1)
    one.invalidate("k")
    before = settled_tables(*nodes)
    for value, error in ((object(), UnencodableMessageError), ("x" * 2**20, MessageTooLargeError)):
        with pytest.raises(error):
            other.get("k", lambda value=value: value, ttl=1)
    for words in ({"key": ""}, {"key": "x" * 201}, {"ttl": -1}, {"ttl": "1"}, {"ttl": float("nan")}, {"tags": [5]}):
        with pytest.raises(InvalidSharedError):
            one.get(**{"key": "k", "compute": never, "ttl": 1, **words})
    with pytest.raises(InvalidSharedError):
        one.cached(ttl=-1)
    with pytest.raises(TypeError):
        one.cached(ttl=1)(None)  # type: ignore[arg-type]
    wait_until(lambda: settled_tables(*nodes)[0][:4] == before[0][:4], within=WAIT)


def test_value_is_computed_without_its_cache_if_nobody_answers(make_node: MakeNode) -> None:
    seed = make_node()
    node = make_node("127.0.0.1:0", seed.NODE())
    cache = Cache("pages", node=node, timeout=WAIT)
    cache.get("k", lambda: 1, ttl=1000)
    owner = ownership_of(node)._owner("cache pages") or ownership_of(node)._hints["cache pages"]
    hung = node.port()
    for known in (seed, node):
        if "cache pages" in ownership_of(known)._owned:
            known.rcv(owner, get=lambda *_: None)
    assert hung
    aemp_patience = aemp_gevent.shared.caches._PATIENCE
    assert aemp_patience > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aemp_gevent.shared.caches, "_PATIENCE", 0.0)
        assert Cache("pages", node=node, timeout=0.1).get("k", lambda: 2, ttl=1000) == 2
