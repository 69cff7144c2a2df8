# SPDX-License-Identifier: MIT
"""Run real node processes behind proxies, and break them at random: ``python -m soak.processes``.

The ports of five processes monitor each other, send numbered messages and spawn. Meanwhile
the processes are killed and restarted, stopped, cut off, slowed down, and silenced in one
direction, depending on a seed. At the end all faults are healed, and when the nodes have come to rest, their
logs are checked (:mod:`soak.checker`); nothing may be left over.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import gevent.pool

from aemp_gevent.testing import NodeProcess, NodeProcessError, Proxy
from aemp_gevent.testing.proxy import Direction
from soak.checker import Event, Received, Sent, Stopped, Violation, check
from soak.node import decode, encode

NODES = 5
TALKERS = 6
PAUSE = 0.03
"""Seconds between two acts of a talker, on average."""

SETTINGS: dict[str, Any] = {
    "heartbeat_interval": 0.5,
    "heartbeat_timeout": 2.0,
    "handshake_timeout": 2.0,
    "monitor_timeout": 4.0,
    "high_water_bytes": 64 * 1024,
}

LONGEST_FAULT = 4.0
"""Seconds; about half of all faults outlast ``heartbeat_timeout``."""

WITHIN = SETTINGS["heartbeat_timeout"] + SETTINGS["monitor_timeout"] + LONGEST_FAULT + 4.0
"""Seconds until a monitor has fired: who monitors may be stopped itself; and something for a busy machine."""

SILENCE_SLACK = 4.0
"""Seconds that noticing a silent process may take beside ``heartbeat_timeout``: two beats, on a busy machine."""

REST_SECONDS = 40.0
MAX_RSS = 200 * 2**20
EXCHANGE_SECONDS = 0.3
PROGRESS_SECONDS = 10.0
END_OF_LOG = 30


class NodeMember:
    """A node, the proxy before it, and the logs of its incarnations."""

    def __init__(self, name: str, folder: Path, seed: str) -> None:
        self.name = name
        self.proxy = Proxy(seed=f"{seed} {name}")
        self.process = NodeProcess()
        self.logs: list[Path] = []
        self.ports: list[str] = []
        self.is_up = False
        self.is_broken = False
        """Whether a fault is under way: one at a time."""
        self.descriptors = 0
        self.largest_rss = 0
        self._folder = folder
        self._seed = seed

    def start(self) -> None:
        """Start the process, whose node does not send yet."""
        self.proxy.start()
        self.process = NodeProcess(nodeid=self.proxy.address, binds=["127.0.0.1:0"], **SETTINGS)
        self.process.start()
        self.proxy.target = self.process.listens[0]

    def begin(self, nodes: list[str]) -> None:
        """Start its talkers."""
        self.descriptors = self.process.descriptors()
        log = self._folder / f"{self.name}.{len(self.logs)}"
        self.logs.append(log)
        code = "from soak import node as soak_node; soak_node.begin(seed, log, nodes, talkers, pause)"
        seed = f"{self._seed} {log.name}"
        self.process.run(code, seed=seed, log=str(log), nodes=nodes, talkers=TALKERS, pause=PAUSE)
        self.is_up = True

    def kill(self) -> None:
        """Kill it, and say so in its log."""
        self.is_up = False
        self.ports = []
        self.process.kill()
        with self.logs[-1].open("ab") as log:
            # What it was writing is there as a whole: a line is one call.
            log.write(encode(Stopped(monotonic(), self.process.node)))

    def call(self, code: str, **names: Any) -> Any:
        """Call something in :mod:`soak.node`."""
        return self.process.run(f"soak_node.{code}", **names)

    def close(self) -> None:
        """Remove everything that it left."""
        self.process.close()
        self.proxy.close()


class Run:
    """All of them, from start to end.

    Args:
        seed: Of all that chance decides here. How the processes are scheduled is the machine's affair.
        seconds: How long things break.
        folder: For the logs.
    """

    def __init__(self, seed: int, seconds: float, folder: Path) -> None:
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.violations: list[Violation] = []
        self.logs: dict[str, list[Event]] = {}
        self.waited = 0.0
        self._seconds = seconds
        self._dice = random.Random(seed)
        self._read: Counter[Path] = Counter()  # bytes of each log that are in self.logs
        self.members = [NodeMember(f"node{number}", folder, str(seed)) for number in range(NODES)]
        self._pool = gevent.pool.Group()

    @property
    def nodes(self) -> list[str]:
        return [member.process.node for member in self.members]

    def run(self) -> None:
        """Start, break, heal, rest, check, end."""
        try:
            for member in self.members:
                member.start()
            for member in self.members:
                member.begin(self.nodes)
            exchange = gevent.spawn(self._exchange)
            self._break_things()
            self._pool.join()  # each fault heals itself
            self._be_silent()
            self._rest()
            exchange.kill()
            self._check()
            self._end()
        finally:
            self._pool.kill()
            for member in self.members:
                member.close()

    def _exchange(self) -> None:
        """Exchange the ports of all processes, and watch their memory."""
        while True:
            gevent.sleep(EXCHANGE_SECONDS)
            for member in self.members:
                if not member.is_up:
                    continue
                others = [port for other in self.members if other is not member for port in other.ports]
                # It may be stopped, or killed meanwhile.
                with contextlib.suppress(NodeProcessError):
                    rss = member.process.rss()
                    member.largest_rss = max(member.largest_rss, rss)
                    if rss > MAX_RSS:
                        self.problems.append(f"{member.name} has {rss / 2**20:.0f} MiB in memory")
                    member.ports = member.process.run("soak_node.exchange(ports)", ports=others, timeout=0.5)

    # --- breaking ---

    def _break_things(self) -> None:
        faults: dict[Callable[[NodeMember, float], None], int] = {
            self._kill: 3,
            self._stop: 3,
            self._cut: 4,
            self._reset_one: 4,
            self._delay: 3,
            self._throttle: 1,
            self._blackhole: 4,
            self._refuse: 1,
        }
        start = monotonic()
        told = start
        while monotonic() < start + self._seconds:
            gevent.sleep(self._dice.uniform(0.1, 1.0))
            (fault,) = self._dice.choices(list(faults), list(faults.values()))
            member = self._dice.choice(self.members)
            seconds = self._dice.uniform(0.1, LONGEST_FAULT)
            if not member.is_broken:
                member.is_broken = True
                self.faults[fault.__name__.strip("_")] += 1
                self._pool.spawn(self._break, fault, member, seconds)
            if monotonic() > told + PROGRESS_SECONDS:
                told = monotonic()
                print(f"  {told - start:.0f} s of {self._seconds:.0f}: {self.faults.total()} faults", flush=True)

    def _break(self, fault: Callable[[NodeMember, float], None], member: NodeMember, seconds: float) -> None:
        try:
            fault(member, seconds)
            member.proxy.heal()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what we look for
            self.problems.append(f"{fault.__name__} of {member.name}: {error!r}")
        finally:
            member.is_broken = False

    def _kill(self, member: NodeMember, seconds: float) -> None:
        member.kill()
        gevent.sleep(seconds / 2)
        member.process.restart()
        member.begin(self.nodes)

    def _stop(self, member: NodeMember, seconds: float) -> None:
        member.process.stop()
        gevent.sleep(seconds)
        member.process.resume()

    def _some_node(self, member: NodeMember) -> str:
        return self._dice.choice([node for node in self.nodes if node != member.process.node])

    def _cut(self, member: NodeMember, _seconds: float) -> None:
        member.proxy.cut(after=self._dice.choice([None, self._dice.randint(0, 20_000)]))
        gevent.sleep(0.5)

    def _reset_one(self, member: NodeMember, _seconds: float) -> None:
        member.proxy.reset(nodes=self._some_node(member))
        gevent.sleep(0.2)

    def _delay(self, member: NodeMember, seconds: float) -> None:
        member.proxy.delay(self._dice.uniform(0.01, 0.3), jitter=0.1)
        gevent.sleep(seconds)

    def _throttle(self, member: NodeMember, seconds: float) -> None:
        member.proxy.throttle(self._dice.uniform(20_000, 200_000))
        gevent.sleep(seconds)

    def _blackhole(self, member: NodeMember, seconds: float) -> None:
        direction: Direction = self._dice.choice(["in", "out", "both"])
        nodes = self._dice.choice([None, self._some_node(member)])
        member.proxy.blackhole(direction, swallow=self._dice.random() < 0.5, nodes=nodes)
        gevent.sleep(seconds)

    def _refuse(self, member: NodeMember, seconds: float) -> None:
        member.proxy.refuse()
        member.proxy.cut()
        gevent.sleep(seconds)

    def _be_silent(self) -> None:
        """Stop one process for longer than any fault lasts: silence that ends by itself costs nobody a message."""
        silent = self._dice.choice(self.members)
        linked = [member for member in self.members if silent.process.node in member.call("up_nodes()")]
        silent.process.stop()
        deadline = monotonic() + SETTINGS["heartbeat_timeout"] + SILENCE_SLACK
        while linked and monotonic() < deadline:
            gevent.sleep(0.1)
            linked = [member for member in linked if silent.process.node in member.call("up_nodes()")]
        silent.process.resume()
        self.problems += [f"{member.name} did not notice the silence of {silent.name}" for member in linked]

    # --- resting ---

    def _rest(self) -> None:
        print("  healed; waiting for rest", flush=True)
        for member in self.members:
            member.call("rest()")
        began = monotonic()
        while monotonic() < began + REST_SECONDS:
            # Every node hears of the next one, whatever became of their link before.
            for member, successor in zip(self.members, [*self.members[1:], self.members[0]], strict=True):
                ports = [port for port in successor.ports if port.startswith(successor.process.node + "#")]
                if ports:
                    member.call("watch(target)", target=ports[0])
                member.call("call_for_orphans()")
            gevent.sleep(0.3)
            self._read_logs()
            if not any(self._unfinished()) and not check(self.logs, within=WITHIN, until=float("inf")):
                break
        self.waited = monotonic() - began

    def _read_logs(self) -> None:
        for member in self.members:
            for path in member.logs:
                with path.open("rb") as log:
                    log.seek(self._read[path])
                    for line in log:
                        if line.endswith(b"\n"):
                            self.logs.setdefault(path.name, []).append(decode(line))
                            self._read[path] += len(line)

    def _unfinished(self) -> Iterator[str]:
        """Yield what is still to arrive, or to be reported."""
        arrived = Counter(
            (event.sender, event.port, event.session)
            for log in self.logs.values()
            for event in log
            if isinstance(event, Received)
        )
        for member in self.members:
            for watcher, target, session, sent in member.call("sessions()"):
                if arrived[watcher, target, session] != sent:
                    yield f"{watcher} to {target}: {arrived[watcher, target, session]} of {sent} arrived"

    def _check(self) -> None:
        self._read_logs()
        self.violations = check(self.logs, within=WITHIN, until=float("inf"))
        self.problems += [f"a watched pair cannot talk: {text}" for text in self._unfinished()]

    def _end(self) -> None:
        """Shut the nodes down, and see what is left."""
        for member in self.members:
            ports, greenlets = member.process.run("soak_node.end(5)", timeout=20)
            descriptors = member.process.descriptors()
            if ports or greenlets:
                self.problems.append(f"{member.name} has {ports} ports and {greenlets} greenlets left over")
            if descriptors > member.descriptors + 1:  # its log
                self.problems.append(f"{member.name} had {member.descriptors} descriptors, and now {descriptors}")

    # --- telling ---

    def count(self, kind: type[Any]) -> int:
        """Return how many events of a kind were logged."""
        return sum(isinstance(event, kind) for log in self.logs.values() for event in log)

    def report(self) -> Iterator[str]:
        """Yield what is wrong, and the parts of the logs that show it."""
        yield from (f"  {problem}" for problem in dict.fromkeys(self.problems))
        yield from (f"  {violation}" for violation in self.violations[:10])
        for violation in self.violations[:2]:
            for name in violation.logs:
                yield f"  {name} around the {violation.rule}:"
                place = sum(event.at <= violation.at for event in self.logs[name])
                for event in self.logs[name][max(0, place - END_OF_LOG) : place + END_OF_LOG]:
                    yield f"    {event}"

    def __str__(self) -> str:
        rss = max(member.largest_rss for member in self.members) / 2**20
        faults = ", ".join(f"{count} {name}" for name, count in self.faults.most_common())
        return (
            f"processes: seed {self.seed}, {len(self.violations)} violations, {len(self.problems)} problems; "
            f"{self.count(Sent)} sent, {self.count(Received)} received; faults: {faults}; "
            f"largest {rss:.0f} MiB; {self.waited:.1f} s to rest"
        )


def main() -> int:
    """Run what the arguments ask for; 1 when anything is wrong, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak.processes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long things break (default 300)")
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one)")
    parser.add_argument("--keep", type=Path, help="a folder where the logs are kept")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(seed, options.seconds, folder)
        run.run()
        is_good = not (run.problems or run.violations)
        if not is_good:
            print("\n".join(run.report()))
            for member in run.members:
                print(f"  output of {member.name}: …{member.process.output[-2000:]}")
    print(run)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
