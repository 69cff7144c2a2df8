# SPDX-License-Identifier: MIT
"""The embedded engine: being a client of a raw master, becoming global, and a whole network that breaks and heals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import DirectoryUnavailableError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.directories import QUICK
from tests.directory.test_local_directory import Changes
from tests.helpers import turns, wait_until
from tests.networking import WAIT, MakeNode, RawListener, RawPeer, free_address, node_factory
from tests.thoroughness import tries

PERL = (("gproto", "1"), ("provider", "AE-2.02"))


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


@pytest.fixture
def listener() -> Iterator[RawListener]:
    with RawListener() as listener:
        yield listener


def attach(listener: RawListener) -> tuple[RawPeer, Any]:
    """Be the master of the node that dials; return that link and the database that came."""
    master = listener.accept(extras=PERL).shake()
    packet = master.packet()
    assert packet[:2] == ["", "g_slave"], packet
    return master, packet[2]


def role(node: Node) -> str:
    text: str = node.info()["directory"]
    return text


def test_client_tells_its_master_everything_and_then_each_change(make_node: MakeNode, listener: RawListener) -> None:
    node = make_node("127.0.0.1:0", listener.id)
    node.db_set("f", "k", 1)
    changes = Changes()
    node.db_mon("f", changes)
    master, database = attach(listener)
    with master:
        assert database == {"f": {"k": 1}, "'l": {node.NODE(): [node.NODE()]}}
        assert master.packet() == ["", "g_mon1", "f"]
        assert role(node) == f"client of {listener.id}"
        node.db_set("f", "l", 2)
        node.db_del("f", "k")
        assert master.take(2) == [["", "g_upd", "f", {"l": 2}, []], ["", "g_upd", "f", None, ["k"]]]
        master.send(["", "g_chg2", "f", {"early": 1}, []], ["", "g_chg1", "g", {"x": 1}])
        master.send(["", "g_chg1", "f", {"a": 1}], ["", "g_chg2", "f", {"b": 1}, []], ["", "g_chg2", "f", {}, ["a"]])
        changes.wait({"b": 1})
        with RawPeer.dial(node, "stranger", extras=PERL).shake() as stranger:
            stranger.send(["", "g_chg2", "f", {"wrong": 1}, []], ["", "g_chg1", "f", {"wrong": 1}])
            assert stranger.answers()
        master.send(["", "g_chg2", "f", {"c": 1}, []])
        changes.wait({"b": 1, "c": 1})
        assert [call[0] for call in changes.calls] == [{"a": 1}, {"a": 1, "b": 1}, {"b": 1}, {"b": 1, "c": 1}]


def test_client_asks_its_master_and_takes_answers_from_nobody_else(make_node: MakeNode, listener: RawListener) -> None:
    node = make_node("127.0.0.1:0", listener.id)
    master, _database = attach(listener)
    with master, RawPeer.dial(node, "stranger", extras=PERL).shake() as stranger:
        asking = gevent.spawn(node.db_keys, "f")
        packet = master.packet()
        assert packet[:3] == ["", "g_db_keys", "f"]
        number = packet[3]
        stranger.send(["", "g_reply", number, ["wrong"]], ["", "g_found", "n", ["1.2.3.4:5"]])
        assert stranger.answers()
        found: list[Any] = []
        node._directory.find("n", found.append)
        node._directory.find("n", found.append)
        assert master.packet() == ["", "g_find", "n"]
        master.send(["", "g_reply", "999", []], ["", "g_reply", number, [1, "k"]], ["", "g_found", "n", None])
        assert asking.get(timeout=WAIT) == ["1", "k"]
        wait_until(lambda: found == [None, None], within=WAIT)
        node._directory.find("n", found.append)
        assert master.packet() == ["", "g_find", "n"]
        master.send(["", "g_found", "n", ["1.2.3.4:5"]])
        wait_until(lambda: found[2:] == [["1.2.3.4:5"]], within=WAIT)


@pytest.mark.slow
def test_client_does_it_all_again_when_its_master_was_lost(make_node: MakeNode, listener: RawListener) -> None:
    node = make_node("127.0.0.1:0", listener.id, heartbeat_timeout=1.0)
    node.db_set("f", "k", 1)
    changes = Changes()
    node.db_mon("f", changes)
    master, before = attach(listener)
    assert master.packet() == ["", "g_mon1", "f"]
    master.send(["", "g_chg1", "f", {"a": 1, "b": 1}])
    changes.wait({"a": 1, "b": 1})
    asking = gevent.spawn(node.db_family, "f")
    found: list[Any] = []
    node._directory.find("n", found.append)
    turns(3)
    master.close()
    again, after = attach(listener)
    with again:
        assert after == before
        requests = again.take(3)
        assert requests[0] == ["", "g_mon1", "f"]
        assert [requests[1][1], requests[2]] == ["g_db_family", ["", "g_find", "n"]]
        again.send(["", "g_chg1", "f", {"b": 1, "c": 1}], ["", "g_reply", requests[1][3], {"b": 1}])
        changes.wait({"a": 1, "b": 1, "c": 1})
        assert changes.calls[-1][1:] == (["c"], [], [])
        again.send(["", "g_chg2", "f", {"d": 1}, ["b"]])
        changes.wait({"a": 1, "c": 1, "d": 1})
        changes.wait({"c": 1, "d": 1})  # a's owner has had its time
        assert changes.calls[-1][1:] == ([], [], ["a"])
        assert asking.get(timeout=WAIT) == {"b": 1}


def test_reading_fails_in_time_when_no_seed_can_be_reached_and_works_once_one_is(
    make_node: MakeNode, listener: RawListener
) -> None:
    listener.sock.close()
    node = make_node("127.0.0.1:0", listener.id, monitor_timeout=0.3)
    with pytest.raises(DirectoryUnavailableError, match=r"db_keys\(\): the directory did not answer within 0.3 s"):
        node.db_keys("f")
    assert role(node) == "alone"


def test_client_becomes_global_when_another_node_attaches_to_it(make_node: MakeNode) -> None:
    seed = make_node()
    seed.db_set("f", "seed's", 1)
    node = make_node("127.0.0.1:0", seed.NODE())
    node.db_set("f", "node's", 1)
    changes = Changes()
    node.db_mon("f", changes)
    changes.wait({"seed's": 1, "node's": 1})
    third = make_node("127.0.0.1:0", node.NODE())
    third.db_set("f", "third's", 1)
    everything = {"seed's": 1, "node's": 1, "third's": 1}
    changes.wait(everything)
    for one in (seed, node, third):
        wait_until(lambda one=one: one.db_family("f") == everything, within=WAIT)  # type: ignore[misc]
    wait_until(lambda: node._embedded is not None and node._embedded._master is None, within=WAIT)
    assert [role(seed), role(node), role(third)] == ["global", "global", f"client of {node.NODE()}"]
    # Nothing that lived all the time was ever seen to be gone.
    assert all(not call[3] for call in changes.calls), changes.calls


def test_client_of_a_perl_node_that_becomes_global_unwatches_nothing_there(
    make_node: MakeNode, listener: RawListener
) -> None:
    """Perl forgot it all when it heard ``g_global``, and would take who unwatches for a client again."""
    node = make_node("127.0.0.1:0", listener.id)
    changes = Changes()
    node.db_mon("f", changes)
    master, _ = attach(listener)
    with master, RawPeer.dial(node, "c", extras=PERL).shake() as client:
        assert master.packet() == ["", "g_mon1", "f"]
        master.send(["", "g_global"], ["", "g_chg1", "f", {"k": 1}])
        changes.wait({"k": 1})
        client.send(["", "g_slave"])
        assert [packet[1] for packet in master.take(2)] == ["g_global", "g_set"]
        master.send(["", "g_set", {"f": {"k": 1}, "'l": {listener.id: [listener.id]}}])
        wait_until(lambda: node._embedded is not None and node._embedded._master is None, within=WAIT)
        assert master.packet()[1] == "g_upd"  # of where the master listens, repeated as Perl does
        assert master.answers()
        master.send(["", "g_upd", "f", {"k": 2}])
        changes.wait({"k": 2})


def test_node_that_is_its_own_seed_is_global(make_node: MakeNode) -> None:
    first = make_node()
    address = first.NODE()
    first.shutdown()
    node = make_node(address, address)
    wait_until(lambda: role(node) == "global", within=WAIT)


def test_global_nodes_find_each_other_and_keep_links(make_node: MakeNode) -> None:
    with MemoryNetwork() as network:
        first = network.node()
        others = [network.node(None, first.NODE()) for _ in range(3)]
        leaves = [network.node(None, other.NODE()) for other in others]  # make them global
        everybody = [first, *others]
        wait_until(lambda: all(role(node) == "global" for node in everybody), within=WAIT)
        for node in everybody:
            expected = {other.NODE() for other in everybody if other is not node}
            wait_until(lambda node=node, expected=expected: expected <= set(node.up_nodes()), within=WAIT)  # type: ignore[misc]
        network.cut(others[0], others[1])
        wait_until(lambda: others[1].NODE() in others[0].up_nodes(), within=WAIT)
        leaves[0].db_set("f", "k", 1)
        wait_until(lambda: leaves[2].db_family("f") == {"k": 1}, within=WAIT)
        network.crash(first)
        leaves[0].db_set("f", "k", 2)
        wait_until(lambda: leaves[2].db_family("f") == {"k": 2}, within=WAIT)


@pytest.mark.slow
def test_master_that_is_lost_soon_is_not_believed_that_entries_are_gone() -> None:
    quicker = {"heartbeat_interval": 0.2, "heartbeat_timeout": 1.0}
    with MemoryNetwork() as network:
        seed = "10.0.0.1:4040"
        network.node(seed, **quicker)
        watcher, other = network.node(None, seed, **quicker), network.node(None, seed, **quicker)
        changes = Changes()
        watcher.db_mon("f", changes)
        other.db_set("f", "k", 1)
        changes.wait({"k": 1})
        network.crash(other)  # and with it the seed: nobody else can know
        network.crash(seed)
        again = network.node(seed, **quicker)
        wait_until(lambda: role(watcher) == f"client of {seed}", within=WAIT)
        assert watcher.db_family("f", timeout=WAIT) == {}
        network.crash(again)
        wait_until(lambda: role(watcher) == "alone", within=WAIT)
        assert not Event().wait(1.5 * quicker["heartbeat_timeout"])
        assert changes.last == {"k": 1}, "a master that did not live long enough was believed"
        network.node(seed, **quicker)
        changes.wait({})


def test_nobody_hears_from_the_directory_of_a_node_that_shut_down(make_node: MakeNode) -> None:
    node = make_node()
    node.shutdown()
    assert node._embedded is not None
    node._embedded.publish("f", {"k": None}, ())
    assert not node._embedded._due


class Member:
    """A node of the property test, and what it should have in the directory."""

    def __init__(self, network: MemoryNetwork, name: str, seeds: list[str]) -> None:
        self.name = name
        self.network = network
        self.seeds = seeds
        self.start()

    def start(self) -> None:
        self.own: dict[str, dict[str, int]] = {"f": {}, "g": {}}
        self.changes = Changes()
        self.node = self.network.node(self.name, *self.seeds, **QUICK)
        self.node.db_mon("f", self.changes)

    def act(self, value: int) -> None:
        dice = self.network.dice
        family, key = dice.choice("fg"), dice.choice("abcd")
        if dice.random() < 0.6:
            self.node.db_set(family, key, value)
            self.own[family][key] = value
        else:
            self.node.db_del(family, key)
            self.own[family].pop(key, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(tries(1, 4)))
def test_all_see_the_same_and_the_right_once_what_broke_has_healed(seed: int) -> None:
    with MemoryNetwork(seed, latency=0.001, jitter=0.005, split=0.1) as network:
        dice = network.dice
        seeds = [f"10.0.0.{number}:4040" for number in (1, 2, 3)]
        members = [Member(network, name, seeds) for name in seeds]
        members += [Member(network, f"10.1.0.{number}:4040", dice.sample(seeds, 2)) for number in range(1, 10)]
        down: list[Member] = []
        for step in range(150):
            chance = dice.random()
            up = [member for member in members if member not in down]
            if chance < 0.75:
                dice.choice(up).act(step)
            elif chance < 0.80:
                network.cut(*dice.sample([member.name for member in up], 2))
            elif chance < 0.84 and len(up) > 6:
                victim = dice.choice(up)
                network.crash(victim.node)
                down.append(victim)
            elif chance < 0.90 and down:
                down.pop(0).start()
            elif chance < 0.95:
                sides = [member.name for member in members]
                dice.shuffle(sides)
                network.partition(sides[: len(sides) // 2])
            else:
                network.heal()
            gevent.sleep(dice.random() * 0.06)
        network.heal()
        for member in down:
            member.start()
        for member in members:
            member.act(-1)
        expected: dict[str, dict[str, int]] = {"f": {}, "g": {}}
        for member in sorted(members, key=lambda member: member.name, reverse=True):
            for family in "fg":
                expected[family].update(member.own[family])

        def differing() -> list[Any]:
            found = []
            for member in members:
                with contextlib.suppress(DirectoryUnavailableError):
                    seen = {family: member.node.db_family(family, timeout=0.5) for family in "fg"}
                    if seen == expected and member.changes.last == expected["f"]:
                        continue
                found.append((member.name, role(member.node), member.changes.last))
            return found

        wait_until(lambda: not differing(), within=60.0, show=lambda: (expected, differing()))
        assert all(role(member.node) == "global" for member in members[:3])


@pytest.mark.slow
def test_both_seeds_may_die_and_come_back() -> None:
    with MemoryNetwork() as network:
        names = ["10.0.0.1:4040", "10.0.0.2:4040"]
        seeds = [network.node(name, *names) for name in names]
        nodes = [network.node(None, *names) for _ in range(5)]
        changes = Changes()
        nodes[0].db_mon("group", changes)
        for node in nodes:
            node.grp_reg("group", node.port())
        changes_of_all = nodes[1].db_wait("group", lambda ports: len(ports) == 5, WAIT)
        changes.wait(changes_of_all)
        for seed in seeds:
            network.crash(seed)
        wait_until(lambda: all(role(node) == "alone" for node in nodes), within=WAIT)
        late = nodes[2].port()
        nodes[2].grp_reg("group", late)
        for name in names:
            network.node(name, *names)
        changes.wait({**changes_of_all, late: None})
        everybody = sorted([*changes_of_all, late])
        assert sorted(nodes[3].db_wait("group", lambda ports: len(ports) == 6, 30.0)) == everybody
        assert not any(deleted for *_, deleted in changes.calls), "a port that lives was said to be gone"


def test_seed_of_a_global_node_becomes_global_although_it_has_no_seeds_itself(make_node: MakeNode) -> None:
    without = make_node("127.0.0.1:0")
    without.db_set("f", "k", 1)
    assert role(without) == "alone"
    address = free_address()
    other = make_node(address, address, without.NODE())
    wait_until(lambda: role(without) == role(other) == "global", within=WAIT)
    other.db_set("f", "l", 2)
    for node in (without, other):
        node.db_wait("f", lambda entries: set(entries) == {"k", "l"}, timeout=WAIT)


def test_seeds_that_were_not_told_of_each_other_meet_through_their_clients() -> None:
    with MemoryNetwork(latency=0.001) as network:
        one, two = (network.node(f"10.9.0.{number}:4040", **QUICK) for number in (1, 2))
        lists = [(one, two), (two, one), (one,), (two,)]
        clients = [
            network.node(f"10.8.0.{number}:4040", *(seed.NODE() for seed in seeds), **QUICK)
            for number, seeds in enumerate(lists, 1)
        ]
        nodes = [one, two, *clients]
        for node in nodes:
            node.db_set("family", node.NODE())
        everybody = sorted(node.NODE() for node in nodes)
        for node in nodes:
            wait_until(lambda node=node: sorted(node.db_keys("family")) == everybody, within=20)
        # A seed that is gone is looked for by nobody who was merely told of it.
        network.crash(two)
        wait_until(lambda: "10.9.0.2:4040" not in one._embedded._server._merged.families["'g"], within=20)
