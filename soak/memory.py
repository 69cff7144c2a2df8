# SPDX-License-Identifier: MIT
"""Run many nodes in one process, connected in memory, with seeded faults: ``python -m soak.memory``.

Each seed makes a world of nodes whose ports exchange messages while links are cut, and
nodes are separated, silenced and crashed. Then all faults are healed, and when the world has come to rest, the
logs are checked (:mod:`soak.checker`): no message may be lost without a report. Several
worlds run at once, because each of them mostly waits.

The module is longer than 400 lines because a world, its faults and its figures share their state.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import random
import resource
import sys
import traceback
import weakref
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import gevent
import gevent.pool

import aemp_gevent.peers.link_choice
import aemp_gevent.peers.redialling
from aemp_gevent import Node
from aemp_gevent.addresses import ids
from aemp_gevent.errors import NoMasterError
from aemp_gevent.testing import MemoryNetwork
from soak.checker import Event, Fired, LinkUp, Monitored, Received, Sent, Violation, check
from soak.leftovers import live_greenlets
from soak.talker import Member, Talker

SETTINGS: dict[str, Any] = {
    "secret": "of the soak test",
    "heartbeat_interval": 0.15,
    "heartbeat_timeout": 0.45,
    "handshake_timeout": 0.5,
    "monitor_timeout": 1.5,
    "high_water_bytes": 32 * 1024,
}

QUICK: list[tuple[Any, str, float]] = [
    (aemp_gevent.peers.link_choice, "IMPOSTOR_SECONDS", 0.4),
    (aemp_gevent.peers.link_choice, "_PROBE_SECONDS", 0.05),
    (aemp_gevent.peers.redialling, "_FIRST_RETRY_SECONDS", 0.05),
    (aemp_gevent.peers.redialling, "_LAST_RETRY_SECONDS", 0.2),
]
"""Constants that are not settings, and would make every world last ten seconds."""

WITHIN = 3.0
"""Seconds until a monitor has fired: ``monitor_timeout``, a heartbeat's, and as much again; see :class:`Lag` for
what comes on top."""

REST_SECONDS = 10.0
"""How long a world may need to come to rest."""

LONGEST_WORLD_SECONDS = 60.0
"""Then something waits that should not."""

STARVED_SHARE = 0.1
"""A world whose loop was late for more than this share of its time proves nothing: links break without any fault."""

MAX_STARVED = 5
"""So often such a world is run again; then it counts."""

CALM_BEATS = 5
"""So often in a row the loop must be in time before another world begins."""

_BEAT = 0.02
"""Seconds between two looks at how late the loop is."""

END_OF_LOG = 40
"""Events shown of each log that a violation is about."""


class Lag:
    """How long the loop kept everybody waiting, all in all, while this context lasts.

    The library does not count that time against a silent peer, and no more may we.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._watch: gevent.Greenlet[[], None] | None = None

    def __enter__(self) -> Lag:
        self._watch = gevent.spawn(self._look_on)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._watch is not None:
            self._watch.kill()

    def _look_on(self) -> None:
        while True:
            before = monotonic()
            gevent.sleep(_BEAT)
            late = monotonic() - before - _BEAT
            if late > _BEAT:
                self.seconds += late


class World:
    """Some nodes, their faults, and their logs.

    Args:
        seed: Of everything that chance decides.
        nodes: How many.
        seconds: How long things break.
        slaves: How many of the nodes are slaves of others.
    """

    def __init__(self, seed: int, nodes: int, seconds: float, slaves: int = 0) -> None:
        self.seed = seed
        self.dice = random.Random(seed)  # no secret
        self.network = MemoryNetwork(seed, latency=0.0005, jitter=0.002, skew=0.15, split=0.05, buffer_bytes=32 * 1024)
        self.logs: dict[str, list[Event]] = {}
        self.members: dict[str, Member] = {}
        """The living ones, by their IDs."""
        self.violations: list[Violation] = []
        self.resting = False
        self.pause = 0.06
        self.faults: Counter[str] = Counter()
        self.lag = Lag()
        self.began = monotonic()
        self.waited = 0.0
        """Seconds from the healing until everything was said and done."""
        self._ports: list[str] = []
        public = [f"10.0.0.{number}:4040" for number in range(1, nodes - slaves + 1)]
        masters = public[: max(1, slaves // 2)]
        behind = [ids.slave_id(f"s{number}", masters[number % len(masters)]) for number in range(slaves)]
        # Neighbours talk to each other most: a slave is one of any kind of node.
        self._ids = self.dice.sample([*public, *behind], nodes) if slaves else public
        self._starting = gevent.pool.Group()
        """Slaves that look for their master."""
        self._wanted: set[str] = set()
        """Slaves that are, or are to be, alive."""
        self._seconds = seconds
        self._incarnations = itertools.count(1)
        self.node_references: list[weakref.ref[Node]] = []

    @property
    def was_starved(self) -> bool:
        """Whether the loop was late so often that quick heartbeats were bound to be missed."""
        return self.lag.seconds > STARVED_SHARE * (monotonic() - self.began)

    # --- what the members ask ---

    def publish(self, port: str) -> None:
        self._ports.append(port)

    def withdraw(self, port: str) -> None:
        # Some stay known: monitors of the dead must fire, too.
        if port in self._ports and (len(self._ports) > 5 * len(self._ids) or self.dice.random() < 0.7):
            self._ports.remove(port)

    def choose_port(self, elsewhere: str) -> str | None:
        neighbour = self._neighbour(elsewhere) + "#" if self.dice.random() < 0.4 else ""
        for _ in range(5):
            choice = [port for port in self._ports if port.startswith(neighbour)] or self._ports
            port = self.dice.choice(choice)
            if not port.startswith(elsewhere + "#"):
                return port
        return None

    def choose_node(self, elsewhere: str) -> str | None:
        node = self.dice.choice(self._ids)
        return None if node == elsewhere else node

    # --- its course ---

    def run(self) -> None:
        """Live, heal, rest, and check."""
        try:
            with self.lag:
                for node_id in sorted(self._ids, key=_is_slave):
                    self._start(node_id)
                self._starting.join()
                self._break_things()
                self._heal()
                self._check()
        finally:
            self._starting.kill()
            for member in self.members.values():
                member.stop()
            self.network.close()

    def _start(self, node_id: str) -> None:
        if not _is_slave(node_id):
            self._add(self.network.node(node_id, **SETTINGS))
        elif node_id not in self._wanted:
            self._wanted.add(node_id)
            self._starting.spawn(self._start_slave, node_id)

    def _start_slave(self, node_id: str) -> None:
        name, _, _ = node_id.removeprefix(ids.SLAVE_PREFIX).partition("@")
        master = ids.master_of(node_id)
        assert master is not None  # it is a slave
        try:
            node = self.network.node(f"slave/{name}", master, **SETTINGS)
        except NoMasterError:
            self._wanted.discard(node_id)
        else:
            self._add(node)

    def _add(self, node: Node) -> None:
        node_id = node.NODE()
        self.node_references.append(weakref.ref(node))
        log = self.logs[f"{node_id}/{next(self._incarnations)}"] = []
        self.members[node_id] = Member(self, node, log, talkers=2)

    # --- breaking ---

    def _break_things(self) -> None:
        end = monotonic() + self._seconds
        faults = {
            self._cut: 5,
            self._cut_one: 10,
            self._cut_all: 2,
            self._block: 4,
            self._partition: 2,
            self._refuse: 2,
            self._delay: 2,
            self._crash: 3,
        }
        while monotonic() < end:
            gevent.sleep(self.dice.uniform(0.005, 0.04))
            if self.dice.random() < 0.2:
                self.network.heal()
                self._restart_some()
                continue
            (fault,) = self.dice.choices(list(faults), list(faults.values()))
            fault()
            self.faults[fault.__name__.strip("_")] += 1

    def _pair(self) -> tuple[str, str]:
        """Return two nodes, preferably with a link."""
        one = self.dice.choice(list(self.members.values()))
        linked = one.node.up_nodes()
        other = self.dice.choice(linked) if linked else self.dice.choice(self._ids)
        return self._hop(one.id, other)

    def _hop(self, one: str, other: str) -> tuple[str, str]:
        """Return two nodes on the way between two, that have a connection."""
        doors = (one, ids.master_of(one), ids.master_of(other), other)
        way = list(dict.fromkeys(node for node in doors if node is not None))
        if len(way) < 2:
            return one, other
        place = self.dice.randrange(len(way) - 1)
        return way[place], way[place + 1]

    def _cut(self) -> None:
        self.network.cut(*self._pair())

    def _cut_one(self) -> None:
        """Make two nodes dial each other at once, and cut one of the connections, again and again."""
        one = self.dice.choice(list(self.members))
        one, other = self._hop(one, self._neighbour(one))
        self.network.cut(one, other)
        for _ in range(4):
            gevent.sleep(self.dice.uniform(0.002, 0.03))
            self.network.cut(one, other, count=1)

    def _neighbour(self, node: str) -> str:
        """Return the node that exchanges the most messages with this one."""
        place = self._ids.index(node) ^ 1
        return self._ids[min(place, len(self._ids) - 1)]

    def _cut_all(self) -> None:
        one = self.dice.choice(list(self.members.values()))
        for other in one.node.up_nodes():
            self.network.cut(*self._hop(one.id, other))

    def _block(self) -> None:
        self.network.block(*self._pair())

    def _partition(self) -> None:
        self.network.partition(self.dice.sample(self._ids, self.dice.randint(1, max(1, len(self._ids) // 3))))

    def _refuse(self) -> None:
        self.network.refuse(*self._pair())

    def _delay(self) -> None:
        # What many send to a slave waits at its master, unpaused: a line as slow as others may be would
        # be busy with it for longer than a death may take to be told.
        longest = 0.02 if self._wanted else 0.1
        self.network.delay(*self._pair(), self.dice.uniform(0.0, longest), self.dice.uniform(0.0, longest))

    def _crash(self) -> None:
        if len(self.members) < len(self._ids) - 3:
            return
        member = self.members.pop(self.dice.choice(list(self.members)))
        member.stop()
        self._wanted.discard(member.id)
        self.network.crash(member.node, silent=self.dice.random() < 0.4)
        if self.dice.random() < 0.5:
            self._start(member.id)

    def _restart_some(self) -> None:
        for node_id in self._ids:
            if node_id not in self.members and self.dice.random() < 0.7:
                self._start(node_id)

    # --- resting ---

    def _heal(self) -> None:
        self.network.heal()
        for node_id in self._ids:  # nobody can talk to the slaves of a master that is dead
            if node_id not in self.members and any(ids.master_of(slave) == node_id for slave in self._wanted):
                self._start(node_id)
        self._starting.join()
        began = monotonic()
        self.resting = True
        # Every node hears of a next one, whatever became of their link before.
        heirs: dict[Talker, str] = {}
        ring = [member.talkers[0] for member in self.members.values() if member.talkers]
        for talker, successor in zip(ring, [*ring[1:], *ring[:1]], strict=True):
            heirs[talker] = successor.port
        for member in self.members.values():
            for talker in member.talkers:
                for target in talker.sessions:
                    gevent.spawn(member.node.peval, talker.port, talker.send, target, 1)
        while monotonic() < began + REST_SECONDS:
            for talker, target in heirs.items():
                if target not in talker.sessions:
                    talker.monitor(target, 1)
            self._call_for_orphans()
            gevent.sleep(0.05)
            if not any(self._unfinished()):
                if not self._violations():
                    break
                # Something may still be due. To look again and again would keep the other worlds from running.
                gevent.sleep(0.5)
        self.waited = monotonic() - began

    def _call_for_orphans(self) -> None:
        """Ensure links to the nodes of orphans: these links end them."""
        for member in self.members.values():
            for port in list(member.orphans):  # sending may switch
                node = port.partition("#")[0]
                if node in self.members and not member.node.node_is_up(node):
                    member.node.snd(node, "devnull")

    def _unfinished(self) -> Iterator[str]:
        """Yield what is still to arrive, or to be reported."""
        arrived: Counter[tuple[str, str, int]] = Counter(
            (event.sender, event.port, event.session)
            for log in self.logs.values()
            for event in log
            if isinstance(event, Received)
        )
        for member in self.members.values():
            for talker in member.talkers:
                for target, session in talker.sessions.items():
                    sent = talker.sent[target, session]
                    if arrived[talker.port, target, session] != sent:
                        yield f"{talker.port} to {target}: {arrived[talker.port, target, session]} of {sent}"

    def _violations(self) -> list[Violation]:
        return check(self.logs, within=WITHIN + self.lag.seconds, until=float("inf"))

    def _check(self) -> None:
        self.violations = self._violations()
        for text in self._unfinished():
            self.violations.append(Violation("rest", f"a watched pair cannot talk: {text}", (), monotonic()))

    def count(self, kind: type[Any]) -> int:
        """Return how many events of a kind were logged."""
        return sum(isinstance(event, kind) for log in self.logs.values() for event in log)

    def report(self) -> Iterator[str]:
        """Yield what is wrong, and the ends of the logs that show it."""
        yield f"seed {self.seed}: {len(self.violations)} violations"
        for violation in self.violations[:10]:
            yield f"  {violation}"
        for violation in self.violations[:2]:
            nodes = [name.rpartition("/")[0] for name in violation.logs]
            for name in violation.logs:
                others = [node for node in nodes if node != name.rpartition("/")[0]] or nodes
                yield f"  {name}, what concerns {', '.join(others)}, around the {violation.rule}:"
                about = [event for event in self.logs[name] if any(_concerns(event, node) for node in others)]
                before = [event for event in about if event.at <= violation.at][-END_OF_LOG:]
                after = [event for event in about if event.at > violation.at][:END_OF_LOG]
                for event in before + after:
                    yield f"    {event}"


def _is_slave(node: str) -> bool:
    return ids.master_of(node) is not None


def _concerns(event: Event, node: str) -> bool:
    """Return whether an event is about a node, or a port of it."""
    return any(value == node or (isinstance(value, str) and value.startswith(node + "#")) for value in event)


# --- many worlds -----------------------------------------------------------------------


@dataclass
class Figures:
    """What a whole run came to."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    longest_rest: float = 0.0
    failed: list[int] = field(default_factory=list)
    starved: int = 0
    """Worlds that were run again, because others had the processor."""
    greenlets_left: int = 0
    nodes_left: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    grown_bytes: int = 0
    """Of the process, from when a quarter of the worlds were done."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was violated, and nothing is left over."""
        return not (self.failed or self.greenlets_left or self.nodes_left)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        return (
            f"{self.seeds} seeds, {len(self.failed)} failed {self.failed[:10]}, {self.starved} run again; {counts}; "
            f"left over: {self.greenlets_left} greenlets, {self.nodes_left} nodes, "
            f"{self.grown_bytes / 2**20:+.1f} MiB; longest rest {self.longest_rest:.1f} s; "
            f"{self.cpu_seconds / max(self.seeds, 1):.2f} s CPU a seed, {self.seconds:.0f} s in all"
        )


def run(
    seeds: list[int], *, nodes: int, seconds: float, at_once: int, at_most: float = float("inf"), slaves: int = 0
) -> Figures:
    """Run a world for each seed, print what fails, and return the figures.

    Args:
        seeds: One each.
        nodes: In each world.
        seconds: How long things break in each.
        at_once: How many worlds share the loop.
        at_most: Seconds after which no further world is begun.
        slaves: How many of the nodes of each are slaves.
    """
    figures = Figures()
    references: list[weakref.ref[Node]] = []
    began, cpu = monotonic(), process_time()
    early = 0

    def run_world(seed: int) -> World:
        world = World(seed, nodes, seconds, slaves)
        try:
            with gevent.Timeout(LONGEST_WORLD_SECONDS):
                world.run()
        except gevent.Timeout:  # thrown where it stands: the traceback says what it waits for
            stuck = Violation("rest", f"it came to no end:\n{traceback.format_exc()}", (), monotonic())
            world.violations.append(stuck)
        references.extend(world.node_references)
        return world

    def one(seed: int) -> None:
        nonlocal early
        wait_for_calm()
        if monotonic() > began + at_most:
            return
        world = run_world(seed)
        for _ in range(MAX_STARVED):
            if not (world.violations and world.was_starved):
                break
            figures.starved += 1
            wait_for_calm()
            world = run_world(seed)
        figures.seeds += 1
        figures.longest_rest = max(figures.longest_rest, world.waited)
        for kind in (Sent, Received, Monitored, Fired, LinkUp):
            figures.counts[kind.__name__] += world.count(kind)
        figures.counts["faults"] += world.faults.total()
        if world.violations:
            figures.failed.append(seed)
            print("\n".join(world.report()), flush=True)
        if figures.seeds == len(seeds) // 4:
            early = _resident_bytes()

    before = {id(left) for left in live_greenlets()}
    with quick_peers():
        pool = gevent.pool.Pool(at_once)
        for greenlet_ in [pool.spawn(one, seed) for seed in seeds]:
            greenlet_.get()
        deadline = monotonic() + 3.0
        while monotonic() < deadline:
            gc.collect()
            figures.greenlets_left = sum(id(left) not in before for left in live_greenlets())
            figures.nodes_left = sum(reference() is not None for reference in references)
            if figures.is_good:
                break
            gevent.sleep(0.1)
    figures.grown_bytes = _resident_bytes() - early if early else 0
    figures.cpu_seconds = process_time() - cpu
    figures.seconds = monotonic() - began
    return figures


def wait_for_calm() -> None:
    """Wait until the loop keeps up: one world more would make all of them miss their heartbeats, which are quick."""
    calm = 0
    while calm < CALM_BEATS:
        before = monotonic()
        gevent.sleep(_BEAT)
        calm = calm + 1 if monotonic() - before < 2 * _BEAT else 0


@contextmanager
def quick_peers() -> Generator[None, None, None]:
    """Shorten the pauses between dials, which a real network would need."""
    kept = [(module, name, getattr(module, name)) for module, name, _ in QUICK]
    for module, name, value in QUICK:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> int:
    """Run what the arguments ask for; 1 when anything is wrong, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak.memory", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds (default 200)")
    parser.add_argument("--nodes", type=int, default=30, help="nodes in each (default 30)")
    parser.add_argument("--slaves", type=int, default=0, help="how many of them are slaves of others (default 0)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long things break in each (default 1)")
    parser.add_argument("--at-once", type=int, default=8, help="worlds that share the loop (default 8)")
    parser.add_argument("--seed", type=int, help="only the world of this seed")
    parser.add_argument("--at-most", type=float, default=float("inf"), help="begin no world after so many seconds")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--verbose", action="store_true", help="show what the library logs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    seeds = [options.seed] if options.seed is not None else list(range(options.first, options.first + options.seeds))
    figures = run(
        seeds,
        nodes=options.nodes,
        seconds=options.seconds,
        at_once=options.at_once,
        at_most=options.at_most,
        slaves=options.slaves,
    )
    print(figures)
    return 0 if figures.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
