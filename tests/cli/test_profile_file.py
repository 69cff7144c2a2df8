# SPDX-License-Identifier: MIT
"""The profile file is written whole or not at all, by one at a time, and for nobody else to read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import AEMP, Command, environment
from tests.support import preloaded

WRITERS = 6

KILLED = """
import json, os, signal, sys
from pathlib import Path
import aemp_gevent.cli.set_up
from aemp_command.group import run_command

def run(words, calls):
    # In a child, which is killed in one of its calls of the system.
    pid = os.fork()
    if pid == 0:
        left = calls

        def counted(call):
            def dies_after_a_while(*args, **kwargs):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*args, **kwargs)

            return dies_after_a_while

        for name in ("open", "fdopen", "fchmod", "fsync", "replace", "rename", "close"):
            setattr(os, name, counted(getattr(os, name)))
        os._exit(run_command(words))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

path = Path(os.environ["AEMP_CONFIG"])
seen = []
code = None
while code != 0:
    path.write_text('{"nodeid": "old"}')
    code = run(["setnodeid", "new"], len(seen))
    assert code in (0, -signal.SIGKILL), code
    seen.append(json.loads(path.read_text())["nodeid"])
    # What it left behind is in nobody's way.
    assert run(["setsecret", "x"], 1000) == 0
    assert json.loads(path.read_text()) == {"nodeid": seen[-1], "secret": "x"}
print(json.dumps(seen), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_leaves_the_old_file_or_the_new_one(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stderr)
    assert seen == sorted(seen, reverse=True), "there is a moment before which it is old, and after which it is new"
    assert seen.count("old") > 8
    assert "new" in seen
    assert sorted(each.name for each in home.iterdir()) == [".config.json.lock", "config.json", "config.json~"]


@pytest.mark.slow
def test_writers_at_the_same_time_do_not_lose_each_others_change(home: Path) -> None:
    writers = [
        preloaded.Popen(
            [*AEMP, "profile", f"p{number}", "setnodeid", f"n{number}"],
            env=environment(home),
            stdout=subprocess.DEVNULL,
        )
        for number in range(WRITERS)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    profiles = json.loads((home / "config.json").read_text())["profiles"]
    assert profiles == {f"p{number}": {"nodeid": f"n{number}"} for number in range(WRITERS)}


def test_everything_written_is_for_its_owner_alone(command: Command, home: Path) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        command("gensecret")
        command("gensecret")
    finally:
        os.umask(before)
    assert {each.name: each.stat().st_mode & 0o777 for each in home.iterdir()} == {
        ".config.json.lock": 0o600,
        "config.json": 0o600,
        "config.json~": 0o600,
    }


def test_link_to_the_file_stays_one(command: Command, home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / "config.json").symlink_to(home / "dotfiles" / "aemp.json")
    command("setnodeid", "x")
    command("setnodeid", "y")
    assert (home / "config.json").is_symlink()
    assert json.loads((home / "dotfiles" / "aemp.json").read_text()) == {"nodeid": "y"}
    assert json.loads((home / "dotfiles" / "aemp.json~").read_text()) == {"nodeid": "x"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "it must hold one JSON object"),
        ("{", "it is not JSON"),
        ('{"profiles": []}', "'profiles' must be an object of profiles by name"),
        ('{"profiles": {"p": 5}}', "'profiles' must be an object of profiles by name"),
    ],
)
def test_invalid_file_is_left_alone(command: Command, home: Path, content: str, why: str) -> None:
    (home / "config.json").write_text(content)
    assert why in command.refused("profile", "p", "setnodeid", "x")


def test_only_regular_files_are_written_to(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_CONFIG", os.devnull)
    assert "it is not a file" in command("setnodeid", "x", code=2).err
    assert command("showconfig").out.startswith("nothing is set")


def test_folder_that_cannot_be_written_to_is_reported(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("AEMP_CONFIG", str(home / "file" / "config.json"))
    assert "it cannot be changed: " in command("setnodeid", "x", code=2).err


def test_without_a_home_it_says_what_is_missing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AEMP_CONFIG", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert command("setnodeid", "x", code=1).err == (
        "aemp: the path of the profile file is unknown: set HOME or AEMP_CONFIG\n"
    )
