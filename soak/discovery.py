# SPDX-License-Identifier: MIT
"""Many processes that find each other through two seeds: ``python -m soak.discovery``.

Named nodes, public ones and slaves are started in random order, each with a port in one
group. Everybody must come to know everybody; then both seeds are killed and started
again, and then some others are killed, whose ports must vanish from all lists.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import gevent.pool

from aemp_gevent.testing import NodeProcess, NotInTimeError, wait_until

GROUP = "everybody"

SETTINGS: dict[str, Any] = {"heartbeat_interval": 2.0, "heartbeat_timeout": 6.0, "monitor_timeout": 10.0}

AT_ONCE = 4
"""Processes that are started, or asked, at the same time; each start is a quarter of a second of a processor."""

FIND_SECONDS = 15.0
"""Until everybody knows everybody, from when the last one was started."""

HEAL_SECONDS = 30.0
"""The same from when the seeds are back: those who lost them may look for them only every so often."""

JOIN = f"""
port = mp.port(lambda *message: None)
mp.grp_reg({GROUP!r}, port)
mp.grp_get({GROUP!r})
port
"""

PEERS = f"sorted(mp.grp_get({GROUP!r}) or [])"


class Crowd:
    """The processes.

    Args:
        count: How many, the two seeds among them.
        seed: Of the dice.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.dice = random.Random(seed)  # no secret
        self.members: dict[NodeProcess, str] = {}
        """The living ones, and the port of each."""
        self.seeds: list[NodeProcess] = []
        self._count = count
        self._stack = ExitStack()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def start(self) -> float:
        """Start everybody in random order; return the seconds until the last was there."""
        began = monotonic()
        # The first must have an address before others can be given it; the second gets that of the first.
        first = self._start(NodeProcess("127.0.0.1:0", **SETTINGS))
        self.seeds = [first, self._start(NodeProcess("127.0.0.1:0", seeds=[first.node], **SETTINGS))]
        others = list(self._others())
        self.dice.shuffle(others)
        for _ in self._pool().imap_unordered(self._start, others):
            pass
        for seed in self.seeds:
            self.members[seed] = seed.run(JOIN)
        return monotonic() - began

    def _others(self) -> Iterator[NodeProcess]:
        masters = [seed.node for seed in self.seeds]
        for number in range(self._count - len(masters)):
            self.dice.shuffle(masters)
            seeds = list(masters)
            kind = number % 4
            if kind in (0, 1):
                yield NodeProcess(nodeid=f"worker-{number}", binds=["127.0.0.1:0"], seeds=seeds, **SETTINGS)
            elif kind == 2:
                yield NodeProcess("127.0.0.1:0", seeds=seeds, **SETTINGS)
            else:
                yield NodeProcess(f"slave/desk-{number}", seeds=seeds, **SETTINGS)

    def _start(self, process: NodeProcess) -> NodeProcess:
        self._stack.enter_context(process)
        if len(self.seeds) == 2:
            self.members[process] = process.run(JOIN)
        return process

    @staticmethod
    def _pool() -> gevent.pool.Pool:
        return gevent.pool.Pool(AT_ONCE)

    def wait_until_all_know_all(self, within: float) -> float:
        """Wait until the group is the same everywhere, and right; return the seconds that took.

        Raises:
            NotInTimeError: It took longer; the text says who knows too few or too many.
        """
        began = monotonic()
        wait_until(lambda: not self.wrong(), within=within, show=self._describe)
        return monotonic() - began

    def wrong(self) -> dict[NodeProcess, tuple[list[str], list[str]]]:
        """Return who does not know everybody: the ports missing, and those too many."""
        expected = set(self.members.values())

        def ask(process: NodeProcess) -> tuple[NodeProcess, list[str], list[str]]:
            known = set(process.run(PEERS))
            return process, sorted(expected - known), sorted(known - expected)

        answers = self._pool().map(ask, list(self.members))
        return {process: (missing, surplus) for process, missing, surplus in answers if missing or surplus}

    def _describe(self) -> str:
        return "; ".join(
            f"{process!r} misses {missing[:3]} ({len(missing)}), has {surplus[:3]} ({len(surplus)}) too many"
            for process, (missing, surplus) in list(self.wrong().items())[:5]
        )

    def restart_seeds(self) -> None:
        """Kill both seeds, so that for a while there is none, and start them again."""
        for seed in self.seeds:
            seed.kill()
        for seed in self.seeds:
            seed.restart()
            self.members[seed] = seed.run(JOIN)

    def kill_some(self, count: int) -> None:
        """Kill some nodes that are not seeds."""
        for victim in self.dice.sample([one for one in self.members if one not in self.seeds], count):
            victim.kill()
            del self.members[victim]

    def links(self) -> list[int]:
        """Return the number of links of each node that is not a seed."""
        others = [process for process in self.members if process not in self.seeds]
        return [process.run("len(mp.up_nodes())") for process in others]


def run(count: int, seed: int) -> bool:
    """Run it all, printing what is seen; return whether everything came in time."""
    print(f"{count} processes, SEED={seed}", flush=True)
    with Crowd(count, seed) as crowd:
        try:
            print(f"all started in {crowd.start():.1f} s", flush=True)
            print(f"all know all {crowd.wait_until_all_know_all(FIND_SECONDS):.1f} s later", flush=True)
            links = crowd.links()
            print(f"links of nodes that are not seeds: {min(links)} to {max(links)}", flush=True)
            crowd.restart_seeds()
            print(f"healed {crowd.wait_until_all_know_all(HEAL_SECONDS):.1f} s after both seeds were back", flush=True)
            crowd.kill_some(max(1, count // 8))
            within = SETTINGS["heartbeat_timeout"]
            print(f"the killed are forgotten {crowd.wait_until_all_know_all(within):.1f} s later", flush=True)
        except NotInTimeError as error:
            print(error)
            return False
    return True


def main() -> int:
    """Run what the arguments ask for; 1 when anything came too late, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak.discovery", description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="how many processes (default 40)")
    parser.add_argument("--seed", type=int, help="of everything that chance decides (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbits(16) if options.seed is None else options.seed
    return 0 if run(options.count, seed) else 1


if __name__ == "__main__":
    sys.exit(main())
