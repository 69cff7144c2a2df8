# SPDX-License-Identifier: MIT
"""Run web servers under load, behind a real gunicorn: ``python -m soak.web chat``, ``restarts``, ``jobs``, ``rooms``.

``chat`` opens many streams of events over all workers, and some clients send messages. Every stream must
deliver every message, in the order in which its sender sent them. ``jobs`` sends requests for some time, of which some
take too long, while backends are killed. Only documented answers are allowed, and after a warm-up the workers' memory
and descriptors must not grow. ``rooms`` kills, replaces and ends the workers of a Socket.IO server with many clients
(:mod:`soak.socketio_crowd`).

The module is longer than 400 lines because the runs share the clients and the server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import signal
import socket as std_socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Generator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import gevent
from gevent import socket

from aemp_gevent.testing import wait_until

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SOCKETIO = ROOT / "tests" / "contrib" / "socketio_server"

PATIENCE = 30.0
"""Seconds that anything may take which takes a fraction of one on an idle machine."""

SENDERS = 4

_JOINED = re.compile(r"\[(\d+)\] \[INFO\] Joined as node (\S+)")


class Gunicorn:
    """A real gunicorn that serves an example, and its workers.

    Args:
        example: The example's folder.
        scratch: A folder for what it writes; its path must be short, as sockets are in it.
        options: Of its command line.
        workers: How many.
        address: Where to listen; None: on a Unix socket.
    """

    def __init__(
        self, example: Path, scratch: Path, *options: str, workers: int = 3, address: str | None = None
    ) -> None:
        self.address = address or str(scratch / "http")
        # Some gunicorns keep a socket in the home, too.
        own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "HOME": str(scratch), "AEMP_CONFIG": os.devnull}
        self.environ = {**os.environ, **own}
        self._log = scratch / "log"
        self._count = workers
        bind = address or f"unix:{self.address}"
        command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(workers), "-b", bind]
        self._command = [*command, *options, "app:app"]
        self._example = example
        self._process: subprocess.Popen[bytes] | None = None
        self._lives = -1  # the reading end of a pipe that all its processes hold open

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    @property
    def joined(self) -> dict[int, str]:
        """The node ID of each worker that there ever was, by its process ID."""
        return {int(pid): node for pid, node in _JOINED.findall(self.log)}

    @property
    def workers(self) -> dict[int, str]:
        """The node ID of each living worker that has joined, by its process ID."""
        return {pid: node for pid, node in self.joined.items() if _is_alive(pid)}

    @property
    def states(self) -> dict[int, str]:
        """What each worker does as the kernel sees it: its state, processor time in ticks, and what it waits in."""
        return {pid: _state_of(pid) for pid in self.workers}

    def __enter__(self) -> Gunicorn:
        with self._log.open("wb") as log:
            self._lives, inherited = os.pipe()
            self._process = subprocess.Popen(
                self._command,
                cwd=self._example,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[inherited],
            )
            os.close(inherited)
        try:
            self.wait_for_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        have_ended, _, _ = select.select([self._lives], [], [], PATIENCE)
        os.close(self._lives)
        assert have_ended, "workers live on after their master was killed"

    def wait_for_workers(self, *gone: int) -> None:
        """Wait until all workers serve, and those named are gone."""
        wait_until(
            lambda: len(self.workers) == self._count and not set(gone) & set(self.workers),
            within=PATIENCE,
            show=lambda: self.log,
        )

    @property
    def pid(self) -> int:
        """The process ID of its master."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send its master a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        process = self._process
        assert process is not None
        wait_until(lambda: process.poll() is not None, within=PATIENCE, show=lambda: self.log)
        return process.returncode

    def connect(self) -> HTTPConnection:
        """Return a connection, which is kept alive."""
        return WebConnection(self.address)


class WebConnection(HTTPConnection):
    """A client of gunicorn's, over a gevent socket."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        host, _, port = self._address.rpartition(":")
        # Neither asks a name service, which would be a thread's work.
        family = std_socket.AF_INET if host else std_socket.AF_UNIX
        self.sock = socket.socket(family, std_socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((host, int(port)) if host else self._address)

    def ask(self, method: str, path: str, **form: str) -> HTTPResponse:
        """Make a request, and return the answer, unread.

        Raises:
            OSError, HTTPException: There is none, because the worker ended.
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        self.request(method, path, urlencode(form) or None, headers)
        return self.getresponse()


class Stream:
    """A tab: reads server-sent events for as long as they come.

    Attributes:
        node: Which worker serves it.
        lines: The data of the events that came.
        ended: Whether no more will come.
    """

    def __init__(self, address: str) -> None:
        self.node = ""
        self.lines: list[Any] = []
        self.ended = False
        self._connection = WebConnection(address)
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        rest = b""
        try:
            with self._connection.ask("GET", "/events") as answer:
                while data := answer.read1(2**16):
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        self._take(event.decode())
        except (OSError, HTTPException):
            pass  # the worker was killed
        finally:
            self.ended = True
            self._connection.close()

    def _take(self, event: str) -> None:
        fields = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        if fields.get("event") == "node":
            self.node = fields["data"]
        elif "data" in fields:
            self.lines.append(json.loads(fields["data"]))

    def close(self) -> None:
        """Close the connection."""
        self._reader.kill()


class Returner:
    """A tab whose browser comes back a tenth of a second after a stream ended.

    Attributes:
        streams: How many streams began.
        cut: How many of them ended in the middle.
    """

    def __init__(self, address: str) -> None:
        self.streams = 0
        self.cut = 0
        self._address = address
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        while True:
            connection = WebConnection(self._address)
            try:
                with connection.ask("GET", "/events") as answer:
                    self.streams += 1
                    try:
                        answer.read()
                    except (OSError, HTTPException):
                        self.cut += 1
            except (OSError, HTTPException):
                pass  # nobody listens just now
            finally:
                connection.close()
            gevent.sleep(0.1)

    def close(self) -> None:
        """Close the connection."""
        self._reader.kill()


class ChatSender:
    """Says numbers into the chat, one after the other; after a lost connection under another name.

    Attributes:
        said: By name, how many numbers were accepted.
        cut: The names under which something was said whose worker died, so that nobody knows whether it was accepted.
    """

    def __init__(self, address: str, name: str) -> None:
        self.said: Counter[str] = Counter()
        self.cut: set[str] = set()
        self._address = address
        self._name = name
        self._connections = 0

    def say(self, count: int) -> None:
        """Send this many numbers."""
        connection: WebConnection | None = None
        name = ""
        for _ in range(count):
            if connection is None:
                connection = WebConnection(self._address)
                self._connections += 1
                name = f"{self._name}.{self._connections}"
            try:
                answer = connection.ask("POST", "/say", name=name, text=str(self.said[name]))
                answer.read()
                assert answer.status == 204, answer.status
                self.said[name] += 1
            except (OSError, HTTPException):
                self.cut.add(name)
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def heard_by(stream: Stream) -> defaultdict[str, list[int]]:
    """Return the numbers that came to a stream, by the sender's name."""
    heard: defaultdict[str, list[int]] = defaultdict(list)
    for name, text in stream.lines:
        heard[name].append(int(text))
    return heard


def faults(stream: Stream, senders: list[ChatSender]) -> dict[str, str]:
    """Return what a stream that was open all the time lacks, or has in another order, by the sender's name."""
    heard = heard_by(stream)
    found: dict[str, str] = {}
    for sender in senders:
        for name in {*sender.said, *sender.cut}:
            numbers = heard.pop(name, [])
            # A message to a worker that was killed before it answered may have got through.
            is_whole = len(numbers) - sender.said[name] in ({0, 1} if name in sender.cut else {0})
            if numbers != list(range(len(numbers))) or not is_whole:
                found[name] = f"{len(numbers)} of {sender.said[name]}: {numbers[:5]} … {numbers[-5:]}"
    return {**found, **dict.fromkeys(heard, "nobody said it")}


@contextlib.contextmanager
def tabs(address: str, count: int) -> Generator[list[Stream], None, None]:
    """Yield streams, all of them open."""
    streams = [Stream(address) for _ in range(count)]
    try:
        wait_until(
            lambda: all(stream.node for stream in streams),
            within=PATIENCE,
            show=lambda: sum(bool(stream.node) for stream in streams),
        )
        yield streams
    finally:
        for stream in streams:
            stream.close()


def chat(clients: int, messages: int, workers: int) -> str:
    """Check that all streams get all messages; return the measurements.

    Raises:
        AssertionError: Some do not; the text says what they lack.
    """
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        server = stack.enter_context(Gunicorn(EXAMPLES / "flask_chat", scratch, "--preload", workers=workers))
        streams = stack.enter_context(tabs(server.address, clients))
        senders = [ChatSender(server.address, f"sender{number}") for number in range(SENDERS)]
        began = monotonic()
        gevent.joinall([gevent.spawn(sender.say, messages // SENDERS) for sender in senders], raise_error=True)
        said = monotonic() - began
        total = sum(sender.said.total() for sender in senders)
        wait_until(
            lambda: all(len(stream.lines) >= total for stream in streams),
            within=10 * PATIENCE,
            show=lambda: [len(stream.lines) for stream in streams],
        )
        heard = monotonic() - began
        found = [faults(stream, senders) for stream in streams if faults(stream, senders)]
        assert not found, found[:3]
        spread = Counter(stream.node for stream in streams)
    return (
        f"{clients} streams over {workers} workers ({sorted(spread.values())}) heard {total} messages in order; "
        f"said in {said:.1f} s, heard by all after {heard:.1f} s"
    )


def restarts(clients: int, messages: int, workers: int) -> str:
    """Kill a worker, replace all of them, and end them, each while people talk; return what was seen.

    Raises:
        AssertionError: Somebody noticed who should not have, or lacks something, or a worker did not end in order.
    """
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        server = stack.enter_context(Gunicorn(EXAMPLES / "flask_chat", scratch, "--preload", workers=workers))
        for what in ("kill -9 of a worker", "SIGHUP", "SIGTERM"):
            streams = stack.enter_context(tabs(server.address, clients))
            senders = [ChatSender(server.address, f"{what} {number}") for number in range(SENDERS)]
            talking = [gevent.spawn(sender.say, messages // SENDERS) for sender in senders]
            wait_until(
                lambda: all(len(stream.lines) > messages // 4 for stream in streams),  # noqa: B023
                within=10 * PATIENCE,
                show=lambda: [len(stream.lines) for stream in streams],  # noqa: B023
            )
            former, (victim, node) = server.workers, max(server.workers.items())
            if what == "SIGHUP":
                server.signal(signal.SIGHUP)
                server.wait_for_workers(*former)
                node = ""
            elif what == "SIGTERM":
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
                node = ""
            else:
                os.kill(victim, signal.SIGKILL)
            gevent.joinall(talking, raise_error=True)
            concerned = [stream for stream in streams if node in ("", stream.node)]
            others = [stream for stream in streams if stream not in concerned]
            wait_until(lambda: all(stream.ended for stream in concerned), within=PATIENCE)  # noqa: B023
            wait_until(lambda: not any(faults(stream, senders) for stream in others), within=PATIENCE)  # noqa: B023
            assert not any(stream.ended for stream in others), "somebody noticed whose worker lived"
            for stream in concerned:  # it has the beginning of it all, without a hole
                for numbers in heard_by(stream).values():
                    assert numbers == list(range(len(numbers))), numbers
            total = sum(sender.said.total() for sender in senders)
            told.append(
                f"{what} after {len(concerned[0].lines)} messages: {len(concerned)} streams ended, none of them with "
                f"a hole; {len(others)} others heard all of {total} in order"
            )
            if what != "SIGTERM":
                server.wait_for_workers(victim)
        assert "graceful timeout" not in server.log, server.log
        assert "Traceback" not in server.log, server.log
        left = [path.name for path in scratch.glob("aemp-*/*/*")]
        assert not left, f"left behind: {left}"
    return "\n".join(told)


DOCUMENTED = {200, 502, 503}


def jobs(seconds: float, clients: int, workers: int) -> str:
    """Ask for jobs, kill a backend now and then, and see what is answered; return what was measured.

    Raises:
        AssertionError: An answer is not a documented one, or a worker grew.
    """
    answers: Counter[int] = Counter()
    with _scratch() as scratch, contextlib.ExitStack() as stack:
        server = stack.enter_context(Gunicorn(EXAMPLES / "job_backend", scratch, "--preload", workers=workers))
        backends = [stack.enter_context(Backend(server)) for _ in range(2)]

        def ask(until: float, slow: bool) -> None:
            connection = WebConnection(server.address)
            while monotonic() < until:
                answer = connection.ask("GET", "/factors/1001" + ("?seconds=2.5" if slow else ""))
                answer.read()
                answers[answer.status] += 1
            connection.close()

        def load(duration: float) -> None:
            until = monotonic() + duration
            asking = [gevent.spawn(ask, until, number == 0) for number in range(clients)]
            while monotonic() < until - duration / 3:
                gevent.sleep(duration / 3)
                backends[0].kill()
                backends[0] = stack.enter_context(Backend(server))
            gevent.joinall(asking, raise_error=True)
            # Or the clients' connections would be counted, of which each worker has as many as chance gives it.
            wait_until(lambda: not _connections(server.address), within=PATIENCE)

        load(max(seconds / 3, 3.0))
        before = {pid: _grown(pid) for pid in (*server.workers, backends[1].pid)}
        warmed_up = answers.copy()
        load(seconds)
        after = {pid: _grown(pid) for pid in before}
    undocumented = set(answers) - DOCUMENTED
    assert not undocumented, answers
    for pid, (count, kilobytes) in before.items():
        assert after[pid][0] <= count + 1, f"descriptors: {before} -> {after}"
        assert after[pid][1] <= kilobytes * 1.1 + 2048, f"memory, KiB: {before} -> {after}"
    asked = answers - warmed_up
    memory = {pid: after[pid][1] - before[pid][1] for pid in before}
    descriptors = {pid: after[pid][0] - before[pid][0] for pid in before}
    grown = f"descriptors {sorted(descriptors.values())}, memory {sorted(memory.values())} KiB"
    return (
        f"{asked.total()} requests in {seconds:g} s: {dict(asked)}; grown in {workers} workers and a backend: {grown}"
    )


class Backend:
    """A backend of the job example, which has joined."""

    def __init__(self, server: Gunicorn) -> None:
        self._environ = server.environ
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def __enter__(self) -> Backend:
        # Not a pipe: who waits for one blocks the loop, or has a thread do it.
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "backend.py"], cwd=EXAMPLES / "job_backend", env=self._environ, stdout=said
            )
            self.pid = self._process.pid
            try:
                wait_until(lambda: os.pread(said.fileno(), 100, 0).endswith(b"\n"), within=PATIENCE)
            except BaseException:
                self.__exit__()
                raise
        return self

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _state_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return f"{fields[0]}, {fields[11]} + {fields[12]} ticks, in {Path(f'/proc/{pid}/wchan').read_text()}"
    return "unknown"


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _connections(address: str) -> int:
    """Return how many connections a Unix socket that listens has accepted, and not closed yet."""
    rows = map(str.split, Path("/proc/net/unix").read_text().splitlines())
    return sum(row[-1] == address and row[5] == "03" for row in rows)


def _grown(pid: int) -> tuple[int, int]:
    """Return how many descriptors and how many KiB of memory a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return len(os.listdir(f"/proc/{pid}/fd")), int(resident[1]) if resident else 0  # noqa: PTH208


@contextlib.contextmanager
def _scratch() -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory(prefix="aw") as folder:
        yield Path(folder)


def rooms(clients: int, rooms: int, messages: int, workers: int) -> str:
    """Mistreat the workers of a Socket.IO server; return what was seen.

    Raises:
        AssertionError: Some client lacks something, or got it out of order.
    """
    with std_socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with _scratch() as scratch, Gunicorn(SOCKETIO, scratch, "--preload", workers=workers, address=address) as server:
        size = [f"--clients={clients}", f"--rooms={rooms}", f"--messages={messages}"]
        command = [sys.executable, "-m", "soak.socketio_crowd", address, str(server.pid), *size]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr + server.log
        assert server.wait() == 0
    return ran.stdout.strip()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m soak.web", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    chatting = commands.add_parser("chat")
    chatting.add_argument("--clients", type=int, default=200)
    chatting.add_argument("--messages", type=int, default=10_000)
    working = commands.add_parser("jobs")
    working.add_argument("--seconds", type=float, default=30.0)
    working.add_argument("--clients", type=int, default=10)
    restarting = commands.add_parser("restarts")
    restarting.add_argument("--clients", type=int, default=200)
    restarting.add_argument("--messages", type=int, default=2_000)
    entering = commands.add_parser("rooms")
    entering.add_argument("--clients", type=int, default=200)
    entering.add_argument("--rooms", type=int, default=50)
    entering.add_argument("--messages", type=int, default=20_000)
    for command in (chatting, working, restarting, entering):
        command.add_argument("--workers", type=int, default=3)
    args = vars(parser.parse_args())
    runs: dict[str, Callable[..., str]] = {"chat": chat, "jobs": jobs, "restarts": restarts, "rooms": rooms}
    print(runs[args.pop("what")](**args))


if __name__ == "__main__":
    main()
