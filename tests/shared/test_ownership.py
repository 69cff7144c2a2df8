# SPDX-License-Identifier: MIT
"""Shared state has one owner at a time, the next one when that ends, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import aemp_gevent.shared.owned
import aemp_gevent.shared.ownership
from aemp_gevent.errors import InvalidSharedError, NoPortContextError, RemoteError, StateUnavailableError
from aemp_gevent.node.node import Node
from aemp_gevent.shared import Cache, Counter, Limiter, Once
from aemp_gevent.shared.ownership import GROUP, OWNERS, ownership_of
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from tests.support.helpers import on_hub, wait_until
from tests.support.networking import MakeNode

WAIT = 20.0
QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}
SEEDS = ("10.7.0.1:4040", "10.7.0.2:4040")


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork() as memory:
        yield memory


def nodes_of(network: MemoryNetwork, count: int) -> list[Node]:
    """Return nodes that are all hosts of shared state, and know each other; the first two are seeds."""
    nodes = [network.node(SEEDS[number] if number < 2 else None, *SEEDS, **QUICK) for number in range(count)]
    for node in nodes:
        Counter("any", node=node, timeout=WAIT).value()
    for node in nodes:
        wait_until(lambda node=node: len(ownership_of(node)._hosts) == count, within=WAIT)
        wait_until(lambda node=node: "counter any" in ownership_of(node)._owners, within=WAIT)
    return nodes


def counters(nodes: list[Node], name: str = "hits") -> list[Counter]:
    return [Counter(name, node=node, timeout=WAIT) for node in nodes]


def owner_of(nodes: list[Node], key: str) -> Node:
    wait_until(lambda: sum(key in ownership_of(node)._owned for node in nodes) == 1, within=WAIT)
    return next(node for node in nodes if key in ownership_of(node)._owned)


def test_every_change_is_counted_once(network: MemoryNetwork) -> None:
    """All nodes begin at the same time, when nobody owns the counter."""
    nodes = nodes_of(network, 4)
    work = [gevent.spawn(lambda c=counter: [c.add() for _ in range(50)]) for counter in counters(nodes) * 2]
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    sums = [sum_ for greenlet in work for sum_ in greenlet.value]
    assert sorted(sums) == list(range(1, 401)), "no two changes led to the same sum"
    assert {counter.value() for counter in counters(nodes)} == {400}
    assert counters(nodes)[0].reset() == 400
    assert counters(nodes)[1].add(-2.5) == -2.5
    owner_of(nodes, "counter hits")


def test_names_are_spread_over_the_nodes(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 3)
    for number in range(40):
        Counter(f"number {number}", node=nodes[number % 3]).add()
    assert all(len(ownership_of(node)._owned) > 3 for node in nodes)


def test_node_that_shuts_down_hands_its_state_over(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 3)
    assert counters(nodes)[0].add(7) == 7
    limiter = [Limiter("api", 2, 100.0, node=node, timeout=WAIT) for node in nodes]
    assert limiter[0].hit("alice").allowed
    assert Once("mail", node=nodes[0]).first("today")
    for key in ("counter hits", "limiter api", "once mail"):
        owner = owner_of(nodes, key)
        nodes = [node for node in nodes if node is not owner] or nodes
        owner.shutdown()
        if len(nodes) == 1:
            break
    (last,) = nodes
    assert Counter("hits", node=last, timeout=WAIT).value() == 7
    assert Limiter("api", 2, 100.0, node=last, timeout=WAIT).hit("alice").remaining == 0
    assert not Once("mail", node=last, timeout=WAIT).first("today")


def test_state_of_a_crashed_node_begins_again_elsewhere(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 4)
    assert counters(nodes)[0].add(7) == 7
    owner = owner_of(nodes, "counter hits")
    rest = [node for node in nodes if node is not owner]
    network.crash(owner)
    sums = [counter.add() for counter in counters(rest)]
    assert sums == [1, 2, 3]
    owner_of(rest, "counter hits")


@pytest.mark.slow
def test_two_owners_of_the_two_sides_of_a_partition_become_one(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 4)
    sides = nodes[0::2], nodes[1::2]
    network.partition(sides[0])
    for side in sides:
        for node in side:
            wait_until(lambda node=node: len(ownership_of(node)._hosts) == 2, within=WAIT)
        assert [counter.add(10) for counter in counters(side)] == [10, 20]
        assert Once("mail", node=side[0], timeout=WAIT).first("today")
    network.heal()
    for counter in counters(nodes):
        wait_until(lambda counter=counter: counter.value() == 40, within=WAIT, show=counter.value)
    owner_of(nodes, "counter hits")
    assert not any(Once("mail", node=node, timeout=WAIT).first("today") for node in nodes)


def test_state_of_a_private_node_is_shared_once_it_is_initialised(make_node: MakeNode) -> None:
    seed, alone = make_node(), make_node(None)
    assert Counter("hits", node=alone).add(3) == 3
    alone.initialise_node("127.0.0.1:0", seed.NODE(), secret="a secret of the tests")
    assert Counter("hits", node=alone, timeout=WAIT).add(1) == 4
    wait_until(lambda: seed.db_family(OWNERS).get("counter hits", "").startswith(alone.NODE()), within=WAIT)
    assert Counter("hits", node=seed, timeout=WAIT).value() == 4


@pytest.mark.slow
def test_killed_process_is_replaced_and_one_that_ends_in_order_hands_over(
    node_process: Callable[..., NodeProcess],
) -> None:
    first = node_process()
    others = [node_process(seeds=first.node) for _ in range(2)]
    for process in (first, *others):
        process.run("from aemp_gevent.shared import *\nfrom aemp_gevent.shared.ownership import *")
        process.run("counter = Counter('hits', timeout=20); counter.add()", timeout=WAIT)
    wait_until(
        lambda: all(process.run("len(ownership_of(mp.default_node)._hosts)") == 3 for process in (first, *others)),
        within=WAIT,
    )

    def owner() -> NodeProcess:
        node = first.run(f"mp.db_family({OWNERS!r})['counter hits']").partition("#")[0]
        return next(process for process in (first, *others) if process.node == node)

    expected = 3
    if owner() is not first:  # which the others need to find each other
        leaver = owner()
        leaver.run("mp.shutdown()")
        assert first.run("counter.value()", timeout=WAIT) == expected, "the state was handed over"
        leaver.close()
    if owner() is not first:
        owner().kill()
        expected = 0
    assert first.run("counter.add()", timeout=WAIT) == expected + 1


def test_owner_that_does_not_answer_is_reported_in_time(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(network, 3)
    owner = next(
        node for node in nodes if not Counter("hits", node=node).add(0) and owner_of(nodes, "counter hits") is node
    )
    other = next(node for node in nodes if node is not owner)
    network.block(owner, other)
    with pytest.raises(StateUnavailableError, match="'hits' could not be used within 0.1 s"):
        Counter("hits", node=other, timeout=0.1).add()
    network.heal()
    assert Counter("hits", node=other, timeout=WAIT).value() in (0, 1)  # the request may have arrived


def test_what_others_enter_harms_nobody(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    other.db_set(GROUP, "not a port")
    other.grp_reg(GROUP, other.port())
    other.db_set(OWNERS, "counter hits", 5)
    other.db_set(OWNERS, "nothing at all", "x#y")
    assert Counter("hits", node=one, timeout=WAIT).add() == 1
    host = ownership_of(one)._port
    for key in (5, "", "nothing hits", "x" * 300):
        with pytest.raises(RemoteError, match="no such kind|must be a str|characters"):
            other.call(host, "open", key)
    owner = owner_of([one, other], "counter hits")
    port = ownership_of(owner)._owned["counter hits"][0].port
    for state in (None, "x", [1], float("nan")):
        other.snd(port, "merge", state)
        other.snd(host, "adopt", "counter hits", state, None)
    other.snd(host, "adopt")
    with pytest.raises(RemoteError):
        other.call(port, "add", "x")
    assert Counter("hits", node=one, timeout=WAIT).add() == 2


def test_number_of_objects_is_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(None)
    monkeypatch.setattr(aemp_gevent.shared.ownership, "MAX_OBJECTS", 2)
    Counter("a", node=node).add()
    Counter("b", node=node).add()
    with pytest.raises(RemoteError, match="owns 2 objects"):
        Counter("c", node=node).add()
    assert Counter("a", node=node).add() == 2


def test_host_whose_port_was_killed_gets_another_one(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.shared.ownership, "_REOPEN_SECONDS", 0.01)
    node = make_node(None)
    assert Counter("hits", node=node).add() == 1
    former = ownership_of(node)._port
    node.kil(former)
    wait_until(lambda: ownership_of(node)._port != former)
    assert Counter("hits", node=node).add() == 2
    port = ownership_of(node)._owned["counter hits"][0].port
    node.kil(port)
    wait_until(lambda: "counter hits" not in ownership_of(node)._owned)
    assert Counter("hits", node=node).add() == 1


@pytest.mark.parametrize("name", ["", None, 5, "x" * 201, "x\ud800"])
def test_names_that_cannot_be_are_refused(make_node: MakeNode, name: Any) -> None:
    with pytest.raises(InvalidSharedError):
        Counter(name, node=make_node(None))


@pytest.mark.parametrize("number", ["1", None, True, float("nan"), float("inf"), 2**54])
def test_numbers_that_cannot_be_added_are_refused(make_node: MakeNode, number: Any) -> None:
    counter = Counter("hits", node=make_node(None))
    with pytest.raises(InvalidSharedError):
        counter.add(number)
    assert counter.add(2**53) == 2**53
    with pytest.raises(RemoteError, match="sum of shared state"):
        counter.add()


def test_hub_must_not_wait(make_node: MakeNode) -> None:
    node = make_node(None)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            Counter("hits", node=node).add()
        except NoPortContextError as error:
            raised.append(error)

    on_hub(call)
    assert raised
    assert "Counter hits" in repr(Counter("hits", node=node))


def test_flags_have_one_first_caller_until_their_time_is_over(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(network, 3)
    work = [gevent.spawn(Once("mail", node=node, timeout=WAIT).first, "today") for node in nodes * 4]
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    assert sorted(greenlet.value for greenlet in work) == [False] * 11 + [True]
    once = Once("mail", node=nodes[0])
    assert once.first()
    assert not once.first()
    assert once.forget()
    assert not once.forget()
    assert once.first("short", ttl=0.01)
    wait_until(lambda: once.first("short", ttl=1000))
    assert not once.first("short")
    for key, ttl in (("x" * 201, None), (5, None), ("a", -1), ("a", "soon")):
        with pytest.raises(InvalidSharedError):
            once.first(key, ttl)  # type: ignore[arg-type]
    monkeypatch.setattr(aemp_gevent.shared.owned, "MAX_KEYS", 3)
    assert [once.first(key) for key in ("a", "b", "a", "c", "d", "a", "b")] == [
        True,
        True,
        False,
        True,
        True,
        False,
        True,
    ]


def test_calls_that_wait_while_state_moves_change_nothing_and_are_made_again(make_node: MakeNode) -> None:
    """They are in the mailbox already, behind nothing but the move."""
    node = make_node(None)
    ownership = ownership_of(node)
    counter, cache = Counter("hits", node=node), Cache("pages", node=node)
    assert counter.add(5) == 5
    assert cache.get("k", lambda: 1, ttl=1000) == 1
    for key, words in (("counter hits", ("add", 1)), ("cache pages", ("get", "k", node.port()))):
        owned = ownership._owned[key][0]
        asked = node.call_async(owned.port, *words)
        state = owned.move()
        with pytest.raises(RemoteError, match="StateMovedError"):
            asked.get(timeout=WAIT)
        assert state == (5 if key == "counter hits" else None)
    wait_until(lambda: not ownership._owned)
    again = gevent.spawn(counter.add)
    gevent.idle()
    assert again.get(timeout=WAIT) == 1
