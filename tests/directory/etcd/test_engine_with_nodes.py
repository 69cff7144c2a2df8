# SPDX-License-Identifier: MIT
"""Nodes whose directory is in a real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aemp_gevent.testing import NodeProcess
from benchmarks.etcd_outage import How, run
from tests.directory.changes import Changes
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, WAIT, Inbox, MakeNode
from tests.support.thoroughness import tries

pytestmark = [needs_etcd, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def directory(server: EtcdServer, request: pytest.FixtureRequest) -> str:
    return f"etcd://{server.endpoint}/{abs(hash(request.node.name))}"


def test_nodes_without_seeds_share_a_directory(make_node: MakeNode, directory: str, server: EtcdServer) -> None:
    a, b = (make_node(directory=directory, heartbeat_timeout=2.0) for _ in range(2))
    a.db_set("f", "k", 1)
    assert b.db_wait("f", lambda entries: entries.get("k") == 1, WAIT) == {"k": 1}
    assert b.db_keys("f") == ["k"]
    port = a.port(lambda *_: None)
    a.grp_reg("group", port)
    wait_until(lambda: b.grp_get("group") == [port], within=WAIT)
    found: list[object] = []
    b._directory.find(a.NODE(), found.append)
    wait_until(lambda: found == [[a.NODE()]], within=WAIT)
    assert a.info()["directory"] == "etcd"
    a.shutdown()
    assert not [key for key in server.keys(directory.removeprefix(f"etcd://{server.endpoint}")) if "/db/f/" in key]
    b.db_wait("f", lambda entries: not entries, WAIT)
    wait_until(lambda: b.grp_get("group") is None, within=WAIT)


def test_family_is_reported_to_the_next_monitor_after_a_strike_in_the_cancelling_of_the_last(
    make_node: MakeNode, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_family: str) -> None:
        raise KeyboardInterrupt

    node = make_node(directory=directory, heartbeat_timeout=2.0)
    node.db_set("f", "k", 1)
    first, second = Changes(), Changes()
    guard = node.db_mon("f", first)
    first.wait({"k": 1})
    with monkeypatch.context() as patch:
        patch.setattr(node._etcd._watcher, "unwatch", strike)  # type: ignore[union-attr]
        with pytest.raises(KeyboardInterrupt):
            guard.cancel()
    node.db_mon("f", second)
    second.wait({"k": 1})
    node.db_set("f", "k", 2)
    second.wait({"k": 2})


def test_a_node_with_another_directory_is_logged(
    make_node: MakeNode, directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    master = make_node(directory=directory)
    slave = make_node("slave/one", master.NODE())
    wait_until(lambda: f"node {slave.NODE()} wants to use the directory of this node" in caplog.text, within=WAIT)


def test_slaves_share_it_and_named_nodes_are_found(make_node: MakeNode, directory: str) -> None:
    settings = {"directory": directory, "heartbeat_timeout": 2.0}
    master, named = make_node(**settings), make_node(None)
    named.configure(nodeid="backend", binds=["127.0.0.1:0"], secret=SECRET, **settings)
    slave = make_node("slave/one", master.NODE(), **settings)
    nodes = [master, named, slave]
    inboxes = [Inbox(node) for node in nodes]
    for node, inbox in zip(nodes, inboxes, strict=True):
        node.grp_reg("group", inbox.port)
        node.grp_get("group")
    for node in nodes:
        wait_until(lambda node=node: sorted(node.grp_get("group") or ()) == sorted(map(str, inboxes)), within=WAIT)
        for inbox in inboxes:
            node.snd(inbox, node.NODE())
    for inbox in inboxes:
        wait_until(lambda inbox=inbox: len(inbox.messages) == 3, within=WAIT)


def test_entries_of_a_killed_node_go(make_node: MakeNode, directory: str) -> None:
    node = make_node(directory=directory, heartbeat_timeout=2.0)
    with NodeProcess(directory=directory, heartbeat_timeout=2.0) as process:
        process.run("guard = mp.db_set('f', 'k', 1)")
        node.db_wait("f", lambda entries: "k" in entries, WAIT)
        process.kill()
        node.db_wait("f", lambda entries: not entries, 2.0 + 5.0)


def test_entries_of_a_node_that_ends_go_at_once(make_node: MakeNode, directory: str) -> None:
    node = make_node(directory=directory)
    with NodeProcess(directory=directory, heartbeat_timeout=1000.0) as process:
        process.run("mp.shutdown_on_signal()")
        process.run("guard = mp.db_set('f', 'k', 1)")
        node.db_wait("f", lambda entries: "k" in entries, WAIT)
        process.terminate()
        node.db_wait("f", lambda entries: not entries, WAIT)


# The first has most of what the others have; in small, all three are in test_etcd.py.
@pytest.mark.parametrize("how", ["emptied", "killed", "suspended"][: tries(1, 3)])
def test_an_outage_under_load_loses_nothing_that_lives(tmp_path: Path, how: How) -> None:
    outage = run(tmp_path, how, 4.0, nodes=3)
    assert outage.agreed
    assert not outage.missed
