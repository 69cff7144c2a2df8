# SPDX-License-Identifier: MIT
"""The words that change the profile file: what each does, that they can be chained, and that it is all or nothing."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.settings.sources import make_settings
from tests.cli.helpers import Command, aemp


def test_chain_of_the_issue_makes_a_profile_that_a_node_can_use(command: Command, home: Path) -> None:
    result = command("gensecret", "profile", "server", "setbinds", "*:4040", "setnodeid", "backend")
    assert command.config["profiles"] == {"server": {"binds": ["*:4040"], "nodeid": "backend"}}
    assert len(command.config["secret"]) == 43
    assert command.config["secret"] not in result.out + result.err
    settings = make_settings({}, profile="server")
    assert (settings.nodeid, settings.binds, settings.secret) == ("backend", ("*:4040",), command.config["secret"])


BEGIN = {
    "nodeid": "here",
    "secret": "hush",
    "cert": "/nowhere.pem",
    "seeds": ["a:1", "b:2"],
    "binds": ["*:1"],
    "services": ["x.y", ["x.z", 1]],
    "monitor_timeout": 5,
    "profiles": {"p": {"seeds": ["c:3"], "parent": "q"}, "q": {"nodeid": "q"}},
}

WORDS = [
    # words, what is to be different then; None: gone
    pytest.param(["setnodeid", "there/%u"], {"nodeid": "there/%u"}, id="setnodeid"),
    pytest.param(["nodeid", "there"], {"nodeid": "there"}, id="set-may-be-left-out-as-in-perl"),
    pytest.param(["delnodeid"], {"nodeid": None}, id="delnodeid"),
    pytest.param(["setsecret", "other"], {"secret": "other"}, id="setsecret"),
    pytest.param(["setsecret", '["new", "old"]'], {"secret": ["new", "old"]}, id="setsecret-while-it-is-changed"),
    pytest.param(["delsecret"], {"secret": None}, id="delsecret"),
    pytest.param(["delcert"], {"cert": None}, id="delcert"),
    pytest.param(["addseed", "c:3"], {"seeds": ["a:1", "b:2", "c:3"]}, id="addseed"),
    pytest.param(["addseed", "a:1"], {"seeds": ["b:2", "a:1"]}, id="addseed-twice-is-once"),
    pytest.param(["delseed", "a:1"], {"seeds": ["b:2"]}, id="delseed"),
    pytest.param(["setseeds", "x,y:4, [::1]:5"], {"seeds": ["x", "y:4", "[::1]:5"]}, id="setseeds"),
    pytest.param(["setseeds", ""], {"seeds": []}, id="setseeds-to-none"),
    pytest.param(["delseeds"], {"seeds": None}, id="delseeds"),
    pytest.param(["addbind", "127.0.0.1:0"], {"binds": ["*:1", "127.0.0.1:0"]}, id="addbind"),
    pytest.param(["delbind", "*:1"], {"binds": []}, id="delbind"),
    pytest.param(["setbinds", "*:4040"], {"binds": ["*:4040"]}, id="setbinds"),
    pytest.param(["delbinds"], {"binds": None}, id="delbinds"),
    pytest.param(["addservice", "x.y"], {"services": ["x.y", ["x.z", 1], "x.y"]}, id="addservice-twice-is-twice"),
    pytest.param(["addservice", '["w", {"a": 1}]'], {"services": ["x.y", ["x.z", 1], ["w", {"a": 1}]]}, id="arguments"),
    pytest.param(["delservice", "x.y"], {"services": [["x.z", 1]]}, id="delservice"),
    pytest.param(["delservice", '["x.z", 1]'], {"services": ["x.y"]}, id="delservice-with-arguments"),
    pytest.param(["setservices", "a,b.c"], {"services": ["a", "b.c"]}, id="setservices"),
    pytest.param(["setservices", '["a", ["b", 1]]'], {"services": ["a", ["b", 1]]}, id="setservices-as-json"),
    pytest.param(["delservices"], {"services": None}, id="delservices"),
    pytest.param(["set", "idle_timeout", "none"], {"idle_timeout": None}, id="set-none"),
    pytest.param(["set", "allow_spawn", "a.*,b"], {"allow_spawn": ["a.*", "b"]}, id="set-a-list"),
    pytest.param(["set", "secure", "yes"], {"secure": True}, id="set-a-switch"),
    pytest.param(["set", "rules", '[{"peer": "w*"}]'], {"rules": [{"peer": "w*"}]}, id="set-rules"),
    pytest.param(["del", "monitor_timeout"], {"monitor_timeout": None}, id="del"),
    pytest.param(["delsecret", "delsecret"], {"secret": None}, id="forgetting-twice-is-not-a-mistake"),
    pytest.param(
        ["profile", "p", "delparent"], {"profiles": {"p": {"seeds": ["c:3"]}, "q": {"nodeid": "q"}}}, id="delparent"
    ),
    pytest.param(
        ["profile", "p", "addseed", "d:4"],
        {"profiles": {"p": {"seeds": ["c:3", "d:4"], "parent": "q"}, "q": {"nodeid": "q"}}},
        id="a-profile-has-a-list-of-its-own",
    ),
    pytest.param(
        ["profile", "new", "setparent", "p", "profile", "q", "delnodeid"],
        {"profiles": {"p": {"seeds": ["c:3"], "parent": "q"}, "q": {}, "new": {"parent": "p"}}},
        id="each-profile-word-is-for-what-follows-it",
    ),
    pytest.param(["profile", "bare"], {"profiles": {**BEGIN["profiles"], "bare": {}}}, id="profile-is-made"),
    pytest.param(
        ["delprofile", "p", "delprofile", "q", "setnodeid", "x"], {"profiles": {}, "nodeid": "x"}, id="delprofile"
    ),
]


@pytest.mark.parametrize(("words", "difference"), WORDS)
def test_word_changes_what_it_says_and_nothing_else(
    command: Command, home: Path, words: list[str], difference: dict[str, Any]
) -> None:
    (home / "config.json").write_text(json.dumps(BEGIN))
    result = command(*words)
    gone = [key for key, value in difference.items() if value is None and key != "idle_timeout"]
    assert command.config == {key: value for key, value in {**BEGIN, **difference}.items() if key not in gone}
    assert result.out.endswith(f"wrote {home / 'config.json'}\n")
    assert json.loads((home / "config.json~").read_text()) == BEGIN, "the backup is what was there before"


WRONG = [
    (["setsecet", "x"], "there is no command 'setsecet'; did you mean 'setsecret'?"),
    (["setnodeid", "x", "setbnds", "y"], "there is no command 'setbnds'; did you mean 'setbinds'?"),
    (["setnodeid"], "aemp setnodeid: Missing argument 'NODEID'"),
    (["setnodeid", "x", "setseeds"], "aemp setseeds: Missing argument 'NODEREFS'"),
    (["setnodeid", "a b"], "setting 'nodeid' cannot be 'a b'"),
    (["setnodeid", "fine", "setseeds", "a:b:c"], "setting 'seeds' cannot be"),
    (["setbinds", "*:99999"], "setting 'binds' cannot be"),
    (["addservice", "[1]"], "setting 'services' cannot be"),
    (["addservice", '["a"'], "'[\"a\"' begins like JSON, but is not valid"),
    (["setsecret", ""], "the secret is empty"),
    (["set", "monitor_timeot", "3"], "there is no setting 'monitor_timeot'; did you mean 'monitor_timeout'?"),
    (["set", "monitor_timeout", "soon"], "setting 'monitor_timeout' cannot be 'soon': it must be a number above 0"),
    (["set", "monitor_timeout", "-1"], "setting 'monitor_timeout' cannot be -1.0"),
    (["del", "monitor_timeot"], "there is no setting 'monitor_timeot'; did you mean 'monitor_timeout'?"),
    (["delseed", "c:3"], "'c:3' is not one of the seeds for all profiles; there are: a:1, b:2"),
    (["profile", "p", "delbind", "*"], "'*' is not one of the binds of profile 'p'; there are: none"),
    (["setparent", "q"], "only profiles have parents; put 'profile NAME' before 'setparent'"),
    (["profile", "p", "setparent", "qq"], "the parent of profile 'p' is 'qq', which does not exist; did you mean 'q'?"),
    (["profile", "q", "setparent", "p"], "profiles inherit in a circle: "),
    (["delprofile", "q"], "the parent of profile 'p' is 'q', which does not exist"),
    (["delprofile", "pp"], "profile 'pp' does not exist; did you mean 'p'?"),
    (["gensecret", "run"], "'run' cannot follow a set-up command; run it separately"),
    (["setcert", "nowhere.pem"], "nowhere.pem: No such file or directory"),
    (["gensecret", "--days", "3"], "there is no option '--days'"),
]


@pytest.mark.parametrize(("words", "why"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_word_is_reported_in_one_line_and_nothing_is_written(
    command: Command, home: Path, words: list[str], why: str
) -> None:
    (home / "config.json").write_text(json.dumps(BEGIN))
    assert why in command.refused(*words)
    assert why in command.refused("gensecret", "set", "secure", "yes", *words)
    assert not (home / "config.json~").exists()


def test_secret_is_read_from_the_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    command("setsecret", "-")
    assert command.config["secret"] == "from a pipe"


def test_gensecret_makes_another_each_time(command: Command) -> None:
    found = set()
    for _ in range(3):
        command("gensecret")
        found.add(command.config["secret"])
    assert len(found) == 3


def test_what_is_wrong_already_can_be_mended_step_by_step(command: Command, home: Path) -> None:
    (home / "config.json").write_text(json.dumps({"monitor_timeout": "x", "idle_timeout": "y", "nonsense": 1}))
    command("del", "monitor_timeout")
    command("set", "idle_timeout", "3")
    assert command.config == {"idle_timeout": 3.0, "nonsense": 1}


def test_changing_nothing_writes_nothing(command: Command, home: Path) -> None:
    command("setnodeid", "x")
    before = (home / "config.json").stat().st_ino
    assert command("setnodeid", "x", "delseeds").out == "nothing to change\n"
    assert (home / "config.json").stat().st_ino == before


def test_file_that_others_could_read_is_closed_and_told_of(command: Command, home: Path) -> None:
    path = home / "config.json"
    path.write_text('{"secret": "known"}')
    path.chmod(0o644)
    assert "other users could read the secret in this file until now" in command("setnodeid", "x").err
    assert (path.stat().st_mode & 0o777, (home / "config.json~").stat().st_mode & 0o777) == (0o600, 0o600)
    assert command("setnodeid", "y").err == ""


@pytest.mark.slow
def test_the_real_command_does_it_where_the_file_usually_is(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        done = aemp(tmp_path, "gensecret", "profile", "server", "setbinds", "*:4040", env={"AEMP_CONFIG": ""})
    finally:
        os.umask(before)
    path = tmp_path / ".config" / "aemp" / "config.json"
    assert done.stdout.endswith(f"wrote {path}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    wrong = aemp(tmp_path, "gensecret", "setbnds", check=False, env={"AEMP_CONFIG": ""})
    assert (wrong.returncode, wrong.stderr) == (2, "aemp: there is no command 'setbnds'; did you mean 'setbinds'?\n")
