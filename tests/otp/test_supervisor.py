# SPDX-License-Identifier: MIT
"""Supervisors: order, strategies, restarts, budgets, and what happens when something goes wrong."""

from __future__ import annotations

import logging
import re

import gevent
import pytest

from aemp_gevent import Node, receive, spawnable
from aemp_gevent.errors import AempError, RemoteError, StartError, UnencodableMessageError
from aemp_gevent.node.access import metrics_of
from aemp_gevent.otp import Child, Server, Supervisor, call
from aemp_gevent.otp import supervisor as module
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.helpers import Proxy, turns
from tests.support.networking import WAIT
from tests.support.seams import ports_of

AT_ONCE = {"backoff": None}


class World:
    """Notes when workers begin and end."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.notes: list[str] = []
        self.fails: set[str] = set()

    def worker(self, name: str) -> None:
        if name in self.fails:
            raise ValueError(f"{name} fails")
        self.notes.append(f"+{name}")
        try:
            while True:
                match receive():
                    case ("end",):
                        return
                    case ("raise",):
                        raise ValueError("raised")
                    case _:
                        pass
        finally:
            self.notes.append(f"-{name}")

    def child(self, name: str, **options: object) -> Child:
        return Child(Worker, self, name, id=name, **options)

    def start(self, *names: str | Child, **options: object) -> Supervisor:
        children = [self.child(name) if isinstance(name, str) else name for name in names]
        return Supervisor.start(children, **{**AT_ONCE, **options})

    def seen(self) -> list[str]:
        """What was noted since the last call."""
        notes, self.notes = self.notes, []
        return notes


class Worker(Server):
    """Notes its life in the world."""

    def init(self, world: World, name: str) -> None:
        if name in world.fails:
            raise ValueError(f"{name} fails")
        self.world, self.name = world, name
        world.notes.append(f"+{name}")

    @call
    def end(self, *reason: str) -> None:
        self.stop(*reason)

    def terminate(self, reason: tuple[object, ...]) -> None:
        self.world.notes.append(f"-{self.name}")


@pytest.fixture
def world(node: Node) -> World:
    return World(node)


def ports(tree: Supervisor) -> dict[str, str | None]:
    return {each["id"]: each["port"] for each in tree.which_children()}


def crash(world: World, tree: Supervisor, name: str, *reason: object) -> None:
    """Kill a child, and wait until its supervisor has noticed."""
    port = ports(tree)[name]
    death = death_of(port, node=world.node)
    world.node.kil(port, *(reason or ("crash",)))
    death.get(timeout=WAIT)
    wait_until(lambda: ports(tree).get(name) != port, within=WAIT)


def settled(world: World, tree: Supervisor, count: int) -> None:
    wait_until(lambda: tree.count()["active"] == count, within=WAIT, show=tree.which_children)
    turns(2)


# --- start and stop ---


def test_children_start_in_order_and_stop_in_reverse(world):
    tree = world.start("a", "b", "c")
    assert world.seen() == ["+a", "+b", "+c"]
    tree.stop()
    assert world.seen() == ["-c", "-b", "-a"]


def test_a_child_that_does_not_start_is_raised_with_its_cause_and_the_others_are_stopped(world):
    world.fails = {"c"}
    with pytest.raises(StartError, match="the child c did not start: ValueError: c fails") as raised:
        world.start("a", "b", "c", "d")
    assert isinstance(raised.value.__cause__.__cause__, ValueError)
    assert world.seen() == ["+a", "+b", "-b", "-a"]


def test_children_end_when_their_supervisor_is_killed(world):
    tree = world.start("a", "b", "c")
    world.seen()
    world.node.kil(tree, "killed")
    wait_until(lambda: len(world.notes) == 3, within=WAIT)
    assert world.seen() == ["-c", "-b", "-a"]


def test_children_end_when_their_supervisor_is_killed_while_it_starts_one(world):
    class Slow(Worker):
        def init(self, world: World, name: str) -> None:
            world.notes.append("slow")
            gevent.sleep(WAIT)

    starter = gevent.spawn(Supervisor.start, [world.child("a"), Child(Slow, world, "s")], node=world.node, name="tree")
    wait_until(lambda: "slow" in world.notes, within=WAIT)
    world.node.kil(f"{world.node.NODE()}#tree", "killed")
    wait_until(lambda: "-a" in world.notes, within=WAIT)
    turns(3)
    assert len(set(ports_of(world.node).values())) == 1, "a port is left beside that of the test"
    assert isinstance(starter.exception, StartError)


def test_a_tree_ends_from_the_top_down(world):
    class Inner(Supervisor):
        def children(self, *names: str) -> list[Child]:
            return [world.child(name) for name in names]

    tree = world.start("a", Child(Inner, "b", "c"), "d")
    assert world.seen() == ["+a", "+b", "+c", "+d"]
    assert [each["kind"] for each in tree.which_children()] == ["server", "supervisor", "server"]
    assert tree.count() == {"specs": 3, "active": 3, "supervisors": 1, "workers": 2}
    tree.stop()
    assert world.seen() == ["-d", "-c", "-b", "-a"]


def test_the_options_of_a_class_are_those_of_its_trees(world):
    class Shop(Supervisor):
        strategy = "one_for_all"
        backoff = None

        def children(self, *names: str) -> list[Child]:
            return [world.child(name) for name in names]

    shop = Shop.start("a", "b")
    world.seen()
    crash(world, shop, "a")
    settled(world, shop, 2)
    assert [note for note in world.seen() if note != "-a"] == ["-b", "+a", "+b"]  # -a is noted after the kill


# --- strategies ---


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [
        ("one_for_one", "", "b"),
        ("one_for_all", "dca", "abcd"),
        ("rest_for_one", "dc", "bcd"),
    ],
)
def test_the_strategy_decides_which_children_start_again(world, strategy, stopped, started):
    tree = world.start("a", "b", "c", "d", strategy=strategy)
    before = ports(tree)
    world.seen()
    crash(world, tree, "b")
    settled(world, tree, 4)
    notes = [note for note in world.seen() if note != "-b"]
    assert notes == [f"-{name}" for name in stopped] + [f"+{name}" for name in started]
    after = ports(tree)
    assert {name for name in before if before[name] != after[name]} == set(started)


def test_temporary_children_of_a_group_do_not_start_again(world):
    tree = world.start("a", world.child("b", restart="temporary"), "c", strategy="one_for_all")
    crash(world, tree, "a")
    settled(world, tree, 2)
    assert list(ports(tree)) == ["a", "c"]


def test_a_child_of_a_group_that_fails_to_start_is_tried_again_with_the_group(world):
    tree = world.start("a", "b", "c", strategy="rest_for_one", backoff=(0.001, 0.001), intensity=None)
    world.fails = {"b"}
    world.seen()
    crash(world, tree, "a")
    wait_until(lambda: tree.which_children()[1]["last_reason"] == ["die", "ValueError: b fails"], within=WAIT)
    world.fails = set()
    settled(world, tree, 3)
    assert [note for note in world.seen() if note[0] == "+"] == ["+a", "+b", "+c"]


def test_a_start_that_ends_with_shutdown_is_a_failed_one_and_leaves_nobody_behind(world):
    """The reason of a normal end: as the reason of a start, it says that the child is not there."""

    class Unwilling(Worker):
        def init(self, world: World, name: str) -> None:
            super().init(world, name)
            if world.notes.count("+b") == 2:
                self.stop("shutdown")

    unwilling = Child(Unwilling, world, "b", id="b", restart="transient")
    tree = world.start("a", unwilling, "c", strategy="one_for_all")
    crash(world, tree, "a")
    settled(world, tree, 3)
    assert world.seen().count("+b") == 3


@pytest.mark.parametrize("error", [OSError("disk"), TypeError("no argument"), AempError("no directory")])
def test_a_restart_may_fail_in_any_way(world, monkeypatch, error):
    tree = world.start("a", "b")

    def fails(*_: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr("aemp_gevent.otp.children.start_server", fails)
    crash(world, tree, "a")
    settled(world, tree, 2)
    assert tree.which_children()[0]["restarts"] == 2


# --- when a child is restarted ---


@pytest.mark.parametrize("reason", [(), ("shutdown",), ("shutdown", "node"), ("crash",)])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_the_restart_of_a_child_depends_on_its_reason(world, restart, reason):
    tree = world.start(world.child("a", restart=restart), "b")
    first = ports(tree)["a"]
    world.node.kil(first, *reason)
    wait_until(lambda: ports(tree).get("a") != first, within=WAIT)
    is_back = restart == "permanent" or (restart == "transient" and reason == ("crash",))
    if is_back:
        settled(world, tree, 2)
    state = {each["id"]: each["state"] for each in tree.which_children()}
    assert state.get("a") == (None if restart == "temporary" else "running" if is_back else "stopped")


def test_a_proxy_as_the_reason_of_a_childs_death_is_not_looked_into(world):
    tree = world.start(world.child("a", restart="transient"))
    crash(world, tree, "a", Proxy())
    settled(world, tree, 1)


def test_a_child_that_ends_before_its_start_is_over_has_not_died_of_something_else(world, monkeypatch):
    """It is watched from its first moment: later, a monitor would report that there is no such port."""
    plain = Child.run

    def run_and_wait(child: Child, *args: object, **options: object) -> str:
        port = plain(child, *args, **options)
        turns(5)
        return port

    monkeypatch.setattr(Child, "run", run_and_wait)
    tree = Supervisor.start([Child(lambda: None, id="a", restart="transient")])
    wait_until(lambda: tree.count()["active"] == 0, within=WAIT)
    [child] = tree.which_children()
    assert (child["last_reason"], child["state"]) == ([], "stopped")


def test_the_pause_before_a_restart_delays_nothing_else(world):
    tree = world.start("a", "b", backoff=(30, 30))
    crash(world, tree, "a")
    assert [each["state"] for each in tree.which_children()] == ["restarting", "running"]
    crash(world, tree, "b")
    assert tree.count()["active"] == 0
    tree.stop()


def test_a_budget_that_is_spent_stops_the_tree_and_says_why(world, caplog):
    tree = world.start("a", "b", "c", intensity=2)
    death = death_of(tree, node=world.node)
    for turn in range(3):
        assert not death.ready()
        crash(world, tree, "b", "crash", turn) if turn < 2 else world.node.kil(ports(tree)["b"], "crash", turn)
        if turn < 2:
            settled(world, tree, 3)
    assert death.get(timeout=WAIT) == ("gave_up", "b", "crash", 2)
    assert [note for note in world.seen() if note[0] == "-" and note != "-b"] == ["-c", "-a"]
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "gives up" in record.getMessage()
    assert "b died, after 2 restarts within 300 s; last reasons: {'b': ('crash', 2)}" in record.getMessage()


def test_restarts_before_the_longest_pause_do_not_count(world, caplog):
    tree = world.start("a", "b", intensity=1, backoff=(0.001, 60))
    for turn in range(4):
        crash(world, tree, "ab"[turn % 2])
        settled(world, tree, 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4


def test_all_children_spend_one_budget(world):
    tree = world.start("a", "b", "c", intensity=2)
    death = death_of(tree, node=world.node)
    for name in "ab":
        crash(world, tree, name)
        settled(world, tree, 3)
    world.node.kil(ports(tree)["c"], "crash")
    assert death.get(timeout=WAIT) == ("gave_up", "c", "crash")


@pytest.mark.parametrize(("backoff", "warns"), [((1, 30), True), (None, False), ((0.1, 1), False)])
def test_a_budget_that_one_child_cannot_spend_is_reported(world, caplog, backoff, warns):
    world.start("a", intensity=3, period=5, backoff=backoff)
    assert ("one child alone cannot use up intensity=3 within period=5" in caplog.text) == warns


def test_restarts_of_many_children_do_not_flood_the_log(world, caplog):
    names = [str(number) for number in range(150)]
    tree = world.start(*names, backoff=(0.001, 1))
    for port in ports(tree).values():
        world.node.kil(port, "crash")
    wait_until(lambda: all(each["restarts"] for each in tree.which_children()), within=WAIT)
    settled(world, tree, 150)
    assert 50 < len(caplog.records) < 110


def test_restarts_are_counted_for_systems_that_monitor_the_node(world):
    tree = world.start("a", "b", strategy="one_for_all")
    crash(world, tree, "a")
    settled(world, tree, 2)
    assert metrics_of(world.node).totals()["aemp_supervisor_restarts_total", "Supervisor"] == 2


def test_a_supervisor_that_gives_up_is_restarted_by_its_own(world):
    class Inner(Supervisor):
        intensity = 0

        def children(self) -> list[Child]:
            return [world.child("a")]

    tree = world.start(Child(Inner, id="inner"))
    inner = Supervisor.at(ports(tree)["inner"])
    world.node.kil(ports(inner)["a"], "crash")
    wait_until(lambda: ports(tree)["inner"] not in (None, inner), within=WAIT)
    [child] = tree.which_children()
    assert child["last_reason"] == ["gave_up", "a", "crash"]
    assert Supervisor.at(child["port"]).count()["active"] == 1


def test_a_child_whose_restart_fails_spends_the_budget(world):
    tree = world.start("a", intensity=3)
    death = death_of(tree, node=world.node)
    world.fails = {"a"}
    world.node.kil(ports(tree)["a"], "crash")
    assert death.get(timeout=WAIT) == ("gave_up", "a", "die", "ValueError: a fails")


# --- auto_shutdown ---


@pytest.mark.parametrize(
    ("auto_shutdown", "ends"),
    [("any_significant", 1), ("all_significant", 2)],
)
def test_significant_children_end_their_supervisor(world, auto_shutdown, ends):
    significant = [world.child(name, restart="transient", significant=True) for name in "ab"]
    tree = world.start(*significant, "c", auto_shutdown=auto_shutdown)
    death = death_of(tree, node=world.node)
    for number, name in enumerate("ab", 1):
        Worker.at(ports(tree)[name]).end()
        if number == ends:
            assert death.get(timeout=WAIT) == ("shutdown",)
            break
        wait_until(lambda name=name: ports(tree)[name] is None, within=WAIT)
    assert death.ready()


def test_a_significant_child_needs_a_supervisor_that_may_end(world):
    with pytest.raises(
        StartError, match="the child 'a' is significant, which has no effect with auto_shutdown='never'"
    ):
        world.start(world.child("a", restart="transient", significant=True))


def test_a_significant_child_that_is_restarted_does_not_end_its_supervisor(world):
    tree = world.start(world.child("a", restart="transient", significant=True), auto_shutdown="any_significant")
    crash(world, tree, "a")
    settled(world, tree, 1)


# --- requests ---


def test_children_can_be_stopped_started_added_and_deleted(world):
    tree = world.start("a", "b")
    tree.terminate("a")
    assert [each["state"] for each in tree.which_children()] == ["stopped", "running"]
    assert tree.restart("a") == ports(tree)["a"]
    before = ports(tree)["b"]
    assert tree.restart("b") != before
    tree.terminate("a")
    tree.delete("a")
    assert list(ports(tree)) == ["b"]
    port = tree.start_child(world.child("c"))
    assert ports(tree) == {"b": ports(tree)["b"], "c": port}
    crash(world, tree, "c")
    settled(world, tree, 2)


def test_a_terminated_temporary_child_is_forgotten(world):
    tree = world.start(world.child("a", restart="temporary"))
    tree.terminate("a")
    assert tree.which_children() == []


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
@pytest.mark.parametrize(("request_", "names"), [("restart", "abc"), ("terminate", "bc")])
def test_children_that_wait_for_the_pause_of_another_start_also_when_that_ends_early(world, strategy, request_, names):
    tree = world.start("a", "b", "c", strategy=strategy, backoff=(30, 30))
    crash(world, tree, "a")
    assert {each["state"] for each in tree.which_children()} == {"restarting"}
    world.seen()
    getattr(tree, request_)("a")
    settled(world, tree, len(names))
    assert world.seen() == [f"+{name}" for name in names]
    states = [each["state"] for each in tree.which_children()]
    assert states == ["running" if name in names else "stopped" for name in "abc"]


def test_children_that_were_terminated_start_with_their_group(world):
    tree = world.start("a", "b", "c", strategy="one_for_all")
    tree.terminate("b")
    crash(world, tree, "c")
    settled(world, tree, 3)


@pytest.mark.parametrize("request_", ["terminate", "restart", "delete"])
def test_requests_about_children_that_do_not_exist_fail(world, request_):
    tree = world.start("a")
    with pytest.raises(RemoteError, match=r"there is no child 'x'; the children are \['a'\]"):
        getattr(tree, request_)("x")


def test_a_running_child_cannot_be_deleted_and_one_that_fails_is_not_added(world):
    tree = world.start("a")
    with pytest.raises(RemoteError, match="the child 'a' is running, not stopped"):
        tree.delete("a")
    world.fails = {"b"}
    with pytest.raises(RemoteError, match="the child b did not start"):
        tree.start_child(world.child("b"))
    with pytest.raises(RemoteError, match="two children have the ID 'a'"):
        tree.start_child(world.child("a"))
    with pytest.raises(RemoteError, match="takes a Child, not 5"):
        tree.start_child(5)
    assert list(ports(tree)) == ["a"]


def test_a_stopped_child_is_not_restarted_by_the_pause_that_it_waited_for(world):
    tree = world.start("a", backoff=(30, 30))
    crash(world, tree, "a")
    tree.terminate("a")
    world.node.snd(tree, module.Event.RESTART, "a", None)  # as if the pause had ended in the same moment
    assert tree.count()["active"] == 0


def test_what_is_not_from_a_child_is_discarded(world, caplog):
    tree = world.start("a")
    for message in [
        ("nonsense",),
        ("aemp_child",),
        ("aemp_child", "died", 5, 5),
        ("aemp_child", "died", "a", "x", "y"),
    ]:
        world.node.snd(tree, *message)
    assert tree.count()["active"] == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "all"}, "strategy must be one of one_for_one, one_for_all, rest_for_one, not 'all'"),
        ({"auto_shutdown": "yes"}, "auto_shutdown must be one of"),
        ({"intensity": -1}, "intensity must be at least 0"),
        ({"intensity": "many"}, "intensity must be an integer"),
        ({"period": "long"}, "period must be a number of seconds"),
        ({"period": 0}, "period must be more than 0 seconds, not 0"),
        ({"backoff": 5}, "backoff must be the first and the longest pause, not 5"),
        ({"backoff": (1, "x")}, "backoff must be a number of seconds"),
        ({"backoff": (2, 1)}, r"backoff is \(2, 1\); the first pause must be more than 0, and at most the longest"),
        ({"backoff": (0, 1)}, r"backoff is \(0, 1\); the first pause must be more than 0"),
        ({"stratgy": "one_for_one"}, "unexpected keyword argument 'stratgy'"),
    ],
)
def test_wrong_options_are_refused(world, options, text):
    with pytest.raises(StartError, match=text):
        Supervisor.start([world.child("a")], **options)


def test_only_children_can_be_children(world):
    with pytest.raises(StartError, match=r"the children of a supervisor must be Child\(…\), not <class"):
        Supervisor.start([Cart])


def test_children_with_the_same_function_get_numbers(world):
    tree = Supervisor.start([Child(world.worker, "x"), Child(world.worker, "y"), Child(Cart, "ada")])
    assert list(ports(tree)) == ["worker", "worker-2", "Cart"]
    with pytest.raises(StartError, match="two children have the ID 'a'"):
        world.start("a", "a")


def test_deaths_of_old_children_do_not_count(world, monkeypatch):
    """A supervisor that restarted a child itself may still get the death of the one before."""
    tree = world.start("a", intensity=0)
    former = ports(tree)["a"]
    tree.restart("a")
    world.node.snd(tree, module.Event.DIED, "a", former, "crash")
    assert tree.count()["active"] == 1


def test_other_nodes_cannot_forge_what_happens_to_children(make_node):
    here, there = make_node(), make_node()
    with here.attach():
        tree = Supervisor.start([Child(Cart, "ada", id="a")], intensity=0)
    [child] = Supervisor.at(tree, node=there).which_children()
    for tag in ("aemp_child", "Event.DIED", "died"):
        there.snd(tree, tag, "a", child["port"], "crash")
        there.snd(tree, tag, "died", "a", child["port"], "crash")
    with pytest.raises(UnencodableMessageError):
        there.snd(tree, module.Event.DIED, "a", child["port"], "crash")
    assert Supervisor.at(tree, node=there).which_children() == [child]
    here.kil(tree)


@spawnable
class Spawned(Supervisor):
    pass


@pytest.mark.parametrize("how", ["call", "syncal"])
def test_refusing_to_end_a_child_is_one_warning(make_node, how, caplog):
    here = make_node(rules=[{"peer": "*", "kill": False}])
    there = make_node()
    with here.attach():
        tree = Supervisor.start([Child(Cart, "ada", id="a")])
    caplog.clear()
    if how == "call":
        with pytest.raises(RemoteError, match="call terminate") as raised:
            there.call(tree, "terminate", "a", timeout=WAIT)
        assert not raised.value.traceback
    else:
        assert there.syncal(WAIT, tree, "terminate", "a") == ()
    with pytest.raises(RemoteError, match="stop or name a server"):
        Supervisor.at(tree, node=there).stop(timeout=WAIT)
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.levelname, record.exc_info) for record in records] == [("WARNING", None)] * 2
    first, second = (record.getMessage() for record in records)
    assert f"call of terminate for {there.NODE()}#" in first
    assert "refused: only nodes that may kill ports here" in first
    assert f"for {there.NODE()}#" in second
    here.kil(tree)


def test_only_nodes_that_may_kill_ports_end_children(make_node):
    here = make_node(rules=[{"peer": "*", "kill": False}])
    there = make_node()
    with here.attach():
        tree = Supervisor.start([Child(Cart, "ada", id="a")])
    before = tree.which_children()
    peer = Supervisor.at(tree, node=there)
    for request in (peer.terminate, peer.restart, peer.delete):
        with pytest.raises(RemoteError, match=r"only nodes that may kill ports here, or that have spawned it, call "):
            request("a")
        there.snd(tree, request._mark.name, "a", f"{here.NODE()}#any")  # as if it were a call of its own node
    assert peer.which_children() == before
    with there.attach():
        spawned = Spawned.start(node=here.NODE())
        with pytest.raises(RemoteError, match="there is no child 'a'"):
            spawned.terminate("a")
        spawned.stop()
    here.kil(tree)


def test_long_pauses_are_logged_as_plain_numbers(caplog):
    with MemoryNetwork(1, time="virtual") as network, network.node().attach():
        tree = Supervisor.start([Child(crash_at_once)], backoff=(1, 2000), period=36_000)
        gevent.sleep(6000)
        tree.stop()
    assert re.search(r"restart in 2\d\d\d\.\d\d s", caplog.text)


def crash_at_once():
    raise ValueError("at once")


@pytest.mark.parametrize("end", ["crash", "shutdown"])
def test_the_end_of_a_node_is_not_a_failure_of_its_supervisors(caplog, end):
    with MemoryNetwork(1, time="virtual") as network:
        node = network.node()
        with node.attach():
            Supervisor.start([Child(Cart, "ada")])
        if end == "crash":
            network.crash(node)
        else:
            node.shutdown()
        gevent.sleep(10)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
