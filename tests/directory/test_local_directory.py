# SPDX-License-Identifier: MIT
"""A node's own side of the directory, with every engine."""

from __future__ import annotations

import pytest
from gevent.event import Event

from aemp_gevent.directory.local_directory import DirectoryEntry
from aemp_gevent.node.node import Node
from tests.directory.changes import Changes, see
from tests.support.directories import MakeNodes, World
from tests.support.striking import at_every_depth


def test_every_node_reads_what_each_has_set(directory_nodes: MakeNodes) -> None:
    nodes = directory_nodes(4)
    for number, node in enumerate(nodes):
        node.db_set("family", f"key {number}", {"n": [number, None, "ü", 2.5, True]})
    expected = {f"key {number}": {"n": [number, None, "ü", 2.5, True]} for number in range(4)}
    see(nodes, "family", expected)
    assert sorted(nodes[2].db_keys("family")) == sorted(expected)
    assert sorted(value["n"][0] for value in nodes[2].db_values("family")) == [0, 1, 2, 3]
    assert nodes[0].db_family("other") == {}
    assert nodes[0].db_keys("other") == nodes[0].db_values("other") == []


def test_values_are_copied_and_look_the_same_to_all(directory_nodes: MakeNodes) -> None:
    nodes = directory_nodes(2)
    value = {"pair": (1, 2)}
    nodes[0].db_set("family", "key", value)
    value["pair"] = (3, 4)
    see(nodes, "family", {"key": {"pair": [1, 2]}})


def test_the_smallest_living_owner_of_a_key_counts(directory_nodes: MakeNodes, world: World) -> None:
    nodes = sorted(directory_nodes(4), key=lambda node: node.NODE())
    for node in reversed(nodes):
        node.db_set("family", "key", node.NODE())
    see(nodes, "family", {"key": nodes[0].NODE()})
    nodes[3].db_del("family", "key")  # one's own only
    nodes[0].db_del("family", "key")
    see(nodes, "family", {"key": nodes[1].NODE()})
    world.crash(nodes[1])
    see([nodes[0], nodes[2], nodes[3]], "family", {"key": nodes[2].NODE()})
    nodes[2].shutdown()
    see([nodes[0], nodes[3]], "family", {})


def test_entries_go_with_their_node(directory_nodes: MakeNodes, world: World) -> None:
    crashing, leaving, *staying = directory_nodes(5)
    for node in (crashing, leaving, *staying):
        node.db_set("family", node.NODE())
    see(staying, "family", dict.fromkeys([crashing.NODE(), leaving.NODE(), *(node.NODE() for node in staying)]))
    world.crash(crashing)
    leaving.shutdown()
    see(staying, "family", dict.fromkeys(node.NODE() for node in staying))


def test_guard_deletes_its_entry_unless_it_was_set_again(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    first = node.db_set("family", "key", 1)
    second = node.db_set("family", "key", 1)
    assert (second.family, second.key) == ("family", "key")
    first.cancel()
    assert node.db_family("family") == {"key": 1}
    second.cancel()
    second.cancel()
    assert node.db_family("family") == {}
    with node.db_set("family", "key", 3):
        assert node.db_family("family") == {"key": 3}
    assert node.db_family("family") == {}


def test_entries_set_before_initialisation_are_published_then(world: World, directory_nodes: MakeNodes) -> None:
    (other,) = directory_nodes(1)
    node = world.node()
    changes = Changes()
    node.db_mon("family", changes)
    node.db_set("family", "key", 1)
    gone = node.db_set("family", "gone", 1)
    gone.cancel()
    port = node.port()
    node.db_reg("family", port)
    changes.wait({"key": 1, port: None})
    world.join(node)
    renamed = f"{node.NODE()}#{port.partition('#')[2]}"
    see([other, node], "family", {"key": 1, renamed: None})
    changes.wait({"key": 1, renamed: None})
    node.kil(renamed)
    see([other], "family", {"key": 1})
    changes.wait({"key": 1})


@pytest.mark.parametrize("call", ["db_del", "cancel"])
def test_what_is_set_after_a_deletion_at_the_recursion_limit_stays(private: Node, call: str) -> None:
    guards: list[DirectoryEntry] = []

    def delete(number: int) -> None:
        if call == "db_del":
            private.db_del("f", "k")
        else:
            guards[-1].cancel()

    for number, _error in enumerate(at_every_depth(delete, lambda _: guards.append(private.db_set("f", "k", "old")))):
        private.db_set("f", "k", number)
        visited = Event()
        private.scheduler.call_on_hub(visited.set)  # after what the struck call asked the hub for
        assert visited.wait(5)
        assert private.db_family("f") == {"k": number}
        private.db_del("f", "k")
