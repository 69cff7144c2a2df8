# SPDX-License-Identifier: MIT
"""Run the programs of a row in turn, each run in a fresh process, and take medians. Prints nothing."""

from __future__ import annotations

import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import beside_erlang, builds, others
from benchmarks.measure import Figure
from benchmarks.peer import LIMIT_SECONDS, ROOT
from benchmarks.quiet import LIMIT, TRIES, Others, wait_until_quiet
from benchmarks.rows import Row


@dataclass
class Program:
    """One side and variant of a row, and what its runs gave so far."""

    side: str
    variant: str
    runs: list[Figure] = field(default_factory=list)
    error: str = ""

    @property
    def skipped(self) -> str:
        """Why there is no figure although nothing failed, or ""."""
        return self.runs[0].get("skipped", "") if self.runs else ""

    def values(self, key: str) -> list[float]:
        """All runs' values of ``key`` (rate, seconds, bytes_each), in the order they were taken."""
        return [float(run[key]) for run in self.runs if key in run]  # type: ignore[literal-required]

    def median(self, key: str) -> float | None:
        """The median of ``values``, or None where the program has no such figure."""
        values = self.values(key)
        return statistics.median(values) if values else None


def measure(
    row: Row, sides: tuple[str, ...], repeat: int, scale: float, before: Path | None = None, *, quiet: bool = False
) -> Iterator[tuple[Program, Program]]:
    """Yield the row's pairs of programs after running each ``repeat`` times.

    They take turns: ours, its ceilings, ours, its ceilings … so that a slow minute of the machine slows both. A program
    that failed once is not run again.

    Args:
        row: What to run.
        sides: Which programs of the pairs to run.
        repeat: How often.
        scale: The share of the full work.
        before: A folder with another revision of the library: then ``ours`` is paired with that, and not with the
            ceilings.
        quiet: Take a run again if other processes disturbed it.
    """
    module = importlib.import_module(f"benchmarks.{row.module}")
    pairs = [(("ours", ours), ("ceiling", ceiling)) for ours, ceiling in module.COMPARISONS]
    if before is not None:
        pairs = [(ours, ("before", ours[1])) for ours in dict.fromkeys(pair[0] for pair in pairs)]
    else:
        pairs += [(ours, (builds.SIDE, ours[1])) for ours in dict.fromkeys(pair[0] for pair in pairs)]
        pairs += [(("ours", ours), ("erlang", theirs)) for ours, theirs in beside_erlang.PAIRS.get(row.name, ())]
        pairs += [(("ours", ours), (name, theirs)) for ours, name, theirs in others.PAIRS.get(row.name, ())]
    if not hasattr(module, "ceiling"):
        sides = tuple(side for side in sides if side != "ceiling")
    pairs = [pair for pair in pairs if pair[1][0] in sides] or [pair for pair in pairs if pair[1][0] == "ceiling"]
    programs = {each: Program(*each) for pair in pairs for each in pair}
    n = max(1, int(module.N * scale))
    for _ in range(repeat):
        for program in programs.values():
            if program.side in sides and not program.error and not program.skipped:
                take_run(row, program, n, before, quiet=quiet)
    for one, other in pairs:
        yield programs[one], programs[other]


def take_run(row: Row, program: Program, n: int, before: Path | None, *, quiet: bool) -> None:
    """Run a program, and add its figure: of several runs, if others disturb it, that which they disturbed least."""
    found: list[Figure] = []
    for _ in range(TRIES if quiet else 1):
        if quiet:
            wait_until_quiet()
        others_took = Others()
        figure = run_once(row, program, n, before)
        if figure is None:
            return
        share = others_took.share()
        if share is not None:
            figure["others"] = share
        found.append(figure)
        if figure.get("others", 0.0) <= LIMIT:
            break
    program.runs.append(min(found, key=lambda figure: figure.get("others", 0.0)))


def run_once(row: Row, program: Program, n: int, before: Path | None = None) -> Figure | None:
    """Run one program in a process group of its own and return its figure, or note why there is none."""
    side, folder = ("ours", before) if program.side == "before" else (program.side, ROOT)
    environment = None
    if side == builds.SIDE:
        side, environment = "ours", {**os.environ, **builds.ENVIRONMENT}
    if side == "erlang":
        what = ["beside_erlang", row.name]
    elif side in others.MODULES:
        what = ["one", f"others.{others.MODULES[side][1]}", row.name.lower()]
    else:
        what = ["one", row.module, side]
    command = [sys.executable, "-m", f"benchmarks.{what[0]}", *what[1:], program.variant, str(n)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS + 10)
    except BaseException as failure:
        # Not reaped yet, so the group's number is still its own; the peer is in the same group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(failure, subprocess.TimeoutExpired):
            raise
        program.error = f"no end within {LIMIT_SECONDS + 10} s"
        return None
    if process.returncode == 0 and out.strip():
        figure: Figure = json.loads(out.splitlines()[-1])
        return figure
    last = err.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
    program.error = last[0]
    sys.stderr.write(err)
    return None
