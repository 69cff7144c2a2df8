# SPDX-License-Identifier: MIT
"""Locust itself, whose master and workers talk over links: by a line in the locustfile, and with the launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from aemp_gevent.testing.waiting import wait_until
from tests.support.networking import ROOT, SECRET, MakeNode, free_address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("locust") is None, reason="Locust is not installed: pip install locust"),
]

PAGE = ROOT / "docs" / "howto" / "run-locust.md"
LOCUST = ["-m", "locust"]
LAUNCHER = ["-m", "aemp_gevent.contrib.locust"]

Start = Callable[..., "Process"]


class Process:
    """A process of Locust's, with a file that it logs to."""

    def __init__(self, folder: Path, name: str, *args: str, **variables: str) -> None:
        self._file = folder / f"{name}.log"
        own = {"PYTHONPATH": str(ROOT), "AEMP_SECRET": SECRET, "PYTHONUNBUFFERED": "1"}
        with self._file.open("wb") as file:
            self.child = subprocess.Popen(
                [sys.executable, *args],
                cwd=folder,
                env={**os.environ, **own, **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @property
    def log(self) -> str:
        return self._file.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line, and return what matches."""
        return wait_until(lambda: re.search(pattern, self.log), within=60, show=lambda: self.log)

    def ends(self) -> int:
        return self.child.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a process beside the page's programs, which is killed afterwards."""
    for source in re.findall(r"^```python\n(.*?)^```\n", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        (tmp_path / source.split()[1]).write_text(source)
    started: list[Process] = []

    def start(name: str, *args: str, **variables: str) -> Process:
        started.append(Process(tmp_path, name, *args, **variables))
        return started[-1]

    yield start
    for process in started:
        process.child.kill()
        process.child.wait()


def test_killed_workers_users_move_at_once_and_other_workers_fetch_the_locustfile(start: Start) -> None:
    port = free_address().rpartition(":")[2]
    master = start("master", *LOCUST, "--master", "--headless", "--master-bind-port", port, "--expect-workers", "2",
                   "-u", "6", "-r", "100")  # fmt: skip
    killed = start("killed", *LOCUST, "--worker", "--master-port", port)
    other = start("other", *LAUNCHER, "-f", "-", "--worker", "--master-port", port)
    # It waits a second for all reports, and while it moves users it reads none.
    spawned = "(All users spawned|Spawning is complete)"
    master.wait_for(spawned)
    killed.child.kill()
    master.wait_for(rf"(?s){spawned}.*Sending spawn jobs of 6 users at 100.00 spawn rate to 1 ready workers.*{spawned}")
    master.wait_for(r"Worker '\S+' \(index \d\) quit. ")
    master.wait_for(r"(?m)^GET +/ +[1-9]\d* +0\(0.00%\)")
    master.child.send_signal(signal.SIGTERM)
    assert (master.ends(), other.ends()) == (0, 0)
    for process in (master, other):
        assert "Traceback" not in process.log
        assert "Exception ignored" not in process.log


def test_users_call_ports_as_the_page_says(start: Start, tmp_path: Path, make_node: MakeNode) -> None:
    shop = make_node()
    prices = shop.port()
    shop.reg(prices, "prices")
    shop.serve(prices, price={"tea": 3}.get)
    program = tmp_path / "calls.py"
    program.write_text(program.read_text().replace("127.0.0.1:4040", shop.NODE()))
    locust = start("locust", *LOCUST, "-f", "calls.py", "--headless", "-u", "2")
    wait_until(lambda: re.search(r"^CALL +price +[1-9]\d* +0\(0.00%\)", locust.log, re.MULTILINE), within=60)
    locust.child.send_signal(signal.SIGTERM)
    wait_until(lambda: locust.child.poll() is not None, within=60, show=lambda: locust.log)
    assert locust.child.returncode == 0, locust.log


@pytest.mark.parametrize("role", ["--master", "--worker"])
def test_launcher_says_what_is_missing(start: Start, role: str) -> None:
    port = free_address().rpartition(":")[2]
    ports = ["--master-bind-port", port] if role == "--master" else ["--master-port", port]
    process = start("process", *LAUNCHER, "--headless", role, *ports, AEMP_SECRET="")
    assert process.ends() == 1
    assert "locust: a networked node needs a secret" in process.log.splitlines()[-1]
    assert "Traceback" not in process.log


def test_without_locust_the_launcher_says_what_to_install() -> None:
    program = "import sys; sys.modules['locust'] = None; import aemp_gevent.contrib.locust"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("needs Locust: run 'pip install locust'")
