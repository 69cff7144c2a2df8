# SPDX-License-Identifier: MIT
"""Names in requests: which arguments are names, and that each is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.node.request_names import first_long_name
from aemp_gevent.wire.vocabulary import CALL, G_CHG2, G_SET, G_SLAVE, G_UPD, LOOKUP, NOT_DONE, SPAWN, TIME

LONG = "n" * 11
WIDE = "\u20ac" * 4
"""Twelve bytes of UTF-8."""


@pytest.mark.parametrize(
    ("request_name", "args"),
    [
        pytest.param(LOOKUP, [LONG, "port"], id="port"),
        pytest.param(LOOKUP, [WIDE, "port"], id="bytes-count"),
        pytest.param(SPAWN, ["port", LONG], id="function"),
        pytest.param(CALL, [{}, LONG, "tag"], id="second-argument"),
        pytest.param(NOT_DONE, ["request", "a reason of any length", LONG], id="first-and-third"),
        pytest.param(G_SLAVE, [{"family": {LONG: 1}}], id="key-of-a-map-of-maps"),
        pytest.param(G_SET, [{LONG: {}}], id="family-of-a-map-of-maps"),
        pytest.param(G_UPD, ["family", {LONG: 1}, []], id="key-of-a-map"),
        pytest.param(G_CHG2, ["family", {}, ["key", LONG]], id="deleted-key"),
    ],
)
def test_long_name_is_found(request_name: str, args: list[Any]) -> None:
    assert first_long_name(request_name, args, 10, is_known=True) in {LONG, WIDE}


@pytest.mark.parametrize(
    ("request_name", "args"),
    [
        pytest.param(LOOKUP, ["short", LONG], id="argument-that-is-not-a-name"),
        pytest.param(TIME, [LONG], id="request-without-names"),
        pytest.param(SPAWN, ["ten bytes!"], id="missing-argument"),
        pytest.param(G_SLAVE, [{"family": {"key": LONG}}], id="value-of-an-entry"),
        pytest.param(G_UPD, ["family", 5, None], id="arguments-of-other-types"),
    ],
)
def test_other_arguments_are_not_bounded(request_name: str, args: list[Any]) -> None:
    assert first_long_name(request_name, args, 10, is_known=True) is None


def test_name_of_an_unknown_request_is_a_functions_name() -> None:
    assert first_long_name(LONG, [], 10, is_known=False) == LONG
    assert first_long_name("short", [LONG], 10, is_known=False) is None
    assert first_long_name(["no", "text"], [LONG], 10, is_known=False) is None
