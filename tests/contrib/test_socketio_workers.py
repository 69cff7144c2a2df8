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
