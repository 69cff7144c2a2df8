# SPDX-License-Identifier: MIT
"""``showconfig`` and ``showprofile``: what is set, where, and no secrets unless asked for."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from aemp_gevent.settings.fields import Settings
from tests.cli.helpers import Command, aemp

BEGIN = {
    "secret": "hush",
    "monitor_timeout": 5,
    "profiles": {
        "base": {"seeds": ["a:1"], "cert": "-----BEGIN secret key"},
        "leaf": {"parent": "base", "nodeid": "leaf"},
        "other": {},
    },
}


@pytest.fixture(autouse=True)
def config(home: Path) -> Path:
    path = home / "config.json"
    path.write_text(json.dumps(BEGIN))
    path.chmod(0o600)
    return path


def test_effective_settings_say_where_each_stands(
    command: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEMP_BINDS", "*:7")
    assert json.loads(command("showconfig", "leaf", "--json").out) == {
        "nodeid": {"value": "leaf", "from": f"profile 'leaf' of {config}"},
        "binds": {"value": ["*:7"], "from": "environment variable AEMP_BINDS"},
        "seeds": {"value": ["a:1"], "from": f"profile 'base' of {config}"},
        "secret": {"value": "(hidden)", "from": f"profile file {config}"},
        "cert": {"value": "(hidden)", "from": f"profile 'base' of {config}"},
        "monitor_timeout": {"value": 5, "from": f"profile file {config}"},
    }


@pytest.mark.parametrize("words", [["showconfig"], ["showconfig", "leaf"], ["showprofile"], ["showprofile", "base"]])
def test_secrets_are_shown_only_when_asked_for(command: Command, words: list[str]) -> None:
    for options in ([], ["--json"], ["--all"] if words[0] == "showconfig" else []):
        shown = command(*words, *options).out
        assert "(hidden)" in shown
        assert "hush" not in shown
        assert "BEGIN" not in shown
    asked = command(*words, "--show-secrets").out
    assert "(hidden)" not in asked
    assert ("hush" in asked) or ("BEGIN" in asked)


def test_table_has_a_line_for_each_setting(command: Command) -> None:
    header, *lines = command("showconfig", "leaf").out.splitlines()
    assert header.split() == ["setting", "value", "from"]
    assert [line.split()[0] for line in lines] == ["nodeid", "seeds", "secret", "cert", "monitor_timeout"]
    everything = command("showconfig", "--all").out.splitlines()
    assert [line.split()[0] for line in everything[1:]] == [field.name for field in fields(Settings)]


def test_profile_shows_what_it_says_itself(command: Command) -> None:
    assert json.loads(command("showprofile", "leaf", "--json").out) == {"parent": "base", "nodeid": "leaf"}
    assert command("showprofile", "other").out == "nothing is set\n"
    assert command("showprofile").out.endswith("profiles: base, leaf, other\n")


def test_behind_other_words_it_shows_what_they_would_change(command: Command, config: Path) -> None:
    shown = command("profile", "leaf", "setnodeid", "twig", "showconfig", "leaf", "--json").out
    assert json.loads(shown.splitlines()[0])["nodeid"]["value"] == "twig"
    assert command.config["profiles"]["leaf"]["nodeid"] == "twig"


@pytest.mark.parametrize("word", ["showconfig", "showprofile"])
def test_unknown_profile_is_reported_with_the_nearest(command: Command, word: str) -> None:
    assert "profile 'laef' does not exist; did you mean 'leaf'?" in command.refused(word, "laef")


def test_showing_makes_no_files(command: Command, home: Path) -> None:
    command("showconfig")
    assert [path.name for path in home.iterdir()] == ["config.json"]


def test_values_are_shown_as_they_would_be_written(command: Command, config: Path) -> None:
    written = {"services": ["a", ["b", 1]], "secret": ["x", "y"], "rules": [{"peer": "w*", "kill": False}]}
    config.write_text(json.dumps(written))
    shown = json.loads(command("showconfig", "--json", "--show-secrets").out)
    assert shown["services"]["value"] == written["services"]
    assert shown["secret"]["value"] == written["secret"]
    (rule,) = shown["rules"]["value"]
    assert (rule["peer"], rule["kill"], rule["spawn"]) == ("w*", False, True)


def test_wrong_setting_is_reported_with_its_place(command: Command, config: Path) -> None:
    config.write_text('{"monitor_timeout": "x"}')
    assert f"profile file {config}: setting 'monitor_timeout' cannot be 'x'" in command.refused("showconfig")


@pytest.mark.slow
def test_no_colours_where_nobody_sees_them(home: Path) -> None:
    for env in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": ""}):
        assert "\x1b" not in aemp(home, "showconfig", "leaf", env=env).stdout
