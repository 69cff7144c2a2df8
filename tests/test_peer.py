# SPDX-License-Identifier: MIT
"""Peers: monitors across nodes, what happens when a link is lost or never made, and senders that are paused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import aemp_gevent.peer
import aemp_gevent.remote
from aemp_gevent.node import Node
from tests.helpers import on_hub, turns, wait_until
from tests.networking import Deaths, Inbox, MakeNode, RawListener, RawPeer, free_address, node_factory

PEER = "127.0.0.1:9"


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


# --- monitors that fire because there is no link ------------------------------------------


def test_monitors_of_a_port_of_a_dead_address_fire(make_node: MakeNode) -> None:
    node, died, gone, address = make_node(), Deaths(), Deaths(), free_address()
    node.mon(f"{address}#x", died)
    node.mon(address, gone)
    for deaths in (died, gone):
        kind, where, text = deaths.wait()
        assert (kind, where) == ("transport_error", address)
        assert "refused" in text


def test_monitor_of_a_nonexistent_port_fires(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    died = Deaths()
    port = f"{two.NODE()}#nobody"
    one.mon(port, died)
    assert died.wait() == ("no_such_port", "cannot monitor nonexistent port", port)


def test_monitor_of_a_node_without_address_fires(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    node.mon("some/named/node#x", died)
    assert died.wait() == ("transport_error", "some/named/node", "no known address")


def test_monitor_of_a_node_with_another_secret_fires(make_node: MakeNode) -> None:
    one, two = make_node(), make_node(secret="another")
    died = Deaths()
    one.mon(Inbox(two), died)
    assert died.wait()[:2] == ("transport_error", two.NODE())


def test_monitor_of_a_node_that_is_another_fires(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#x", died)
        sock, _address = listener.sock.accept()
        with RawPeer(sock, "somebody/else") as peer:
            peer.shake()
            assert died.wait()[:2] == ("transport_error", listener.id)
            assert "somebody/else" in died.wait()[2]


@pytest.mark.parametrize("when", ["accepts", "greets"])
def test_monitor_of_a_node_that_stalls_fires(make_node: MakeNode, when: str) -> None:
    node, died = make_node(handshake_timeout=0.1), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#x", died)
        with listener.accept() as peer:
            if when == "greets":
                peer.greet()
            assert died.wait() == ("transport_error", listener.id, "no handshake within 0.1 s")


def test_monitor_of_ports_of_a_private_node_fires_at_once() -> None:
    node, died = Node(), Deaths()
    node.mon("127.0.0.1:1#x", died)
    assert died.wait()[0] == "transport_error"


def test_node_can_be_reached_after_it_could_not(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the next attempt is due, what is sent is dropped at once, and monitors say why."""
    monkeypatch.setattr(aemp_gevent.peer, "_FIRST_RETRY_SECONDS", 0.05)
    node, address = make_node(), free_address()
    died = Deaths()
    node.mon(f"{address}#x", died)
    died.wait()
    again = Deaths()
    node.mon(f"{address}#x", again)
    assert again.wait() == died.wait()
    other = make_node(address)
    inbox = Inbox(other)

    def reached() -> bool:
        node.snd(inbox, "hello")
        return bool(inbox.messages)

    wait_until(reached)


# --- links that are lost -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half-close", "garbage"])
def test_lost_link_fires_everything(make_node: MakeNode, how: str) -> None:
    node = make_node()
    deaths = [Deaths() for _ in range(4)]
    changes: list[Any] = []
    node.mon_nodes(lambda *change: changes.append(change))
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{PEER}#a", deaths[0])
        node.mon(f"{PEER}#a", deaths[1])
        node.mon(f"{PEER}#b", deaths[2])
        node.mon(PEER, deaths[3])
        assert peer.take(2) == [["", "mon1", "a"], ["", "mon1", "b"]]
        if how == "garbage":
            peer.sock.sendall(b"\xc1")
        elif how == "half-close":
            peer.sock.shutdown(1)
        elif how == "reset":
            peer.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
            peer.close()
        else:
            peer.close()
        for died in deaths:
            assert died.wait()[:2] == ("transport_error", PEER)
    wait_until(lambda: len(changes) == 2)
    assert changes[0] == (PEER, True)
    assert changes[1][:4] == (PEER, False, "transport_error", PEER)
    assert [died.count for died in deaths] == [1, 1, 1, 1]
    assert node.up_nodes() == []


def test_dead_stays_dead_until_it_is_monitored_anew(make_node: MakeNode) -> None:
    node = make_node()
    died, again = Deaths(), Deaths()
    with RawListener() as listener:
        port, other = f"{listener.id}#p", f"{listener.id}#other"
        node.mon(port, died)
        with listener.accept().shake() as peer:
            assert peer.packet() == ["", "mon1", "p"]
        died.wait()
        for number in range(3):  # it does not even dial for it
            node.snd(port, "shunned", number)
        assert node.up_nodes() == []
        node.snd(other, "not shunned")
        with listener.accept().shake() as peer:
            assert peer.packet() == ["other", "not shunned"]
            node.snd(port, "shunned")
            node.mon(port, again)
            node.snd(port, "alive")
            assert peer.take(2) == [["", "mon1", "p"], ["p", "alive"]]
    again.wait()


def test_cancelled_monitor_does_not_fire_and_its_port_is_not_shunned(make_node: MakeNode) -> None:
    node, cancelled, died = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        port = f"{listener.id}#p"
        with node.mon(port, cancelled):
            pass
        node.mon(f"{listener.id}#q", died)
        listener.accept().shake().close()
        died.wait()
        node.snd(port, "hello")
        with listener.accept().shake() as peer:
            assert peer.packet() == ["p", "hello"]
    assert cancelled.count == 0


def test_monitor_cancelled_by_an_earlier_one_of_the_same_loss_does_not_fire(make_node: MakeNode) -> None:
    node, first, second = make_node(), Deaths(), Deaths()
    with RawPeer.dial(node).shake() as peer:

        def cancel(*reason: Any) -> None:
            guard.cancel()
            first(*reason)

        node.mon(f"{PEER}#p", cancel)
        guard = node.mon(f"{PEER}#p", second)
        peer.close()
        first.wait()
    turns(5)
    assert second.count == 0


def test_what_the_dead_port_sent_before_comes_before_its_death(make_node: MakeNode) -> None:
    node = make_node()
    events: list[Any] = []
    port = node.port(lambda *message: events.append(message))
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{PEER}#p", port, "died")
        peer.packet()
        peer.send([port.partition("#")[2], "last words"], ["", "kil0", "p", "why"])
        wait_until(lambda: len(events) == 2)
    assert events == [("last words",), ("died", "why")]


def test_ports_monitored_in_great_numbers_cost_the_same_each(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking through all of them for each new one, once there are many, would take minutes."""
    monkeypatch.setattr(aemp_gevent.remote, "MAX_REMOTE_PORTS", 100)
    node = make_node()
    with RawPeer.dial(node).shake():
        (peer,) = node._network.peers.values()  # type: ignore[union-attr]
        peer.ports._sweep_at = 100
        looks = 0

        class Counting(aemp_gevent.remote.RemotePort):
            __slots__ = ()

            @property
            def is_idle(self) -> bool:
                nonlocal looks
                looks += 1
                return super().is_idle

        monkeypatch.setattr(aemp_gevent.remote, "RemotePort", Counting)
        guards = [node.mon(f"{PEER}#{number}", print) for number in range(3000)]
        assert looks < 10_000
        for guard in guards:
            guard.cancel()
        for number in range(10_000):
            node.snd(f"{PEER}#other{number}", 1)
        assert len(peer.ports._ports) < 7000, "idle ones are forgotten"


def test_link_loss_right_after_a_monitor_was_queued_fires_it(make_node: MakeNode) -> None:
    """The connection is made, and dies in its handshake: what was queued for it is not kept in silence."""
    node, died, gone = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#p", died)
        node.mon(listener.id, gone)
        with listener.accept() as peer:
            peer.greet()
        assert died.wait()[:2] == gone.wait()[:2] == ("transport_error", listener.id)


# --- too much unsent -------------------------------------------------------------------------


def test_sender_to_a_stopped_reader_is_paused_and_others_go_on(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=100_000)
    sent = 0
    with RawPeer.dial(node).shake() as peer:

        def send() -> None:
            nonlocal sent
            for _ in range(2000):
                node.snd(f"{PEER}#p", b"x" * 10_000)
                sent += 1

        sender = gevent.spawn(send)
        link = node._network.peers[PEER].link  # type: ignore[union-attr]
        assert link is not None

        def stands_still() -> bool:
            before = sent
            turns(20)
            return 0 < sent == before

        wait_until(stands_still)  # the system's own buffers are full, too
        assert 50_000 < link.transport.buffered < 150_000, "a message is accepted, then its sender is paused"
        stopped_at = sent
        # Others are not paused: local ports, other links, and mon and kil on this one.
        inbox = Inbox(node)
        node.snd(inbox, 1)
        with RawPeer.dial(node, "127.0.0.1:8").shake() as other:
            assert other.answers()
        node.mon(f"{PEER}#p", print).cancel()
        node.kil(f"{PEER}#q")
        wait_until(lambda: inbox.messages)
        assert sent == stopped_at < 2000
        for _ in range(2000):
            while peer.packet()[0] != "p":
                pass
        sender.get(timeout=5)
        assert sent == 2000


def test_paused_sender_goes_on_when_the_link_is_lost(make_node: MakeNode) -> None:
    node, died = make_node(high_water_bytes=1000), Deaths()
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{PEER}#p", died)
        sender = gevent.spawn(lambda: [node.snd(f"{PEER}#p", b"x" * 1_000_000) for _ in range(30)])
        wait_until(lambda: node._network.peers[PEER].link.transport.buffered > 1000)  # type: ignore[union-attr]
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
