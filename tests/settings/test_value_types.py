# SPDX-License-Identifier: MIT
"""Values of settings, by their types: what is taken, what is refused, and what text means."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from aemp_gevent.errors import InvalidSettingError
from aemp_gevent.settings.rules import PeerRule
from aemp_gevent.settings.sources import make_settings

ROOT = Path(__file__).parents[2]


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


def test_lists_may_be_any_iterable() -> None:
    given = {"secret": "s", "seeds": iter(["a:1", "b:2"]), "binds": {"*:0"}, "services": iter(["a.b", ["c.d", 1]])}
    settings = make_settings(given, {})
    assert settings.seeds == ("a:1", "b:2")
    assert settings.binds == ("*:0",)
    assert settings.services == (("a.b",), ("c.d", 1))


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
