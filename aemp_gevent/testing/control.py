# SPDX-License-Identifier: MIT
"""One run of the child program: the process, the channel to it, and what it prints.

:class:`~aemp_gevent.testing.NodeProcess` has one of these at a time;
:mod:`aemp_gevent.testing._child` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import gevent
from gevent import socket
from gevent.event import AsyncResult

from aemp_gevent.testing.channel import Channel
from aemp_gevent.testing.errors import NodeProcessError, NodeProcessTimeout
from aemp_gevent.testing.waiting import NotInTimeError, wait_until

START_SECONDS = 30.0
"""How long a process may take for what takes a fraction of a second, but on a busy machine."""

OUTPUT_BYTES = 64 * 1024
"""How much of what a process printed is kept within reach."""

_TAIL_BYTES = 2000
"""How much of it an error shows."""

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[2]) or sys.path
{patch}
from aemp_gevent.testing._child import main
main(int(sys.argv[1]))
"""

_PATCH = "from gevent import monkey; monkey.patch_all()"


class ControlledProcess:
    """A running child program; the constructor starts it, for there is nothing before that.

    Args:
        python: The interpreter. Our own finds the modules that we find.
        patched: Whether it monkey-patches everything first.
        env: Environment variables besides ours.
    """

    def __init__(self, python: str, patched: bool, env: Mapping[str, str]) -> None:
        # The same modules as here, however this program found them (pytest's pythonpath, for one); not by
        # PYTHONPATH, which programs that the node starts would inherit.
        path = [str(Path(entry).absolute()) for entry in sys.path] if python == sys.executable else []
        program = _PROGRAM.format(patch=_PATCH if patched else "")
        ours, theirs = socket.socketpair()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        try:
            # As this program has it, patched or not: gevent's own and the standard one take each other's
            # children away when both are in use.
            self._popen = subprocess.Popen(  # noqa: S603
                [python, "-u", "-c", program, str(theirs.fileno()), json.dumps(path)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **env},
            )
        except BaseException:
            ours.close()
            self._output.close()
            raise
        finally:
            theirs.close()
        self.pid: int = self._popen.pid
        self.last_output = ""
        self._channel = Channel(ours)
        self._asked: dict[int, AsyncResult[Any]] = {}
        self._count = 0
        self._reader = gevent.spawn(_read_replies, self._channel, self._asked)
        self._finalizer = weakref.finalize(self, _put_down, self._popen, os.getpid())

    def status(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._popen.poll()

    def is_stopped(self) -> bool:
        """Whether it is suspended."""
        return is_suspended(self.pid)

    def rss(self) -> int:
        """Return the bytes of memory in use."""
        statm = Path(f"/proc/{self.pid}/statm")
        if statm.exists():
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return int(_ps(self.pid, "rss")) * 1024

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout: float | None) -> int:
        """Wait for its end and return its exit status."""
        # Not Popen.wait(), which in an unpatched program stops everybody.
        try:
            wait_until(lambda: self.status() is not None, within=timeout)
        except NotInTimeError as error:
            text = f"process {self.pid} still runs after {error.waited:.1f} s{self._tail()}"
            raise NodeProcessTimeout(text) from None
        status = self.status()
        assert status is not None
        return status

    def send(self, number: int | None, code: str, names: bytes) -> None:
        """Send a command; without a number nobody waits for its end."""
        try:
            self._channel.send(number, code, names)
        except OSError as error:
            raise self.ended() from error

    def ask(self, code: str, names: bytes, timeout: float | None) -> list[Any]:
        """Send a command and wait for the answer."""
        self._count += 1
        number = self._count
        result = self._asked[number] = AsyncResult()
        patience = gevent.Timeout(timeout)
        try:
            with patience:
                self.send(number, code, names)
                reply: list[Any] | None = result.get()
        except gevent.Timeout as error:
            if error is not patience:
                raise
            text = f"process {self.pid} did not answer within {timeout} s; is it stopped, or waiting?{self._tail()}"
            raise NodeProcessTimeout(text) from None
        finally:
            self._asked.pop(number, None)
        if reply is None:
            raise self.ended()
        return reply

    def ended(self) -> NodeProcessError:
        """Return the error for requests to a process that is gone."""
        with contextlib.suppress(NodeProcessTimeout):
            self.wait(1.0)  # its channel closes a moment before its end
        status = self.status()
        how = "closed its channel" if status is None else f"ended with status {status}"
        return NodeProcessError(f"process {self.pid} has {how}{self._tail()}")

    def output(self, size: int) -> str:
        """Return the last of what it printed."""
        descriptor = self._output.fileno()
        end = os.fstat(descriptor).st_size
        # pread: the child writes where the shared file position is.
        return os.pread(descriptor, size, max(0, end - size)).decode("utf-8", "replace")

    def _tail(self) -> str:
        text = self.output(_TAIL_BYTES).rstrip()
        return f"\n--- the last it printed:\n{text}" if text else ""

    def close(self) -> None:
        """Kill it, wait until it is gone, and let go of everything."""
        try:
            self._popen.kill()
            self.wait(START_SECONDS)
        finally:
            self._finalizer.detach()
            self._reader.kill()
            self._channel.close()
            self.last_output = self.output(OUTPUT_BYTES)
            self._output.close()


def _read_replies(channel: Channel, asked: dict[int, AsyncResult[Any]]) -> None:
    """Hand replies to those that asked; None to all of them when the process is gone."""
    # No method: while this runs, nobody may be kept from being finalized.
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, *reply = channel.receive()
            result = asked.get(number)
            if result is not None:
                result.set(reply)
    for result in asked.values():
        result.set(None)


def _put_down(popen: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a process that nobody closed. In a fork of the program it belongs to somebody else."""
    if os.getpid() == owner:
        popen.kill()


def is_suspended(pid: int) -> bool:
    """Return whether all threads of a process are suspended.

    ``waitid()`` cannot tell: gevent's loop takes what it would report.
    """
    try:
        threads = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one of them has just ended
        return False
    # Behind the name, which is in parentheses and may hold anything.
    states = [text.rpartition(")")[2].strip() for text in threads] or [_ps(pid, "state")]
    return all(state[:1] in {"T", "t"} for state in states)


def _ps(pid: int, column: str) -> str:
    """Return the output of ``ps`` for a process, for systems without ``/proc``."""
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
