# SPDX-License-Identifier: MIT
"""No command prints a secret, whatever it does and however it fails."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aemp_command.group import run_command
from aemp_command.table import COMMANDS, SECTIONS, SET_UP
from aemp_gevent import default_node
from aemp_gevent.cli import command_node
from aemp_gevent.node.node import Node
from tests.cli.helpers import AEMP, environment
from tests.support import preloaded
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode

SECRETS = {"file": "hush-file", "environment": "hush-environment", "option": "hush-option", "other": "hush-other"}
SECRETS["network"] = "hush-network"

SET_UP_ARGS: dict[str, list[str]] = {
    "gensecret": [],
    "setsecret": [SECRETS["option"]],
    "delsecret": [],
    "gencert": [],
    "setcert": ["cert.pem"],
    "delcert": [],
    "setnodeid": ["shop"],
    "delnodeid": [],
    "addseed": ["127.0.0.1:4040"],
    "delseed": ["127.0.0.1:4040"],
    "setseeds": ["127.0.0.1:4040"],
    "delseeds": [],
    "addbind": ["127.0.0.1:0"],
    "delbind": ["127.0.0.1:0"],
    "setbinds": ["127.0.0.1:0"],
    "delbinds": [],
    "addservice": ["shop"],
    "delservice": ["shop"],
    "setservices": ["shop"],
    "delservices": [],
    "set": ["secret", SECRETS["option"]],
    "del": ["secret"],
    "profile": ["p", "setsecret", SECRETS["option"]],
    "setparent": ["p"],
    "delparent": [],
    "delprofile": ["p"],
    "showprofile": ["p"],
    "showconfig": ["p"],
    "ca": ["new"],
    "import-perl": ["perl.json"],
}
"""What changes and shows settings."""

NODE_ARGS: dict[str, list[str]] = {
    "snd": ["{port}", "note", "1"],
    "cal": ["{port}", "add", "1"],
    "mon": ["{node}#dead"],
    "spawn": ["{node}", "tests.support.node_functions.note"],
    "eval": ["{node}", "1 + 1"],
    "nodes": [],
    "ports": ["{node}"],
    "groups": ["family"],
    "trace": ["{node}"],
    "tree": ["{node}"],
    "top": ["--once", "--interval", "0.1"],
    "ping": ["{node}", "--count", "1"],
    "bench": ["{node}", "--seconds", "0.1"],
}
"""What is a node of the network for a moment; tried in this process."""

LASTING_ARGS: dict[str, list[str]] = {
    "run": ["--bind", "127.0.0.1:0"],
    "shell": [],
    "log": [],
    "dashboard": ["--listen", "127.0.0.1:0"],
}
"""What is one for as long as it is wanted, or has a native thread; tried in processes."""


def test_every_command_is_tried() -> None:
    tried = set(SET_UP_ARGS) | set(NODE_ARGS) | set(LASTING_ARGS)
    assert tried | {"dump"} == set(COMMANDS), "dump masks them: see test_wire_dump.py"


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Secrets wherever there may be some."""
    config = home / "config.json"
    config.write_text(json.dumps({"secret": SECRETS["file"], "profiles": {"p": {"secret": [SECRETS["other"]]}}}))
    (home / "perl.json").write_text(json.dumps({"secret": SECRETS["other"], "no such": SECRETS["other"]}))
    config.chmod(0o600)
    monkeypatch.setenv("AEMP_SECRET", SECRETS["environment"])
    return config


def shown_in(said: str) -> list[str]:
    return [secret for secret in SECRETS.values() if secret in said]


@pytest.mark.parametrize("mode", [0o600, 0o644], ids=["private", "exposed"])
@pytest.mark.parametrize("name", SET_UP_ARGS)
def test_settings_are_changed_and_shown_without_a_secret(
    settings: Path, name: str, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.chmod(mode)
    args = SET_UP_ARGS[name]
    own = [name, *args]
    for words in (own, [name, "--help"], [*own, "no such word"], [name, "--json"], [name, "--no-such"]):
        run_command(words)
    for words in (["showconfig", "p"], ["showconfig", "--json"], ["showprofile", "p"], ["showprofile", "--json", "p"]):
        run_command(words)
    if name in SECTIONS[SET_UP]:
        run_command(["profile", "p", *own])
    said = "".join(capsys.readouterr())
    assert said
    assert shown_in(said) == []


@pytest.fixture
def far(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node that commands in this process find, as the default node."""
    monkeypatch.setattr(command_node, "_take_signals", lambda _node, runs_code: None)
    node = make_node(allow_eval=True, allow_spawn=["tests.support.node_functions.*"], secret=SECRETS["network"])
    node.db_set("family", "key", 1)
    yield node
    default_node.reset()


WAYS: dict[str, list[str]] = {
    "option": ["--secret", "{secret}"],
    "file": ["--secret-file", "secret"],
    "profile": ["-p", "given"],
    "environment": [],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "is_right", [pytest.param(True, marks=pytest.mark.slow, id="right"), pytest.param(False, id="wrong")]
)
def test_nodes_of_the_network_say_no_secret(
    far: Node,
    settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    way: str,
    is_right: bool,
) -> None:
    """They work, or fail for want of the secret; with all of the log, as ``aemp run --log-level debug`` prints it."""
    secret = SECRETS["network" if is_right else "option"]
    caplog.set_level(logging.DEBUG)
    config = json.loads(settings.read_text())
    config["profiles"]["given"] = {"secret": secret}
    settings.write_text(json.dumps(config))
    file = settings.with_name("secret")
    file.write_text(secret)
    file.chmod(0o600)
    if way != "environment":
        monkeypatch.delenv("AEMP_SECRET")
    else:
        monkeypatch.setenv("AEMP_SECRET", secret)
    given = ["--seed", far.NODE(), "--connect-timeout", "5" if is_right else "0.02"]
    given += [word.format(secret=secret) for word in WAYS[way]]
    for number, (name, args) in enumerate(NODE_ARGS.items()):
        if not is_right and number % len(WAYS) != list(WAYS).index(way):
            continue  # fails before they differ: each fails in one way
        here = far.serve(far.rcv(far.port(), note=lambda _number: None), add=lambda number: number)
        words = [word.format(node=far.NODE(), port=here) for word in args]
        code = run_command([name, *given, *words])
        default_node.reset()
        said = "".join(capsys.readouterr())
        assert code == (1 if not is_right or name == "mon" else 0), (name, said)
        assert said or name == "snd"
        assert shown_in(said + caplog.text) == [], (name, said)


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_lasting_nodes_of_the_network_say_no_secret(home: Path, far: Node) -> None:
    exposed = home / "exposed"
    exposed.write_text(SECRETS["other"])
    exposed.chmod(0o644)
    processes: list[tuple[subprocess.Popen[str], bool]] = []
    seen: set[str] = set()
    far.mon_nodes(lambda node, *_state: seen.add(node) and None)

    def start(*words: str, is_right: bool) -> None:
        given = environment(home, AEMP_SECRET=SECRETS["environment"])
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        processes.append((preloaded.Popen([*AEMP, *words], env=given, cwd=home, text=True, **options), is_right))

    for name, args in LASTING_ARGS.items():
        start(name, "--seed", far.NODE(), "--secret", SECRETS["network"], *args, is_right=True)
    start("run", "--secret-file", "exposed", is_right=False)
    start("run", "--secret", SECRETS["option"], "--bind", "no such bind", is_right=False)
    start("run", "--set", f'secret=["{SECRETS["other"]}", 5]', is_right=False)
    # The shell may have ended again.
    wait_until(lambda: len(seen) >= len(LASTING_ARGS), within=30)
    for process, is_right in processes:
        if is_right:
            process.terminate()
    wait_until(lambda: all(process.poll() is not None for process, _ in processes), within=60)  # they say goodbye to us
    for process, is_right in processes:
        said = process.communicate(timeout=60)[0]
        assert is_right or (said and process.returncode in (1, 2)), (process.args, said)
        assert shown_in(said) == [], process.args
