# SPDX-License-Identifier: MIT
"""Entries that only a lost global node knew."""

from __future__ import annotations

import pytest

from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import OURS, Dial, become_global, handled, packets_until_now, shorten_grace
from tests.support.helpers import wait_until
from tests.support.networking import WAIT
from tests.support.seams import embedded_of


def test_entries_from_a_lost_global_node_are_kept_until_their_owners_had_the_time_to_go_elsewhere(
    node: Node, dial: Dial
) -> None:
    watcher, other = dial("w"), dial("g", OURS)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", None]
    become_global(other)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"f": {"own": 1}, "'g": {"g": None}}, "g"])
    assert watcher.take(2) == [["", "g_chg2", "f", {"k": 1}, []], ["", "g_chg2", "f", {"own": 1}, []]]
    other.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["own"]], "it was lost itself"
    # It returns, and tells the same of another one, and more: only that is news.
    again = dial("g", OURS)
    become_global(again)
    again.send(["", "g_set", {"f": {"k": 1, "l": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    assert watcher.packet() == ["", "g_chg2", "f", {"l": 1}, []]
    again.close()
    # The other one comes here, and has less by now.
    late = dial("a")
    late.send(["", "g_slave", {"f": {"k": 1}}])
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["l"]]
    late.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]


def test_entries_from_a_lost_global_node_cannot_be_deleted_by_another_one(node: Node, dial: Dial) -> None:
    watcher, other, liar = dial("w"), dial("g", OURS), dial("liar", OURS)
    for peer in (other, liar):
        become_global(peer)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    other.close()
    wait_until(lambda: "g" not in node.up_nodes(), within=WAIT)
    liar.send(["", "g_set", {"f": {"l": 1}}, "a"], ["", "g_set", {"'g": {"liar": None}}, "liar"])
    packets_until_now(liar)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1, "l": 1}]
    itself = dial("a", OURS)
    itself.send(["", "g_slave", {"f": {"m": 1}}])
    assert watcher.take(2) == [["", "g_chg2", "f", {"m": 1}, []], ["", "g_chg2", "f", {}, ["k"]]]


@pytest.mark.slow
def test_entries_of_owners_that_go_nowhere_are_dropped_in_the_end(node: Node, dial: Dial) -> None:
    shorten_grace(node, 0.2)
    watcher, other = dial("w"), dial("g", OURS)
    become_global(other)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1}]
    other.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]
    assert embedded_of(node)._server is not None
    assert not embedded_of(node)._server._orphans._terms
