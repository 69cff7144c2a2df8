# SPDX-License-Identifier: MIT
"""The client manager for python-socketio behind a real gunicorn, with real clients over WebSocket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("socketio")
pytest.importorskip("gunicorn")

from soak.web import Gunicorn
from tests.support.native import aside
from tests.support.networking import ROOT, SECRET, MakeNode, free_address
from tests.support.thoroughness import THOROUGH, tries

pytestmark = pytest.mark.slow

SERVER = Path(__file__).with_name("socketio_server")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path)


class Hosts:
    """Servers of several hosts, which know only two seeds, and no folder of sockets in common."""

    def __init__(self, scratch: Path, make_node: MakeNode) -> None:
        self.seeds = [free_address(), on_other_host(free_address())]
        for seed in self.seeds:
            make_node(seed, *self.seeds)
        self._scratch = scratch

    def server(self, address: str) -> Gunicorn:
        """Return the server of a host, with a folder for temporary files and a home of its own."""
        folder = self._scratch / address.rpartition(":")[2]
        folder.mkdir()
        server = Gunicorn(SERVER, folder, "-n", "chat", workers=2, address=address)
        own = {"AEMP_SEEDS": ",".join(self.seeds), "AEMP_BINDS": f"{address.partition(':')[0]}:0"}
        server.environ.update(own, AEMP_SECRET=SECRET)
        return server


def on_other_host(address: str) -> str:
    """Return an address that looks like one of another host, where the system has more than one for itself."""
    return address.replace("127.0.0.1", "127.0.0.2") if sys.platform == "linux" else address


def all_scenarios_work(servers: list[Gunicorn], url: str, environ: dict[str, str]) -> None:
    addresses = ",".join(f"http://{server.address}" for server in servers)
    command = [sys.executable, "-m", "tests.contrib.socketio_scenarios", addresses]
    # Aside, because the seeds of several hosts live in this process.
    ran = aside(
        lambda: subprocess.run(
            command, cwd=ROOT, env={**environ, "TEST_URL": url}, capture_output=True, timeout=150, check=False
        )
    )
    outcomes = dict(json.loads(line) for line in ran.stdout.splitlines() if line.startswith(b"["))
    assert ran.returncode == 0 and outcomes, ran.stderr
    failed = "\n".join(f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome)
    logs = "\n".join(server.log for server in servers)
    assert not failed, f"{failed}\n{logs}"
    assert len(outcomes) >= 17
    assert "Traceback" not in logs, logs


def test_all_scenarios_work_with_clients_of_several_workers(scratch: Path) -> None:
    pytest.importorskip("flask_socketio")
    with Gunicorn(SERVER, scratch, "-n", "chat", "--preload", address=free_address()) as server:
        all_scenarios_work([server], "aemp://chat", server.environ)


@pytest.mark.skipif(not THOROUGH, reason="takes long: make test-thorough runs it")
def test_all_scenarios_work_with_clients_and_scripts_of_several_hosts(scratch: Path, make_node: MakeNode) -> None:
    """Each host has a gunicorn of its own; the script's host has none."""
    pytest.importorskip("flask_socketio")
    hosts = Hosts(scratch, make_node)
    with hosts.server(free_address()) as one, hosts.server(on_other_host(free_address())) as other:
        elsewhere = scratch / "script"
        elsewhere.mkdir()
        url = f"aemp://chat?seeds={','.join(hosts.seeds)}"
        environ = {**os.environ, "TMPDIR": str(elsewhere), "AEMP_CONFIG": os.devnull, "AEMP_SECRET": SECRET}
        all_scenarios_work([one, other], url, environ)
        nodes = {*one.workers.values(), *other.workers.values()}
        assert len(nodes) == 4


# The full size is that of 'python -m soak.web rooms', which takes longer than a test may on a busy machine.
CROWD = tries(
    ["--clients=12", "--rooms=4", "--messages=240"],
    ["--clients=100", "--rooms=25", "--messages=3000"],
)


def test_clients_lose_nothing_while_workers_are_killed_replaced_and_ended(scratch: Path) -> None:
    with Gunicorn(SERVER, scratch, "--preload", workers=4, address=free_address()) as server:
        command = [sys.executable, "-m", "soak.socketio_crowd", server.address, str(server.pid), *CROWD]
        ran = aside(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, timeout=230, check=False))
        assert ran.stdout.startswith(b"{"), ran.stderr.decode() + server.log
        seen = json.loads(ran.stdout)
        assert not seen["faults"], f"{seen}\n{server.log}"
        assert ran.returncode == 0
        assert seen["did"] == ["kill", "hangup", "term"]
        assert seen["workers"] > 1
        assert server.wait() == 0
