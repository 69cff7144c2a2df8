# SPDX-License-Identifier: MIT
"""A command that talks to the network is a node of it: linked to whom the profile says, and gone when it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from aemp_gevent.cli.command_node import SettingOptions
from tests.cli.helpers import environment
from tests.support import preloaded
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, MakeNode, free_address

PROGRAM = """
import click
from aemp_command import group
from aemp_gevent.cli.command_node import connected, node_options

@click.command()
@node_options
def show(options):
    with connected(options) as node:
        print(node.NODE(), *node.up_nodes())

group.aemp.add_command(show)
group.Commands.get_command = lambda *args: show
group.Commands.resolve_command = lambda self, ctx, args: ("show", show, args[1:])
import sys
sys.exit(group.run_command(["show", *sys.argv[1:]]))
"""


def show(home: Path, *args: str, check: bool = True, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Join the network, and print this node's ID and those of its peers, while nodes in this process run."""
    process = preloaded.Popen(
        [sys.executable, "-c", program, *args],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: process.poll() is not None, within=60)
    finally:
        process.kill()
        out, err = process.communicate()
    assert not check or process.returncode == 0, err
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("said", ["seeds", "nodeid", "binds", "option"])
def test_it_finds_the_network_by_what_the_profile_says(
    tmp_path: Path, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    node = make_node("127.0.0.1:0")
    address = node.NODE()
    profile: dict[str, Any] = {
        "seeds": {"seeds": [address], "nodeid": "backend"},
        "nodeid": {"nodeid": address},
        "binds": {"nodeid": "backend", "binds": [f"*:{address.partition(':')[2]}"]},
        "option": {"seeds": [free_address()]},
    }[said]
    content = {"secret": SECRET, "services": ["no.such.service"], "profiles": {"p": profile}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "config.json").chmod(0o600)
    done = show(tmp_path, "-p", "p", *(["--seed", address] if said == "option" else []))
    own, *up = done.stdout.split()
    assert own.startswith("aemp/")
    assert up == [address]
    wait_until(lambda: not node.up_nodes(), within=10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_signal_ends_it_whatever_runs_just_then(tmp_path: Path, make_node: MakeNode, number: int) -> None:
    """Raised in a callback, it would kill a port, or be logged, and the command would continue."""
    seed = make_node("127.0.0.1:0")
    (tmp_path / "config.json").write_text("{}")
    waiting = f"""
        import gevent, os
        node.snd(node.port(lambda: os.kill(os.getpid(), {int(number)})))
        gevent.sleep(60)
"""
    program = PROGRAM.replace("print(node.NODE(), *node.up_nodes())", waiting.strip())
    done = show(tmp_path, "--seed", seed.NODE(), "--secret", SECRET, check=False, program=program)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (128 + number, "", "")


@pytest.mark.slow
def test_it_says_so_when_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    nobody = free_address()
    done = show(tmp_path, "--secret", "x", "--seed", nobody, "--connect-timeout", "1", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    where = "no link to the network (--seed names another node to dial)"
    assert done.stderr == f"aemp: {where}: {nobody}: Connection refused\n"


@pytest.mark.slow
def test_it_says_so_when_the_secret_is_another(tmp_path: Path, make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    (tmp_path / "config.json").write_text("{}")
    done = show(tmp_path, "--secret", "wrong", "--seed", node.NODE(), check=False)
    assert done.returncode == 1
    assert re.search("different secret", done.stderr), done.stderr  # whichever side found out first
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_a_message_that_could_not_be_delivered_is_reported_once(tmp_path: Path, make_node: MakeNode) -> None:
    """The command gives up before the node does, which shuts down with the message, and would report it as well."""
    seed = make_node("127.0.0.1:0")
    (tmp_path / "config.json").write_text("{}")
    failing = """
        import functools
        node.shutdown = functools.partial(node.shutdown, 0.1)
        node.snd("nowhere#x", "hello")
        raise click.ClickException(f"no answer from {node.up_nodes()[0]}, nowhere")  # no time is left for both
"""
    program = PROGRAM.replace("print(node.NODE(), *node.up_nodes())", failing.strip())
    done = show(tmp_path, "--seed", seed.NODE(), "--secret", SECRET, check=False, program=program)
    assert (done.returncode, done.stderr) == (1, f"aemp: no answer from {seed.NODE()}, nowhere\n")


def options(**given: Any) -> SettingOptions:
    names = ("nodeid", "secret", "secret_file", "cert", "ca")
    return SettingOptions(**{"seeds": (), **dict.fromkeys(names), **given})


def test_only_what_was_given_is_given() -> None:
    assert options().given() == {}
    assert options(seeds=("a", "b,c")).given() == {"seeds": ["a", "b", "c"]}
    assert options(nodeid="x", secret="s").given() == {"nodeid": "x", "secret": "s"}


def test_secrets_file_is_read_each_time_and_the_standard_input_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text("one\n")
    found = options(secret_file=str(file))
    assert found.given() == {"secret": "one"}
    file.write_text("two")
    assert found.given() == {"secret": "two"}
    file.write_text(" \n")
    with pytest.raises(click.UsageError, match="there is no secret in"):
        found.given()
    file.write_bytes(b"\xff")
    with pytest.raises(click.ClickException, match="it is not a text"):
        found.given()
    monkeypatch.setattr("sys.stdin", io.StringIO("three\n"))
    found = options(secret_file="-")
    assert (found.given(), found.given()) == ({"secret": "three"}, {"secret": "three"})


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660])
def test_secrets_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("hush")
    file.chmod(mode)
    with pytest.raises(click.UsageError, match=rf"others may read it .mode {mode:04o}.: chmod 600 {file}") as refused:
        options(secret_file=str(file)).given()
    assert "hush" not in str(refused.value)
    file.chmod(0o400)
    assert options(secret_file=str(file)).given() == {"secret": "hush"}


def test_secrets_file_may_be_a_pipe_of_the_shell(tmp_path: Path) -> None:
    """As in ``--secret-file <(pass show network)``."""
    ends = os.pipe()
    try:
        os.write(ends[1], b"hush\n")
        os.close(ends[1])
        assert options(secret_file=f"/dev/fd/{ends[0]}").given() == {"secret": "hush"}
    finally:
        os.close(ends[0])
