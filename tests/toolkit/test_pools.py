# SPDX-License-Identifier: MIT
"""A gevent pool whose functions run on other nodes: gevent's interface, and workers that die."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.pool import Pool

from aemp_gevent import SELF
from aemp_gevent.errors import CallTimeout, PortDied, RemoteError, SpawnRefusedError
from aemp_gevent.node.node import Node
from aemp_gevent.node.spawnable_functions import spawnable
from aemp_gevent.testing import SECRET, NodeProcess
from aemp_gevent.toolkit import RemotePool, death_of
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, settled_tables, tables
from tests.support.settling import settle

from tests.toolkit import functions  # isort: skip

F = "tests.toolkit.functions"


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node(secret=SECRET)


@pytest.fixture
def nodes(make_node: MakeNode) -> list[str]:
    """Two other nodes, in this process: for what does not die."""
    return [make_node(secret=SECRET).NODE() for _ in range(2)]


@pytest.fixture
def make_pool(node: Node) -> Iterator[Callable[..., RemotePool]]:
    pools: list[RemotePool] = []

    def make(nodes: Any, **options: Any) -> RemotePool:
        pools.append(RemotePool(nodes, node=node, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    wait_until(lambda: not any(map(len, pools)))


@pytest.fixture
def pool(make_pool: Callable[..., RemotePool], nodes: list[str]) -> RemotePool:
    return make_pool(nodes, workers=2)


def worker_of(make_node: MakeNode, node: Node, **settings: Any) -> tuple[Node, str]:
    """Return another node, and a port on it that is a worker of a pool that it says is its own."""
    there = make_node("127.0.0.1:0", secret=SECRET, **settings)
    lie = there.port()
    worker = there.spawn(there.NODE(), "aemp_gevent.toolkit.pool_worker", lie)
    node.call(worker, "apply", "Some::Name", [1], {}, timeout=WAIT)
    return there, worker


def processes(node_process: Callable[..., NodeProcess], count: int) -> list[NodeProcess]:
    started = [node_process() for _ in range(count)]
    for process in started:
        process.run(f"import {F}")
    return started


# --- allowed functions --------------------------------------------------------------


def test_a_peer_that_calls_a_worker_of_another_nodes_pool_runs_only_what_it_may(make_node, node):
    """The spawner of a worker says whose pool it is for, and anybody may know a worker's ID."""
    _there, worker = worker_of(make_node, node)
    for name in (f"{F}.forbidden", "os.getpid"):
        with pytest.raises(RemoteError, match="is not allowed here"):
            node.call(worker, "apply", name, [], {}, timeout=WAIT)


def test_a_peer_that_may_spawn_nothing_has_no_worker_run_anything(make_node, node):
    there, worker = worker_of(make_node, node)
    there.reload(secret=SECRET, rules=[{"peer": "*", "spawn": False}])
    with pytest.raises(RemoteError, match="run code here"):
        node.call(worker, "apply", "Some::Name", [1], {}, timeout=WAIT)
    assert there.refusals["spawn"] == 1
    assert there.call(worker, "apply", "Some::Name", [1], {}, timeout=WAIT) == 2, "this node itself may"


def test_a_message_that_only_looks_like_a_call_has_nothing_run(make_node, node):
    """It may name any port for the answer, one of the worker's own node for instance."""
    there, worker = worker_of(make_node, node)
    answers: list[Any] = []
    reply = there.port(lambda *message: answers.append(message))
    there.mon(reply, lambda *reason: answers.append(reason))
    node.snd(worker, "apply", "os.getpid", [], {}, reply)
    wait_until(lambda: answers, within=WAIT)
    assert "use call()" in answers[0][1]


# --- gevent's interface -------------------------------------------------------------


def test_it_is_a_pool_of_gevents(pool):
    assert isinstance(pool, Pool)
    assert (pool.size, pool.free_count(), len(pool)) == (4, 4, 0)
    assert pool.map(functions.square, range(20)) == [n * n for n in range(20)]
    assert list(pool.imap(functions.add, range(3), range(3))) == [0, 2, 4]
    assert sorted(pool.imap_unordered(f"{F}.square", range(9))) == [n * n for n in range(9)]
    assert pool.apply(functions.add, (1,), {"right": 5}) == 6
    assert pool.apply("Some::Name", (1, 2)) == 3
    assert pool.map_async(functions.square, range(3)).get(timeout=WAIT) == [0, 1, 4]
    called: list[Any] = []
    results = [pool.apply_async(functions.square, (n,), callback=called.append) for n in range(9)]
    assert [result.get(timeout=WAIT) for result in results] == [n * n for n in range(9)]
    wait_until(lambda: sorted(called) == [n * n for n in range(9)])
    assert pool.spawn(functions.square, 3).get(timeout=WAIT) == 9
    pool.join(timeout=WAIT)
    assert pool.free_count() == 4


def test_work_is_spread_and_as_many_run_at_once_as_there_are_workers(pool, nodes):
    places = pool.map(functions.where, [0.02] * 12)
    ports = {port for _pid, port in places}
    assert len(ports) == 4
    assert {port.partition("#")[0] for port in ports} == set(nodes)


def test_an_exception_is_raised_here_and_the_worker_continues(pool):
    with pytest.raises(RemoteError, match="ValueError: hello"):
        pool.apply(functions.fail, ("hello",))
    with pytest.raises(RemoteError, match="ValueError: x"):
        pool.map(functions.fail, "xxx")
    workers = {worker.port for worker in pool._workers}
    assert pool.map(functions.square, range(8)) == [n * n for n in range(8)]
    assert workers - {None} <= {worker.port for worker in pool._workers}


def test_functions_that_are_not_allowed_are_refused(pool):
    with pytest.raises(RemoteError, match=r"SpawnRefusedError: .*forbidden.* is not allowed here"):
        pool.apply(functions.forbidden)


@pytest.mark.parametrize("function", [lambda: 1, Path("x").exists, 7], ids=["lambda", "method", "number"])
def test_functions_without_a_name_are_refused_here(pool, function):
    with pytest.raises(SpawnRefusedError, match="give a function of a module, or a name"):
        pool.apply(function)


def test_no_nodes_are_refused(node):
    with pytest.raises(ValueError, match="needs nodes"):
        RemotePool([], node=node)


def test_a_private_node_has_a_pool_of_its_own(make_node):
    node = make_node(None)
    with RemotePool([node.NODE()], workers=3, node=node) as pool:
        assert pool.map("math.sqrt", [1, 4, 9]) == [1, 2, 3]


def test_closing_it_leaves_nothing_anywhere(make_node, node):
    other = make_node(secret=SECRET)
    assert node.call(other.NODE(), "time")
    before = settled_tables(node, other)
    with RemotePool([other.NODE()], workers=3, node=node) as pool:
        pool.map(functions.square, range(9))
        pool.apply_async(functions.where, (WAIT,))
        wait_until(lambda: len(pool) == 1)
        gevent.sleep(0.01)
    wait_until(lambda: tables(node, other) == before, show=lambda: (tables(node, other), before))


# --- what goes wrong ----------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_interrupted(make_pool, nodes, tmp_path):
    pool = make_pool(nodes[:1], timeout=0.1)
    log = tmp_path / "log"
    with pytest.raises(CallTimeout):
        pool.apply(functions.note, (str(log), 0.4))
    assert pool.apply(functions.square, (3,)) == 9  # by another worker, at once
    gevent.sleep(0.5)
    assert log.read_text().split() == ["began", str(os.getpid())]


@pytest.mark.slow
def test_a_killed_greenlet_takes_its_worker_along(make_pool, nodes, tmp_path):
    pool = make_pool(nodes[:1])
    log = tmp_path / "log"
    greenlet = pool.spawn(functions.note, str(log), 0.4)
    wait_until(log.exists)
    greenlet.kill()
    assert pool.apply(functions.square, (3,)) == 9
    gevent.sleep(0.5)
    assert log.read_text().split() == ["began", str(os.getpid())]


@spawnable
def suicide(path: str) -> str:
    """Kill the worker this runs in, the first time."""
    if not Path(path).exists():
        Path(path).touch()
        from aemp_gevent.ports.context import require_port

        port = require_port("suicide")
        port.scheduler.owner.node.kil(port.id, "suicide")
        gevent.sleep(WAIT)
    return "done"


@pytest.mark.parametrize("retries", [0, 1])
def test_the_death_of_a_worker_is_raised_or_made_up_for(make_pool, nodes, tmp_path, retries):
    pool = make_pool(nodes[:1], retries=retries)
    path = str(tmp_path / "was here")
    if retries:
        assert pool.apply(suicide, (path,)) == "done"
    else:
        with pytest.raises(PortDied) as raised:
            pool.apply(suicide, (path,))
        assert raised.value.reason == ("suicide",)
        assert pool.apply(suicide, (path,)) == "done"


def test_a_worker_that_died_between_runs_is_not_a_failed_run(make_pool, node, nodes):
    """Nothing was done twice, or lost: also those that must not run twice are run."""
    pool = make_pool(nodes[:1], workers=3, retries=0)
    assert pool.map(functions.square, range(6)) == [n * n for n in range(6)]
    for worker in pool._workers:
        with death_of(worker.port, node=node) as death:
            node.kil(worker.port, "between")
            assert death.get(timeout=WAIT) == ("between",)
    settle(node)  # until then, who calls them hears of this death as well
    assert pool.map(functions.square, range(6)) == [n * n for n in range(6)]


@pytest.mark.slow
def test_a_node_that_was_restarted_between_runs_costs_no_run(make_pool, node, node_process):
    (only,) = processes(node_process, 1)
    pool = make_pool([only.node], workers=3, retries=0)
    assert pool.map(functions.square, range(6)) == [n * n for n in range(6)]
    only.kill()
    wait_until(lambda: not node.up_nodes(), within=WAIT)
    only.restart()
    only.run(f"import {F}")
    assert pool.map(functions.square, range(6)) == [n * n for n in range(6)]


@pytest.mark.slow
def test_the_work_of_a_node_that_is_killed_is_done_elsewhere(make_pool, node_process):
    first, second = processes(node_process, 2)
    pool = make_pool([first.node, second.node], workers=3)
    greenlets = [pool.spawn(functions.where, 0.3) for _ in range(6)]
    gevent.sleep(0.1)
    lost = first.pid
    first.kill()
    places = [greenlet.get(timeout=WAIT) for greenlet in greenlets]
    places += pool.map(functions.where, [0.0] * 20)
    assert {pid for pid, _ in places} == {second.pid} != {lost}


@pytest.mark.slow
def test_a_node_that_is_back_is_used_again(make_pool, node_process, monkeypatch):
    from aemp_gevent.toolkit import pools

    monkeypatch.setattr(pools, "SHUN_SECONDS", 0.1)
    first, second = processes(node_process, 2)
    pool = make_pool([first.node, second.node], workers=2)
    assert {pid for pid, _ in pool.map(functions.where, [0.05] * 8)} == {first.pid, second.pid}
    former = first.pid
    first.kill()
    assert {pid for pid, _ in pool.map(functions.where, [0.05] * 8)} == {second.pid}
    first.restart()
    first.run(f"import {F}")
    assert first.pid != former
    wait_until(lambda: first.pid in {pid for pid, _ in pool.map(functions.where, [0.05] * 8)}, within=20)


@pytest.mark.slow
def test_when_all_nodes_are_gone_the_work_fails_soon(make_pool, node_process):
    (only,) = processes(node_process, 1)
    pool = make_pool([only.node], workers=2)
    assert pool.map(functions.square, range(4)) == [0, 1, 4, 9]
    only.kill()
    with pytest.raises(PortDied):
        pool.map(functions.square, range(4))


@pytest.mark.slow
def test_a_node_needs_to_have_imported_no_more_than_the_functions(make_pool, node_process):
    process = node_process()
    pool = make_pool([process.node])
    with pytest.raises(RemoteError, match=f"'{F}.square' is not allowed here: mark the function @spawnable"):
        pool.apply(functions.square, (3,))
    assert not process.run("[name for name in __import__('sys').modules if name.startswith('tests')]")
    process.run(f"import {F}")
    assert pool.apply(functions.square, (3,)) == 9


@pytest.mark.slow
def test_workers_end_with_the_process_that_wanted_them(node_process):
    worker, master = processes(node_process, 2)
    before = worker.run("len(mp.default_node.scheduler.ports)")
    master.run(
        f"""
        from aemp_gevent.toolkit import RemotePool, death_of
        pool = RemotePool([{worker.node!r}], workers=3)
        list(pool.map("{F}.square", range(9)))
        """
    )
    assert worker.run("len(mp.default_node.scheduler.ports)") > before
    master.kill()
    # One entry may stay: what the node remembers of the port that it watched.
    count = "sum(p.state < 3 for p in mp.default_node.scheduler.ports.values())"
    wait_until(lambda: worker.run(count) <= before, within=20)
    assert SELF() is None
