# SPDX-License-Identifier: MIT
"""Check directories whose global nodes die while they announce changes: ``python -m soak.directory``.

Each world is a simulated network whose nodes set entries of one family, change them, and keep a copy of the family. One
global node is killed at a certain step (a step is one delivery), while connections break and lines fail. When all
faults are over, the copies of the remaining nodes must be equal, and contain what these nodes have set.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import gevent
import gevent.pool

import aemp_gevent.directory.embedded.mesh
import aemp_gevent.peers.seed
from aemp_gevent import Node
from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of
from aemp_gevent.errors import ResolveError
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.testing.memory_clock import MemoryClock

FAMILY = "family"

SETTINGS: dict[str, Any] = {
    "heartbeat_interval": 0.15,
    "heartbeat_timeout": 0.9,
    "seed_poll_interval": 0.3,
    "handshake_timeout": 2.0,
    "monitor_timeout": 4.0,
}

QUICK: list[tuple[Any, str, float]] = [
    (aemp_gevent.peers.seed, "_FIRST_PAUSE_SECONDS", 0.05),
    (aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 0.3),
    (aemp_gevent.directory.embedded.mesh, "_MESH_SECONDS", 0.5),
]
"""Waiting times of the library that are shortened, because simulated networks are faster than real ones."""

STEPS = 400
"""A world needs some hundreds of deliveries until all nodes have all entries."""

HEAL_SECONDS = 15.0
"""Time after which all copies must agree. An idle machine needs twice the ``heartbeat_timeout``."""


@dataclass(frozen=True)
class Shape:
    """The seeds of each node.

    Attributes:
        seeds: How many nodes are seeds of all.
        clients: How many others there are.
        has_name: Whether the seeds are behind a name; then a node has links to the first two that live.
    """

    seeds: int
    clients: int = 0
    has_name: bool = False


SHAPES: dict[str, Shape] = {
    "workers": Shape(4),
    "behind a name": Shape(5, has_name=True),
    "clients": Shape(3, clients=4),
}


class _StrikingClock(MemoryClock):
    """A network's clock that calls a function at a certain step."""

    def __init__(self, step: int, strike: Callable[[], None]) -> None:
        self._left = step
        self._strike = strike
        super().__init__()

    def at(self, due: float, call: Callable[[], None]) -> None:
        def counted() -> None:
            self._left -= 1
            if self._left == 0:
                self._strike()
            call()

        super().at(due, counted)


class _Member:
    """One node, what it has entered, and its copy of the family."""

    def __init__(self, name: str, seeds: list[str]) -> None:
        self.name = name
        self.seeds = seeds
        self.is_alive = False
        self.value = 0
        self.copy: dict[str, Any] = {}
        self.node: Node | None = None

    def start(self, network: MemoryNetwork) -> None:
        self.node = network.node(self.name, *self.seeds, **SETTINGS)
        self.is_alive = True
        self.node.db_mon(FAMILY, self._changed)
        self.enter()

    def _changed(self, entries: Mapping[str, Any], *_keys: object) -> None:
        self.copy = dict(entries)

    def enter(self) -> None:
        assert self.node is not None
        self.value += 1
        self.node.db_set(FAMILY, self.name, self.value)


@dataclass
class DirectoryWorld:
    """One world.

    Attributes:
        seed: Of all that chance decides; each third one has the same shape.
        wrong: At the end, the copies that are not right, by node.
        expected: What is right.
        seconds: How long it took until all were.
    """

    seed: int
    wrong: dict[str, dict[str, Any]] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # no secret
        self.shape = list(SHAPES)[self.seed % len(SHAPES)]
        self._members: list[_Member] = []
        self._victim: _Member | None = None
        self._network: MemoryNetwork | None = None

    def __str__(self) -> str:
        told = f"{len(self.wrong)} wrong copies {self.wrong} of {self.expected}" if self.wrong else "all agree"
        return f"world {self.seed} ({self.shape}): {told} after {self.seconds:.1f} s"

    def run(self) -> DirectoryWorld:
        """Start the nodes, break the network, heal it, and compare the copies."""
        dice = self._dice
        shape = SHAPES[self.shape]
        latency, jitter, skew = 0.001, dice.choice([0.0, 0.01, 0.05]), dice.choice([0.0, 0.02])
        step = dice.randrange(5, STEPS)
        network = MemoryNetwork(self.seed, latency=latency, jitter=jitter, skew=skew, split=0.1)
        network.clock = _StrikingClock(step, self._strike)
        self._network = network
        with network:
            addresses = [f"10.0.{self.seed % 250}.{number}:4040" for number in range(1, shape.seeds + 1)]
            seeds = [f"world-{self.seed}.test:4040"] if shape.has_name else addresses
            _NAMES[f"world-{self.seed}.test:4040"] = self._living
            self._members = [_Member(address, seeds) for address in addresses]
            self._victim = dice.choice(self._members)
            for number in range(shape.clients):
                self._members.append(_Member(f"10.1.{self.seed % 250}.{number + 1}:4040", dice.sample(addresses, 2)))
            for member in dice.sample(self._members, len(self._members)):
                member.start(network)
                self._pause()
            for _ in range(20):
                self._break(network)
                dice.choice([member for member in self._members if member.is_alive]).enter()
                self._pause()
            if self._victim.is_alive:
                self._strike()
            network.heal()
            self._wait()
        return self

    def _living(self) -> list[Endpoint]:
        living = [member for member in self._members if member.is_alive]
        return [endpoint for member in living for endpoint in endpoints_of(member.name)]

    def _pause(self) -> None:
        gevent.sleep(self._dice.choice([0.0, 0.001, 0.02, 0.1]))

    def _strike(self) -> None:
        victim, network = self._victim, self._network
        if victim is None or network is None or not victim.is_alive:
            return  # not born yet: then it dies at the end
        victim.is_alive = False
        network.crash(victim.name, silent=self._dice.random() < 0.2)

    def _break(self, network: MemoryNetwork) -> None:
        names = [member.name for member in self._members]
        chance = self._dice.random()
        if chance < 0.1:
            one, other = self._dice.sample(names, 2)
            network.cut(one, other)
        elif chance < 0.25:
            network.block(*self._dice.sample(names, 2))
        elif chance < 0.35:
            network.partition(self._dice.sample(names, len(names) // 2))
        elif chance < 0.6:
            network.heal()
        elif chance < 0.65:
            gevent.sleep(SETTINGS["heartbeat_timeout"])

    def _wait(self) -> None:
        living = [member for member in self._members if member.is_alive]
        self.expected = {member.name: member.value for member in living}
        began = monotonic()
        while True:
            self.wrong = {member.name: member.copy for member in living if member.copy != self.expected}
            self.seconds = monotonic() - began
            if not self.wrong or self.seconds > HEAL_SECONDS:
                return
            gevent.sleep(0.05)


_NAMES: dict[str, Callable[[], list[Endpoint]]] = {}
"""What is behind the names of the worlds' seeds."""


def _resolve_all(name: str) -> list[Endpoint]:
    found = _NAMES[name]()
    if not found:
        raise ResolveError(name, "nobody is alive")
    return found


@contextmanager
def _hurry() -> Generator[None, None, None]:
    patches = [*QUICK, (aemp_gevent.peers.seed, "resolve_all", _resolve_all)]
    before = [getattr(module, name) for module, name, _value in patches]
    for module, name, value in patches:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _value), value in zip(patches, before, strict=True):
            setattr(module, name, value)
        _NAMES.clear()


def run(seeds: list[int], *, at_once: int = 8, at_most: float = float("inf")) -> list[DirectoryWorld]:
    """Run the worlds of these seeds, several at a time, and return them; none begins after ``at_most`` seconds."""
    deadline = monotonic() + at_most

    def one(seed: int) -> DirectoryWorld | None:
        return DirectoryWorld(seed).run() if monotonic() < deadline else None

    with _hurry():
        worlds = gevent.pool.Pool(at_once).map(one, seeds)
    return [world for world in worlds if world is not None]


def main() -> int:
    """Run what the arguments ask for; 1 when a copy was wrong in the end, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak.directory", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--at-once", type=int, default=8, help="worlds that share the loop (default 8)")
    parser.add_argument("--at-most", type=float, default=float("inf"), help="begin no world after so many seconds")
    parser.add_argument("--verbose", action="store_true", help="show what the library logs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    seeds = list(range(options.first, options.first + options.seeds))
    worlds = run(seeds, at_once=options.at_once, at_most=options.at_most)
    failed = [world for world in worlds if world.wrong]
    for world in failed:
        print(world)
    longest = max((world.seconds for world in worlds), default=0.0)
    print(f"{len(worlds)} directories, {len(failed)} with wrong copies, all agreed after {longest:.1f} s at the latest")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
