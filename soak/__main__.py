# SPDX-License-Identifier: MIT
"""Run all soak tests at once, for ``make soak``: real processes and simulated networks."""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack


def main() -> int:
    """Run all of them; 1 when anything is wrong with one, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long things break (default 300)")
    parser.add_argument("--seed", type=int, help="of everything (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbits(16) if options.seed is None else options.seed
    print(f"{options.seconds:g} s with SEED={seed}", flush=True)
    # Seeds are counted up, so that runs of different seeds see different worlds.
    memory = [sys.executable, "-m", "soak.memory", "--first", str(1000 * seed), "--at-most", str(options.seconds)]
    processes = [sys.executable, "-m", "soak.processes", "--seed", str(seed), "--seconds", str(options.seconds)]
    directory = [sys.executable, "-m", "soak.directory", "--first", str(1000 * seed), "--seeds", "10000"]
    commands = [processes, memory, [*directory, "--at-most", str(options.seconds)]]
    with ExitStack() as stack:
        runs = [stack.enter_context(_start(command)) for command in commands]
        readers = stack.enter_context(ThreadPoolExecutor())
        try:
            # All at once: a process whose output is not read blocks as soon as it has written much.
            figures = list(readers.map(_pass_on, runs))
        finally:
            for each in runs:
                each.kill()
    is_good = not any(each.returncode for each in runs)
    print("GOOD" if is_good else "BAD", *figures, sep=" | ")
    return 0 if is_good else 1


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _pass_on(process: subprocess.Popen[str]) -> str:
    """Print what a process prints, but for the last line; wait for its end, and return that."""
    last = ""
    for line in process.stdout or ():
        print(last, end="", flush=True)
        last = line
    process.wait()
    return last.strip() or "no output"


if __name__ == "__main__":
    sys.exit(main())
