# SPDX-License-Identifier: MIT
"""No command prints a secret, whatever it does and however it fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from aemp_command.group import run_command
from aemp_command.table import COMMANDS, SECTIONS, SET_UP
from tests.cli.helpers import AEMP, environment
from tests.support import preloaded

SECRETS = {"file": "hush-file", "environment": "hush-environment", "option": "hush-option", "other": "hush-other"}

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
    "run": ["--bind", "no such bind"],
    "snd": ["node#port", "x"],
    "cal": ["node#port", "x"],
    "mon": ["node#port"],
    "spawn": ["node", "os.getpid"],
    "eval": ["node", "1"],
    "shell": [],
    "nodes": [],
    "ports": [],
    "groups": [],
    "trace": [],
    "top": ["--once"],
    "ping": ["node"],
    "bench": ["node"],
    "log": [],
}
"""What is a node of the network; nobody answers it here."""

ALIKE = {"snd", "mon", "spawn", "ports", "groups", "trace", "ping", "bench", "eval"}
"""They become nodes by the same few lines as the others, and say nothing before: a process for each would take long."""


def test_every_command_is_tried() -> None:
    assert set(SET_UP_ARGS) | set(NODE_ARGS) | {"dump"} == set(COMMANDS), "dump masks them: see test_wire_dump.py"


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Secrets wherever there may be some."""
    config = home / "config.json"
    config.write_text(json.dumps({"secret": SECRETS["file"], "profiles": {"p": {"secret": [SECRETS["other"]]}}}))
    (home / "perl.json").write_text(json.dumps({"secret": SECRETS["other"], "no such": SECRETS["other"]}))
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


@pytest.mark.slow
def test_nodes_of_the_network_fail_without_a_secret(home: Path, settings: Path) -> None:
    settings.chmod(0o600)
    exposed = home / "exposed"
    exposed.write_text(SECRETS["other"])
    exposed.chmod(0o644)
    ways = [["--secret", SECRETS["option"]], ["-p", "p"], ["--secret-file", "exposed"]]
    processes = []
    tried = {name: args for name, args in NODE_ARGS.items() if name not in ALIKE}
    for number, (name, args) in enumerate(tried.items()):
        given = ["--seed", "127.0.0.1:1", *ways[number % len(ways)], *args, "--connect-timeout", "0.1"]
        if name == "run":
            given = ["--secret", SECRETS["option"], "--set", f'secret=["{SECRETS["other"]}", 5]', *args]
        processes.append(
            preloaded.Popen(
                [*AEMP, name, *given],
                env=environment(home, AEMP_SECRET=SECRETS["environment"]),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        said = process.communicate(timeout=60)[0]
        assert process.returncode in (1, 2), (process.args, said)
        assert said
        assert shown_in(said) == [], process.args
