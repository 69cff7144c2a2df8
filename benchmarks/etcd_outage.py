# SPDX-License-Identifier: MIT
"""etcd is away for a while under load, and comes back: ``python -m benchmarks.etcd_outage --seconds 60``.

Node processes keep their directory in a real etcd, and set and delete entries all the time. Then etcd
is killed, or suspended, or killed and robbed of its data; later it runs again. Everybody watches
everybody: an entry that stays must never seem to be gone, and in the end all must see the same.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import gevent

from aemp_gevent.testing import NodeProcess, wait_until
from tests.support.etcd_server import EtcdServer

How = Literal["killed", "suspended", "emptied"]

WORK = """
import gevent

seen = {}
missed = []
guards = []

def watched(entries, added, changed, deleted):
    seen.clear()
    seen.update(entries)
    missed.extend(key for key in deleted if key.startswith("stays"))

guards.append(mp.db_mon("load", watched))
mp.db_set("load", f"stays/{me}", me)
count = 0
pause = 0.02
going_on = True

def work():
    global count
    while going_on:
        mp.db_set("load", f"counts/{me}", count)
        mp.db_set("load", f"comes/{me}/{count % 7}", count)
        mp.db_del("load", f"comes/{me}/{(count + 3) % 7}")
        count += 1
        gevent.sleep(pause)

worker = gevent.spawn(work)
"""


@dataclass
class Outage:
    """What happened. Times are seconds.

    Attributes:
        before: Changes a second that one node saw of another, before.
        back: From etcd's return until everybody saw a newer count of everybody living.
        gone: From etcd's return until all had seen that the node that was killed meanwhile is gone.
        missed: Entries that seemed to be gone although their node lived.
        agreed: Whether all saw the same in the end.
    """

    before: float
    back: float
    gone: float
    missed: list[str]
    agreed: bool


def run(folder: Path, how: How, seconds: float, *, nodes: int = 4, ttl: float = 3.0) -> Outage:
    """Stop etcd for some time, and measure what that does to the directory.

    Raises:
        AssertionError: It did not come right again.
    """
    with ExitStack() as stack:
        server = stack.enter_context(EtcdServer(folder))
        directory = f"etcd://{server.endpoint}/outage"
        settings: dict[str, Any] = {"directory": directory, "heartbeat_timeout": ttl}
        processes = [stack.enter_context(NodeProcess(**settings)) for _ in range(nodes)]
        for number, process in enumerate(processes):
            process.run(WORK, me=number)
        everybody = range(nodes)
        await_counts(processes, everybody, 20)
        before = rate(processes)

        if how == "suspended":
            server.stop()
        else:
            server.kill()
        began = monotonic()
        victim = processes.pop()
        victim.kill()
        while monotonic() - began < seconds:
            gevent.sleep(0.1)
        if how == "suspended":
            server.resume()
        else:
            server.restart(empty=how == "emptied")
        returned = monotonic()
        living = range(nodes - 1)
        await_counts(processes, living, max(process.run("count") for process in processes))
        back = monotonic() - returned
        wait_until(
            lambda: not any(process.run("set(seen)") & {f"stays/{nodes - 1}"} for process in processes), within=60
        )
        gone = monotonic() - returned
        for process in processes:
            process.run("going_on = False; worker.join()")
        copies: list[dict[str, Any]] = []

        def agree() -> bool:
            copies[:] = [process.run("dict(seen)") for process in processes]
            own = [process.run("{**mp.db_family('load')}") for process in processes]
            return all(copy == copies[0] for copy in [*copies, *own])

        wait_until(agree, within=60, show=lambda: copies)
        counts = {f"counts/{number}": process.run("count - 1") for number, process in enumerate(processes)}
        agreed = counts.items() <= copies[0].items()
        missed = [key for process in processes for key in process.run("missed") if key != f"stays/{nodes - 1}"]
        return Outage(before, back, gone, missed, agreed)


def await_counts(processes: list[NodeProcess], living: range, count: int) -> None:
    """Wait until everybody sees that everybody has counted so far."""
    wanted = {f"counts/{number}" for number in living}

    def lowest() -> int:
        copies: list[dict[str, Any]] = [process.run("dict(seen)") for process in processes]
        return min(int(copy.get(key, -1)) for copy in copies for key in wanted)

    wait_until(lambda: lowest() >= count, within=60, show=lowest)


def rate(processes: list[NodeProcess]) -> float:
    """Return how many changes a second one node sees of another."""
    begin, first = monotonic(), processes[0].run("seen['counts/1']")
    gevent.sleep(1.0)
    return float(3 * (processes[0].run("seen['counts/1']") - first) / (monotonic() - begin))


def main() -> None:
    """Do it in each of the three ways, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long etcd is away")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--ttl", type=float, default=15.0, help="heartbeat_timeout of the nodes")
    parser.add_argument("--how", choices=["killed", "suspended", "emptied"], action="append")
    options = parser.parse_args()
    ways: list[How] = options.how or ["killed", "suspended", "emptied"]
    for how in ways:
        with tempfile.TemporaryDirectory() as folder:
            print(f"etcd {how} for {options.seconds:g} s, {options.nodes} nodes, heartbeat_timeout {options.ttl:g} s:")
            print("  ", run(Path(folder), how, options.seconds, nodes=options.nodes, ttl=options.ttl), flush=True)


if __name__ == "__main__":
    main()
