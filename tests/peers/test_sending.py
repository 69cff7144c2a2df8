# SPDX-License-Identifier: MIT
"""Sending to a peer: what waits for a link, and senders that pause while too much is unsent."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from aemp_gevent.node.node import Node
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.networking import (
    OUR_PROVIDER,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
)
from tests.support.seams import network_of

PEER = "127.0.0.1:9"


SAME = (*OUR_PROVIDER, ("uniq", "one process"))


def test_sender_to_a_stopped_reader_is_paused_and_others_continue(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=100_000)
    sent = 0
    with RawPeer.dial(node).shake() as peer:

        def send() -> None:
            nonlocal sent
            for _ in range(2000):
                node.snd(f"{PEER}#p", b"x" * 10_000)
                sent += 1

        sender = gevent.spawn(send)
        link = network_of(node).peers[PEER].link
        assert link is not None

        def stands_still() -> bool:
            before = sent
            turns(20)
            return 0 < sent == before

        wait_until(stands_still)  # the system's own buffers are full, too, or it is slow to move what is in them
        assert 50_000 < link.transport.buffered < 150_000, "a message is accepted, then its sender is paused"
        # Others are not paused: local ports, other links, and mon and kil on this one.
        inbox = Inbox(node)
        node.snd(inbox, 1)
        with RawPeer.dial(node, "127.0.0.1:8").shake() as other:
            assert other.answers()
        node.mon(f"{PEER}#p", print).cancel()
        node.kil(f"{PEER}#q")
        wait_until(lambda: inbox.messages)
        wait_until(stands_still)
        assert link.transport.buffered < 150_000
        assert sent < 2000
        for _ in range(2000):
            while peer.packet()[0] != "p":
                pass
        sender.get(timeout=5)
        assert sent == 2000


def test_paused_sender_continues_when_the_link_is_lost(make_node: MakeNode) -> None:
    node, died = make_node(high_water_bytes=1000), Deaths()
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{PEER}#p", died)
        sender = gevent.spawn(lambda: [node.snd(f"{PEER}#p", b"x" * 1_000_000) for _ in range(30)])
        wait_until(lambda: network_of(node).peers[PEER].link.transport.buffered > 1000)
        turns(5)
        assert not sender.ready()
        peer.close()
        sender.get(timeout=5)
    assert died.wait()[0] == "transport_error"


def test_sender_is_paused_while_the_link_is_made(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=10_000)
    with RawListener() as listener:
        sender = gevent.spawn(lambda: [node.snd(f"{listener.id}#p", n, b"x" * 1000) for n in range(100)])
        with listener.accept() as peer:
            turns(5)
            assert not sender.ready()
            peer.shake()
            assert [peer.packet()[1] for _ in range(100)] == list(range(100))
        sender.get(timeout=5)


def test_sender_on_the_hub_loses_the_link_at_the_hard_limit(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be paused, and memory is bounded."""
    node, died = make_node(high_water_bytes=1000, max_message_bytes=1_000_000), Deaths()
    assert node.settings is not None
    with RawPeer.dial(node).shake():
        node.mon(f"{PEER}#p", died)
        count = node.settings.hard_limit_bytes // 500_000 + 2
        on_hub(lambda: [node.snd(f"{PEER}#p", b"x" * 500_000) for _ in range(count)])
        assert "hard limit" in died.wait()[2]


def test_large_messages_pass_in_both_directions(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    ours, theirs = Inbox(one), Inbox(two)
    big = bytes(range(256)) * 20_000
    for _ in range(3):
        one.snd(theirs, big)
        two.snd(ours, big)
    wait_until(lambda: len(ours.messages) == len(theirs.messages) == 3, within=10)
    assert ours.messages == theirs.messages == [(big,)] * 3


def test_json_peer_gets_what_json_can_carry(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    """What was queued before its framing was known and cannot be sent is a loss, which is reported."""
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#p", died)
        node.snd(f"{listener.id}#p", "text", {"k": [1]})
        node.snd(f"{listener.id}#p", b"bytes")
        with listener.accept(framing="json").shake() as peer:
            assert peer.take(2) == [["", "mon1", "p"], ["p", "text", {"k": [1]}]]
            assert "JSON" in died.wait()[2]
            with pytest.raises(TypeError, match="JSON"):
                node.snd(f"{listener.id}#p", b"bytes")


@pytest.mark.no_cover
@pytest.mark.slow
@pytest.mark.parametrize("call", ["kil", "mon", "spawn"])
def test_what_waits_for_a_link_is_bounded_by_the_hard_limit(make_node: MakeNode, call: str) -> None:
    """``kil``, ``mon`` and ``spawn`` never pause, and so are not bounded by the high water mark."""
    node, died = make_node(high_water_bytes=1000, max_message_bytes=2**20), Deaths()
    assert node.settings is not None
    with RawListener() as listener:  # nobody accepts
        node.mon(f"{listener.id}#p", died)
        known = network_of(node).peers[listener.id]
        for _ in send_without_pause(node, listener.id, call):
            assert known.unsent <= node.settings.hard_limit_bytes
        assert "hard limit" in died.wait()[2]


def send_without_pause(node: Node, peer: str, call: str) -> Iterator[None]:
    """Make large calls, 30 MB in all, of a kind that never pauses."""
    text = "x" * 500_000
    for number in range(60):
        if call == "kil":
            node.kil(f"{peer}#q", text)
        elif call == "mon":
            for part in range(500):  # a name has a kilobyte
                node.mon(f"{peer}#{number}-{part}-{text[:1000]}", lambda *_reason: None)
        else:
            node.spawn(peer, "a.function", text)
        yield


def test_nothing_follows_a_message_that_json_could_not_carry(make_node: MakeNode) -> None:
    """Of what was queued: either every message arrives, or the monitor fires before the next one."""
    node, died, other_died = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        port, other = f"{listener.id}#p", f"{listener.id}#other"
        node.mon(port, died)
        node.mon(other, other_died)
        node.snd(port, "before")
        node.snd(port, b"lost")
        node.snd(other, "one")
        node.snd(port, "later")
        node.snd(port, b"lost as well")
        node.snd(other, "two")
        with listener.accept(framing="json").shake() as peer:
            assert peer.take(6) == [
                ["", "mon1", "p"],
                ["", "mon1", "other"],
                ["p", "before"],
                ["", "mon0", "p"],
                ["other", "one"],
                ["other", "two"],
            ]
            assert died.wait()[:2] == ("transport_error", listener.id)
            assert peer.answers(), "and nothing else came"
            assert (died.count, other_died.count) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while the link is made", "while it is up"])
def test_paused_senders_do_not_count_for_the_hard_limit(make_node: MakeNode, when: str) -> None:
    """They are as many as the program has; the limit is for what cannot be paused."""
    node, died = make_node(high_water_bytes=1000, max_message_bytes=20_000), Deaths()
    limit = node.settings.hard_limit_bytes  # type: ignore[union-attr]
    with RawListener() as listener:
        peer = None if when == "while the link is made" else RawPeer.dial(node, listener.id, extras=SAME).shake()
        assert peer is None or peer.answers()
        node.mon(f"{listener.id}#p", died)
        count = limit // 10_000 + 1000  # the system takes some of it at once
        senders = [gevent.spawn(node.snd, f"{listener.id}#p", n, bytes(10_000)) for n in range(count)]
        innocent = gevent.spawn(node.mon, f"{listener.id}#q", print)
        unsent: list[int] = []
        # Behind all of them, and before the loop has its turn.
        gevent.spawn(lambda: unsent.append(network_of(node).peers[listener.id].unsent))
        innocent.get(timeout=WAIT)
        turns(1)
        assert unsent[0] > limit
        assert died.count == 0
        with peer or listener.accept(extras=SAME).shake() as reader:
            packets = reader.take(count + 2)
            assert [packet[1] for packet in packets if packet[0] == "p"] == list(range(count))
            gevent.joinall(senders, timeout=WAIT, raise_error=True)
            assert reader.answers()
            assert died.count == 0
        assert network_of(node).peers[listener.id]._paused_bytes == 0
