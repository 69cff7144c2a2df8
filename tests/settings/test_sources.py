# SPDX-License-Identifier: MIT
"""Where settings come from, which place wins, and how errors name the place."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from aemp_gevent.errors import InvalidSettingError, ProfileError, UnknownSettingError
from aemp_gevent.settings.directory_address import DirectoryAddress
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import SECRET_VARIABLE, make_settings, variable_of
from aemp_gevent.settings.value_types import UdpPort

ROOT = Path(__file__).parents[2]


def file_of(tmp_path: Path, content: object) -> dict[str, str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content, default=asdict))
    path.chmod(0o600)
    return {"AEMP_CONFIG": str(path)}


# --- the call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"), [("handshake_timeot", "'handshake_timeout'"), ("seed", "'seeds'"), ("secrets", "'secret'")]
)
def test_unknown_setting_names_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(UnknownSettingError, match=f"the call: .*{name!r}; did you mean {nearest}"):
        make_settings({"secret": "s", name: 1}, {})


def test_unknown_setting_like_none_of_ours_is_named() -> None:
    with pytest.raises(UnknownSettingError, match="there is no setting 'xyzzy'; see the reference page"):
        make_settings({"secret": "s", "xyzzy": 1}, {})


# --- the environment -----------------------------------------------------------------------------


SAMPLES: dict[object, str] = {bool: "true", int: "7", float: "7.5", type(None): "sample", tuple: "sample"}
SAMPLES[DirectoryAddress] = "etcd://host"
SAMPLES[UdpPort] = "4040"


@pytest.mark.parametrize("name", [setting.name for setting in fields(Settings)])
def test_every_setting_has_a_variable_and_a_profile_key(tmp_path: Path, name: str) -> None:
    default = getattr(Settings(), name)
    text = '[{"peer": "x", "kill": false}]' if name == "rules" else SAMPLES[type(default)]
    environ = {SECRET_VARIABLE: "s", variable_of(name): text}
    from_environment = getattr(make_settings({}, environ), name)
    assert from_environment != default
    written = file_of(tmp_path, {"secret": "s", name: from_environment})
    assert getattr(make_settings({}, written), name) == from_environment


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("AEMP_SEED", "AEMP_SEEDS"),
        ("AEMP_NODE_ID", "AEMP_NODEID"),
        ("AEMP_HIGHWATER_BYTES", "AEMP_HIGH_WATER_BYTES"),
        ("AEMP_CONFIG_", "AEMP_CONFIG"),
        ("AEMP_PROFILES", "AEMP_PROFILE"),
    ],
)
def test_misspelt_variable_is_refused(variable: str, nearest: str) -> None:
    with pytest.raises(UnknownSettingError, match=f"the environment: .*'{variable}'; did you mean '{nearest}'"):
        make_settings({"secret": "s"}, {variable: "1"})


def test_variables_of_others_are_ignored() -> None:
    """The first are Kubernetes', for a service named aemp."""
    environ = dict.fromkeys(
        ["AEMP_PORT", "AEMP_PORT_4040_TCP", "AEMP_SERVICE_HOST", "AEMP_SERVICE_PORT_AEMP", "SECURE", "aemp_secure"],
        "tcp://10.0.0.1:4040",
    )
    assert make_settings({"secret": "s"}, environ) == make_settings({"secret": "s"}, {})


@pytest.mark.parametrize("name", [setting.name for setting in fields(Settings) if setting.name != "secret"])
def test_empty_variable_is_not_set(tmp_path: Path, name: str) -> None:
    environ = {**file_of(tmp_path, {"secret": "s"}), variable_of(name): ""}
    assert make_settings({}, environ) == make_settings({"secret": "s"}, {})


# --- which source wins --------------------------------------------------------------------------


def test_call_wins_over_environment_over_profile_over_parent_over_file(tmp_path: Path) -> None:
    names = ["handshake_timeout", "heartbeat_interval", "heartbeat_timeout", "monitor_timeout", "high_water_bytes"]
    environ = file_of(
        tmp_path,
        {
            "secret": "s",
            **dict.fromkeys(names, 1),
            "profiles": {
                "parent": dict.fromkeys(names[:4], 2),
                "child": {"parent": "parent", **dict.fromkeys(names[:3], 3)},
            },
        },
    )
    environ.update({variable_of(name): "4" for name in names[:2]})
    settings = make_settings({names[0]: 5}, environ, profile="child")
    assert [getattr(settings, name) for name in names] == [5, 4, 3, 2, 1]


def test_null_in_a_profile_is_not_given(tmp_path: Path) -> None:
    environ = file_of(tmp_path, {"secret": "s", "nodeid": "top", "profiles": {"a": {"nodeid": None, "binds": None}}})
    assert make_settings({}, environ, profile="a").nodeid == "top"


def test_profile_that_sets_no_node_id_names_the_node(tmp_path: Path) -> None:
    environ = file_of(tmp_path, {"secret": "s", "profiles": {"worker": {}}})
    assert make_settings({}, environ, profile="worker").nodeid == "worker/%u"
    assert make_settings({}, {**environ, "AEMP_PROFILE": "worker"}).nodeid == "worker/%u"
    assert make_settings({}, {**environ, "AEMP_NODEID": "other"}, profile="worker").nodeid == "other"
    assert make_settings({}, environ).nodeid is None


def test_some_settings_may_be_the_calls_alone(tmp_path: Path) -> None:
    environ = {**file_of(tmp_path, {"secret": "s", "binds": ["*:1"], "monitor_timeout": 7}), "AEMP_SEEDS": "a:1"}
    settings = make_settings({"nodeid": "x"}, environ, only_given=("nodeid", "binds", "seeds"))
    assert (settings.nodeid, settings.binds, settings.seeds, settings.monitor_timeout) == ("x", None, (), 7)
    assert make_settings({"binds": ["*:2"]}, environ, only_given=("binds",)).binds == ("*:2",)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        pytest.param(
            {"sedes": [], "profiles": {"p": {}}},
            UnknownSettingError,
            "profile file FILE: .*'sedes'; did you mean 'seeds'",
            id="top",
        ),
        pytest.param(
            {"profiles": {"p": {"sedes": []}}},
            UnknownSettingError,
            "profile 'p' of FILE: .*'sedes'; did you mean 'seeds'",
            id="profile",
        ),
        pytest.param(
            {"profiles": {"p": {"parent": "q"}, "q": {"secure": 1}}},
            InvalidSettingError,
            "profile 'q' of FILE: setting 'secure' cannot be 1: it must be True or False",
            id="parent",
        ),
        pytest.param(
            {"secure": "no", "profiles": {"p": {"secure": True}}},
            InvalidSettingError,
            "profile file FILE: setting 'secure' cannot be 'no'",
            id="hidden-by-the-profile",
        ),
        pytest.param({"profiles": {"a b": {}}}, ProfileError, "no profile 'p'", id="no-such-profile"),
        pytest.param({"profile": {"p": {}}, "profiles": {"p": {}}}, UnknownSettingError, "'profile'", id="as-in-Perl"),
    ],
)
def test_fault_in_the_file_is_refused_with_its_place(
    tmp_path: Path, content: object, error: type[Exception], text: str
) -> None:
    environ = file_of(tmp_path, content)
    with pytest.raises(error, match=text.replace("FILE", re.escape(environ["AEMP_CONFIG"]))):
        make_settings({"secret": "s"}, environ, profile="p")


def test_profile_whose_name_cannot_be_a_node_id_is_named_in_the_error(tmp_path: Path) -> None:
    environ = file_of(tmp_path, {"profiles": {"a b": {}}})
    with pytest.raises(InvalidSettingError, match="profile 'a b' of .*, which sets no node ID"):
        make_settings({"secret": "s"}, environ, profile="a b")
    assert make_settings({"secret": "s", "nodeid": "x"}, file_of(tmp_path, {"profiles": {"a": {}}}), profile="a")
