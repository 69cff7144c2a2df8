# SPDX-License-Identifier: MIT
"""The first answers of a node that begins to keep the directory: whole, or late, but not too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aemp_gevent.directory.embedded import holding
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.topics import publish, subscribe
from tests.directory.embedded.networks import PERL, Dial
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawListener, free_address
from tests.support.seams import embedded_of

OLD, NEW = "10.7.0.1:4040", "10.7.0.2:4040"


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(time="virtual") as network:
        yield network


def _group_message(node: Node) -> int:
    return len(node.grp_snd("group", "hello"))


def _published_message(node: Node) -> int:
    return publish("topic", "hello", node=node)


def _keys(node: Node) -> int:
    return len(node.db_keys("group"))


USES = [
    pytest.param(_group_message, id="grp_snd"),
    pytest.param(_published_message, id="publish"),
    pytest.param(_keys, id="db_keys"),
]


def member_of(node: Node) -> None:
    """Put a port into the group, and subscribe it to the topic."""
    port = node.port(lambda *_msg: None)
    node.grp_reg("group", port)
    subscribe("topic", port, node=node)


@pytest.mark.parametrize("use", USES)
def test_first_use_of_a_new_global_node_knows_all_members(network: MemoryNetwork, use: Callable[[Node], int]) -> None:
    member_of(network.node(OLD, OLD))
    network.delay(NEW, OLD, 0.1, dial=0.5)
    assert use(network.node(NEW, OLD, NEW)) == 1


@pytest.mark.parametrize("use", USES)
def test_first_use_of_a_new_global_node_knows_members_of_nodes_that_the_seed_only_names(
    network: MemoryNetwork, use: Callable[[Node], int]
) -> None:
    """Each sends its own entries; the seed only says that the other one is there."""
    other = "10.7.0.3:4040"
    network.node(OLD, OLD)
    there = network.node(other, OLD, other)
    assert there.wait_for_seeds()
    member_of(there)
    network.delay(NEW, other, 0.1, dial=0.5)
    assert use(network.node(NEW, OLD, NEW)) == 1


@pytest.mark.parametrize("use", USES)
def test_client_of_a_new_global_node_knows_all_members(network: MemoryNetwork, use: Callable[[Node], int]) -> None:
    member_of(network.node(OLD, OLD))
    network.delay(NEW, OLD, 0.1, dial=0.5)
    network.node(NEW, OLD, NEW)
    assert use(network.node(None, NEW)) == 1


@pytest.mark.parametrize("use", USES)
def test_client_of_a_client_knows_all_members(network: MemoryNetwork, use: Callable[[Node], int]) -> None:
    """A client that becomes global has nothing but its own entries at first."""
    member_of(network.node(OLD, OLD))
    assert network.node(NEW, OLD).wait_for_seeds()
    network.delay(NEW, OLD, 0.1)
    assert use(network.node(None, NEW)) == 1


def test_entries_that_are_known_never_seem_to_be_gone_while_a_client_becomes_global(network: MemoryNetwork) -> None:
    """Its master has sent the whole; the nodes that the master knows have not yet."""
    other = "10.7.0.3:4040"
    network.node(OLD, OLD)
    there = network.node(other, OLD, other)
    there.db_set("f", "k", 1)
    node = network.node(NEW, OLD)
    gone: list[str] = []
    node.db_mon("f", lambda _map, _added, _changed, deleted: gone.extend(deleted))
    node.db_wait("f", len, WAIT)
    network.delay(NEW, other, 0.1, dial=0.5)
    network.node(None, NEW)
    wait_until(lambda: embedded_of(node)._home is not None, within=WAIT)
    assert gone == [] and node.db_family("f") == {"k": 1}


@pytest.mark.parametrize("fault", ["silent", "refused"])
def test_seed_that_cannot_be_reached_delays_answers_for_a_limited_time(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    if fault == "silent":
        network.node(OLD, OLD)
        network.delay(NEW, OLD, 0.0, dial=3600.0)
    node = network.node(NEW, OLD, NEW)
    node.db_set("f", "k", 1)
    assert node.db_family("f", timeout=holding.HOLD_SECONDS + 1) == {"k": 1}
    warnings = [record.getMessage() for record in caplog.records if "may lack entries" in record.getMessage()]
    assert len(warnings) == (fault == "silent"), caplog.text


def test_global_node_that_never_sends_its_part_is_named(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    address = free_address()
    with RawListener() as silent:
        node = make_node(address, address, silent.id)
        with silent.accept(extras=PERL).shake():
            assert node.db_family("f", timeout=WAIT) == {}
    assert any(
        "may lack entries" in record.getMessage() and silent.id in record.getMessage() for record in caplog.records
    )


@pytest.mark.parametrize("rights", ["read", "none"])
def test_nodes_that_may_send_no_part_are_not_waited_for(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    """One is a seed, and another one names it."""
    monkeypatch.setattr(holding, "HOLD_SECONDS", 3600.0)
    other, rules = "10.7.0.3:4040", [{"peer": NEW, "directory": rights}]
    network.node(NEW, NEW)
    node = network.node(OLD, OLD, NEW, rules=rules)
    node.db_set("f", "k", 1)
    assert node.db_family("f", timeout=WAIT) == {"k": 1}
    node = network.node(other, OLD, other, rules=rules)
    assert node.db_family("f", timeout=WAIT) == {"k": 1}


@pytest.mark.parametrize("use", USES)
def test_first_use_over_real_links_knows_all_members(make_node: MakeNode, use: Callable[[Node], int]) -> None:
    addresses = [free_address(), free_address()]
    member_of(make_node(addresses[0], addresses[0]))
    assert use(make_node(addresses[1], *addresses)) == 1


def test_node_without_seeds_holds_nothing_back(make_node: MakeNode) -> None:
    node = make_node()
    answers: list[object] = []
    node.db_family("f", answers.append)
    assert embedded_of(node)._client._queries == {}
    wait_until(lambda: answers == [{}], within=WAIT)


@pytest.fixture
def holder(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, Any]]:
    """A global node, and the link to a seed of it that has not sent its part yet."""
    monkeypatch.setattr(holding, "HOLD_SECONDS", 3600.0)
    address = free_address()
    with RawListener() as listener:
        node = make_node(address, address, listener.id)
        with listener.accept(extras=PERL).shake() as seed:
            assert seed.packet() == ["", "g_global"]
            seed.send(["", "g_global"])
            yield node, seed


def test_requests_are_answered_in_order_once_the_directory_is_whole(holder: tuple[Node, Any]) -> None:
    node, seed = holder
    with ExitStack() as stack:
        dial = Dial(node, stack)
        peer, lost = dial("a"), dial("b")
        peer.send(["", "g_mon1", "f"], ["", "g_mon1", "g"], ["", "g_mon0", "g"])
        peer.send(["", "g_db_keys"], ["", "g_mon1", []])  # invalid
        peer.send(["", "g_db_keys", "f", "7"], ["", "g_upd", "f", {"own": 1}])
        lost.send(["", "g_db_keys", "f", "8"])
        for each in (peer, lost):
            assert each.answers()  # and nothing before that
        lost.close()
        wait_until(lambda: not node.node_is_up("b"), within=WAIT)
        seed.send(["", "g_set", {"f": {"seed's": 2}}])
        assert peer.packet() == ["", "g_chg1", "f", {"own": 1, "seed's": 2}]
        assert peer.packet() == ["", "g_chg1", "g", None]
        answer = peer.packet()
        assert answer[:3] == ["", "g_reply", "7"] and sorted(answer[3]) == ["own", "seed's"]
        assert peer.answers()


@pytest.mark.parametrize(("bound", "most"), [("MAX_HELD", 3), ("MAX_HELD_BYTES", 350)])
def test_too_many_requests_end_the_wait(
    holder: tuple[Node, Any], monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(holding, bound, most)
    node, _seed = holder
    numbers = [str(number) * 100 for number in range(4)]
    with ExitStack() as stack:
        peer = Dial(node, stack)("a")
        peer.send(*(["", "g_db_keys", "f", number] for number in numbers[:3]))
        assert peer.answers()
        peer.send(["", "g_db_keys", "f", numbers[3]])
        assert [peer.packet()[2] for _ in range(4)] == numbers
