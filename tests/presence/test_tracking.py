# SPDX-License-Identifier: MIT
"""Presence between nodes: who is there, who came, and that nobody who is there is reported to have left."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from aemp_gevent import SELF, receive
from aemp_gevent.errors import (
    DirectoryTimeout,
    DirectoryUnavailableError,
    InvalidPortError,
    InvalidPresenceError,
    NodePortError,
    NoPortContextError,
    UnencodableMessageError,
)
from aemp_gevent.node.node import Node
from aemp_gevent.presence import Presence, Session
from aemp_gevent.presence.tracking import FAMILY, MAX_CHARACTERS
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from tests.support.directories import WAIT, MakeNodes
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode, settled_tables

QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}
SEEDS = ("10.7.0.1:4040", "10.7.0.2:4040")


class Watcher:
    """A watcher's callback that keeps what it hears."""

    def __init__(self, node: Node, name: str = "room") -> None:
        self.people: dict[str, list[Any]] | None = None
        self.joined: list[str] = []
        self.changed: list[str] = []
        self.left: list[str] = []
        self.guard = Presence(name, node=node).watch(self)

    def __call__(self, people: Any, joined: Any, changed: Any, left: Any) -> None:
        self.people = {person: list(metas) for person, metas in people.items()}
        self.joined += joined
        self.changed += changed
        self.left += left


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(time="virtual") as memory:
        yield memory


def test_sessions_of_one_person_merge_and_the_last_one_that_ends_is_the_leave(directory_nodes: MakeNodes) -> None:
    """With every engine of the directory."""
    one, other = directory_nodes(2)
    watchers = [Watcher(one), Watcher(other)]
    for watcher in watchers:
        wait_until(lambda watcher=watcher: watcher.people == {}, within=WAIT)  # the first call comes anyway
    here = Presence("room", node=one).track("alice", {"device": "phone"})
    there = Presence("room", node=other).track("alice", {"device": "desk"})
    Presence("elsewhere", node=one).track("carol")
    both = [{"device": "desk"}, {"device": "phone"}]
    for watcher in watchers:
        wait_until(
            lambda watcher=watcher: sorted((watcher.people or {}).get("alice", ()), key=str) == both, within=WAIT
        )
    with Presence("room", node=other).track("bob"):
        for node in (one, other):
            wait_until(lambda node=node: Presence("room", node=node).list().get("bob") == [None], within=WAIT)
    here.update({"device": "tablet"})
    for watcher in watchers:
        wait_until(lambda watcher=watcher: {"device": "tablet"} in (watcher.people or {}).get("alice", ()), within=WAIT)
    here.cancel()
    here.cancel()
    here.update({"device": "none"})  # nobody sees it
    for watcher in watchers:
        wait_until(lambda watcher=watcher: watcher.people == {"alice": [{"device": "desk"}]}, within=WAIT)
        assert watcher.left == ["bob"]
    there.cancel()
    for watcher in watchers:
        wait_until(lambda watcher=watcher: watcher.people == {}, within=WAIT)
        assert watcher.joined == ["alice", "bob"]
        assert watcher.left == ["bob", "alice"]
    assert "over" in repr(here)
    assert Presence("room", node=one).list() == {}


def test_list_is_a_copy_of_what_is_known(make_node: MakeNode) -> None:
    presence = Presence("room", node=make_node(None))
    presence.track("alice", {"tags": ["a"]})
    presence.list()["alice"][0]["tags"].append("b")
    presence.list()["alice"].clear()
    assert presence.list() == {"alice": [{"tags": ["a"]}]}


def test_longest_names_and_keys_work_between_nodes(network: MemoryNetwork) -> None:
    one, other = (network.node(name, *SEEDS, **QUICK) for name in SEEDS)
    name = "\N{MUSICAL SYMBOL G CLEF}" * MAX_CHARACTERS
    session = Presence(name, node=one).track(name, "here")
    wait_until(lambda: Presence(name, node=other).list() == {name: ["here"]}, within=WAIT)
    session.cancel()
    wait_until(lambda: Presence(name, node=other).list() == {}, within=WAIT)


def test_session_ends_with_the_port_in_whose_context_it_began(make_node: MakeNode) -> None:
    node = make_node(None)
    presence = Presence("room", node=node)

    def work() -> None:
        presence.track("alice", port=SELF)
        receive("end")

    port = node.port_async(work)
    wait_until(lambda: presence.list() == {"alice": [None]})
    node.snd(port, "end")
    wait_until(lambda: presence.list() == {})


def test_session_ends_with_its_port(make_node: MakeNode) -> None:
    node = make_node(None)
    presence = Presence("room", node=node)
    port = node.port()
    session = presence.track("alice", port=port)
    dead = node.port()
    node.kil(dead)
    presence.track("bob", port=dead)
    assert presence.list().keys() >= {"alice"}
    node.kil(port)
    wait_until(lambda: presence.list() == {})
    session.update("again")
    assert presence.list() == {}


@pytest.mark.slow
@pytest.mark.no_cover
def test_updates_leave_nothing_behind(network: MemoryNetwork) -> None:
    one, other = (network.node(name, *SEEDS, **QUICK) for name in SEEDS)
    watcher = Watcher(other)
    port = one.port()
    session = Presence("room", node=one).track("alice", 0, port=port)
    wait_until(lambda: watcher.people == {"alice": [0]}, within=WAIT)
    before, objects = settled_tables(one, other), None
    for number in range(1, 3001):
        session.update(number)
        if number % 1000 == 0:
            wait_until(lambda number=number: watcher.people == {"alice": [number]}, within=WAIT)
            if objects is None:  # after the first round, which fills caches
                gc.collect()
                objects = len(gc.get_objects())
    watcher.changed.clear()
    gc.collect()
    assert objects is not None
    assert len(gc.get_objects()) - objects < 500, "each of 2000 updates left something"
    assert settled_tables(one, other) == before
    assert watcher.left == []
    assert one.db_keys(FAMILY + "room") == other.db_keys(FAMILY + "room")
    assert len(one.db_keys(FAMILY + "room")) == 1


@pytest.mark.slow
def test_nobody_leaves_who_is_there_through_another_node(network: MemoryNetwork) -> None:
    """The node of one session dies, and it is the one that had the directory for the others."""
    seeds = [network.node(name, *SEEDS, **QUICK) for name in SEEDS]
    nodes = [network.node(None, *SEEDS, **QUICK) for _ in range(4)]
    watchers = [Watcher(node) for node in (*nodes, seeds[1])]
    for node in (*nodes, *seeds):
        Presence("room", node=node).track("alice", node.NODE())
    Presence("room", node=seeds[0]).track("only there")
    for watcher in watchers:
        wait_until(lambda watcher=watcher: len((watcher.people or {}).get("alice", ())) == 6, within=WAIT)
        wait_until(lambda watcher=watcher: "only there" in (watcher.people or {}), within=WAIT)
    network.crash(seeds[0])
    network.crash(nodes[0])
    for watcher in watchers[1:]:
        wait_until(lambda watcher=watcher: watcher.left == ["only there"], within=WAIT)
        wait_until(lambda watcher=watcher: len((watcher.people or {}).get("alice", ())) == 4, within=WAIT)
        assert watcher.joined.count("alice") == 1


@pytest.mark.slow
def test_those_of_a_silent_node_are_gone_in_the_heartbeat_time_and_back_when_it_is(network: MemoryNetwork) -> None:
    seeds = [network.node(name, *SEEDS, **QUICK) for name in SEEDS]
    lost = network.node(None, *SEEDS, **QUICK)
    watchers = [Watcher(seed) for seed in seeds]
    for number in range(20):
        Presence("room", node=lost).track(f"person {number}")
    stays = Watcher(lost)
    for watcher in (*watchers, stays):
        wait_until(lambda watcher=watcher: len(watcher.people or ()) == 20, within=WAIT)
    network.partition([lost])
    for watcher in watchers:
        wait_until(lambda watcher=watcher: watcher.people == {}, within=WAIT)
    network.heal()
    for watcher in watchers:
        wait_until(lambda watcher=watcher: len(watcher.people or ()) == 20, within=WAIT)
    assert stays.left == [], "its own people never left"


@pytest.mark.slow
def test_people_of_a_killed_worker_are_gone_at_once(node_process: Callable[..., NodeProcess]) -> None:
    """That is: when the system reports the end of its process, and not after the heartbeat's timeout."""
    code = """
        from aemp_gevent.contrib import join_host
        from aemp_gevent.presence import Presence
        node = mp.Node()
        join_host("shop", folder=folder, node=node, heartbeat_timeout=600, monitor_timeout=600)
        left = []
        presence = Presence("room", node=node)
        guard = presence.watch(lambda people, joined, changed, gone: left.extend(gone))
        sessions = [presence.track(key, who) for key in keys]
    """
    with TemporaryDirectory() as folder:  # whose name is short, as sockets are in it
        workers = [node_process() for _ in range(3)]
        for number, worker in enumerate(workers):
            worker.run(code, timeout=WAIT, folder=folder, keys=["everywhere", f"only {number}"], who=number)
        for worker in workers:
            wait_until(lambda worker=worker: len(worker.run("presence.list()")) == 4, within=WAIT)
        workers[0].kill()  # which came first
        for worker in workers[1:]:
            wait_until(lambda worker=worker: worker.run("left") == ["only 0"], within=WAIT)
            assert sorted(worker.run("presence.list()")["everywhere"]) == [1, 2]
        workers[2].kill()
        wait_until(lambda: workers[1].run("left") == ["only 0", "only 2"], within=WAIT)
        assert workers[1].run("presence.list()") == {"everywhere": [1], "only 1": [1]}


def test_watch_ends_with_its_guard_and_other_entries_are_ignored(make_node: MakeNode) -> None:
    node = make_node(None)
    watcher = Watcher(node)
    node.db_set(FAMILY + "room", "not a session", 1)
    Presence("room", node=node).track("alice")
    wait_until(lambda: watcher.people == {"alice": [None]})
    watcher.guard.cancel()
    Presence("room", node=node).track("bob")
    wait_until(lambda: Presence("room", node=node).list() == {"alice": [None], "bob": [None]})
    assert watcher.joined == ["alice"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("", "not empty", id="empty"),
        pytest.param(5, "must be a str", id="number"),
        pytest.param(None, "must be a str", id="none"),
        pytest.param("x" * 201, "201 characters", id="long"),
        pytest.param("x\ud800", "surrogate", id="surrogate"),
    ],
)
def test_names_and_keys_that_cannot_be_are_refused_with_the_reason(make_node: MakeNode, name: Any, says: str) -> None:
    node = make_node(None)
    with pytest.raises(InvalidPresenceError, match=says):
        Presence(name, node=node)
    with pytest.raises(InvalidPresenceError, match=says):
        Presence("room", node=node).track(name)


def test_data_that_cannot_travel_is_refused_and_nothing_is_changed(make_node: MakeNode) -> None:
    node = make_node(None)
    presence = Presence("room" * 50, node=node)
    session = presence.track("alice" * 40, "as it was")
    wrong = (object(), UnencodableMessageError, "argument 1 of 'meta'"), ("x" * 16_385, InvalidPresenceError, "16384")
    for meta, error, says in wrong:
        with pytest.raises(error, match=says):
            presence.track("bob", meta)
        with pytest.raises(error, match=says):
            session.update(meta)
    for port, error in (("#", InvalidPortError), (node.NODE(), NodePortError), (SELF, NoPortContextError)):
        with pytest.raises(error):
            presence.track("carol", port=port)
    with pytest.raises(TypeError):
        presence.watch(None)  # type: ignore[arg-type]
    assert presence.list() == {"alice" * 40: ["as it was"]}
    assert isinstance(session, Session)


def test_directory_that_does_not_answer_is_reported(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0", "127.0.0.1:1")
    with pytest.raises(DirectoryTimeout):
        Presence("room", node=node).list(timeout=0.05)
    node.shutdown(0.1)
    with pytest.raises(DirectoryUnavailableError):
        Presence("room", node=node).list()


def test_sessions_of_a_node_that_begins_again_are_other_ones(make_node: MakeNode) -> None:
    node = make_node(None)
    presence = Presence("room", node=node)
    session = presence.track("alice")
    node.reset()
    again = presence.track("alice")
    session.cancel()
    assert presence.list() == {"alice": [None]}
    again.cancel()
    assert presence.list() == {}
