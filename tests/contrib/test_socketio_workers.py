# SPDX-License-Identifier: MIT
"""The client manager for python-socketio behind a real gunicorn, with real clients over WebSocket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("socketio")
pytest.importorskip("gunicorn")

from soak.web import Gunicorn
from tests.support.networking import ROOT, free_address
from tests.support.thoroughness import tries

pytestmark = pytest.mark.slow

SERVER = Path(__file__).with_name("socketio_server")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.mark.parametrize("options", tries([["--preload"]], [["--preload"], []]), ids=" ".join)
def test_all_scenarios_work_with_clients_of_several_workers(scratch: Path, options: list[str]) -> None:
    pytest.importorskip("flask_socketio")
    with Gunicorn(SERVER, scratch, "-n", "chat", *options, address=free_address()) as server:
        command = [sys.executable, "-m", "tests.contrib.socketio_scenarios", f"http://{server.address}"]
        environ = {**server.environ, "TEST_URL": "aemp://chat"}
        ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150)
        outcomes = dict(json.loads(line) for line in ran.stdout.splitlines() if line.startswith("["))
        assert ran.returncode == 0 and outcomes, ran.stderr
        failed = "\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome)
        assert not failed, f"{failed}\n{server.log}"
        assert len(outcomes) >= 17
        assert "Traceback" not in server.log, server.log


# The full size is that of 'python -m soak.web rooms', which takes longer than a test may on a busy machine.
CROWD = tries(
    ["--clients=12", "--rooms=4", "--messages=240"],
    ["--clients=100", "--rooms=25", "--messages=3000"],
)


def test_clients_lose_nothing_while_workers_are_killed_replaced_and_ended(scratch: Path) -> None:
    with Gunicorn(SERVER, scratch, "--preload", workers=4, address=free_address()) as server:
        command = [sys.executable, "-m", "soak.socketio_crowd", server.address, str(server.pid), *CROWD]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230)
        assert ran.stdout.startswith("{"), ran.stderr + server.log
        seen = json.loads(ran.stdout)
        assert not seen["faults"], f"{seen}\n{server.log}"
        assert ran.returncode == 0
        assert seen["did"] == ["kill", "hangup", "term"]
        assert seen["workers"] > 1
        assert server.wait() == 0
