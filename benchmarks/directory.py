# SPDX-License-Identifier: MIT
"""How the directory grows: many nodes of one process, in a simulated network; ``python -m benchmarks.directory``.

For each number of nodes: all join at once; then a tenth of them a minute crash and come back;
then the network splits into halves, and is joined again. After each the seconds are taken until every node
knows its group, and some observers everybody; and what that cost is counted: packets of all links, and
links. Each node is in a group of ten, so what it has to know does not grow with the network.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean
from time import monotonic, process_time
from typing import Any

import gevent

from aemp_gevent import Node
from aemp_gevent.links.link import Link
from aemp_gevent.testing import MemoryNetwork

SIZES = (50, 100, 200, 500, 1000)
SEEDS = ("10.1.0.1:4040", "10.1.0.2:4040")
SETTINGS: dict[str, Any] = {
    "secret": "of a benchmark",
    "heartbeat_interval": 3.0,
    "heartbeat_timeout": 9.0,
    "handshake_timeout": 10.0,
    "monitor_timeout": 30.0,
}
GROUP_SIZE = 10
OBSERVERS = 10
EVERYBODY = "everybody"
CHURN_SHARE = 0.1
"""Of all nodes, in a minute."""
LONGEST_SECONDS = 240.0
"""Until nodes know each other, before it counts as never."""


@dataclass
class DirectoryFigures:
    """Of one number of nodes. Packets are all that links carried, but for the empty ones: requests, answers, news.

    Seconds are until everybody knows all that it wants to know; of a simulation in one process, with one processor
    for all nodes.
    """

    nodes: int = 0
    join_seconds: float = 0.0
    join_packets_per_node: float = 0.0
    churn_seconds: float = 0.0
    churn_packets_per_crash: float = 0.0
    halves_seconds: float = 0.0
    healed_seconds: float = 0.0
    links_of_ordinary_nodes: float = 0.0
    most_links_of_an_ordinary_node: int = 0
    links_of_seeds: float = 0.0
    cpu_seconds: float = 0.0


class MeasuredWorld:
    """The nodes.

    Args:
        size: How many, seeds and observers among them.
        seed: Of the dice.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.network = MemoryNetwork(seed, latency=0.001, jitter=0.001)
        self.dice = self.network.dice
        self.members: dict[str, tuple[Node, str, str]] = {}
        """The living: the node, its group, and its port."""
        self.packets = 0
        self._ids = [*SEEDS, *(f"10.0.{number // 250}.{number % 250 + 1}:4040" for number in range(size - len(SEEDS)))]

    def join(self, node_id: str) -> None:
        """Start a node, and have it register itself, and look for its group."""
        place = self._ids.index(node_id)
        seeds = [seed for seed in SEEDS if seed != node_id]
        self.dice.shuffle(seeds)
        node = self.network.node(node_id, *seeds, **SETTINGS)
        port, group = node.port(print), f"group-{place // GROUP_SIZE}"
        node.grp_reg(group, port)
        node.grp_reg(EVERYBODY, port)
        node.grp_get(group)
        if len(SEEDS) <= place < len(SEEDS) + OBSERVERS:
            node.grp_get(EVERYBODY)
        self.members[node_id] = (node, group, port)

    def join_all(self) -> None:
        for node_id in self._ids:
            self.join(node_id)
            gevent.sleep(0)

    def crash(self, node_id: str) -> None:
        node, _, _ = self.members.pop(node_id)
        self.network.crash(node)

    def ordinary(self) -> list[str]:
        return [node_id for node_id in self.members if node_id not in SEEDS]

    def wait(self, groups_of: Callable[[], Iterator[list[str]]]) -> float:
        """Wait until everybody knows its group, of those it can reach; return the seconds that took."""
        began = monotonic()
        while not all(self._know_each_other(part) for part in groups_of()):
            if monotonic() > began + LONGEST_SECONDS:
                raise TimeoutError(f"{self.size} nodes do not know each other after {LONGEST_SECONDS} s")
            gevent.sleep(0.2)
        return monotonic() - began

    def _know_each_other(self, part: list[str]) -> bool:
        groups: dict[str, set[str]] = {EVERYBODY: set()}
        for node_id in part:
            _, group, port = self.members[node_id]
            groups.setdefault(group, set()).add(port)
            groups[EVERYBODY].add(port)
        observers = set(self._ids[len(SEEDS) : len(SEEDS) + OBSERVERS])
        for node_id in part:
            node, group, _ = self.members[node_id]
            if set(node.grp_get(group) or ()) != groups[group]:
                return False
            if node_id in observers and set(node.grp_get(EVERYBODY) or ()) != groups[EVERYBODY]:
                return False
        return True

    def everybody(self) -> Iterator[list[str]]:
        yield list(self.members)

    def halves(self) -> list[list[str]]:
        """Return two halves, with a seed each."""
        return [[node_id for node_id in self._ids if self._ids.index(node_id) % 2 == side] for side in (0, 1)]


@contextmanager
def counting(world: MeasuredWorld) -> Generator[None, None, None]:
    """Count the packets that links carry."""
    send, send_encoded = Link.send, Link.send_encoded

    def counted_send(link: Link, packet: list[Any]) -> int:
        world.packets += bool(packet)
        return send(link, packet)

    def counted_send_encoded(link: Link, data: bytes) -> None:
        world.packets += 1
        send_encoded(link, data)

    Link.send, Link.send_encoded = counted_send, counted_send_encoded  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Link.send, Link.send_encoded = send, send_encoded  # type: ignore[method-assign]


def measure(size: int, churn_seconds: float, seed: int = 1) -> DirectoryFigures:
    """Take the figures of one number of nodes."""
    figures, cpu, world = DirectoryFigures(nodes=size), process_time(), MeasuredWorld(size, seed)
    with world.network, counting(world):
        began = monotonic()
        world.join_all()
        world.wait(world.everybody)
        figures.join_seconds = monotonic() - began
        figures.join_packets_per_node = world.packets / size
        _note(size, f"joined in {figures.join_seconds:.1f} s")

        before, crashes = world.packets, _churn(world, churn_seconds)
        figures.churn_seconds = world.wait(world.everybody)
        figures.churn_packets_per_crash = (world.packets - before) / crashes
        _note(size, f"{crashes} crashed and came back: {figures.churn_seconds:.1f} s")

        links = [len(world.members[node_id][0].up_nodes()) for node_id in world.ordinary()]
        figures.links_of_ordinary_nodes = mean(links)
        figures.most_links_of_an_ordinary_node = max(links)
        figures.links_of_seeds = mean(len(world.members[seed][0].up_nodes()) for seed in SEEDS)

        halves = world.halves()
        world.network.partition(*halves)
        figures.halves_seconds = world.wait(lambda: iter(halves))
        _note(size, f"halves: {figures.halves_seconds:.1f} s")
        world.network.heal()
        figures.healed_seconds = world.wait(world.everybody)
        _note(size, f"healed: {figures.healed_seconds:.1f} s")
    figures.cpu_seconds = process_time() - cpu
    return figures


def _churn(world: MeasuredWorld, seconds: float) -> int:
    """Crash nodes, and start them again, at the usual rate; return how many."""
    crashes = max(1, round(world.size * CHURN_SHARE * seconds / 60))
    for _ in range(crashes):
        victim = world.dice.choice(world.ordinary())
        world.crash(victim)
        gevent.sleep(seconds / crashes / 2)
        world.join(victim)
        gevent.sleep(seconds / crashes / 2)
    return crashes


def _note(size: int, text: str) -> None:
    print(f"{size} nodes: {text}", file=sys.stderr, flush=True)


def plot(rows: list[DirectoryFigures], path: Path) -> None:
    """Draw the figures as a PNG. Needs matplotlib."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    charts = {
        "packets": ("join_packets_per_node", "churn_packets_per_crash"),
        "links": ("links_of_ordinary_nodes", "most_links_of_an_ordinary_node", "links_of_seeds"),
        "seconds until all know each other": ("join_seconds", "churn_seconds", "halves_seconds", "healed_seconds"),
        "seconds of one processor, all in all": ("cpu_seconds",),
    }
    axes = itertools.chain.from_iterable(figure.subplots(2, 2))
    for axis, (title, names) in zip(axes, charts.items(), strict=True):
        for name in names:
            heights = [getattr(row, name) for row in rows]
            axis.plot([row.nodes for row in rows], heights, marker="o", label=name.replace("_", " "))
        axis.set(title=title, xlabel="nodes", ylim=(0, None))
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure what the arguments ask for, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directory", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help=f"numbers of nodes (default {SIZES})")
    parser.add_argument("--churn", type=float, default=60.0, help="how many seconds nodes crash and come back")
    parser.add_argument("--json", type=Path, help="where to write the figures, or where they are, to plot them again")
    parser.add_argument("--png", type=Path, help="where to draw them; needs matplotlib")
    parser.add_argument("--plot-only", action="store_true", help="measure nothing: draw what --json has")
    options = parser.parse_args()
    logging.getLogger("aemp_gevent").setLevel(logging.CRITICAL)  # links are lost all the time here
    if options.plot_only:
        rows = [DirectoryFigures(**row) for row in json.loads(options.json.read_text())]
    else:
        rows = []
        for size in options.sizes:
            rows.append(measure(size, options.churn))
            gc.collect()
    for field in fields(DirectoryFigures):
        print(f"{field.name.replace('_', ' '):32}", *(f"{getattr(row, field.name):10.4g}" for row in rows))
    if options.json and not options.plot_only:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.png:
        plot(rows, options.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
