# SPDX-License-Identifier: MIT
"""A storm of presences: eight nodes and 100,000 people; ``python -m benchmarks.presence``.

All nodes of one host are each other's seeds, as a web server's workers are, and each watches everybody. They are
processes of their own, because their memory is measured. First all people come at once. Then each of them gets
another status. Then one node is killed, and its people are gone. Then it is started again, and all its people come
back. Then a node is stopped, and its people are gone after the heartbeat's timeout. Then it continues, and they are
back. For each of these steps this measures the seconds until every node has the right people, the packets that the
nodes sent, and their memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from aemp_gevent.testing import NodeProcess, wait_until

NODES = 8
PEOPLE = 100_000
LONGEST_SECONDS = 900.0

SETUP = """
import gc, gevent
from aemp_gevent.contrib import join_host
from aemp_gevent.links.link import Link
from aemp_gevent.presence import Presence

sent = 0
send, send_encoded = Link.send, Link.send_encoded

def counted_send(link, packet):
    global sent
    sent += bool(packet)
    return send(link, packet)

def counted_send_encoded(link, data):
    global sent
    sent += 1
    return send_encoded(link, data)

Link.send, Link.send_encoded = counted_send, counted_send_encoded
node = mp.Node()
join_host("storm", folder=folder, node=node, heartbeat_interval=3, heartbeat_timeout=30, monitor_timeout=120)
presence = Presence("everybody", node=node)
present = calls = 0

def heard(people, joined, changed, left):
    global present, calls, changes
    present = len(people)
    changes += len(joined) + len(changed) + len(left)
    calls += 1

changes = 0
guard = presence.watch(heard)
sessions = []

def come(first, count):
    for number in range(first, first + count):
        sessions.append(presence.track(f"person {number}", {"status": "here"}))
        if number % 100 == 0:
            gevent.sleep(0)

def differ():
    for number, session in enumerate(sessions):
        session.update({"status": "busy"})
        if number % 100 == 0:
            gevent.sleep(0)
"""


@dataclass
class Step:
    """What one step took. Everything but the seconds is of one node, on average."""

    step: str
    seconds: float
    packets: float
    calls: float
    """Of the watcher's callback."""
    megabytes: float
    """Memory of the process in the end."""


class Storm:
    """The nodes.

    Args:
        size: How many.
        people: How many people all of them have.
        folder: Where their sockets are.
        stack: Ends them.
    """

    def __init__(self, size: int, people: int, folder: str, stack: ExitStack) -> None:
        self._each = people // size
        self._folder = folder
        self._nodes = [stack.enter_context(NodeProcess()) for _ in range(size)]
        for node in self._nodes:
            node.run(SETUP, timeout=60.0, folder=folder)

    def _figures(self, name: str) -> list[int]:
        figures: list[int] = [node.run(name, timeout=LONGEST_SECONDS) for node in self._nodes]
        return figures

    def _step(self, name: str, work: Callable[[], object], is_done: Callable[[], bool]) -> Step:
        sent, calls, begin = self._figures("sent"), self._figures("calls"), monotonic()
        work()
        wait_until(is_done, within=LONGEST_SECONDS, show=lambda: (name, self._figures("present")))
        seconds = monotonic() - begin
        count = len(self._nodes)
        self._figures("gc.collect()")
        return Step(
            name,
            round(seconds, 1),
            self._mean(sent, self._figures("sent")),
            self._mean(calls, self._figures("calls")),
            round(sum(node.rss() for node in self._nodes) / count / 2**20, 1),
        )

    def _mean(self, before: list[int], after: list[int]) -> float:
        """Return how much was added, of each node; one that began in this step began at 0."""
        return round((sum(after) - sum(before)) / len(after), 1)

    def _all_see(self, people: int) -> bool:
        return all(present == people for present in self._figures("present"))

    def _come(self) -> None:
        for number, node in enumerate(self._nodes):
            node.post(f"come({number * self._each}, {self._each})")

    def _differ(self) -> None:
        self._changed = [figure + self._each * len(self._nodes) for figure in self._figures("changes")]
        for node in self._nodes:
            node.post("differ()")

    def _have_changed(self) -> bool:
        return self._figures("changes") >= self._changed

    def run(self) -> Iterator[Step]:
        """Do all steps."""
        size = len(self._nodes)
        yield self._step("nobody is there", lambda: None, lambda: self._all_see(0))
        yield self._step("all come", self._come, lambda: self._all_see(size * self._each))
        yield self._step("all change", self._differ, self._have_changed)
        lost = self._nodes.pop()
        yield self._step("a node is killed", lost.kill, lambda: self._all_see((size - 1) * self._each))

        def again() -> None:
            lost.restart()
            lost.run(SETUP, timeout=60.0, folder=self._folder)
            lost.post(f"come({(size - 1) * self._each}, {self._each})")
            self._nodes.append(lost)

        yield self._step("it comes back", again, lambda: self._all_see(size * self._each))
        silent = self._nodes.pop()
        yield self._step("a node is silent", silent.stop, lambda: self._all_see((size - 1) * self._each))

        def heal() -> None:
            silent.resume()
            self._nodes.append(silent)

        yield self._step("it is heard again", heal, lambda: self._all_see(size * self._each))


def plot(steps: list[dict[str, Any]], picture: Path) -> None:
    """Draw packets and memory for each step. Needs matplotlib."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(10, 3), layout="constrained")
    names = [step["step"] for step in steps]
    for axis, key, title in zip(
        figure.subplots(1, 2),
        ("packets", "megabytes"),
        ("packets that each node sends", "MiB of each node"),
        strict=True,
    ):
        axis.barh(names, [step[key] for step in steps])
        axis.invert_yaxis()
        axis.set_title(title)
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Run the storm, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--json", type=Path, help="where to write the figures, or where they are")
    parser.add_argument("--png", type=Path, help="where to draw them; needs matplotlib")
    parser.add_argument("--plot-only", action="store_true", help="measure nothing: draw what --json has")
    args = parser.parse_args()
    steps: list[dict[str, Any]] = []
    if args.plot_only:
        steps = json.loads(args.json.read_text())["steps"]
    else:
        with TemporaryDirectory() as folder, ExitStack() as stack:
            for step in Storm(args.nodes, args.people, folder, stack).run():
                steps.append(asdict(step))
                sys.stdout.write(json.dumps(steps[-1]) + "\n")
                sys.stdout.flush()
        if args.json:
            figures = {"nodes": args.nodes, "people": args.people, "steps": steps}
            args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if args.png:
        plot(steps, args.png)


if __name__ == "__main__":
    main()
