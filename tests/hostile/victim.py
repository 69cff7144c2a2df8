# SPDX-License-Identifier: MIT
"""A node in a process of its own, which is attacked, and tells over a well-behaved link how it is."""

from __future__ import annotations

import gc
import json
import resource
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import gevent

from aemp_gevent.node.node import Node
from tests.support.networking import SECRET, WAIT, line_of, process
from tests.support.seams import network_of

PROGRAM = "from tests.hostile.victim import be_one; be_one()"
MANY = 100
"""Round trips that a median is taken of."""


def be_one() -> None:
    """Run the victim; the one argument has its settings as JSON, and ``measure``."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    is_measured = options.pop("measure", False)
    node = Node()
    node.initialise_node("127.0.0.1:0", secret=SECRET, **options)
    network = network_of(node)
    assert network is not None
    if is_measured:
        tracemalloc.start()

    def tell(reply: str, **more: Any) -> None:
        allocated, peak = tracemalloc.get_traced_memory() if is_measured else (0, 0)
        waiting = network.strangers.gate.waiting()
        node.snd(
            reply,
            {
                "allocated": allocated,
                "peak": peak,
                "refusals": node.refusals,
                "waiting": len(waiting),
                "links": sum(not link.closed for link in network.link_maker.links),
                "peers": len(network.peers),
                "ports": node.info()["ports"],
                "descriptors": len(list(Path("/dev/fd").iterdir())),
                "rss": rss(),
                **more,
            },
        )

    def mark(reply: str) -> None:
        gc.collect()
        if is_measured:
            tracemalloc.reset_peak()
        tell(reply)

    def collect(reply: str) -> None:
        gc.collect()
        tell(reply)

    control = node.port()
    node.rcv(control, "mark", mark)
    node.rcv(control, "tell", tell)
    node.rcv(control, "collect", collect)
    node.rcv(control, "ping", node.snd)
    print(control, flush=True)
    while True:
        gevent.sleep(3600)


def rss() -> int:
    """Return how many bytes of this process are in memory."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:  # not on Linux
        return 0
    return int(pages) * resource.getpagesize()


@dataclass
class Told:
    """The victim's report; sizes in bytes."""

    allocated: int
    peak: int
    refusals: dict[str, int]
    waiting: int
    """Connections in their handshakes."""
    links: int
    """Connections that are open."""
    peers: int
    ports: int
    """Of its own, those that peers spawned among them."""
    descriptors: int
    rss: int
    """What the system says that the process has in memory; 0 where it does not say it."""


class Victim:
    """The victim as a test sees it, over a link that behaves well.

    Args:
        node: This process's.
        control: The victim's port.
    """

    def __init__(self, node: Node, control: str, log: Callable[[], str]) -> None:
        self.node = node
        self.control = control
        self.id, _, _ = control.partition("#")
        self.lost: list[Any] = []
        self.log = log
        node.mon(control, lambda *reason: self.lost.append(reason))

    def _ask(self, what: str) -> Told:
        reply = self.node.syncal(WAIT, self.control, what)
        assert reply, f"no answer within {WAIT} s; lost: {self.lost}"
        return Told(**reply[0])

    def mark(self) -> Told:
        """Reset the peak of memory."""
        return self._ask("mark")

    def tell(self) -> Told:
        """Return how the victim is."""
        return self._ask("tell")

    def collect(self) -> Told:
        """Return how it is when what nobody needs is collected."""
        return self._ask("collect")

    def round_trips(self, count: int = MANY) -> float:
        """Return the median of some round trips in seconds."""
        times: list[float] = []
        for _ in range(count):
            begin = perf_counter()
            reply = self.node.syncal(WAIT, self.control, "ping")
            times.append(perf_counter() - begin)
            assert not self.lost, self.lost
            assert times[-1] < WAIT, f"no answer: {reply}"
        return median(times)


@contextmanager
def victim(node: Node, log: Any, **options: Any) -> Iterator[Victim]:
    """Start a victim, with these settings.

    Args:
        node: Of this process, whose link with the victim is the well-behaved one.
        log: A path; what the victim logs.
        options: Settings, and ``measure``: whether its memory is looked at.
    """
    program = f"import logging; logging.basicConfig(filename={str(log)!r}, level=logging.INFO)\n{PROGRAM}"
    # Without the second path, whose socket would be opened by itself after a second; its tests flood that.
    with process(program, json.dumps({"udp_port": None, **options})) as child:
        found = Victim(node, line_of(child), lambda: str(log.read_text()))
        found.tell()
        yield found
        assert child.poll() is None, "the victim died"
        assert not found.lost, found.lost
