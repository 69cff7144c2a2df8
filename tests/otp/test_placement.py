# SPDX-License-Identifier: MIT
"""Children on other nodes: where they run, and what happens when their node is lost, ends or comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Literal

import gevent
import pytest

from aemp_gevent import SELF, Node, actor, receive, spawnable
from aemp_gevent.errors import RemoteError, SpawnRefusedError, StartError
from aemp_gevent.otp import Child, Server, Supervisor, TaskGroup, call
from aemp_gevent.otp.agents import ask_agent
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.testing.waiting import wait_until
from tests.support.networking import WAIT, MakeNode
from tests.support.seams import ports_of

notes: list[tuple[object, ...]] = []

AT_ONCE = {"backoff": None}


@spawnable
class Backend(Server):
    """Counts its calls, so that a new one is noticed."""

    def init(self, name: str = "one") -> None:
        if name == "fails":
            raise ValueError("on purpose")
        if name == "slow":
            gevent.sleep(3600)
        self.calls = 0

    @call
    def ask(self) -> int:
        self.calls += 1
        return self.calls

    def terminate(self, reason: tuple[object, ...]) -> None:
        notes.append(reason)


@spawnable
class Slow(Backend):
    """Takes long to start."""

    def init(self, *args: object) -> None:
        notes.append((str(self),))
        gevent.sleep(20)


@spawnable
@actor
def work(*args: object) -> None:
    notes.append((SELF(), *args))
    receive("end")


@spawnable
class Inner(Supervisor):
    """Has a child that is where it is."""

    def children(self) -> list[Child]:
        return [Child(Backend)]


@pytest.fixture(autouse=True)
def no_notes() -> None:
    notes.clear()


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(seed=3, time="virtual") as network:
        yield network


@pytest.fixture
def here(network: MemoryNetwork) -> Iterator[Node]:
    node = network.node()
    with node.attach():
        yield node


@pytest.fixture
def there(network: MemoryNetwork, here: Node) -> Node:
    return network.node(None, here.NODE())


def the_child(tree: Supervisor) -> dict[str, object]:
    [child] = tree.which_children()
    return child


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait in virtual time, in which looking often takes long."""
    for _ in range(int(seconds * 4)):
        if condition():
            return
        gevent.sleep(0.25)
    pytest.fail("the condition was never met")


def in_state(tree: Supervisor, state: str, former: object = "none") -> str:
    """Wait until the only child is in a state, and another one than before; return its port."""
    until(lambda: (child := the_child(tree))["state"] == state and child["port"] != former)
    return str(the_child(tree)["port"])


def alive(node: Node) -> list[str]:
    """The ports of a node."""
    return [port for port in ports_of(node) if node.node_of(port) == node.NODE()]


def is_alive(node: Node, port: str) -> bool:
    return port in ports_of(node)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"node": "n"}, "on_lost must say what happens while that cannot be reached: 'restart' or 'wait', not None"),
        ({"on": "g", "on_lost": "die"}, "on_lost must say what happens .* not 'die'"),
        ({"node": "n", "on": "g", "on_lost": "wait"}, "give either node= or on=, not both"),
        ({"on": 5, "on_lost": "wait"}, "on= must be the name of a group, not 5"),
        ({"on_lost": "wait"}, "on_lost is for children on other nodes; give node= or on=, too"),
    ],
)
def test_wrong_places_are_refused(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        Child(Backend, **options)


@pytest.mark.parametrize(
    ("start", "options", "text"),
    [
        (print, {"lives_on": True}, "the port of a function lives on without lives_on"),
        (work, {"name": "w"}, "on another node a function registers its names itself"),
        (work, {"network_name": "w"}, "on another node a function registers its names itself"),
        (lambda: None, {}, "has no name on other nodes"),
    ],
)
def test_what_cannot_be_had_on_another_node_is_refused(start, options, text):
    with pytest.raises((TypeError, ValueError, SpawnRefusedError), match=text):
        Child(start, node="n", on_lost="wait", **options)


def test_task_groups_are_on_one_node(here):
    with TaskGroup() as group, pytest.raises(ValueError, match="the ports of a TaskGroup are on its own node"):
        group.start(Backend, node=here.NODE(), on_lost="wait")


# --- starts and ends ---


@pytest.mark.parametrize("on_lost", ["restart", "wait"])
def test_a_server_on_another_node_is_supervised(here, there, on_lost):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost=on_lost, name="backend")], **AT_ONCE)
    first = in_state(tree, "running")
    assert here.node_of(first) == there.NODE()
    assert Backend.at(f"{there.NODE()}#backend").ask() == 1
    there.kil(first, "crash")
    second = in_state(tree, "running", first)
    assert Backend.at(second).ask() == 1
    assert the_child(tree)["last_reason"] == ["crash"]
    tree.stop()
    assert notes[-1] == ("shutdown",)
    assert not is_alive(there, second)


@pytest.mark.parametrize("start", [work, "tests.otp.test_placement.work"])
def test_a_function_on_another_node_is_supervised(here, there, start):
    tree = Supervisor.start([Child(start, 1, id="w", node=there, on_lost="restart", restart="transient")], **AT_ONCE)
    port = in_state(tree, "running")
    until(lambda: notes)
    assert notes == [(port, 1)]
    here.snd(port, "end")
    in_state(tree, "stopped")
    assert the_child(tree)["last_reason"] == []


def test_a_place_may_be_here(here):
    tree = Supervisor.start([Child(Backend, node=here.NODE(), on_lost="wait")])
    assert here.node_of(in_state(tree, "running")) == here.NODE()


def test_real_nodes_have_children_of_each_other(make_node: MakeNode):
    here, there = make_node(), make_node()
    with here.attach():
        tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="wait")], **AT_ONCE)
        port = str(the_child(tree)["port"])
        assert Backend.at(port).ask() == 1
        there.kil(port, "crash")
        wait_until(lambda: the_child(tree)["port"] not in (port, None), within=WAIT)
        tree.stop()
        wait_until(lambda: len(notes) == 2, within=WAIT)


@pytest.mark.parametrize(
    ("name", "error"),
    [("fails", "ValueError: on purpose"), ("slow", "did not end within 5 s")],
)
def test_a_child_that_does_not_start_on_another_node_is_raised(here, there, name, error):
    with pytest.raises(StartError, match=error):
        Supervisor.start([Child(Backend, name, node=there.NODE(), on_lost="wait", start_timeout=5)])
    gevent.sleep(1)
    assert alive(there) == []


def test_a_function_that_is_not_spawnable_is_raised(here, there):
    with pytest.raises(StartError, match="spawn_refused"):
        Supervisor.start([Child("os.getpid", node=there.NODE(), on_lost="wait")])


def test_a_node_that_cannot_be_reached_is_raised(network, here, there):
    network.crash(there)
    with pytest.raises(StartError, match="transport_error"):
        Supervisor.start([Child(Backend, node=there.NODE(), on_lost="restart")])


@pytest.mark.parametrize("on_lost", ["restart", "wait"])
@pytest.mark.parametrize("start", [Backend, work, Inner])
def test_children_on_other_nodes_end_when_their_supervisor_is_killed(here, there, on_lost, start):
    tree = Supervisor.start([Child(start, node=there.NODE(), on_lost=on_lost)])
    in_state(tree, "running")
    here.kil(tree, "killed")
    until(lambda: not alive(there))


# --- groups ---


def test_a_child_runs_on_a_node_of_its_group(network, here):
    nodes = [network.node(None, here.NODE()) for _ in range(3)]
    for node in nodes[:2]:
        node.grp_reg("backends", node.port())
    children = [Child(Backend, id=str(n), on="backends", on_lost="restart") for n in range(20)]
    tree = Supervisor.start(children, **AT_ONCE)
    found = {here.node_of(each["port"]) for each in tree.which_children()}
    assert found == {node.NODE() for node in nodes[:2]}


def test_a_lost_node_is_chosen_only_if_there_is_no_other(network, here):
    nodes = [network.node(None, here.NODE()) for _ in range(2)]
    for node in nodes:
        node.grp_reg("backends", node.port())
    lost, other = (node.NODE() for node in nodes)
    here.db_wait("backends", lambda ports: len(ports) == 2, 60)
    placement = Child(Backend, on="backends", on_lost="restart").placement
    assert {placement.choose(here, lost, 10) for _ in range(20)} == {other}
    nodes[1].shutdown()
    here.db_wait("backends", lambda ports: len(ports) == 1, 60)
    assert placement.choose(here, lost, 10) == lost


def test_a_group_without_ports_is_raised_after_a_wait(here):
    before = gevent.get_hub().loop.now()
    with pytest.raises(StartError, match="the group 'backends' has no ports") as raised:
        Supervisor.start([Child(Backend, on="backends", on_lost="restart", start_timeout=7)])
    assert raised.value.__cause__.reason == ("no_node", "backends")
    assert 7 <= gevent.get_hub().loop.now() - before < 9


@pytest.mark.parametrize("end", ["crash", "shutdown"])
def test_a_child_moves_to_another_node_when_its_own_is_lost(network, here, end):
    nodes = {node.NODE(): node for node in (network.node(None, here.NODE()) for _ in range(2))}
    for node in nodes.values():
        node.grp_reg("backends", node.port())
    tree = Supervisor.start([Child(Backend, on="backends", on_lost="restart", restart="transient")], intensity=0)
    first = in_state(tree, "running")
    home = nodes[here.node_of(first)]
    network.crash(home) if end == "crash" else home.shutdown()
    second = in_state(tree, "running", first)
    assert here.node_of(second) in set(nodes) - {home.NODE()}
    assert Backend.at(second).ask() == 1


def test_a_child_whose_group_is_empty_waits_without_spending_the_budget(network, here, there):
    entry = there.grp_reg("backends", there.port())
    tree = Supervisor.start([Child(Backend, on="backends", on_lost="restart")], backoff=(1, 1), intensity=1)
    first = in_state(tree, "running")
    entry.cancel()
    there.kil(first, "crash")
    until(lambda: the_child(tree)["restarts"] > 5)
    assert the_child(tree)["last_reason"] == ["no_node", "backends"]
    there.grp_reg("backends", there.port())
    in_state(tree, "running", first)


# --- lost connections ---


def test_on_lost_restart_never_leaves_two(network, here, there):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="restart")], intensity=0)
    first = in_state(tree, "running")
    network.partition([here], [there])
    until(lambda: the_child(tree)["restarts"] > 3)
    assert not is_alive(there, first), "its keeper did not end it"
    network.heal()
    second = in_state(tree, "running", first)
    assert Backend.at(second).ask() == 1
    assert the_child(tree)["state"] == "running"


def test_on_lost_wait_keeps_the_child_and_its_state(network, here, there):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="wait")], intensity=0)
    port = in_state(tree, "running")
    assert Backend.at(port).ask() == 1
    network.partition([here], [there])
    assert in_state(tree, "lost") == port
    gevent.sleep(300)
    assert is_alive(there, port)
    network.heal()
    assert in_state(tree, "running") == port
    assert Backend.at(port).ask() == 2
    assert the_child(tree)["restarts"] == 0
    gevent.sleep(300)
    assert is_alive(there, port)
    there.kil(port, "shutdown")
    tree.stop()


@pytest.mark.parametrize("on_lost", ["restart", "wait"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["running", "lost"])
def test_nothing_is_tried_after_the_own_node_was_shut_down(
    network, here, there, on_lost: Literal["restart", "wait"], is_lost: bool, caplog: pytest.LogCaptureFixture
):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost=on_lost)], intensity=0)
    in_state(tree, "running")
    if is_lost:
        network.partition([here], [there])
        until(lambda: the_child(tree)["state"] != "running")
    here.shutdown()
    caplog.clear()
    gevent.sleep(300)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not here.scheduler.timers


def test_a_lost_child_that_has_died_is_started_again(network, here, there):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="wait")], **AT_ONCE)
    port = in_state(tree, "running")
    network.partition([here], [there])
    in_state(tree, "lost")
    there.kil(port, "crash")
    gevent.sleep(60)
    network.heal()
    in_state(tree, "running", port)
    assert the_child(tree)["restarts"] == 1


def test_a_lost_child_whose_node_was_replaced_is_started_again(network, here, there):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="wait")], **AT_ONCE)
    port = in_state(tree, "running")
    network.crash(there)
    in_state(tree, "lost")
    again = network.node(there.NODE(), here.NODE())
    second = in_state(tree, "running", port)
    assert is_alive(again, second)


@pytest.mark.parametrize("how", ["terminate", "kill", "stop"])
def test_a_lost_child_ends_when_nobody_wants_it_any_more(network, here, there, how):
    tree = Supervisor.start([Child(Backend, node=there.NODE(), on_lost="wait")])
    port = in_state(tree, "running")
    network.partition([here], [there])
    in_state(tree, "lost")
    if how == "terminate":
        tree.terminate("Backend")
    elif how == "kill":
        here.kil(tree, "killed")
    else:
        tree.stop(timeout=1)
    gevent.sleep(60)
    assert is_alive(there, port)
    network.heal()
    until(lambda: not is_alive(there, port))


def test_the_nodes_of_others_cannot_make_keepers(network, here, there):
    third = network.node(None, here.NODE())
    port = there.port()
    with third.attach(), pytest.raises(RemoteError, match="may not kill ports here"):
        ask_agent(third, port, "keep", port, f"{here.NODE()}#tree", "wait").get(timeout=WAIT)


def test_a_child_whose_supervisor_is_gone_while_it_starts_ends(network: MemoryNetwork, there: Node) -> None:
    gone = network.node(None, there.NODE())
    gevent.spawn(Supervisor.start, [Child(Slow, node=there.NODE(), on_lost="restart")], node=gone)
    until(lambda: notes)
    network.crash(gone)
    until(lambda: not is_alive(there, str(notes[0][0])))


@pytest.mark.parametrize("on_lost", ["restart", "wait"])
def test_a_child_whose_connection_is_lost_while_it_starts_ends(
    network: MemoryNetwork, here: Node, there: Node, on_lost: Literal["restart", "wait"]
) -> None:
    starting = gevent.spawn(Supervisor.start, [Child(Slow, node=there.NODE(), on_lost=on_lost)], node=here)
    until(lambda: notes)
    network.partition([here], [there])
    starting.join()
    assert isinstance(starting.exception, StartError)
    if on_lost == "wait":
        network.heal()  # otherwise nobody can be asked
    until(lambda: not is_alive(there, str(notes[0][0])))
