# SPDX-License-Identifier: MIT
"""Answers of other nodes, which may be wrong in any way."""

from __future__ import annotations

import click
import pytest

from aemp_gevent.cli.node_queries import look
from tests.cli.helpers import Liar

WHOLE = {
    "node": "x",
    "provider": "",
    "time": 0,
    "seconds": 0,
    "roles": [],
    "link_count": 0,
    "port_count": 0,
    "messages": 0,
    "deepest": 0,
    "blocked": 0,
    "lag": 0,
    "worst_lag": 0,
    "memory": 1,
    "cpu": 1,
    "rights": {"eval": False},
}
LINK = {"node": "y", "state": "up", "via": None, "unsent": 0, "seconds": 1.0}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param({"error": "not you\x1b[2J"}, "x refuses to be inspected: not you", id="error"),
        pytest.param(5, "another version", id="no-map"),
        pytest.param({"node": "x"}, "another version", id="little"),
        pytest.param({**WHOLE, "links": [{"node": "y"}]}, "another version", id="half-a-link"),
        pytest.param({**WHOLE, "ports": [5]}, "another version", id="no-port"),
        pytest.param({**WHOLE, "ports": 5}, "another version", id="no-ports"),
        pytest.param({**WHOLE, "roles": 5}, "another version", id="no-roles"),
        pytest.param({**WHOLE, "roles": [5]}, "another version", id="no-role"),
        pytest.param({**WHOLE, "lag": "late"}, "another version", id="no-number"),
        pytest.param({**WHOLE, "rights": {}}, "another version", id="no-rights"),
        pytest.param({**WHOLE, "links": [{**LINK, "node": None}]}, "another version", id="nobodys-link"),
    ],
)
def test_invalid_answer_is_an_error_in_words(answer: object, says: str) -> None:
    with pytest.raises(click.ClickException, match=says):
        look(Liar(answer), "x", timeout=1)  # type: ignore[arg-type]


def test_answer_that_is_whole_is_taken() -> None:
    assert look(Liar(WHOLE), "x", timeout=1) == WHOLE  # type: ignore[arg-type]
