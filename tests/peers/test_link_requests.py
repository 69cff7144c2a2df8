# SPDX-License-Identifier: MIT
"""Requests about a link are handled at the peer; other nodes and other ports are not involved."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent import Node
from aemp_gevent.peers.link_requests import ABOUT_LINKS
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, Deaths, Inbox, MakeNode, RawPeer
from tests.support.seams import network_of

PEER = "127.0.0.1:9"


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


@pytest.fixture
def peer(node: Node) -> Any:
    with RawPeer.dial(node, PEER, extras=OUR_PROVIDER).shake():
        wait_until(node.up_nodes)
        yield network_of(node).peers[PEER]


def test_the_death_of_a_port_is_reported_without_the_requests_of_the_node(
    node: Node, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(network_of(node).listener, "node_requested", lambda _peer, message: seen.append(message))
    died = Deaths()
    node.mon(f"{PEER}#p", died)
    peer.requested(peer.link, ["kil0", "p", "bad", 1])
    assert died.wait() == ("bad", 1)
    peer.requested(peer.link, ["time", f"{PEER}#r"])
    assert seen == [["time", f"{PEER}#r"]]


@pytest.mark.parametrize("request_", sorted(ABOUT_LINKS))
def test_wrong_arguments_cost_a_log_line_and_not_the_link(
    node: Node, peer: Any, request_: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer.take_request([request_, *[object()] * 5])
    assert peer.is_up
    wait_until(lambda: caplog.records)
    assert f"'{request_}' of {PEER} failed" in caplog.text or "dropped" in caplog.text


def test_a_request_that_comes_through_the_node_port_is_handled_all_the_same(node: Node, peer: Any) -> None:
    inbox = Inbox(node)
    name = inbox.port.partition("#")[2]
    peer.take_request(["snd", node.NODE(), "mon1", name])
    assert peer.peer_monitors.count == 1
    peer.take_request(["snd", node.NODE(), "mon0", name])
    assert peer.peer_monitors.count == 0
