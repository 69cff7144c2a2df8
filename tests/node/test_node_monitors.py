# SPDX-License-Identifier: MIT
"""Callbacks of ``mon_nodes``: their order, their context, and when they end."""

from __future__ import annotations

from typing import Any

from aemp_gevent.ports.context import SELF
from tests.support.helpers import turns, wait_until
from tests.support.networking import Deaths, MakeNode, RawPeer

PEER = "127.0.0.1:9"


def test_mon_nodes_calls_back_in_order_and_in_its_ports_context_until_cancelled(make_node: MakeNode) -> None:
    node = make_node()
    calls: list[Any] = []
    port = node.port(print)
    guard = node.peval(port, node.mon_nodes, lambda *change: calls.append((SELF(), *change)))
    assert guard is not None
    cancelled: list[Any] = []
    with node.mon_nodes(lambda *change: cancelled.append(change)):
        pass
    with RawPeer.dial(node).shake() as peer:
        assert peer.answers()
    wait_until(lambda: len(calls) == 2)
    guard.cancel()
    guard.cancel()
    RawPeer.dial(node).shake().close()
    wait_until(lambda: not node.up_nodes())
    turns(3)
    assert calls[0] == (port, PEER, True)
    assert calls[1][:3] == (port, PEER, False)
    assert len(calls) == 2
    assert cancelled == []


def test_callback_of_mon_nodes_cancelled_after_it_was_queued_is_not_called(make_node: MakeNode) -> None:
    node = make_node()
    calls: list[Any] = []

    def first(*change: Any) -> None:
        calls.append(change)
        guard.cancel()

    node.mon_nodes(first)
    guard = node.mon_nodes(lambda *change: calls.append("too late"))
    with RawPeer.dial(node).shake() as peer:
        assert peer.answers()
        assert calls == [(PEER, True)]


def test_callback_of_a_dead_port_is_dropped(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    mine: list[Any] = []
    others: list[Any] = []
    node.mon(node.port_async(lambda: node.mon_nodes(lambda *change: mine.append(change))), died)
    node.mon_nodes(lambda *change: others.append(change))
    assert died.wait() == ()
    with RawPeer.dial(node).shake():
        wait_until(lambda: others)
    wait_until(lambda: len(others) == 2)
    assert mine == []
    assert len(node._node_monitors._callbacks) == 1
