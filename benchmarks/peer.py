# SPDX-License-Identifier: MIT
"""Start the second process of a network row and end it, whatever happens in between.

The peer is ``python -m benchmarks.peer MODULE SIDE VARIANT``. It prints one line, its address, when it is ready, and
exits when its standard input closes: the kernel closes that whichever way the driver dies, so no peer is left behind.
"""

from __future__ import annotations

import importlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

# Not resolved: where another revision of the library is measured, its folder has a link to these programs.
ROOT = Path(__file__).absolute().parent.parent
SECRET_VARIABLE = "AEMP_BENCHMARK_SECRET"
# A run takes seconds. A hung one must end by itself even when the runner that would have killed it is gone.
LIMIT_SECONDS = 180


@contextmanager
def peer(module: str, side: str, variant: str) -> Generator[str, None, None]:
    """Run the peer of ``module`` in a process of its own and yield its address. It inherits our CPU affinity."""
    secret()
    command = [sys.executable, "-m", "benchmarks.peer", module.removeprefix("benchmarks."), side, variant]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the peer of {module} ended before it was ready: see its traceback above")
        yield address
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def secret() -> str:
    """Return this run's secret: made by the driver, handed to its peer in the environment."""
    return os.environ.setdefault(SECRET_VARIABLE, secrets.token_hex(32))


def one_cpu() -> bool:
    """Pin this process, and the peers it starts from now on, to one CPU. False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return True


def main(module: str, side: str, variant: str) -> None:
    """Run the peer: serve, announce the address, stay until standard input closes."""
    from gevent.socket import wait_read

    signal.alarm(LIMIT_SECONDS)
    serve = getattr(importlib.import_module(f"benchmarks.{module}"), f"serve_{side}")
    print(serve(variant), flush=True)
    wait_read(sys.stdin.fileno())
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
