# SPDX-License-Identifier: MIT
"""Deaths of this node's ports are reported to peers, whatever the reason is."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.node.node import Node
from tests.support.helpers import wait_until
from tests.support.networking import (
    Deaths,
    Inbox,
    MakeNode,
    RawPeer,
)
from tests.support.seams import request_host_of

PEER = "127.0.0.1:9"


def test_last_words_of_our_port_leave_before_the_news_of_its_death(make_node: MakeNode) -> None:
    node = make_node()

    def handler() -> None:
        node.snd(f"{PEER}#p", "last words")
        node.kil(port, "why")

    port = node.port(handler)
    name = port.partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        peer.send(["", "mon1", name], [name])
        assert peer.take(2) == [["p", "last words"], ["", "kil0", name, "why"]]


def test_huge_text_of_a_refusal_makes_a_short_reason_and_short_log_lines(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node, died = make_node(), Deaths()
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send(["", "refused", "x" * 1_000_000])
        reason = died.wait()
    assert reason[:2] == ("transport_error", PEER)
    assert "refuses this node: xxx" in reason[2]
    assert len(reason[2]) < 200
    assert any("refuses this node" in line for line in caplog.messages)
    assert max(map(len, caplog.messages)) < 300


@pytest.mark.parametrize("text", ["\ud800", "lone \udc80 surrogate"], ids=ascii)
@pytest.mark.parametrize("odd", ["element", "repr"])
def test_reason_with_lone_surrogates_reaches_every_monitor(make_node: MakeNode, text: str, odd: str) -> None:
    class Odd:
        def __repr__(self) -> str:
            return text

    every_monitor_hears(make_node(), text if odd == "element" else Odd())


def test_reason_that_cannot_be_encoded_reaches_every_monitor(make_node: MakeNode) -> None:
    every_monitor_hears(make_node(), "text", object(), {"deep": [object()]})


def test_reason_larger_than_a_message_reaches_every_monitor(make_node: MakeNode) -> None:
    every_monitor_hears(make_node(max_message_bytes=1500), *["x" * 1000] * 4)


@pytest.mark.parametrize("limit", [500, 100, 30])
def test_death_is_reported_however_small_messages_must_be(make_node: MakeNode, limit: int) -> None:
    node, before, after = make_node(max_message_bytes=limit), Deaths(), Deaths()
    inbox = Inbox(node)
    name = inbox.port.partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        node.mon(inbox, before)
        peer.send(["", "mon1", name])
        watched = request_host_of(node).find_port(name)
        assert watched is not None
        wait_until(lambda: isinstance(watched.monitors, dict))
        node.mon(inbox, after)
        reason = ("x" * 300,) * 4
        node.kil(inbox, *reason)
        assert before.wait() == after.wait() == reason
        assert peer.packet() == ["", "kil0", name, "die"]


def every_monitor_hears(node: Node, *reason: Any) -> None:
    """Kill a port that a peer watches between two monitors of ours."""
    before, after, inbox = Deaths(), Deaths(), Inbox(node)
    name = inbox.port.partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        node.mon(inbox, before)
        peer.send(["", "mon1", name])
        assert peer.answers()
        node.mon(inbox, after)
        node.kil(inbox, *reason)
        assert before.wait() == after.wait() == reason
        request, verb, port, *words = peer.packet()
        assert (request, verb, port) == ("", "kil0", name)
        assert words
        assert all(isinstance(word, str) and len(word) <= 250 for word in words)
        assert peer.answers()


@pytest.mark.parametrize(
    "reason", [(object(), "why"), ("\udc80",), ("x" * 2000,)], ids=["unencodable", "surrogate", "too large"]
)
def test_reason_that_cannot_travel_is_passed_on_in_words(make_node: MakeNode, reason: tuple[Any, ...]) -> None:
    """By ``mon(local, remote)`` and by ``mon(local, remote, *msg)``."""
    node = make_node(max_message_bytes=1500)
    with RawPeer.dial(node).shake() as peer:
        for message in ((), ("it", "died")):
            local = Inbox(node)
            node.mon(local, f"{PEER}#p", *message)
            node.kil(local, *reason)
            packet = peer.packet()
            head = ["p", *message] if message else ["", "kil1", "p"]
            assert packet[: len(head)] == head
            assert len(packet) == len(head) + len(reason)
            assert all(isinstance(word, str) and 0 < len(word) <= 250 for word in packet[len(head) :])
        assert peer.answers()
