# SPDX-License-Identifier: MIT
"""Try all targets for a while, one after the other, for ``make fuzz``; exit with 1 if a fault was found."""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import subprocess
import sys
from pathlib import Path

from fuzz.targets import CORPUS, TARGETS

FOUND = Path(".fuzz")
"""What atheris found worth keeping, and what broke a target: beside the repository's files, and not among them."""


def main() -> int:
    """Run each target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which (default: all of {', '.join(TARGETS)})")
    parser.add_argument("--seconds", type=float, default=600.0, help="for all together (default 600)")
    parser.add_argument("--seed", type=int, help="of chance (default: a new one)")
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    for name in targets:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}; there are {', '.join(TARGETS)}")
    engine = "atheris" if importlib.util.find_spec("atheris") else "chance"
    if engine == "chance":
        print("atheris is not installed: what is known is varied by chance alone")
    seed = secrets.randbits(31) if options.seed is None else options.seed
    seconds = options.seconds / len(targets)
    broken = [name for name in targets if _try(name, engine, seconds, seed)]
    print(f"BAD: {', '.join(broken)}; see {FOUND}" if broken else "GOOD")
    return 1 if broken else 0


def _try(name: str, engine: str, seconds: float, seed: int) -> int:
    print(f"== {name}: {seconds:g} s of {engine}, seed {seed}", flush=True)
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"fuzz.by_{engine}", name, str(folder)]
    if engine == "atheris":
        command += [str(CORPUS / name), f"-max_total_time={seconds:.0f}", f"-seed={seed}"]
    else:
        command += [str(seconds), str(seed)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
