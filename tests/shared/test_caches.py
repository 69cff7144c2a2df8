# SPDX-License-Identifier: MIT
"""The cache: one computation at a time, and nothing that was invalidated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

import aemp_gevent.shared.caches
import aemp_gevent.shared.owned_cache
from aemp_gevent.errors import InvalidSharedError, MessageTooLargeError, RemoteError, UnencodableMessageError
from aemp_gevent.node.node import Node
from aemp_gevent.shared import Cache, cached, invalidate
from aemp_gevent.shared.ownership import ownership_of
from aemp_gevent.testing import MemoryNetwork
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode, settled_tables

WAIT = 20.0


SEED = "10.7.0.1:4040"


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(time="virtual") as memory:
        yield memory


@pytest.fixture
def nodes(network: MemoryNetwork) -> list[Node]:
    found = [network.node(SEED, SEED), network.node(None, SEED)]
    assert found[1].wait_for_seeds(WAIT)
    return found


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


def test_invalidating_other_tags_leaves_what_is_being_computed(caches: list[Cache]) -> None:
    one, other = caches
    computed: list[int] = []

    def compute() -> int:
        other.invalidate(tags=["another"])
        computed.append(1)
        return 5

    assert one.get("k", compute, ttl=1000, tags=["mine"]) == 5
    assert other.get("k", never, ttl=1) == 5


def test_every_caller_gets_a_copy(caches: list[Cache]) -> None:
    for cache in caches * 2:
        value = cache.get("k", lambda: [1], ttl=1000)
        assert value == [1]
        value.append(2)


def test_owner_that_shuts_down_makes_one_other_caller_compute(network: MemoryNetwork) -> None:
    """The callers have waited for longer than their timeouts already, as a computation may take long."""
    seeds = [f"10.7.0.{number}:4040" for number in (1, 2, 3)]
    nodes = [network.node(seed, *seeds) for seed in seeds]
    assert all(node.wait_for_seeds(WAIT) for node in nodes)
    Cache("pages", node=nodes[0], timeout=WAIT).get("other", lambda: 1, ttl=1)
    for node in nodes:
        wait_until(lambda node=node: ownership_of(node)._owner("cache pages"), within=WAIT)
    (owner,) = (node for node in nodes if "cache pages" in ownership_of(node)._owned)
    rest = [node for node in nodes if node is not owner]
    computed: list[int] = []

    def compute() -> int:
        computed.append(1)
        gevent.sleep(30)
        return len(computed)

    work = [gevent.spawn(Cache("pages", node=node, timeout=3).get, "k", compute, ttl=1000) for node in rest * 5]
    gevent.sleep(10)
    assert len(computed) == 1
    owner.shutdown()
    gevent.joinall(work, timeout=100, raise_error=True)
    assert len(computed) == 2
    assert {greenlet.value for greenlet in work} == {2}


def test_value_that_is_too_large_for_a_link_is_computed_by_those_behind_it(network: MemoryNetwork) -> None:
    nodes = [network.node(SEED, SEED, max_message_bytes=100_000), network.node(None, SEED, max_message_bytes=100_000)]
    assert nodes[1].wait_for_seeds(WAIT)
    caches = [Cache("pages", node=node, timeout=WAIT) for node in nodes]
    caches[0].get("small", lambda: 1, ttl=60)
    (owner,) = (node for node in nodes if "cache pages" in ownership_of(node)._owned)
    caches.sort(key=lambda cache: cache.node is not owner)
    waiting = gevent.spawn(caches[0].get, "large", lambda: gevent.sleep(1) or "x" * 200_000, ttl=60)
    gevent.sleep(0.5)
    assert caches[1].get("large", lambda: "mine", ttl=60) == "mine", "it has waited for the other's"
    assert len(waiting.get(timeout=WAIT)) == 200_000
    assert caches[1].get("large", lambda: "mine", ttl=60) == "mine", "the other's was there"
    assert len(caches[0].get("large", never, ttl=60)) == 200_000


def test_function_that_asks_for_the_value_that_it_computes_is_refused(caches: list[Cache]) -> None:
    one, other = caches
    same = Cache("pages", node=one.node)
    with pytest.raises(InvalidSharedError, match="asks for it itself"):
        one.get("k", lambda: one.get("l", lambda: same.get("k", never, ttl=1), ttl=1), ttl=1)
    assert one.get("k", lambda: other.get("l", lambda: 3, ttl=1), ttl=1) == 3


def test_callers_that_are_too_many_compute_for_themselves(caches: list[Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = caches
    monkeypatch.setattr(aemp_gevent.shared.owned_cache, "MAX_ASKERS", 2)
    free = Event()
    work = [gevent.spawn(one.get, "k", lambda: (free.wait(), 1)[1], ttl=1000) for _ in range(2)]
    gevent.sleep(1)
    assert other.get("k", lambda: 2, ttl=1000) == 2
    assert other.get("l", lambda: 3, ttl=1000) == 3
    free.set()
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    assert other.get("k", never, ttl=1000) == 1
    assert other.get("l", lambda: 4, ttl=1000) == 4
    owner = next(node for node in (one.node, other.node) if "cache pages" in ownership_of(node)._owned)
    assert ownership_of(owner)._owned["cache pages"].owned._askers == 0  # type: ignore[attr-defined]


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
    monkeypatch.setattr(aemp_gevent.shared.owned_cache, "MAX_ENTRIES", 2)
    cache.get("x", lambda: 1, ttl=1000)
    cache.get("short", never, ttl=1000)
    cache.get("y", lambda: 2, ttl=1000)
    assert cache.get("short", never, ttl=1000) is None
    assert cache.get("x", lambda: 3, ttl=1000, tags=["a"]) == 3  # it was dropped
    assert cache.invalidate("nothing", tags=["a", "b"]) == 2
    owned = ownership_of(node)._owned["cache pages"][0]
    cache.invalidate("x", "y", "short")
    assert (owned._entries, owned._tagged, owned._flights, owned._current) == ({}, {}, {}, {})  # type: ignore[attr-defined]


def test_values_that_are_too_large_together_push_out_the_oldest(caches: list[Cache]) -> None:
    small = [Cache("pages", max_bytes=3000, node=cache.node, timeout=WAIT) for cache in caches]
    for key in "abcd":
        assert small[0].get(key, lambda: "x" * 900, ttl=1000, tags=["all"]) == "x" * 900
    for key in "bcd":  # the largest three that fit
        small[1].get(key, never, ttl=1000)
    assert small[1].get("a", lambda: "new", ttl=1000, tags=["all"]) == "new"
    small[1].get("c", never, ttl=1000)
    # Tags count as well.
    assert small[1].get("tagged", lambda: "t", ttl=1000, tags=["t" * 200, "u" * 200]) == "t"
    assert small[0].get("b", lambda: "dropped", ttl=1000) == "dropped"
    small[0].get("c", never, ttl=1000)
    assert small[0].get("huge", lambda: "x" * 3000, ttl=1000) == "x" * 3000  # it is not kept, and drops nothing
    for key in ("tagged", "b", "c"):
        small[1].get(key, never, ttl=1000)
    assert small[0].get("huge", lambda: "again", ttl=1000) == "again"
    caches[0].get("large", lambda: "x" * 6000, ttl=1000)  # without the small bound
    caches[1].get("large", never, ttl=1000)
    assert caches[1].invalidate("large", "huge") == 2


@pytest.mark.parametrize("max_bytes", [-1, 2**40, "1", None, True])
def test_bound_in_bytes_must_be_a_number(max_bytes: Any) -> None:
    with pytest.raises(InvalidSharedError, match="max_bytes"):
        Cache("pages", max_bytes=max_bytes)


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


def test_arguments_that_are_the_same_for_the_function_are_the_same(nodes: list[Node]) -> None:
    session = object()
    calls: list[Any] = []

    @cached(ttl=1000, node=nodes[0], timeout=WAIT)
    def load(x: Any, y: int = 1, *more: int, of: object = session, **options: Any) -> int:
        calls.append(x)
        return len(calls)

    for number, forms in enumerate(
        [
            [
                lambda: load(1),
                lambda: load(x=1),
                lambda: load(1, 1),
                lambda: load(x=1, y=1),
                lambda: load(1, of=session),
            ],
            [lambda: load({"a": [{"b": 1, "c": 2}], "d": 3}), lambda: load({"d": 3, "a": [{"c": 2, "b": 1}]})],
            [lambda: load(1, a=1, b=2), lambda: load(b=2, a=1, x=1)],
            [lambda: load(1, True)],
            [lambda: load(1, 1, 1)],
        ],
        1,
    ):
        assert [form() for form in forms] == [number] * len(forms)
    assert load.invalidate(x=1)
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        load()  # type: ignore[call-arg]
    assert cached(ttl=1000, node=nodes[0], timeout=WAIT)(max)(1, 5) == 5


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
    for tags in ("users", 5, None, [5]):
        for call in (
            lambda tags=tags: one.get("k", never, ttl=1, tags=tags),
            lambda tags=tags: one.invalidate(tags=tags),
            lambda tags=tags: one.cached(ttl=1, tags=tags),
        ):
            with pytest.raises(InvalidSharedError):
                call()
    owner = ownership_of(one.node)._owner("cache pages")
    for tag in ("invalidate", "invalidate_tags"):
        with pytest.raises(RemoteError):
            one.node.call(owner, tag, tag, [])
    lease = one.node.port()
    for value, ttl in (("x", 1), (b"x" * (2**20 + 1), 1), (b"x", -1)):
        is_there, token = one.node.call(owner, "get", "call", "bad", lease)
        assert not is_there
        with pytest.raises(RemoteError):
            one.node.call(owner, "put", f"{token} {ttl}", token, value, ttl)
        one.node.kil(lease)
        lease = one.node.port()
    for words in ((), ("k",), ("", lease), ("k", lease, 5), ("k", 5)):
        with pytest.raises(RemoteError):
            one.node.call(owner, "get", "call", *words)
    one.node.kil(lease)
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
