# SPDX-License-Identifier: MIT
"""Settings: defaults, what is refused, and in which words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aemp_gevent.errors import InvalidSettingError, NoSecretError, UnknownSettingError
from aemp_gevent.settings import SECRET_VARIABLE, Settings, make_settings


def test_defaults_are_those_of_the_specification() -> None:
    settings = make_settings({"secret": "s"}, {})
    assert settings.max_message_bytes == 64 * 2**20
    assert settings.handshake_timeout == 10
    assert settings.monitor_timeout == 30
    assert not (settings.allow_eval or settings.allow_relay or settings.secure)
    assert settings.allow_spawn == settings.seeds == ()
    assert settings.hard_limit_bytes > settings.high_water_bytes + settings.max_message_bytes


@pytest.mark.parametrize(("secret", "on_the_wire"), [("grün", "grün".encode()), (b"\xff\x00", b"\xff\x00")])
def test_secret_is_text_or_bytes(secret: str | bytes, on_the_wire: bytes) -> None:
    assert make_settings({"secret": secret}).secret_bytes == on_the_wire


def test_secret_of_the_environment_is_used_when_none_is_given() -> None:
    environ = {SECRET_VARIABLE: "from outside"}
    assert make_settings({}, environ).secret == "from outside"
    assert make_settings({"secret": None}, environ).secret == "from outside"
    assert make_settings({"secret": "mine"}, environ).secret == "mine"


@pytest.mark.parametrize(("given", "environ"), [({}, {}), ({"secret": ""}, {}), ({}, {SECRET_VARIABLE: ""})])
def test_no_secret_is_refused(given: dict[str, Any], environ: dict[str, str]) -> None:
    with pytest.raises(NoSecretError, match="AEMP_SECRET"):
        make_settings(given, environ)


def test_secret_never_shows_in_repr() -> None:
    assert "hidden" not in repr(Settings(secret="hidden"))


@pytest.mark.parametrize(
    ("name", "nearest"), [("handshake_timeot", "'handshake_timeout'"), ("seed", "'seeds'"), ("secrets", "'secret'")]
)
def test_unknown_setting_names_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(UnknownSettingError, match=f"{name!r}; did you mean {nearest}"):
        make_settings({"secret": "s", name: 1})


def test_unknown_setting_like_none_of_ours_is_named() -> None:
    with pytest.raises(UnknownSettingError, match="there is no setting 'xyzzy'$"):
        make_settings({"secret": "s", "xyzzy": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret", 5),
        ("nodeid", 4040),
        ("seeds", "127.0.0.1:4040"),
        ("seeds", [4040]),
        ("seeds", 4040),
        ("binds", "*"),
        ("allow_spawn", "shop.*"),
        ("allow_eval", "yes"),
        ("secure", 1),
        ("allow_relay", None),
        ("max_message_bytes", 0),
        ("max_message_bytes", 1.5),
        ("high_water_bytes", True),
        ("handshake_timeout", "10"),
        ("handshake_timeout", -1),
        ("monitor_timeout", 0),
        ("monitor_timeout", math.nan),
        ("monitor_timeout", math.inf),
        ("heartbeat_timeout", -math.inf),
    ],
)
def test_invalid_value_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSettingError, match=f"setting '{name}'") as caught:
        make_settings({"secret": "s", name: value})
    assert caught.value.name == name


def test_text_of_an_invalid_secret_does_not_show_it() -> None:
    with pytest.raises(InvalidSettingError) as caught:
        make_settings({"secret": ["hidden"]})
    assert "hidden" not in str(caught.value)


def test_lists_may_be_any_iterable() -> None:
    settings = make_settings({"secret": "s", "seeds": iter(["a:1", "b:2"]), "binds": {"*:0"}})
    assert settings.seeds == ("a:1", "b:2")
    assert settings.binds == ("*:0",)
