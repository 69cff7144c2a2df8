# SPDX-License-Identifier: MIT
"""The events that subscribers of ``zope.event`` get."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import zope.event

from aemp_gevent.errors import PortDied, PortKilled
from aemp_gevent.events import NodeDown, NodeUp
from aemp_gevent.ports.receive import receive
from aemp_gevent.wire.vocabulary import SPAWN
from tests.support import node_functions
from tests.support.helpers import turns, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode, RawPeer

PEER = "127.0.0.1:9"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    heard: list[Any] = []
    monkeypatch.setattr(zope.event, "subscribers", [heard.append])
    return heard


def test_node_up_and_down(make_node: MakeNode, heard: list[Any]) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        assert peer.answers()
        wait_until(lambda: heard)
        peer.send(["", "bye"])
        assert peer.closed()
    wait_until(lambda: len(heard) == 2)
    assert heard == [NodeUp(PEER, node.NODE()), NodeDown(PEER, node.NODE(), ("shutdown", PEER))]


def test_node_up_comes_before_that_nodes_messages(make_node: MakeNode, heard: list[Any]) -> None:
    node = make_node()
    name = node.port(lambda *message: heard.append(message)).partition("#")[2]
    with RawPeer.dial(node) as peer:
        peer.shake()
        peer.send([name, "first"])
        wait_until(lambda: len(heard) == 2)
    assert heard[:2] == [NodeUp(PEER, node.NODE()), ("first",)]


def test_only_abnormal_unmonitored_deaths_are_reported(make_node: MakeNode, heard: list[Any]) -> None:
    node, died = make_node(), Deaths()
    normal, watched, alone = (node.port(print) for _ in range(3))
    node.mon(watched, died)
    node.kil(normal)
    node.kil(watched, "watched")
    node.kil(alone, "alone", 1)
    assert died.wait() == ("watched",)
    wait_until(lambda: heard)
    turns(3)
    assert heard == [PortDied(alone, ("alone", 1))]


@pytest.mark.parametrize("may_kill", [True, False])
def test_death_of_a_spawned_port_is_reported_if_its_parent_does_not_monitor_it(
    make_node: MakeNode, heard: list[Any], may_kill: bool
) -> None:
    node = make_node(allow_spawn=["tests.support.node_functions.*"], rules=[{"peer": "*", "kill": may_kill}])
    node_functions.called.clear()
    with RawPeer.dial(node).shake() as peer:
        peer.send(["", SPAWN, "child", "tests.support.node_functions.note"])
        wait_until(lambda: node_functions.called)
        child = f"{node.NODE()}#child"
        rows = node.call(node.NODE(), "inspect", ["ports"])["ports"]
        assert [row["monitors"] for row in rows if row["port"] == child] == [0]
        node.kil(child, "alone")
        wait_until(lambda: PortDied(child, ("alone",)) in heard)


def test_death_of_a_port_spawned_on_another_node_is_reported_if_its_parent_does_not_monitor_it(
    make_node: MakeNode, heard: list[Any]
) -> None:
    one, two = make_node(), make_node(allow_spawn=["tests.support.node_functions.*"])
    died = Deaths()
    watched, alone = (one.spawn(two.NODE(), "tests.support.node_functions.fail", text) for text in ("watched", "alone"))
    one.mon(watched, died)
    assert died.wait() == ("die", "ValueError: watched")
    told = PortDied(alone, ("die", "ValueError: alone"))
    wait_until(lambda: told in heard)
    assert [event for event in heard if isinstance(event, PortDied)] == [told]


def test_death_is_reported_once_although_the_code_continues_and_ends_later(
    make_node: MakeNode, heard: list[Any]
) -> None:
    node, ended = make_node(), Deaths()

    def stubborn() -> None:
        for _ in range(2):
            with suppress(PortKilled):
                receive()
        ended()

    alone, watched = node.port_async(stubborn), node.port_async(stubborn)
    died = Deaths()
    node.mon(watched, died)
    turns(3)
    node.kil(alone, "alone")
    node.kil(watched, "watched")
    assert died.wait() == ("watched",)
    wait_until(lambda: ended.count == 2 and heard)
    turns(3)
    assert heard == [PortDied(alone, ("alone",))]
    assert died.count == 1


def test_subscriber_that_raises_or_blocks_does_not_affect_others(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(event: object) -> None:
        raise ValueError("a bad subscriber")

    monkeypatch.setattr(zope.event, "subscribers", [bad])
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.snd(inbox, 1)
    wait_until(lambda: inbox.messages)
    assert "a bad subscriber" in caplog.text
