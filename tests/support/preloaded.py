# SPDX-License-Identifier: MIT
"""Python processes that start in a tenth of the time: forked from one that has imported the library.

:class:`Popen` and :func:`run` stand in for those of :mod:`subprocess`. A command that begins with this interpreter goes
to a server, which forks; the child takes over arguments, folder, environment and file descriptors, and runs the
program as ``python`` would. It is a process of its own, but what it imports may be loaded already. What depends
on a fresh interpreter (import times, for instance) is tested with :mod:`subprocess`. A program whose text mentions
monkey-patching gets a fresh interpreter by itself, and so does one with options of the interpreter.

The server's children become ours as their parent ends (we are a *subreaper*, which only Linux has), so waiting, signals
and exit codes work as for any child. Elsewhere, and in patched runs, the processes are ordinary ones. Where coverage
measures them, it does so from the fork on: what runs at import is measured in the tests' own process.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gevent import monkey

_SERVER = Path(__file__).with_name("preloaded_server.py")
_PR_SET_CHILD_SUBREAPER = 36

_KEPT = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONIOENCODING"}
"""The interpreter's variables that a child can take over."""

_NOT_THE_SERVERS = ("PYTHON", "AEMP_", "COVERAGE_")
"""Variables that are set for the children alone."""

_OPTIONS = {"stdin", "stdout", "stderr", "cwd", "env", "pass_fds", "text", "encoding", "bufsize", "start_new_session"}
"""The arguments of :class:`subprocess.Popen` that are understood here."""


class _Server:
    """The process that forks."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._library = ctypes.CDLL(None)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            env = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_THE_SERVERS)}
            number = theirs.fileno()
            self._process = subprocess.Popen(  # ends when our side of the socket is closed
                [sys.executable, str(_SERVER), str(number)], pass_fds=(number,), stdin=subprocess.DEVNULL, env=env
            )
        atexit.register(self._end)

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Start a process and return its ID."""
        with self._lock:
            # Only while it is forked: other programs' orphans would stay as zombies of ours.
            self._adopt(True)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                answer = self._socket.recv(64)
            finally:
                self._adopt(False)
        if not answer:
            raise ChildProcessError("the server of preloaded processes has ended")
        pid: int = struct.unpack("=i", answer)[0]
        return pid

    def _end(self) -> None:
        if self.owner == os.getpid():
            self._socket.close()
            self._process.wait()

    def _adopt(self, orphans: bool) -> None:
        """Decide whether descendants whose parent has ended become our children."""
        self._library.prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


_server: _Server | None = None


def _get_server() -> _Server:
    global _server
    if _server is None or _server.owner != os.getpid():
        _server = _Server()
    return _server


def _is_possible(args: Any, options: Mapping[str, Any]) -> bool:
    if not sys.platform.startswith("linux") or monkey.is_module_patched("subprocess"):
        return False
    if not isinstance(args, (list, tuple)) or args[0] != sys.executable or not set(options) <= _OPTIONS:
        return False
    words = args[2:] if args[1] == "-u" else args[1:]
    variables = options.get("env") or os.environ
    if any(name.startswith(("PYTHON", "GEVENT")) and name not in _KEPT for name in variables):
        return False
    how = os.fspath(words[0])
    if how == "-m":
        return bool(words[1] != "gevent.monkey")
    if how != "-c" and how.startswith("-"):
        return False
    source: str = words[1] if how == "-c" else Path(options.get("cwd") or "", how).read_text()
    return "monkey" not in source  # patching comes before all other imports


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A process as of :class:`subprocess.Popen`, started fast if it can be."""

    def __init__(self, args: Any, **options: Any) -> None:
        self._options = options
        super().__init__(args, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        options = self._options
        if not _is_possible(args, options):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        _executable, _preexec, _close, pass_fds, cwd, env, _info, _flags, _shell = rest[:9]
        ends = p2cread, _p2cwrite, _c2pread, c2pwrite, _errread, errwrite = rest[9:15]
        passed = sorted(pass_fds)
        standard = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        request = {
            "args": [os.fspath(arg) for arg in args[1:]],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "pass_fds": passed,
            "new_session": bool(options.get("start_new_session")),
            "ignores_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        }
        self.pid = _get_server().start(request, [*standard, *passed])
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def run(
    args: Any,
    *,
    input: Any = None,  # noqa: A002  # as subprocess.run() calls it
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as :func:`subprocess.run` does."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done: subprocess.CompletedProcess[Any] = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
