# SPDX-License-Identifier: MIT
"""What servers, supervisors and virtual time cost; ``python -m benchmarks.otp``.

*Calls*: the same method behind a bare ``serve`` and in a ``Server``, in turn; one greenlet, one node. *Restarts*: all
children of a ``DynamicSupervisor`` are killed at once; the seconds until all of them run again, with the first pause of
a millisecond, and what is left when the supervisor has stopped. *Schedules*: small worlds in virtual time, each
with a seed of its own: two nodes, and a supervised server on one of them, which the other calls and kills.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
from collections.abc import Callable
from statistics import median
from typing import ClassVar

import gevent

from aemp_gevent import Node
from aemp_gevent.otp import Child, DynamicSupervisor, Server, Supervisor, call
from aemp_gevent.testing import MemoryNetwork, wait_until
from benchmarks.measure import clock, settle

LONGEST_SECONDS = 120.0
"""Until all children run again, before this gives up."""


class Counter(Server):
    """Counts."""

    started: ClassVar[int] = 0
    """How many have begun."""

    def init(self) -> None:
        Counter.started += 1
        self.count = 0

    @call
    def add(self, more: int) -> int:
        self.count += more
        return self.count


def bare_counter(node: Node) -> str:
    """Start what does the same as ``Counter``, without a class; return its port."""
    count = 0

    def add(more: int) -> int:
        nonlocal count
        count += more
        return count

    port = node.port()
    node.serve(port, "add", add)
    return port


def microseconds_each(work: Callable[[], object], times: int) -> float:
    """Return how long ``work`` takes on average."""
    settle()
    began = clock()
    for _ in range(times):
        work()
    return (clock() - began) / times * 1e6


def compare_calls(rounds: int, times: int) -> dict[str, float]:
    """Time a bare ``call``, and a ``Server``'s, in turn."""
    node = Node()
    port, counter = bare_counter(node), Counter.start(node=node)
    works = (lambda: node.call(port, "add", 1), lambda: counter.add(1))
    for work in works:
        microseconds_each(work, times // 10)  # warm up
    pairs = [[microseconds_each(work, times) for work in works] for _ in range(rounds)]
    node.shutdown()
    ratios = sorted(served / bare for bare, served in pairs)
    return {
        "call µs": median(pair[0] for pair in pairs),
        "Server call µs": median(pair[1] for pair in pairs),
        "Server call / call": median(ratios),
        "lowest ratio": ratios[0],
        "highest ratio": ratios[-1],
    }


def ports_and_greenlets(node: Node) -> tuple[int, int]:
    """Return how many ports the node has, and how many greenlets the process."""
    gc.collect()
    greenlets = sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())
    return node.call(node.NODE(), "inspect", [])["port_count"], greenlets


def restart(count: int) -> dict[str, float]:
    """Kill all of many children, and time until all run again."""
    with MemoryNetwork() as network:  # a node that answers inspect
        node = network.node()
        before = ports_and_greenlets(node)
        carts = DynamicSupervisor.start(backoff=(0.001, 1.0), node=node)
        children = [carts.start_child(Child(Counter)) for _ in range(count)]
        started = Counter.started
        settle()
        began = clock()
        for port in children:
            node.kil(port, "crash")
        wait_until(lambda: Counter.started == started + count, within=LONGEST_SECONDS)
        seconds = clock() - began
        active = carts.count()["active"]
        carts.stop(timeout=LONGEST_SECONDS)
        after = ports_and_greenlets(node)
    return {
        "children": count,
        "seconds until all run again": seconds,
        "running then": active,
        "ports left": after[0] - before[0],
        "greenlets left": after[1] - before[1],
    }


def live_through(seed: int) -> None:
    """Simulate a small world: a server is called from another node, killed, restarted, and called again."""
    with MemoryNetwork(seed, jitter=0.005, split=0.2, time="virtual") as network:
        one, other = network.node(), network.node()
        tree = Supervisor.start([Child(Counter, name="counter")], node=one)
        counter = Counter.at(f"{one.NODE()}#counter", node=other)
        assert counter.add(1) == 1
        one.kil(tree.which_children()[0]["port"], "crash")
        gevent.sleep(1.0)
        assert counter.add(1) == 1  # a new server counts from 0
        tree.stop()


def simulate(worlds: int) -> dict[str, float]:
    """Time schedules, each with a seed of its own."""
    live_through(0)  # warm up
    settle()
    began = clock()
    for seed in range(1, worlds + 1):
        live_through(seed)
    seconds = clock() - began
    return {"schedules": worlds, "seconds": seconds, "schedules a minute": worlds / seconds * 60}


def main() -> int:
    """Take the three figures, and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.otp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="pairs of calls (default 9)")
    parser.add_argument("--calls", type=int, default=20_000, help="calls of each side of a pair (default 20000)")
    parser.add_argument("--children", type=int, default=10_000, help="children that crash (default 10000)")
    parser.add_argument("--schedules", type=int, default=2_000, help="small worlds (default 2000)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each figure")
    options = parser.parse_args()
    logging.getLogger("aemp_gevent").setLevel(logging.CRITICAL)  # children crash all the time here
    for title, take in (
        ("calls", lambda: compare_calls(options.rounds, options.calls)),
        ("restarts", lambda: restart(options.children)),
        ("schedules", lambda: simulate(options.schedules)),
    ):
        figures = take()
        if options.json:
            print(json.dumps({"figure": title, **figures}), flush=True)
        else:
            print(f"{title}:", ", ".join(f"{name} {value:.5g}" for name, value in figures.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
