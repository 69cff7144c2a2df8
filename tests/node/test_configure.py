# SPDX-License-Identifier: MIT
"""Nodes whose settings come from the environment and the profile file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.errors import InvalidSettingError, NoSecretError, ProfileError
from aemp_gevent.settings.sources import make_settings
from tests.support.helpers import wait_until
from tests.support.networking import ROOT, SECRET, Inbox, MakeNode, free_address

WriteFile = Callable[[object], Path]


@pytest.fixture
def write_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteFile:
    """Write the profile file of this process."""

    def write(content: object) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        monkeypatch.setenv("AEMP_CONFIG", str(path))
        return path

    return write


def test_two_profiles_of_one_file_make_two_nodes_that_talk(make_node: MakeNode, write_file: WriteFile) -> None:
    address = free_address()
    write_file(
        {
            "secret": SECRET,
            "profiles": {
                "server": {"nodeid": address},
                "base": {"seeds": [address]},
                "worker": {"parent": "base"},
            },
        }
    )
    server, worker, other = make_node(None), make_node(None), make_node(None)
    server.configure("server")
    worker.configure("worker")
    other.configure("worker", monitor_timeout=5)
    assert server.NODE() == address
    assert worker.NODE().startswith("worker/")
    assert worker.NODE() != other.NODE(), "several processes may run the same profile"
    assert other.settings is not None
    assert other.settings.monitor_timeout == 5
    wait_until(lambda: server.node_is_up(worker.NODE()))
    inbox = Inbox(worker)
    server.snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


@pytest.mark.parametrize(
    ("nodeid", "pattern"),
    [
        ("%n/backend", r"our\.host/backend"),
        ("%n/%u", r"our\.host/[A-Za-z0-9]{10}"),
        ("x/%u/%u", r"x/([A-Za-z0-9]{10})/\1"),
    ],
)
def test_node_id_is_expanded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, nodeid: str, pattern: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "our.host")
    node = make_node(None)
    node.configure(nodeid=nodeid, secret=SECRET)
    assert re.fullmatch(pattern, node.NODE())


def test_host_name_in_a_noderef_is_resolved(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    node = make_node(None)
    node.configure(nodeid="%n:0", secret=SECRET)
    assert node.NODE().startswith("127.0.0.1:")


def test_host_name_that_cannot_be_a_node_id_is_reported(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "our host")
    node = make_node(None)
    with pytest.raises(ValueError, match="'our host/x'"):
        node.configure(nodeid="%n/x", secret=SECRET)
    node.configure(nodeid="x", secret=SECRET)


def test_environment_configures_a_node(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_node()
    monkeypatch.setenv("AEMP_NODEID", "from/environment")
    monkeypatch.setenv("AEMP_SEEDS", server.NODE())
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    monkeypatch.setenv("AEMP_HEARTBEAT_INTERVAL", "1.5")
    node = make_node(None)
    node.configure()
    assert node.settings is not None
    assert node.settings.heartbeat_interval == 1.5
    wait_until(lambda: server.node_is_up("from/environment"))


def test_initialise_node_takes_addresses_and_seeds_only_from_its_arguments(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, write_file: WriteFile
) -> None:
    write_file({"secret": SECRET, "profiles": {"default": {"monitor_timeout": 7}}})
    monkeypatch.setenv("AEMP_NODEID", "named")
    monkeypatch.setenv("AEMP_SEEDS", "127.0.0.1:1")
    monkeypatch.setenv("AEMP_BINDS", "127.0.0.1:0")
    node = make_node(None)
    node.initialise_node("127.0.0.1:0")
    assert node.NODE().startswith("127.0.0.1:")
    settings = node.settings
    assert settings is not None
    assert (settings.secret, settings.monitor_timeout, settings.seeds, settings.binds) == (SECRET, 7, (), None)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda node: node.configure("serve"), ProfileError, id="profile"),
        pytest.param(lambda node: node.configure("faulty"), InvalidSettingError, id="setting"),
        pytest.param(lambda node: node.configure("server", nodeid="%z"), InvalidSettingError, id="expansion"),
        pytest.param(lambda node: node.configure("secretless"), NoSecretError, id="secret"),
    ],
)
def test_failed_call_leaves_the_node_as_it_was(
    make_node: MakeNode, write_file: WriteFile, call: Callable[[Any], None], error: type[Exception]
) -> None:
    write_file(
        {
            "profiles": {
                "server": {"nodeid": "127.0.0.1:0", "secret": SECRET},
                "faulty": {"parent": "server", "monitor_timeout": "soon"},
                "secretless": {},
            }
        }
    )
    node = make_node(None)
    before = node.NODE()
    with pytest.raises(error):
        call(node)
    assert node.NODE() == before
    node.configure("server")


def test_settings_by_position_are_refused_without_showing_them(make_node: MakeNode) -> None:
    with pytest.raises(InvalidSettingError, match="nodeid=") as caught:
        make_node(None).configure({"nodeid": "x", "secret": "hidden"})
    assert "hidden" not in str(caught.value)


@pytest.mark.slow
def test_program_is_configured_only_from_outside(write_file: WriteFile) -> None:
    path = write_file(
        {"secret": SECRET, "profiles": {"server": {"nodeid": "127.0.0.1:0", "services": [["builtins.print", "hello"]]}}}
    )
    program = "import gevent; from aemp_gevent import *; configure(); print(NODE()); gevent.sleep(0); shutdown()"
    environ = {**os.environ, "AEMP_CONFIG": str(path), "AEMP_PROFILE": "server", "AEMP_SECURE": "yes"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    node, hello = done.stdout.splitlines()
    assert node.startswith("127.0.0.1:")
    assert hello == "hello"


@pytest.mark.slow
def test_secret_is_in_no_traceback_and_no_log(write_file: WriteFile) -> None:
    path = write_file({"secret": "hidden", "profiles": {"server": {"services": ["nowhere.at_all"]}}})
    program = "import logging; logging.basicConfig(level=0); from aemp_gevent import *; configure('server')"
    environ = {**os.environ, "AEMP_CONFIG": str(path), "AEMP_NODEID": "127.0.0.1:0"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20
    )
    assert "nowhere.at_all" in done.stderr
    assert "hidden" not in done.stderr


PAGE = (ROOT / "docs" / "howto" / "configure-a-node.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_json_of_the_how_to_page_is_a_profile_file(write_file: WriteFile, text: str) -> None:
    content = json.loads(text)
    path = write_file(content)
    for profile in content.get("profiles", {None: {}}):
        assert make_settings({"secret": "s"}, {"AEMP_CONFIG": str(path)}, profile=profile)
