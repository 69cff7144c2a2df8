# SPDX-License-Identifier: MIT
"""Everything at once, as ``make soak`` has it: real processes, and simulated networks beside them."""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def main() -> int:
    """Run both; 1 when anything is wrong with either, else 0."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long things break (default 300)")
    parser.add_argument("--seed", type=int, help="of everything (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbits(16) if options.seed is None else options.seed
    print(f"{options.seconds:g} s with SEED={seed}", flush=True)
    # Seeds are counted up, so that runs of different seeds see different worlds.
    memory = [sys.executable, "-m", "soak.memory", "--first", str(1000 * seed), "--at-most", str(options.seconds)]
    processes = [sys.executable, "-m", "soak.processes", "--seed", str(seed), "--seconds", str(options.seconds)]
    with _start(processes) as one, _start(memory) as other, ThreadPoolExecutor() as readers:
        try:
            # Both at once: whoever is not read stands still as soon as it has much to say.
            figures = list(readers.map(_pass_on, (one, other)))
        finally:
            one.kill()
            other.kill()
    is_good = one.returncode == other.returncode == 0
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
    return last.strip() or "it said nothing"


if __name__ == "__main__":
    sys.exit(main())
