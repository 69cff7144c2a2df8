# SPDX-License-Identifier: MIT
"""Settings: defaults, where they come from, what is refused, and in which words."""

from __future__ import annotations

import json
import math
import re
import runpy
import traceback
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.errors import InvalidSettingError, NoSecretError, ProfileError, UnknownSettingError
from aemp_gevent.settings.directory_address import DirectoryAddress
from aemp_gevent.settings.fields import SECRET_VARIABLE, Settings, make_settings, variable_of
from aemp_gevent.settings.rules import PeerRule

ROOT = Path(__file__).parents[2]


def file_of(tmp_path: Path, content: object) -> dict[str, str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content, default=asdict))
    path.chmod(0o600)
    return {"AEMP_CONFIG": str(path)}


def test_defaults_are_those_of_the_specification() -> None:
    settings = make_settings({"secret": "s"}, {})
    assert settings == Settings(secret="s")
    assert settings.max_message_bytes == 64 * 2**20
    assert settings.handshake_timeout == 10
    assert settings.monitor_timeout == 30
    assert not (settings.allow_eval or settings.allow_relay or settings.secure)
    assert settings.allow_spawn == settings.seeds == settings.services == ()
    assert settings.hard_limit_bytes > settings.high_water_bytes + settings.max_message_bytes


# --- the secret ------------------------------------------------------------------------------


@pytest.mark.parametrize(("secret", "on_the_wire"), [("grün", "grün".encode()), (b"\xff\x00", b"\xff\x00")])
def test_secret_is_text_or_bytes(secret: str | bytes, on_the_wire: bytes) -> None:
    assert make_settings({"secret": secret}, {}).secrets_bytes == (on_the_wire,)


@pytest.mark.parametrize(
    ("given", "environ"),
    [
        pytest.param({"secret": ["new", b"old"]}, {}, id="call"),
        pytest.param({"secret": ("new", "old")}, {}, id="tuple"),
        pytest.param({}, {SECRET_VARIABLE: '["new", "old"]'}, id="environment"),
    ],
)
def test_secrets_may_be_several_and_the_first_is_sent(given: dict[str, Any], environ: dict[str, str]) -> None:
    assert make_settings(given, environ).secrets_bytes == (b"new", b"old")


@pytest.mark.parametrize("text", ["[new, old]", "a,b", "{}", "[5]"])
def test_secret_of_the_environment_that_is_no_list_is_one_word_for_word(text: str) -> None:
    assert make_settings({}, {SECRET_VARIABLE: text}).secrets_bytes == (text.encode(),)


@pytest.mark.parametrize(
    ("given", "environ"),
    [
        pytest.param({"secret": ["hidden", ""]}, {}, id="empty"),
        pytest.param({"secret": [b""]}, {}, id="empty-bytes"),
        pytest.param({"secret": [["hidden"]]}, {}, id="nested"),
        pytest.param({"secret": {"hidden": 1}}, {}, id="map"),
        pytest.param({}, {SECRET_VARIABLE: '["hidden", "old"'}, id="no-json"),
        pytest.param({}, {SECRET_VARIABLE: '["hidden", 5]'}, id="number"),
    ],
)
def test_list_of_secrets_that_lets_everybody_in_or_makes_no_sense_is_refused(
    given: dict[str, Any], environ: dict[str, str]
) -> None:
    with pytest.raises(InvalidSettingError, match="secret") as caught:
        make_settings(given, environ)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "secret",
    [
        " ",
        "\n",
        "hidden\n",
        "hidden ",
        "\thidden",
        "hidden\u3000",
        b"hidden\r\n",
        b" ",
        ["fine", "hidden\n"],
        [b" hidden"],
    ],
    ids=ascii,
)
def test_secret_that_a_file_gave_a_blank_or_a_line_end_is_refused(tmp_path: Path, secret: Any) -> None:
    """Other programs strip it, and would have another one."""
    with pytest.raises(InvalidSettingError, match="setting 'secret' cannot be .*: it begins or ends with") as caught:
        make_settings({"secret": secret}, {})
    assert "hidden" not in "".join(traceback.format_exception(caught.value))
    if isinstance(secret, str):
        with pytest.raises(InvalidSettingError, match=SECRET_VARIABLE):
            make_settings({}, {SECRET_VARIABLE: secret})


@pytest.mark.parametrize("secret", ["two words", b"\xff\x00\n", b"\n\x01\x02", b"\x80 "])
def test_secret_of_words_or_of_random_bytes_is_taken_as_it_is(secret: str | bytes) -> None:
    assert make_settings({"secret": secret}, {}).secret == secret


def test_certificate_will_do_for_a_secret_and_shows_in_no_repr() -> None:
    settings = make_settings({"cert": "hidden"}, {})
    assert settings.secrets_bytes == ()
    assert "hidden" not in repr(settings)
    with pytest.raises(NoSecretError):
        make_settings({"secret": [], "cert": ""}, {})


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


@pytest.mark.parametrize("where", ["call", "file"])
def test_text_of_an_invalid_secret_does_not_show_it(tmp_path: Path, where: str) -> None:
    wrong = {"secret": ["hidden", 5]}
    with pytest.raises(InvalidSettingError, match="secret") as caught:
        make_settings(wrong if where == "call" else {}, {} if where == "call" else file_of(tmp_path, wrong))
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_misspelt_secret_does_not_show(tmp_path: Path) -> None:
    for environ in ({"AEMP_SECRETS": "hidden"}, file_of(tmp_path, {"secrets": "hidden"})):
        with pytest.raises(UnknownSettingError, match="did you mean") as caught:
            make_settings({}, environ)
        assert "hidden" not in "".join(traceback.format_exception(caught.value))


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret", 5),
        ("nodeid", 4040),
        ("nodeid", "a b"),
        ("nodeid", "%x"),
        ("nodeid", "100%"),
        ("nodeid", "anon/x"),
        ("nodeid", "slave/x@y"),
        ("nodeid", "n" * 256),
        ("nodeid", "h:99999"),
        ("seeds", "127.0.0.1:4040"),
        ("seeds", [4040]),
        ("seeds", 4040),
        ("seeds", None),
        ("seeds", ["a:b:c"]),
        ("binds", "*"),
        ("binds", ["*:x"]),
        ("binds", ["127.0.0.1:0", "a:b:c"]),
        ("services", "shop.work"),
        ("services", [5]),
        ("services", [[]]),
        ("services", [[5]]),
        ("services", [""]),
        ("services", 5),
        ("allow_spawn", "shop.*"),
        ("allow_eval", "yes"),
        ("secure", 1),
        ("allow_relay", None),
        ("max_message_bytes", 0),
        ("max_message_bytes", 1.5),
        ("max_message_bytes", -1),
        ("max_message_bytes", "3"),
        ("max_message_bytes", 2**40 + 1),
        ("max_message_bytes", 2**62),
        pytest.param("max_directory_entries", 10**5000, id="huge-count"),
        ("accept_rate", math.inf),
        pytest.param("accept_rate", 10**5000, id="huge-rate"),
        ("accept_rate", Decimal("nan")),
        ("idle_timeout", math.nan),
        ("idle_timeout", "300"),
        ("handshake_timeout", 2**31),
        ("handshake_timeout", timedelta(0)),
        ("high_water_bytes", True),
        ("handshake_timeout", "10"),
        ("handshake_timeout", -1),
        ("monitor_timeout", 0),
        ("monitor_timeout", math.nan),
        ("monitor_timeout", math.inf),
        ("heartbeat_timeout", -math.inf),
        ("heartbeat_timeout", False),
    ],
)
def test_invalid_value_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSettingError, match=f"the call: setting '{name}' cannot be .*: .+") as caught:
        make_settings({"secret": "s", name: value}, {})
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("max_message_bytes", 2**40, 2**40),
        ("handshake_timeout", timedelta(minutes=1), 60),
        ("handshake_timeout", Decimal("1.5"), 1.5),
        ("idle_timeout", math.inf, None),
        ("idle_timeout", None, None),
    ],
)
def test_value_with_an_obvious_meaning_is_taken(name: str, value: object, taken: object) -> None:
    assert getattr(make_settings({"secret": "s", name: value}, {}), name) == taken


def test_value_of_a_variable_with_too_many_digits_is_refused() -> None:
    for variable in ("AEMP_MAX_MESSAGE_BYTES", "AEMP_HANDSHAKE_TIMEOUT"):
        with pytest.raises(InvalidSettingError, match=variable):
            make_settings({"secret": "s"}, {variable: "9" * 5000})


def test_wrong_value_is_not_shown_at_any_length() -> None:
    with pytest.raises(InvalidSettingError) as caught:
        make_settings({"secret": "s", "seeds": ["h:x"] * 1000}, {})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("nodeid", ["backend/1", "%n:4040", "%n/%u", "*", "", "4041", "a:1,b:2", "n" * 255])
def test_node_ids_that_can_be_made_pass(nodeid: str) -> None:
    if nodeid == "*":
        with pytest.raises(InvalidSettingError):
            make_settings({"secret": "s", "nodeid": nodeid}, {})
    else:
        assert make_settings({"secret": "s", "nodeid": nodeid}, {}).nodeid == nodeid


def test_lists_may_be_any_iterable() -> None:
    given = {"secret": "s", "seeds": iter(["a:1", "b:2"]), "binds": {"*:0"}, "services": iter(["a.b", ["c.d", 1]])}
    settings = make_settings(given, {})
    assert settings.seeds == ("a:1", "b:2")
    assert settings.binds == ("*:0",)
    assert settings.services == (("a.b",), ("c.d", 1))


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("AEMP_NODEID", "backend", "nodeid", "backend"),
        ("AEMP_BINDS", "*:1, 127.0.0.1:2,", "binds", ("*:1", "127.0.0.1:2")),
        ("AEMP_SEEDS", "a:1,b:2", "seeds", ("a:1", "b:2")),
        ("AEMP_SERVICES", "shop.work,shop.watch", "services", (("shop.work",), ("shop.watch",))),
        ("AEMP_SERVICES", '["shop", ["shop.work", 1, "x"]]', "services", (("shop",), ("shop.work", 1, "x"))),
        ("AEMP_ALLOW_EVAL", "1", "allow_eval", True),
        ("AEMP_ALLOW_EVAL", "Yes", "allow_eval", True),
        ("AEMP_SECURE", "off", "secure", False),
        ("AEMP_HIGH_WATER_BYTES", "1024", "high_water_bytes", 1024),
        ("AEMP_HANDSHAKE_TIMEOUT", "1.5", "handshake_timeout", 1.5),
        ("AEMP_MONITOR_TIMEOUT", "15", "monitor_timeout", 15.0),
        ("AEMP_RULES", '[{"peer": "web-*", "spawn": false}]', "rules", (PeerRule(peer="web-*", spawn=False),)),
    ],
)
def test_variable_is_read(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(make_settings({"secret": "s"}, {variable: text}), name) == value


SAMPLES: dict[object, str] = {bool: "true", int: "7", float: "7.5", type(None): "sample", tuple: "sample"}
SAMPLES[DirectoryAddress] = "etcd://host"


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
    ("variable", "text"),
    [
        ("AEMP_ALLOW_EVAL", "perhaps"),
        ("AEMP_HIGH_WATER_BYTES", "4M"),
        ("AEMP_HIGH_WATER_BYTES", "0"),
        ("AEMP_HANDSHAKE_TIMEOUT", "inf"),
        ("AEMP_HANDSHAKE_TIMEOUT", "none"),
        ("AEMP_MONITOR_TIMEOUT", "soon"),
        ("AEMP_SEEDS", "a:b:c"),
        ("AEMP_RULES", "web-*"),
        ("AEMP_RULES", '{"peer": "web-*"}'),
        ("AEMP_BINDS", "1:2:3"),
        ("AEMP_NODEID", "a b"),
        ("AEMP_SERVICES", '["shop"'),
        ("AEMP_SERVICES", "[5]"),
    ],
)
def test_bad_value_of_a_variable_is_refused_with_its_name(variable: str, text: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"environment variable {variable}: .*cannot be .*: .+"):
        make_settings({"secret": "s"}, {variable: text})


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


# --- who wins -----------------------------------------------------------------------------------


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
            "profile 'q' of FILE: setting 'secure' cannot be 1: it is True or False",
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


def test_profile_whose_name_can_be_no_node_id_is_told(tmp_path: Path) -> None:
    environ = file_of(tmp_path, {"profiles": {"a b": {}}})
    with pytest.raises(InvalidSettingError, match="profile 'a b' of .*, which sets no node ID"):
        make_settings({"secret": "s"}, environ, profile="a b")
    assert make_settings({"secret": "s", "nodeid": "x"}, file_of(tmp_path, {"profiles": {"a": {}}}), profile="a")


# --- a new setting -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class More(Settings):
    """Settings of a later version.

    Attributes:
        idle_timeout: None is forever.
        tls: Whether.
    """

    idle_timeout: float | None = 300.0
    tls: bool = False
    limit_bytes: int | None = None


@pytest.mark.parametrize(
    ("given", "environ", "name", "value"),
    [
        ({}, {}, "idle_timeout", 300.0),
        ({"idle_timeout": None}, {"AEMP_IDLE_TIMEOUT": "5"}, "idle_timeout", None),
        ({}, {"AEMP_IDLE_TIMEOUT": "5"}, "idle_timeout", 5.0),
        ({}, {"AEMP_IDLE_TIMEOUT": "None"}, "idle_timeout", None),
        ({}, {"AEMP_TLS": "yes"}, "tls", True),
        ({"limit_bytes": None}, {"AEMP_LIMIT_BYTES": "5"}, "limit_bytes", 5),
    ],
)
def test_new_field_is_all_that_a_new_setting_takes(
    given: dict[str, Any], environ: dict[str, str], name: str, value: object
) -> None:
    assert getattr(make_settings({"secret": "s", **given}, environ, kind=More), name) == value


@pytest.mark.parametrize(
    ("given", "environ"), [({"idle_timeout": -1}, {}), ({}, {"AEMP_IDLE_TIMEOUT": "x"}), ({"limit_bytes": 1.5}, {})]
)
def test_new_field_is_checked(given: dict[str, Any], environ: dict[str, str]) -> None:
    with pytest.raises(InvalidSettingError, match="idle_timeout|limit_bytes"):
        make_settings({"secret": "s", **given}, environ, kind=More)


# --- the reference page ----------------------------------------------------------------------------


def test_reference_page_has_every_setting() -> None:
    table = runpy.run_path(str(ROOT / "docs" / "settings_table.py"))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert page == table["updated"](page), "run .venv/bin/python docs/settings_table.py"


def test_reference_page_needs_a_text_for_each_setting() -> None:
    table = runpy.run_path(str(ROOT / "docs" / "settings_table.py"))["table"]
    with pytest.raises(LookupError, match="limit_bytes"):
        table(More)
