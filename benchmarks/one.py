# SPDX-License-Identifier: MIT
"""Run one program once, in this process, and print its figure as one JSON line: what the runner starts for each run.

``python -m benchmarks.one l1_local_cb ceiling deferred 200000`` is also the way to run it under a profiler.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys

from benchmarks.peer import LIMIT_SECONDS


def main(module: str, side: str, variant: str, n: str) -> None:
    """Run ``side`` (ours or ceiling) of a row module with ``n`` units of work."""
    signal.alarm(LIMIT_SECONDS)
    program = getattr(importlib.import_module(f"benchmarks.{module}"), side)
    print(json.dumps(program(int(n), variant)), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: python -m benchmarks.one MODULE ours|ceiling VARIANT N   (python -m benchmarks --list)")
    main(*sys.argv[1:])
