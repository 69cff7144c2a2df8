# SPDX-License-Identifier: MIT
"""The profile file: its path and permissions, which profile is taken, and what it inherits."""

from __future__ import annotations

import json
import os
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aemp_gevent.settings.profiles
from aemp_gevent.errors import ProfileError
from aemp_gevent.settings.profiles import default_path, read_profile

SECRETS = ("secret",)

Write = Callable[..., dict[str, str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a profile file, and return an environment that names it."""

    def write(content: object, mode: int = 0o600) -> dict[str, str]:
        path = tmp_path / "config.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        path.chmod(mode)
        return {"AEMP_CONFIG": str(path)}

    return write


@pytest.fixture(autouse=True)
def host_name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("socket.gethostname", lambda: "ourhost")
    return "ourhost"


def effective(name: str | None, environ: dict[str, str]) -> dict[str, Any]:
    """Return the settings of all layers; the first layer wins."""
    values: dict[str, Any] = {}
    for layer in read_profile(name, environ, SECRETS):
        for key, value in layer.values.items():
            values.setdefault(key, value)
    return values


FAMILY = {
    "seeds": ["top:1"],
    "monitor_timeout": 1,
    "profiles": {
        "grandmother": {"binds": ["*:1"], "high_water_bytes": 1, "monitor_timeout": 2},
        "mother": {"parent": "grandmother", "binds": ["*:2"], "nodeid": "mother"},
        "child": {"parent": "mother", "nodeid": "child/%u"},
        "stranger": {"nodeid": "stranger"},
    },
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param(None, {"seeds": ["top:1"], "monitor_timeout": 1}, id="no-profile-means-the-top"),
        pytest.param(
            "stranger", {"seeds": ["top:1"], "monitor_timeout": 1, "nodeid": "stranger"}, id="the-top-is-inherited"
        ),
        pytest.param(
            "child",
            {
                "seeds": ["top:1"],
                "monitor_timeout": 2,
                "nodeid": "child/%u",
                "binds": ["*:2"],
                "high_water_bytes": 1,
            },
            id="nearest-ancestor-wins",
        ),
        pytest.param(
            "grandmother",
            {
                "seeds": ["top:1"],
                "monitor_timeout": 2,
                "nodeid": "grandmother/%u",
                "binds": ["*:1"],
                "high_water_bytes": 1,
            },
            id="nameless-profile-is-called-after-itself",
        ),
    ],
)
def test_profile_inherits(write: Write, name: str | None, values: dict[str, Any]) -> None:
    assert effective(name, write(FAMILY)) == values


def test_layers_name_their_source(write: Write) -> None:
    environ = write(FAMILY)
    wheres = [layer.where for layer in read_profile("child", environ, SECRETS)]
    assert [where.replace(environ["AEMP_CONFIG"], "FILE") for where in wheres] == [
        "profile 'child' of FILE",
        "profile 'mother' of FILE",
        "profile 'grandmother' of FILE",
        "profile file FILE",
        "profile 'child' of FILE, which sets no node ID",
    ]


@pytest.mark.parametrize(
    ("profiles", "asked", "chosen"),
    [
        pytest.param(["default", "ourhost", "other"], None, "ourhost", id="host-before-default"),
        pytest.param(["default", "other"], None, "default", id="default"),
        pytest.param(["other"], None, None, id="neither-need-exist"),
        pytest.param(["default", "ourhost", "other"], "other", "other", id="call"),
    ],
)
def test_profile_is_chosen(write: Write, profiles: list[str], asked: str | None, chosen: str | None) -> None:
    environ = write({"profiles": {name: {"nodeid": name} for name in profiles}})
    assert effective(asked, environ).get("nodeid") == chosen


def test_environment_names_the_profile_unless_the_call_does(write: Write) -> None:
    environ = {**write(FAMILY), "AEMP_PROFILE": "stranger"}
    assert effective(None, environ)["nodeid"] == "stranger"
    assert effective("mother", environ)["nodeid"] == "mother"
    assert "nodeid" not in effective(None, {**environ, "AEMP_PROFILE": ""})


def test_profile_that_was_not_given_by_name_does_not_name_the_node(write: Write) -> None:
    assert effective(None, write({"profiles": {"default": {"seeds": []}}})) == {"seeds": []}


def test_percent_signs_of_a_profiles_name_are_not_expanded(write: Write) -> None:
    assert effective("a%n", write({"profiles": {"a%n": {}}}))["nodeid"] == "a%%n/%u"


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        pytest.param(FAMILY, "moter", "no profile 'moter'; did you mean 'mother'", id="unknown-near"),
        pytest.param(FAMILY, "xyz", "no profile 'xyz'; there are: grandmother, mother, child", id="unknown"),
        pytest.param(
            {}, "xyz", "no profile 'xyz'; the file has no profiles; 'aemp profile NAME …' makes one", id="no-profiles"
        ),
        pytest.param(
            {"profiles": {"a": {"parent": "b"}, "c": {}}},
            "a",
            "the parent of profile 'a' is 'b', which does not exist",
            id="unknown-parent",
        ),
        pytest.param(
            {"profiles": {"a": {"parent": "b"}, "b": {"parent": "c"}, "c": {"parent": "b"}}},
            "a",
            "in a circle: a -> b -> c -> b",
            id="circle",
        ),
        pytest.param({"profiles": {"a": {"parent": "a"}}}, "a", "in a circle: a -> a", id="own-parent"),
        pytest.param({"profiles": {"a": {"parent": 5}}}, "a", "parent of 'a' must be the name", id="parent-no-name"),
        pytest.param({"profiles": {"a": []}}, "a", "profile 'a' must be an object", id="profile-no-object"),
        pytest.param({"profiles": ["a"]}, None, "'profiles' must be an object", id="profiles-no-object"),
        pytest.param([], None, "one JSON object", id="no-object"),
        pytest.param(b"{'a': 1}", None, "not JSON: .*line 1 column 2", id="no-JSON"),
        pytest.param(b'{"a": 1, "a": 2}', None, "the key 'a' occurs twice", id="key-twice"),
        pytest.param(b'{"profiles": {"x": {}, "x": {}}}', None, "the key 'x' occurs twice", id="profile-twice"),
        pytest.param(b'{"a": NaN}', None, "NaN is not JSON", id="NaN"),
        pytest.param(b'{"a": "\xff"}', None, "not encoded in UTF-8", id="no-UTF-8"),
        pytest.param(b"[" * 100_000, None, "nested too deeply", id="nested-too-deeply"),
    ],
)
def test_malformed_file_is_refused_with_its_name(write: Write, content: object, name: str | None, why: str) -> None:
    environ = write(content)
    with pytest.raises(ProfileError, match=why) as caught:
        read_profile(name, environ, SECRETS)
    assert environ["AEMP_CONFIG"] in str(caught.value)


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_empty_file_has_no_settings(write: Write, content: bytes) -> None:
    assert effective(None, write(content)) == {}


def test_dev_null_is_an_empty_file() -> None:
    assert effective(None, {"AEMP_CONFIG": os.devnull, "HOME": "/nonexistent"}) == {}


# --- permissions --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
@pytest.mark.parametrize(
    "content",
    [{"secret": "s"}, {"profiles": {"a": {"secret": "s"}, "b": {}}}],
    ids=["at-the-top", "in-a-profile-not-asked-for"],
)
def test_secret_that_others_may_read_is_refused(write: Write, content: object, mode: int) -> None:
    with pytest.raises(ProfileError, match=f"mode {mode:04o}"):
        read_profile(None, write(content, mode), SECRETS)


def test_command_of_the_error_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "with a blank and 'quotes'.json"
    path.write_text('{"secret": "s"}')
    path.chmod(0o644)
    environ = {"AEMP_CONFIG": str(path)}
    with pytest.raises(ProfileError) as caught:
        read_profile(None, environ, SECRETS)
    command = str(caught.value).partition("): ")[2]
    subprocess.run(command, shell=True, check=True)
    assert effective(None, environ) == {"secret": "s"}


@pytest.mark.parametrize(
    ("content", "mode"),
    [({"secret": "s"}, 0o600), ({"secret": "s"}, 0o400), ({"seeds": []}, 0o644)],
    ids=["secret-0600", "secret-0400", "no-secret-0644"],
)
def test_file_that_reveals_no_secret_is_read(write: Write, content: dict[str, Any], mode: int) -> None:
    assert effective(None, write(content, mode)) == content


# --- where it is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environ", "path"),
    [
        ("linux", {"HOME": "/h"}, "/h/.config/aemp/config.json"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/aemp/config.json"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": ""}, "/h/.config/aemp/config.json"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, "/h/.config/aemp/config.json"),
        ("linux", {"XDG_CONFIG_HOME": "/x"}, "/x/aemp/config.json"),
        ("linux", {}, None),
        ("darwin", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/h/Library/Application Support/aemp/config.json"),
        ("darwin", {}, None),
    ],
)
def test_file_is_looked_for_where_the_platform_keeps_such(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], path: str | None
) -> None:
    monkeypatch.setattr(aemp_gevent.settings.profiles.sys, "platform", platform)
    assert default_path(environ) == (None if path is None else Path(path))


def test_file_in_its_usual_place_is_read_and_hidden_by_the_variable(tmp_path: Path, write: Write) -> None:
    usual = tmp_path / "aemp"
    usual.mkdir()
    (usual / "config.json").write_text('{"seeds": ["usual:1"]}')
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    if default_path(environ) is not None:  # not on macOS
        assert effective(None, environ) == {"seeds": ["usual:1"]}
    assert effective(None, {**environ, **write({"seeds": []})}) == {"seeds": []}


@pytest.mark.parametrize("home", ["", "/nonexistent", os.devnull])
def test_file_need_not_exist_in_its_usual_place(home: str, caplog: pytest.LogCaptureFixture) -> None:
    assert effective(None, {"HOME": home}) == {}
    assert not caplog.records
    with pytest.raises(ProfileError, match="no profile 'x'; the file has no profiles"):
        read_profile("x", {"HOME": home}, SECRETS)


def test_unreadable_file_in_its_usual_place_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = default_path({"HOME": str(tmp_path)})
    assert path is not None
    path.mkdir(parents=True)  # a directory: root may read every file
    assert effective(None, {"HOME": str(tmp_path)}) == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


def test_file_named_by_the_variable_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file.*AEMP_CONFIG"):
        read_profile(None, {"AEMP_CONFIG": str(tmp_path / "none")}, SECRETS)


# --- secrets ---------------------------------------------------------------------------------


def test_layers_do_not_show_secrets(write: Write) -> None:
    assert "hidden" not in repr(read_profile(None, write({"secret": "hidden"}), SECRETS))


@pytest.mark.parametrize("content", [b'{"secret": "hidden" "x"}', b'{"secret": "hidden\xff"}', b'["hidden"]'])
def test_errors_do_not_show_secrets(write: Write, content: bytes) -> None:
    with pytest.raises(ProfileError) as caught:
        read_profile(None, write(content), SECRETS)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None, "a JSONDecodeError carries the whole text"
