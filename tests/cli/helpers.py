# SPDX-License-Identifier: MIT
"""The ``aemp`` command as a process, with a profile file of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

AEMP = (sys.executable, "-m", "aemp_gevent.cli")


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has set up nothing but what is said here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AEMP_", "_AEMP"))}
    return {
        **kept,
        "HOME": str(home),
        "AEMP_CONFIG": str(home / "config.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "COLUMNS": "100",
        **variables,
    }


def aemp(
    home: Path, *args: str, check: bool = True, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*AEMP, *args], env=environment(home, **(env or {})), capture_output=True, text=True, timeout=60, **options
    )
    assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done


@contextmanager
def running(
    home: Path, *args: str, env: Mapping[str, str] | None = None, **options: Any
) -> Generator[subprocess.Popen[str], None, None]:
    """A command that goes on until the block ends; its output is for the block to read."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(
        [*AEMP, *args], env=environment(home, **(env or {})), text=True, **{**pipes, **options}
    ) as process:
        try:
            yield process
        finally:
            process.kill()
