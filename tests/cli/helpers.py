# SPDX-License-Identifier: MIT
"""The ``aemp`` command as a process, with a profile file of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aemp_command.group import run_command
from tests.support import preloaded
from tests.support.helpers import without_standstills

ROOT = Path(__file__).parents[2]

AEMP = (sys.executable, "-m", "aemp_gevent.cli")


def hurried(*changes: str) -> tuple[str, ...]:
    """Return the command with other constants, such as ``"node_runner.JOIN_SECONDS = 0.5"``: for shorter waits."""
    modules = ", ".join({change.partition(".")[0]: None for change in changes})
    program = [f"from aemp_gevent.cli import {modules}", *changes, "from aemp_command import main", "main()"]
    return (sys.executable, "-c", "\n".join(program))


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has set up nothing but what is given here."""
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
    done = preloaded.run(
        [*AEMP, *args], env=environment(home, **(env or {})), capture_output=True, text=True, timeout=60, **options
    )
    if done.stderr:
        done.stderr = without_standstills(done.stderr)
    assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done


@contextmanager
def running(
    home: Path, *args: str, env: Mapping[str, str] | None = None, **options: Any
) -> Generator[subprocess.Popen[str], None, None]:
    """A command that runs until the block ends; the block reads its output."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with preloaded.Popen(
        [*AEMP, *args], env=environment(home, **(env or {})), text=True, **{**pipes, **options}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Result(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


class Command:
    """Runs commands in this process, which takes a hundredth of the time of a process of its own.

    Args:
        home: Where the profile file is.
        capsys: pytest's.
    """

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path = home / "config.json"
        self._capsys = capsys

    def __call__(self, *args: str, code: int = 0) -> Result:
        self._capsys.readouterr()
        found = run_command(args)
        out, err = self._capsys.readouterr()
        assert found == code, (args, found, out, err)
        return Result(found, out, err)

    @property
    def config(self) -> Any:
        """What the profile file says."""
        return json.loads(self._path.read_text())

    def refused(self, *args: str) -> str:
        """Return the one line that says why a command is wrong; it changed nothing."""
        before = self._path.read_bytes() if self._path.exists() else None
        result = self(*args, code=2)
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith("aemp")
        assert (self._path.read_bytes() if self._path.exists() else None) == before
        return result.err


class Liar:
    """A node that gives the answers that a test sets."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    _network = None

    def node_is_up(self, _node: str) -> bool:
        return True

    def call(self, _node: str, *_request: object, timeout: float) -> object:
        return self.answer
