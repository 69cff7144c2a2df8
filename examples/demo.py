# SPDX-License-Identifier: MIT
"""See the library at a glance: four processes chat, count words, monitor each other, and die.

    make demo
    make demo INPUT=file

It starts a server and three clients (demo_node.py), each a node in a process of its own. They send messages of
every type to each other, and count the words of a text. Then one client is
killed with SIGKILL, another by an exception, and their monitors report it. All events are printed
in chronological order, and checked; the exit code is 0 if everything was correct.

This script itself is not a node: it starts and kills processes, prints events, and compares results.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import secrets
import signal
import sys
from collections import Counter, defaultdict
from io import TextIOWrapper
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.subprocess import PIPE, Popen

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"

DEADLINE_SECONDS = 10.0
CLIENTS = ("anna", "ben", "cleo")


class DemoError(Exception):
    """Something differed from what the library guarantees."""


class Transcript:
    """Print the events of several processes in chronological order.

    A line is printed once every living process has reported a later time, because no
    earlier event can arrive then. (All processes of a host have the same monotonic clock.)
    """

    def __init__(self) -> None:
        self._start = monotonic()
        self._lines: list[tuple[float, str, str]] = []
        self._got_to: dict[str, float] = {}

    def begin(self, who: str) -> None:
        self._got_to[who] = monotonic()

    def add(self, when: float, who: str, what: str) -> None:
        if who in self._got_to:
            self._got_to[who] = when
        if what:
            heapq.heappush(self._lines, (when, who, what))
        self._print_settled()

    def end(self, who: str) -> None:
        self._got_to.pop(who, None)
        self._print_settled()

    def _print_settled(self) -> None:
        settled = min(self._got_to.values(), default=float("inf"))
        while self._lines and self._lines[0][0] <= settled:
            when, who, what = heapq.heappop(self._lines)
            print(f"{when - self._start:7.3f} s  {who:<6}  {what}", flush=True)


class Process:
    """A process of the demo, and the facts that it reported."""

    def __init__(self, transcript: Transcript, failure: AsyncResult[str], name: str, *args: str) -> None:
        self.name = name
        self._failure = failure
        self._is_killed = False
        self._transcript = transcript
        self._facts: defaultdict[str, AsyncResult[Any]] = defaultdict(AsyncResult)  # Any: all values of JSON
        transcript.begin(name)
        # In a session of its own, so that Ctrl-C reaches this script only, which then cleans up.
        self._popen = Popen(
            [sys.executable, str(HERE / "demo_node.py"), name, *args], stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        transcript.add(monotonic(), "demo", f"starts {name}, process {self._popen.pid}")
        self._listener = gevent.spawn(self._listen)

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            told = json.loads(line)
            self._transcript.add(told["when"], told["who"], told["what"])
            for key, value in told["facts"].items():
                self._facts[key].set(value)
        self._transcript.end(self.name)
        code = self._popen.wait()
        if code and not self._is_killed:
            self._failure.set(f"{self.name} ended with exit code {code}")

    def fact(self, key: str) -> Any:
        """Wait until this process reports a fact, and return it.

        Raises:
            DemoError: The process ended before, or another one failed.
        """
        fact = self._facts[key]
        # Any: the stubs find no common type for what can be waited for.
        either: list[Any] = [fact, self._listener, self._failure]
        gevent.wait(either, count=1)
        if not fact.ready():
            raise DemoError(
                self._failure.get() if self._failure.ready() else f"{self.name} ended before it told: {key}"
            )
        return fact.get()

    def kill(self) -> None:
        self._is_killed = True
        self._transcript.add(monotonic(), "demo", f"kills {self.name}, process {self._popen.pid}, with SIGKILL")
        self._popen.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the process's end, and return its exit code."""
        self._listener.get()
        return int(self._popen.wait())

    def clean_up(self) -> None:
        """Make sure that the process is gone. May be called at any time."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._listener.join()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


def check(condition: bool, otherwise: str) -> None:
    """Make the demo fail unless a condition holds."""
    if not condition:
        raise DemoError(otherwise)


def play(processes: dict[str, Process], path: Path, local_count: Counter[str]) -> None:
    """Run the demo, and check all of it.

    Args:
        processes: A list to which each started process is added, for cleaning up.
        path: The text whose words are counted.
        local_count: The expected result.
    """
    transcript = Transcript()
    failure: AsyncResult[str] = AsyncResult()
    processes["server"] = server = Process(transcript, failure, "server", str(path))
    address = server.fact("node")
    for name in CLIENTS:
        processes[name] = Process(transcript, failure, name, address)
    anna, ben, cleo = (processes[name] for name in CLIENTS)

    wrong = server.fact("wrong")
    check(not wrong, f"heard otherwise than said: {', '.join(wrong)}")
    totals = Counter(server.fact("totals"))
    check(totals == local_count, f"the nodes counted {totals.total()} words, this script {local_count.total()}")

    anna.kill()
    for witness in (server, ben, cleo):
        reason = witness.fact("death of anna")
        check(reason[:2] == ["transport_error", anna.fact("node")], f"{witness.name} says that anna died of {reason}")
    for witness in (server, ben):
        reason = witness.fact("death of cleo")
        check(reason == ["die", "ZeroDivisionError: division by zero"], f"{witness.name} says cleo died of {reason}")
    reason = server.fact("death of ben")
    check(reason == [], f"the server says that ben died of {reason}, and not in order")

    codes = {name: process.wait() for name, process in processes.items()}
    expected = {"server": 0, "anna": -signal.SIGKILL, "ben": 0, "cleo": 0}
    check(codes == expected, f"the exit codes are {codes}")


def print_totals(path: Path, totals: Counter[str]) -> None:
    """Print the most common words."""
    print(f"\nThe words of {path}, counted by three nodes and, with the same result, by this script:")
    for word, count in totals.most_common(10):
        print(f"{count:8}  {word}")
    print(f"{totals.total():8}  in total")


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description="Watch four processes chat, count words, monitor each other and die.")
    parser.add_argument(
        "--input", type=Path, default=README, metavar="FILE", help="the text to count (default: README.md)"
    )
    path = parser.parse_args().input.absolute()
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        print(f"demo: cannot read {path}: {error.strerror or error}", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show a snowman
    local_count = Counter(re.findall(r"\w+", text.lower()))

    os.environ["AEMP_SECRET"] = secrets.token_urlsafe(32)  # for this run, and the processes it starts
    start = monotonic()
    processes: dict[str, Process] = {}
    try:
        with gevent.Timeout(DEADLINE_SECONDS, DemoError(f"it takes longer than {DEADLINE_SECONDS:g} seconds")):
            play(processes, path, local_count)
    except DemoError as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    else:
        failure = ""
    finally:
        for process in processes.values():
            process.clean_up()
    if failure:
        print(f"demo: failed: {failure}", file=sys.stderr)
        return 1
    print_totals(path, local_count)
    print(f"\nAll as promised, in {monotonic() - start:.1f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
