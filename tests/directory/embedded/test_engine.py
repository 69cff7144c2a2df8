# SPDX-License-Identifier: MIT
"""The embedded engine: becoming global, and a whole network that breaks and heals."""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
import pytest

from aemp_gevent.errors import DirectoryUnavailableError
from aemp_gevent.testing import MemoryNetwork
from tests.directory.changes import Changes
from tests.directory.embedded.networks import PERL, attach, role
from tests.support.directories import QUICK
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawListener, RawPeer, free_address
from tests.support.seams import embedded_of
from tests.support.thoroughness import tries


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
    wait_until(lambda: embedded_of(node) is not None and embedded_of(node)._client.master is None, within=WAIT)
    assert [role(seed), role(node), role(third)] == ["global", "global", f"client of {node.NODE()}"]
    # Nothing that lived all the time was ever seen to be gone.
    assert all(not call[3] for call in changes.calls), changes.calls


def test_client_of_a_perl_node_that_becomes_global_unwatches_nothing_there(
    make_node: MakeNode, listener: RawListener
) -> None:
    """Perl dropped its watches when it heard ``g_global``, and would take a node that unwatches for a client again."""
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
        wait_until(lambda: embedded_of(node) is not None and embedded_of(node)._client.master is None, within=WAIT)
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
def test_both_seeds_can_die_and_return() -> None:
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
        assert not any(deleted for *_, deleted in changes.calls), "a living port was reported as deleted"
