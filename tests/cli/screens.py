# SPDX-License-Identifier: MIT
"""Commands on a terminal: what is on the screen, and keys."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pexpect
import pyte

from tests.cli.helpers import AEMP
from tests.cli.networks import PATIENCE, Network

LINES, COLUMNS = 24, 110


class Terminal:
    """A terminal in which a command runs.

    Args:
        child: The command.
    """

    def __init__(self, child: pexpect.spawn) -> None:
        self.child = child
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)
        self.shown_before = ""

    def lines(self) -> list[str]:
        """What is on the screen now."""
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            while True:
                self._stream.feed(self.child.read_nonblocking(65536, timeout=0.1))
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines())


@contextlib.contextmanager
def terminal(network: Network, *args: str, **variables: str) -> Generator[Terminal, None, None]:
    """Run a command on a terminal of its own; it is ended with the block."""
    env = {**network.environment(), "TERM": "xterm", "PYTHON_COLORS": "0", **variables}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        env.pop(name, None)
    command, *words = [*AEMP, *args]
    child = pexpect.spawn(
        command,
        words,
        env=env,
        cwd=str(network.home),
        dimensions=(LINES, COLUMNS),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    try:
        yield Terminal(child)
    finally:
        child.close(force=True)
