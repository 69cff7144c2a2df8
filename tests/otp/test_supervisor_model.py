# SPDX-License-Identifier: MIT
"""Random trees, strategies and deaths, in virtual time, compared with a model of what supervisors promise.

The model is written without looking at how supervisors work: it has no ports, no messages and no timers, but a list of
restarts that are due.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aemp_gevent import Node
from aemp_gevent.otp import Child, DynamicSupervisor, Server, Supervisor, cast
from aemp_gevent.otp.budgets import Budget, Pause, Pauses
from aemp_gevent.otp.entries import Entry
from aemp_gevent.testing import VirtualTime
from aemp_gevent.toolkit import death_of
from tests.support.seams import ports_of
from tests.support.thoroughness import repeats

PERIOD = 120.0
FIRST, LONGEST = 1.0, 4.0
SHORT, LONG = 5.0, 50.0
"""Between two deaths: longer than any pause, and with the longer one a child has recovered."""


@dataclass
class Leaf:
    """What a worker is like."""

    restart: str


@dataclass
class Tree:
    """What a supervisor is like."""

    strategy: str
    children: list[Leaf | Tree]
    intensity: int | None
    backoff: tuple[float, float] | None
    restart: str = "permanent"


leaves = st.builds(Leaf, st.sampled_from(["permanent", "permanent", "transient", "temporary"]))


def trees_of(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    return st.builds(
        Tree,
        st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        st.lists(children, min_size=1, max_size=4),
        st.sampled_from([None, 0, 1, 2, 3]),
        st.sampled_from([None, (FIRST, LONGEST)]),
    )


trees = trees_of(st.recursive(leaves, trees_of, max_leaves=8))
steps = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["normal", "crash"]), st.sampled_from([SHORT, LONG])), max_size=12
)


# --- the model ---


@dataclass
class Part:
    """A child in the model: a worker or a supervisor."""

    name: str
    spec: Leaf | Tree
    parent: Part | None
    state: str = "stopped"
    started_at: float = 0.0
    pause: float = 0.0
    parts: list[Part] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)


class Model:
    """What should happen."""

    def __init__(self, tree: Tree) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.due: list[tuple[float, Part]] = []
        self.root = Part("root", tree, None)
        self.start(self.root)

    def start(self, part: Part) -> None:
        part.state, part.started_at = "running", self.now
        if isinstance(part.spec, Leaf):
            self.log.append(f"{self.now:g} s: +{part.name}")
            return
        part.counted = []
        part.parts = [Part(f"{part.name}.{index}", spec, part) for index, spec in enumerate(part.spec.children)]
        for each in part.parts:
            self.start(each)

    def stop(self, part: Part) -> None:
        if part.state == "running":
            if isinstance(part.spec, Leaf):
                self.log.append(f"{self.now:g} s: -{part.name}")
            for each in reversed(part.parts):
                self.stop(each)
        self.due = [(when, other) for when, other in self.due if other is not part]
        part.state = "stopped"

    def die(self, part: Part, is_normal: bool) -> None:
        """A part ends, which has ended already what it has inside."""
        self.stop(part)
        parent, restart = part.parent, part.spec.restart
        if parent is None:
            return
        assert isinstance(parent.spec, Tree)
        if restart == "temporary":
            parent.parts.remove(part)
            return
        if restart == "transient" and is_normal:
            return
        pause, counts = 0.0, True
        if parent.spec.backoff is not None and parent.spec.intensity != 0:
            first, longest = parent.spec.backoff
            recovered = self.now - part.started_at > longest
            pause = first if recovered or not part.pause else min(2 * part.pause, longest)
            part.pause, counts = pause, pause == longest
        if counts:
            parent.counted = [when for when in parent.counted if when > self.now - PERIOD] + [self.now]
            if parent.spec.intensity is not None and len(parent.counted) > parent.spec.intensity:
                for each in reversed(parent.parts):
                    self.stop(each)
                parent.parts = []
                self.die(parent, is_normal=False)
                return
        for each in reversed(self.group(part)):
            if each is not part:
                self.stop(each)
                if each.spec.restart == "temporary":
                    parent.parts.remove(each)
        for each in self.group(part):
            each.state = "restarting"
        self.due.append((self.now + pause, part))

    def group(self, part: Part) -> list[Part]:
        parent = part.parent
        assert parent is not None
        assert isinstance(parent.spec, Tree)
        if parent.spec.strategy == "one_for_one":
            return [part]
        if parent.spec.strategy == "one_for_all":
            return list(parent.parts)
        return parent.parts[parent.parts.index(part) :]

    def run_until(self, until: float) -> None:
        while self.due and min(when for when, _part in self.due) <= until:
            when, part = min(self.due, key=lambda due: due[0])
            self.due.remove((when, part))
            self.now = when
            for each in self.group(part):
                if each.state == "restarting":
                    self.start(each)
        self.now = until

    def workers(self, part: Part | None = None) -> list[str]:
        """The names of the workers that are running."""
        part = self.root if part is None else part
        if isinstance(part.spec, Leaf):
            return [part.name] if part.state == "running" else []
        return [name for each in part.parts for name in self.workers(each)]

    def find(self, name: str) -> Part:
        part = self.root
        for index in name.split(".")[1:]:
            part = next(each for each in part.parts if each.name.rpartition(".")[2] == index)
        return part


# --- what really happens ---


class World:
    """Notes the lives of workers."""

    def __init__(self, virtual: VirtualTime) -> None:
        self.virtual = virtual
        self.log: list[str] = []
        self.ports: dict[str, str] = {}

    def note(self, what: str) -> None:
        self.log.append(f"{self.virtual.seconds:g} s: {what}")


class Worker(Server):
    """Notes its life."""

    def init(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        world.note(f"+{name}")
        world.ports[name] = str(self)

    @cast
    def end(self, *reason: str) -> None:
        self.stop(*reason)

    def terminate(self, reason: tuple[object, ...]) -> None:
        self.world.note(f"-{self.name}")
        del self.world.ports[self.name]


class Inner(Supervisor):
    """A supervisor as in a tree."""

    def children(self, world: World, tree: Tree, name: str) -> list[Child]:
        self.strategy = tree.strategy  # type: ignore[assignment]
        return children_of(world, tree, name)


def options_of(tree: Tree) -> dict[str, Any]:
    return {"intensity": tree.intensity, "backoff": tree.backoff, "period": PERIOD, "strategy": tree.strategy}


def children_of(world: World, tree: Tree, name: str) -> list[Child]:
    found = []
    for index, spec in enumerate(tree.children):
        inner = f"{name}.{index}"
        if isinstance(spec, Leaf):
            found.append(Child(Worker, world, inner, id=inner, restart=spec.restart))  # type: ignore[arg-type]
        else:
            kind = type("Tree", (Inner,), options_of(spec))
            found.append(Child(kind, world, spec, inner, id=inner))
    return found


CHURN = Tree("one_for_one", [Leaf("permanent")], 3, None)
CRASHES = [(0, "crash", LONG)] * 6
"""More than a budget allows, and never too many within its period."""


@settings(max_examples=repeats(40, 250), deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=trees, steps=steps, seed=st.integers(0, 3))
@example(tree=CHURN, steps=CRASHES, seed=0)
def test_trees_do_what_the_model_says(tree: Tree, steps: list[tuple[int, str, float]], seed: int) -> None:
    compare(tree, steps, seed)


def compare(tree: Tree, steps: list[tuple[int, str, float]], seed: int) -> None:
    """Do the same in a real tree and in the model."""
    with VirtualTime(seed) as virtual:
        virtual.dice.random = lambda: 0.0  # type: ignore[method-assign]  # pauses without jitter
        node = Node()
        with node.attach():
            world = World(virtual)
            real = Supervisor.start(children_of(world, tree, "root"), **options_of(tree))
            model = Model(tree)
            assert world.log == model.log
            for index, reason, gap in steps:
                alive = model.workers()
                if not alive:
                    break
                name = alive[index % len(alive)]
                Worker.at(world.ports[name]).end(*([] if reason == "normal" else [reason]))
                begin = model.now
                model.die(model.find(name), is_normal=reason == "normal")
                model.run_until(begin + gap)
                gevent.sleep(gap)
                assert world.log == model.log
                assert sorted(world.ports) == sorted(model.workers())
            if model.root.state == "running":
                real.stop()
                model.stop(model.root)
            assert world.log == model.log
            assert death_of(real, node=node).get(timeout=5) is not None
            assert len(set(ports_of(node).values())) == 1, "a port is left beside that of the test"
        node.shutdown()


def never_forgets(self: Budget, now: float) -> bool:
    self._times.append(now)
    return self.intensity is None or len(self._times) <= self.intensity


def allows_one_more(self: Budget, now: float) -> bool:
    return take(self, now) or len(self._times) == (self.intensity or 0) + 1


def never_recovers(self: Pauses, _lived: float) -> Pause:
    return pause(self, 0.0)


def stops_in_order(self: Supervisor, entries: Iterable[Entry]) -> None:
    stop(self, reversed(list(entries)))


take, pause, stop = Budget.take, Pauses.next, Supervisor._stop


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "tree", "steps"),
    [
        (Budget, "take", never_forgets, CHURN, CRASHES),
        (Budget, "take", allows_one_more, CHURN, [(0, "crash", SHORT)] * 5),
        (Pauses, "next", never_recovers, replace(CHURN, backoff=(FIRST, LONGEST)), CRASHES),
        (Supervisor, "_stop", stops_in_order, Tree("one_for_one", [Leaf("permanent")] * 2, 3, None), []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_supervisors_that_do_something_else_are_caught(monkeypatch, owner, name, mutant, tree, steps):
    compare(tree, steps, 0)
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        compare(tree, steps, 0)


@settings(max_examples=repeats(10, 75), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    deaths=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 40), st.booleans()), max_size=25),
    kills=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 40)), max_size=10),
    seed=st.integers(0, 1000),
)
def test_dynamic_children_that_die_at_any_time_are_all_back(deaths, kills, seed) -> None:
    with VirtualTime(seed) as virtual:
        node = Node()
        with node.attach():
            world = World(virtual)
            tree = DynamicSupervisor.start(backoff=(0.5, 10), intensity=None)
            names = [str(number) for number in range(6)]
            for name in names:
                tree.start_child(Child(Worker, world, name, id=name))
            for which, when, is_normal in deaths:
                gevent.spawn_later(when, end, node, world, names[which], *([] if is_normal else ["crash"]))
            for which, when in kills:
                gevent.spawn_later(when, kill, node, world, names[which])
            gevent.sleep(60)
            assert sorted(world.ports) == names
            children = {child["id"]: child["port"] for child in tree.which_children()}
            assert children == world.ports
            tree.stop()
            assert world.ports == {}
            assert len(set(ports_of(node).values())) == 1
        node.shutdown()


def end(node: Node, world: World, name: str, *reason: str) -> None:
    if name in world.ports:
        node.snd(world.ports[name], "end", *reason)


def kill(node: Node, world: World, name: str) -> None:
    if name in world.ports:
        node.kil(world.ports[name], "killed")


def test_the_model_notices_what_supervisors_do_wrong() -> None:
    """The model itself: a budget of one, and a back-off that begins again."""
    model = Model(Tree("one_for_one", [Leaf("permanent")], 1, None))
    model.die(model.find("root.0"), is_normal=False)
    model.run_until(1)
    assert model.workers() == ["root.0"]
    model.die(model.find("root.0"), is_normal=False)
    assert (model.workers(), model.root.state) == ([], "stopped")
    with pytest.raises(StopIteration):
        model.find("root.0")
