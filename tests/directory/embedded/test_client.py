# SPDX-License-Identifier: MIT
"""The client of a raw master."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import DirectoryUnavailableError
from aemp_gevent.testing import MemoryNetwork
from tests.directory.changes import Changes
from tests.directory.embedded.networks import PERL, attach, role
from tests.support.helpers import turns, wait_until
from tests.support.networking import WAIT, MakeNode, RawListener, RawPeer
from tests.support.seams import embedded_of


def test_client_sends_its_master_everything_and_then_each_change(make_node: MakeNode, listener: RawListener) -> None:
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
        node.db_set("f", "l", 2)  # the same value
        visited = Event()
        node.scheduler.call_on_hub(visited.set)
        assert visited.wait(WAIT)
        node.db_set("f", "l", 3)
        assert master.take(3) == [
            ["", "g_upd", "f", {"l": 2}, []],
            ["", "g_upd", "f", None, ["k"]],
            ["", "g_upd", "f", {"l": 3}, []],
        ]
        master.send(["", "g_chg2", "f", {"early": 1}, []], ["", "g_chg1", "g", {"x": 1}])
        master.send(["", "g_chg1", "f", {"a": 1}], ["", "g_chg2", "f", {"b": 1}, []], ["", "g_chg2", "f", {}, ["a"]])
        changes.wait({"b": 1})
        with RawPeer.dial(node, "stranger", extras=PERL).shake() as stranger:
            stranger.send(["", "g_chg2", "f", {"wrong": 1}, []], ["", "g_chg1", "f", {"wrong": 1}])
            assert stranger.answers()
        master.send(["", "g_chg2", "f", {"c": 1}, []])
        changes.wait({"b": 1, "c": 1})
        assert [call[0] for call in changes.calls] == [{"a": 1}, {"a": 1, "b": 1}, {"b": 1}, {"b": 1, "c": 1}]


def test_client_asks_its_master_and_takes_answers_from_no_other_peer(
    make_node: MakeNode, listener: RawListener
) -> None:
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
def test_client_sends_everything_again_when_its_master_was_lost(make_node: MakeNode, listener: RawListener) -> None:
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


@pytest.mark.slow
def test_next_master_gets_the_rest_when_one_request_cannot_be_sent(
    make_node: MakeNode, listener: RawListener, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node("127.0.0.1:0", listener.id)
    master, _database = attach(listener)
    found: list[Any] = []
    engine = embedded_of(node)
    for name in ("\ud800", "f"):
        engine.watch(name)
        engine.query("keys", name, found.append)
        engine.find(name, found.append)
    requests = master.take(3)
    assert [request[1:3] for request in requests] == [["g_mon1", "f"], ["g_db_keys", "f"], ["g_find", "f"]]
    master.close()
    again, _database = attach(listener)
    with again:
        assert sorted(again.take(3)) == sorted(requests)
        wait_until(lambda: role(node) == f"client of {listener.id}", within=WAIT)
        node.db_set("f", "k", 1)
        assert again.packet() == ["", "g_upd", "f", {"k": 1}, []]
    assert f"the request g_mon1 cannot be sent to node {listener.id}: " in caplog.text


@pytest.mark.slow
def test_reading_fails_in_time_when_no_seed_can_be_reached_and_works_once_one_is(
    make_node: MakeNode, listener: RawListener
) -> None:
    listener.sock.close()
    node = make_node("127.0.0.1:0", listener.id, monitor_timeout=0.3)
    with pytest.raises(DirectoryUnavailableError, match=r"db_keys\(\): the directory did not answer within 0.3 s"):
        node.db_keys("f")
    assert role(node) == "alone"


@pytest.mark.slow
def test_entries_that_a_short_lived_master_did_not_have_are_kept() -> None:
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
