# SPDX-License-Identifier: MIT
"""Programs as real processes, driven by pipes; none is left over after a test, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.support import preloaded

EXAMPLES = Path(__file__).parents[2] / "examples"

PATIENCE = 20.0
"""Seconds to wait for what takes a fraction of one on an idle machine."""


class Program:
    """A running example. Its standard output and error are read together, by a thread, as they come."""

    def __init__(self, name: str, *args: str, cwd: Path | None = None, secret: str | None = "test") -> None:
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        environ.pop("AEMP_SECRET", None)
        if secret is not None:
            environ["AEMP_SECRET"] = secret
        self._popen = preloaded.Popen(
            [sys.executable, str(EXAMPLES / name), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environ,
        )
        self._output = b""
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        data = b"start"
        while data:
            data = self._popen.stdout.read1(65536)
            with self._changed:
                self._output += data
                self._ended = not data
                self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self._output.decode()

    def expect(self, text: str) -> str:
        """Wait until it has printed some text, and return what follows in that line."""
        deadline = monotonic() + PATIENCE
        with self._changed:
            while True:
                _, found, rest = self.output.partition(text)
                if found and ("\n" in rest or self._ended):
                    return rest.partition("\n")[0]
                assert not self._ended, f"ended without {text!r}; it printed:\n{self.output}"
                assert self._changed.wait(deadline - monotonic()), f"no {text!r} in time; it printed:\n{self.output}"

    def type(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def end_input(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()

    def wait(self) -> int:
        """Wait for its end and return its exit code; then the output is complete."""
        try:
            code = self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end; it printed:\n{self.output}")
        self._reader.join(PATIENCE)
        return code

    def clean_up(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join(PATIENCE)
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # something typed was never read
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Start examples by file name and arguments."""
    programs: list[Program] = []

    def start_program(*args: str, **kwargs: Path | str | None) -> Program:
        programs.append(Program(*args, **kwargs))  # type: ignore[arg-type]  # whatever Program takes
        return programs[-1]

    try:
        yield start_program
    finally:
        for program in reversed(programs):
            program.clean_up()
