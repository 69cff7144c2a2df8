# SPDX-License-Identifier: MIT
"""The settings: their defaults, what each may be, and what a new field takes."""

from __future__ import annotations

import json
import runpy
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.errors import InvalidSettingError, NoSecretError, UnknownSettingError
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import SECRET_VARIABLE, make_settings

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
def test_secret_of_the_environment_that_is_not_a_list_is_taken_literally(text: str) -> None:
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


# --- the node ID ---


@pytest.mark.parametrize("nodeid", ["backend/1", "%n:4040", "%n/%u", "*", "", "4041", "a:1,b:2", "n" * 255])
def test_node_ids_that_can_be_made_pass(nodeid: str) -> None:
    if nodeid == "*":
        with pytest.raises(InvalidSettingError):
            make_settings({"secret": "s", "nodeid": nodeid}, {})
    else:
        assert make_settings({"secret": "s", "nodeid": nodeid}, {}).nodeid == nodeid


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
