# SPDX-License-Identifier: MIT
"""What tracing costs while nothing is traced: how often requests look for a tracer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aemp_gevent import SELF, Node, receive
from aemp_gevent.runtime.tracing import TRACING, Tracing
from tests.support.networking import MakeNode

TIMES = 5


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the attributes that were looked up."""
    found: list[str] = []

    class Watched(Tracing):
        def __getattribute__(self, name: str) -> Any:
            found.append(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(TRACING, "__class__", Watched)
    return found


def send(node: Node, port: str) -> None:
    node.snd(port, "echo", 1, SELF())
    assert receive(timeout=10) == (1,)


def syncal(node: Node, port: str) -> None:
    assert node.syncal(10, port, "echo", 1) == (1,)


def call(node: Node, port: str) -> None:
    assert node.call(port, "echo", 1) == 1


def call_async(node: Node, port: str) -> None:
    assert node.call_async(port, "echo", 1).get(timeout=10) == 1


@pytest.mark.parametrize("before", ["never", "earlier"])
@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize(
    ("ask", "most"),
    [
        pytest.param(send, 0, id="snd"),
        pytest.param(syncal, 0, id="syncal"),
        pytest.param(call, 1, id="call"),
        pytest.param(call_async, 1, id="call_async"),
    ],
)
def test_requests_look_for_a_trace_no_more_often_than_this(
    make_node: MakeNode, looks: list[str], ask: Callable[[Node, str], None], most: int, where: str, before: str
) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    if before == "earlier":
        telemetry = pytest.importorskip("aemp_gevent.contrib.opentelemetry", reason="OpenTelemetry is not installed")
        telemetry.instrument(two, messages=True)
        telemetry.uninstrument(two)
    owner = one if where == "there" else two
    handled = owner.rcv(owner.port(), "echo", lambda value, reply: owner.snd(reply, value))
    with two.attach():
        ask(two, handled)  # what happens once does not count
        looks.clear()
        for _ in range(TIMES):
            ask(two, handled)
        # The node that answers another one looks, too: its answer is for a port that it does not know.
        of_answers = TIMES if where == "there" and ask is not send else 0
        assert len(looks) == TIMES * most + of_answers


@pytest.mark.parametrize("where", ["here", "there"])
def test_serving_a_call_looks_for_a_trace_once(make_node: MakeNode, looks: list[str], where: str) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    owner = one if where == "there" else two
    served = owner.serve(owner.port(), echo=lambda value: value)
    call(two, served)
    looks.clear()
    for _ in range(TIMES):
        call(two, served)
    # By the caller, by what serves, and by what sends the answer to another node.
    assert len(looks) == TIMES * (3 if where == "there" else 2)
