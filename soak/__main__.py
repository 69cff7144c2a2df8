# SPDX-License-Identifier: MIT
"""Everything at once, as ``make soak`` has it: real processes, and simulated networks beside them."""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys


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
    with subprocess.Popen(memory, stdout=subprocess.PIPE, text=True) as beside:
        try:
            done = subprocess.run(processes, stdout=subprocess.PIPE, text=True)
            told, _ = beside.communicate()
        finally:
            beside.kill()
    outputs = [done.stdout.splitlines(), told.splitlines()]
    for output in outputs:
        print("\n".join(output[:-1]))
    is_good = done.returncode == beside.returncode == 0
    print("GOOD" if is_good else "BAD", *(output[-1] if output else "it said nothing" for output in outputs), sep=" | ")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
