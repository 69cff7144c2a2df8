# SPDX-License-Identifier: MIT
"""What figures mean nothing without: the machine, and the versions of everything that was measured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks import beside_erlang, builds, others
from benchmarks.peer import ROOT


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cpus() -> int | None:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def library(*, both: bool = False) -> str:
    """Return which library the programs import: its git revision and how it was built; ``both`` is for two builds."""
    if not importlib.util.find_spec("aemp_gevent"):
        return "not importable"
    look = "import aemp_gevent; print('compiled' if getattr(aemp_gevent, 'is_compiled', False) else 'pure Python')"
    build = _output(sys.executable, "-c", look)
    return f"{_output('git', 'describe', '--always', '--dirty')} {build}{' and compiled' if both else ''}".strip()


def describe(sides: tuple[str, ...]) -> dict[str, str | int | None]:
    """Return the machine, and the versions of what takes part."""
    packages = ["gevent", "greenlet", "msgpack", *(others.MODULES[side][0] for side in sides if side in others.MODULES)]
    names = {"zmq": "pyzmq"}
    found: dict[str, str | int | None] = {
        "cpu": cpu(),
        "cpus": usable_cpus(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "aemp_gevent": library(both=builds.SIDE in sides),
    }
    found |= {name: importlib.metadata.version(name) for name in (names.get(each, each) for each in packages)}
    if "erlang" in sides:
        found["erlang"] = f"OTP {beside_erlang.version()}"
    return found


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
