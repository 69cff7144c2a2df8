# SPDX-License-Identifier: MIT
"""Answers of other nodes, which may be wrong in any way."""

from __future__ import annotations

import click
import pytest

from aemp_gevent.cli.node_queries import Walk, ask, look
from aemp_gevent.errors import CallTimeout, PortDied
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


class Neighbours(Liar):
    """A node that is linked with two others: ``x`` answers, and ``y`` does not."""

    def __init__(self, answer: object, blocked: str = "") -> None:
        super().__init__(answer)
        self._blocked = blocked

    def call(self, node: str, *_request: object, timeout: float) -> object:
        if node == "y":
            raise CallTimeout(node, "inspect", timeout, self._blocked)
        return self.answer


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param({"blocked": 7.25, "blocked_in": "a.py:1 in f"}, "blocked for 7.2 s in a.py:1 in f", id="blocked"),
        pytest.param({"blocked": 7, "blocked_in": ""}, "its event loop has been blocked for 7.0 s", id="secret"),
        pytest.param({"blocked": 7, "blocked_in": 5}, "its event loop has been blocked for 7.0 s", id="nonsense"),
        pytest.param({"blocked": None, "blocked_in": ""}, "did not answer within 1 s; is it busy?", id="not-blocked"),
        pytest.param({}, "did not answer within 1 s; is it busy?", id="older"),
    ],
)
def test_neighbours_say_that_a_silent_node_is_blocked(row: dict[str, object], says: str) -> None:
    met = Walk(Neighbours({**WHOLE, "links": [{**LINK, **row}]}), 1).go(["x"])  # type: ignore[arg-type]
    assert met["x"].error == ""
    assert says in met["y"].error


def test_neighbours_show_that_a_node_does_not_listen() -> None:
    """It is not said to be perhaps down, as other nodes of which no address is known."""

    class Unreachable(Neighbours):
        def call(self, node: str, *_request: object, timeout: float) -> object:
            if node == "y":
                raise PortDied(node, ("transport_error", node, "no known address: is it running, with the same seeds?"))
            return self.answer

    met = Walk(Unreachable({**WHOLE, "links": [LINK]}), 1).go(["x", "y"])  # type: ignore[arg-type]
    assert met["y"].error == "cannot be asked: it does not listen, but has a link to x"


def test_question_to_a_blocked_node_says_so() -> None:
    with pytest.raises(
        click.ClickException, match=r"y is blocked for 3\.0 s in a\.py:1 in f, and did not answer within 1"
    ):
        ask(Neighbours(WHOLE, "blocked for 3.0 s in a.py:1 in f"), "y", "time", timeout=1)  # type: ignore[arg-type]
