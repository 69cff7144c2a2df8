# SPDX-License-Identifier: MIT
"""Peers: monitors across nodes, what happens when a link is lost or never made, and senders that are paused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

import aemp_gevent.peers.redialling
import aemp_gevent.peers.remote_port
import aemp_gevent.peers.remote_ports
from aemp_gevent.links.link import Link
from aemp_gevent.node.node import Node
from tests.helpers import on_hub, turns, wait_until
from tests.networking import (
    OUR_PROVIDER,
    UNIQUE,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    free_address,
)

PEER = "127.0.0.1:9"
SAME = (*OUR_PROVIDER, ("uniq", "one process"))
OTHER = (*OUR_PROVIDER, ("uniq", "another process"))
PERL = (("provider", "AE-2.02"),)


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


def test_monitor_of_a_node_without_address_fires(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aemp_gevent.peers.finding.SETTLE_SECONDS", 0.2)
    node, died = make_node(), Deaths()
    node.mon("some/named/node#x", died)
    kind, name, text = died.wait()
    assert (kind, name) == ("transport_error", "some/named/node")
    assert text.startswith("no known address: ")


def test_node_that_cannot_be_reached_is_logged_once_for_each_attempt(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And not for each message that is lost until the next one."""
    monkeypatch.setattr("aemp_gevent.peers.redialling._FIRST_RETRY_SECONDS", 1000)
    caplog.set_level(logging.INFO)
    node, port = make_node(), f"{free_address()}#x"
    for _ in range(3):
        node.mon(port, died := Deaths())
        assert died.wait()[0] == "transport_error"
    assert len([line for line in caplog.messages if "cannot be reached" in line]) == 1


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
    monkeypatch.setattr(aemp_gevent.peers.redialling, "_FIRST_RETRY_SECONDS", 0.05)
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
        port, other = f"{listener.id}#{UNIQUE}", f"{listener.id}#other"
        node.mon(port, died)
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["", "mon1", UNIQUE]
        died.wait()
        for number in range(3):  # it does not even dial for it
            node.snd(port, "shunned", number)
        assert node.up_nodes() == []
        node.snd(other, "not shunned")
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["other", "not shunned"]
            node.snd(port, "shunned")
            node.mon(port, again)
            node.snd(port, "alive")
            assert peer.take(2) == [["", "mon1", UNIQUE], [UNIQUE, "alive"]]
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


def test_ports_monitored_in_great_numbers_cost_the_same_each(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking through all of them for each new one, once there are many, would take minutes."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_REMOTE_PORTS", 100)
    node = make_node()
    with RawPeer.dial(node).shake():
        (peer,) = node._network.peers.values()  # type: ignore[union-attr]
        peer.ports._sweep_at = 100
        looks = 0
        is_idle = peer.ports._is_idle

        def look(port: aemp_gevent.peers.remote_port.RemotePort) -> bool:
            nonlocal looks
            looks += 1
            return is_idle(port)

        monkeypatch.setattr(peer.ports, "_is_idle", look)
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


# --- what a review found ------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["lost", "in its handshake"])
def test_log_handler_that_blocks_keeps_no_monitor_from_firing(make_node: MakeNode, when: str) -> None:
    """Links are lost on the hub, where nothing may block: a patched program's log handlers have locks that do."""
    released = Event()
    seen: list[str] = []

    class Blocking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            released.wait()
            seen.append(record.getMessage())

    node, died = make_node(handshake_timeout=0.1), Deaths()
    logger, handler = logging.getLogger("aemp_gevent"), Blocking()
    logger.addHandler(handler)
    try:
        with RawListener() as listener:
            node.mon(f"{listener.id}#p", died)
            with listener.accept() as peer:
                if when == "lost":
                    peer.shake()
                    assert peer.packet() == ["", "mon1", "p"]
                else:
                    peer.greet()
            assert died.wait()[:2] == ("transport_error", listener.id)
            assert seen == []
            inbox = Inbox(node)
            node.snd(inbox, "others go on")
            wait_until(lambda: inbox.messages)
        released.set()
        wait_until(lambda: any(listener.id in line for line in seen))
    finally:
        released.set()
        logger.removeHandler(handler)


def test_second_process_that_resets_while_it_is_challenged_takes_no_link_down(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=incarnation("first")).shake() as first:
        node.mon(PEER, died)
        assert first.answers()
        known: Any = node._network.peers[PEER]  # type: ignore[union-attr]
        with RawPeer.dial(node, extras=incarnation("second")).shake() as second:
            newcomer = wait_until(lambda: known._newcomer)
            assert first.packet()[:2] == ["", "time"]
            second.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        first.send([])  # the first is alive, so the second is refused, which finds it gone
        wait_until(lambda: newcomer.closed)
        turns(5)
        assert re.search("refused a second node .*: another is connected from .*; give one", caplog.text)
        assert first.answers()
        assert died.count == 0


@pytest.mark.parametrize("extras", [OUR_PROVIDER, ()], ids=["ours", "another program"])
def test_stranger_who_claims_to_be_a_node_keeps_nobody_waiting(
    make_node: MakeNode, extras: tuple[tuple[str, str], ...]
) -> None:
    """It greets, which needs no secret, and stalls."""
    node, died = make_node(), Deaths()
    with RawListener() as listener, RawPeer.dial(node, listener.id) as stranger:
        stranger.greet()
        links_of(node, listener.id, 1)
        node.mon(f"{listener.id}#p", died)
        node.snd(f"{listener.id}#p", "hello")
        with listener.accept(extras=extras) as peer:
            if not extras:
                stranger.close()  # other programs get one connection after the other
            peer.shake()
            assert peer.take(2) == [["", "mon1", "p"], ["p", "hello"]]
            assert died.count == 0


def test_monitor_fires_although_a_stranger_claims_to_be_its_node(make_node: MakeNode) -> None:
    node, died, address = make_node(handshake_timeout=0.15), Deaths(), free_address()
    with RawPeer.dial(node, address) as stranger:
        stranger.greet()
        links_of(node, address, 1)
        node.mon(f"{address}#p", died)
        assert died.wait()[:2] == ("transport_error", address)


def test_second_connection_of_another_program_waits_for_the_first_to_fail(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as stranger, RawPeer.dial(node) as real:
        stranger.greet()
        links_of(node, PEER, 1)
        shaking = gevent.spawn(real.shake)
        assert [link.proved for link in links_of(node, PEER, 2)] == [True, False]
        stranger.close()
        shaking.get(timeout=WAIT / 2)  # sooner than the handshake's time is over
        assert real.answers()


def test_second_connection_of_another_program_is_closed_when_the_first_is_up(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as first, RawPeer.dial(node) as second:
        first.greet()
        links_of(node, PEER, 1)
        second.greet()
        links_of(node, PEER, 2)
        second.sock.settimeout(WAIT / 4)  # sooner than the handshake's time is over
        first.sock.sendall(first.handshake.prove())
        assert second.closed()
        wait_until(node.up_nodes)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["kil", "mon", "spawn"])
def test_runner_that_reaches_the_hard_limit_lets_a_newcomer_in_from_the_hub(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What the newcomer sent is handled by the pump, which never runs in a runner."""
    node = make_node(high_water_bytes=1000, max_message_bytes=2**20)
    inbox, died, ended = Inbox(node), Deaths(), Deaths()
    off_hub: list[object] = []
    pump = node.scheduler.pump

    def watched() -> None:
        if getcurrent() is not node.scheduler.hub:
            off_hub.append(getcurrent())
        pump()

    with RawPeer.dial(node, extras=incarnation("first")).shake() as first:
        node.mon(PEER, died)
        assert first.answers()
        known: Any = node._network.peers[PEER]  # type: ignore[union-attr]
        with RawPeer.dial(node, extras=incarnation("second")).shake() as second:
            second.send([inbox.port.partition("#")[2], "hi"])
            wait_until(lambda: known._newcomer)
            monkeypatch.setattr(node.scheduler, "pump", watched)

            def reach_the_limit() -> None:
                for _ in send_without_pause(node, PEER, call):
                    if node.node_is_up(PEER) and known.link.incarnation == "second":
                        break
                gevent.sleep(0)

            node.mon(node.port_async(reach_the_limit), ended)
            assert ended.wait() == ()
            assert "hard limit" in died.wait()[2]
            wait_until(lambda: inbox.messages)
            assert inbox.messages == [("hi",)]
            assert off_hub == []


@pytest.mark.slow
@pytest.mark.parametrize("call", ["kil", "mon", "spawn"])
def test_what_waits_for_a_link_is_bounded_by_the_hard_limit(make_node: MakeNode, call: str) -> None:
    """``kil``, ``mon`` and ``spawn`` never pause, and so are not bounded by the high water mark."""
    node, died = make_node(high_water_bytes=1000, max_message_bytes=2**20), Deaths()
    assert node.settings is not None
    with RawListener() as listener:  # nobody accepts
        node.mon(f"{listener.id}#p", died)
        known = node._network.peers[listener.id]  # type: ignore[union-attr]
        for _ in send_without_pause(node, listener.id, call):
            assert known.unsent <= node.settings.hard_limit_bytes
        assert "hard limit" in died.wait()[2]


def send_without_pause(node: Node, peer: str, call: str) -> Iterator[None]:
    """Make large calls of a kind that never pauses, of 30 MB together."""
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


def test_monitor_in_vain_does_not_bring_the_dead_to_life(make_node: MakeNode) -> None:
    """Its node cannot be reached at first, and then comes back as the same process."""
    node, died, again = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        node_id, port = listener.id, f"{listener.id}#{UNIQUE}"
        node.mon(port, died)
        with listener.accept(extras=incarnation("same")).shake() as peer:
            assert peer.packet() == ["", "mon1", UNIQUE]
        died.wait()
    node.mon(port, again)
    assert again.wait()[0] == "transport_error"
    with RawPeer.dial(node, node_id, extras=incarnation("same")).shake() as peer:
        wait_until(lambda: node.node_is_up(node_id))
        node.snd(port, "shunned")
        node.snd(f"{node_id}#q", "not shunned")
        assert peer.packet() == ["q", "not shunned"]
        node.mon(port, print).cancel()
        node.snd(port, "monitored anew")
        assert peer.take(3) == [["", "mon1", UNIQUE], ["", "mon0", UNIQUE], [UNIQUE, "monitored anew"]]


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
def test_death_is_told_however_small_messages_must_be(make_node: MakeNode, limit: int) -> None:
    node, before, after = make_node(max_message_bytes=limit), Deaths(), Deaths()
    inbox = Inbox(node)
    name = inbox.port.partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        node.mon(inbox, before)
        peer.send(["", "mon1", name])
        watched = node._request_host.find_port(name)
        assert watched is not None
        wait_until(lambda: isinstance(watched.monitors, dict))
        node.mon(inbox, after)
        reason = ("x" * 300,) * 4
        node.kil(inbox, *reason)
        assert before.wait() == after.wait() == reason
        assert peer.packet() == ["", "kil0", name, "die"]


@pytest.mark.parametrize("extras", [OUR_PROVIDER, ()], ids=["as one of ours", "as another program"])
def test_stranger_who_claims_to_be_a_node_does_not_hide_its_end(
    make_node: MakeNode, extras: tuple[tuple[str, str], ...]
) -> None:
    """A process that dies closes its connections in order: nobody takes its place."""
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=incarnation("real")).shake() as peer:
        node.mon(PEER, died)
        assert peer.answers()
        with RawPeer.dial(node, extras=extras) as stranger:
            stranger.greet()
            links_of(node, PEER, 2)
            peer.close()
            assert died.wait(2)[:2] == ("transport_error", PEER)


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


def links_of(node: Node, peer: str, count: int) -> list[Link]:
    """Wait until so many connections have greeted as a peer, and return them."""
    peers = node._network.peers  # type: ignore[union-attr]
    wait_until(lambda: peer in peers and len(peers[peer]._links) == count)
    return peers[peer]._links


def incarnation(name: str) -> tuple[tuple[str, str], ...]:
    """Return what a greeting of ours says in a process of this name."""
    return (*OUR_PROVIDER, ("uniq", name))


# --- dead stays dead ------------------------------------------------------------------------


def spawned(node: Node, peer: RawPeer) -> str:
    """Spawn a port at the peer, which notes it, and return its name."""
    name = node.spawn(peer.name, "some.function", 1).partition("#")[2]
    assert peer.take(2) == [["", "AnyEvent::MP::_spawn", name, "some.function", 1], ["", "mon1", name]]
    return name


def test_orphans_are_killed_before_anything_else_when_the_link_returns(make_node: MakeNode) -> None:
    node, down = make_node(), Deaths()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        names = [spawned(node, peer) for _ in range(3)]
        node.mon(PEER, down)
        peer.send(["", "kil0", names[1], "died meanwhile"])
        assert peer.answers()
    down.wait()
    for name in names:
        node.snd(f"{PEER}#{name}", "to the dead")
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        orphans = (names[0], names[2])
        assert [packet[:4] for packet in peer.take(2)] == [["", "kil1", name, "transport_error"] for name in orphans]
        assert peer.take(2) == [["", "mon1", name] for name in orphans]
        for name in orphans:
            peer.send(["", "kil0", name, "killed"])
        assert peer.answers()
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        assert peer.answers(), "killed once more, and its end had been heard of"


def test_orphans_are_killed_anew_when_the_link_is_lost_before_their_end_was_heard_of(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        name = spawned(node, peer)
    wait_until(lambda: not node.up_nodes())
    for _ in range(3):
        with RawPeer.dial(node, extras=SAME).shake() as peer:
            assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", name], ["", "mon1", name]]
        wait_until(lambda: not node.up_nodes())


def test_orphan_that_was_monitored_meanwhile_dies_and_its_monitor_fires(make_node: MakeNode) -> None:
    node, died, lost = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        node.mon(listener.id, lost)
        with listener.accept(extras=SAME).shake() as peer:
            name = spawned(node, peer)
        lost.wait()
        node.mon(f"{listener.id}#{name}", died)
        with listener.accept(extras=SAME).shake() as peer:
            assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", name], ["", "mon1", name]]
            peer.send(["", "kil0", name, "killed"])
            assert died.wait() == ("killed",)
            assert peer.answers(), "watched twice"


def test_other_process_of_the_node_has_no_orphans_of_ours(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        name = spawned(node, peer)
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        assert peer.answers()
        node.snd(f"{PEER}#{name}", "hello")
        assert peer.packet() == [name, "hello"]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        assert peer.answers()


def test_spawn_that_never_left_leaves_nothing_behind(make_node: MakeNode) -> None:
    """Neither an orphan to kill, nor a port to shun: a loop of spawns at a dead node must not fill the memory."""
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake():
        pass
    wait_until(lambda: not node.up_nodes())
    deaths = [Deaths() for _ in range(100)]
    for died in deaths:
        node.mon(node.spawn(PEER, "some.function"), died)
    for died in deaths:
        assert died.wait()[0] == "transport_error"
    peer = node._network.peers[PEER]  # type: ignore[union-attr]
    assert peer.ports._ports == {}


def test_orphans_really_die(make_node: MakeNode) -> None:
    """On a real node: the link breaks, the port lives on; it returns, and the port is gone."""
    one, two = make_node(), make_node(allow_spawn=["tests.node_functions.*"])
    from tests import node_functions

    node_functions.node = two
    answers, died = Inbox(one), Deaths()
    port = one.spawn(two.NODE(), "tests.node_functions.echo", answers.port)
    one.snd(port, "alive")
    wait_until(lambda: answers.messages)
    two.mon(port, died)
    name = port.partition("#")[2]
    (link,) = (peer.link for peer in one._network.peers.values())  # type: ignore[union-attr]
    assert link is not None
    link.fail("broken by the test")
    wait_until(lambda: not two.up_nodes())
    assert two._request_host.find_port(name) is not None
    assert died.count == 0
    one.snd(two.NODE(), "devnull")
    assert died.wait()[0] == "transport_error"
    assert two._request_host.find_port(name) is None


def test_past_the_bound_the_whole_node_is_shunned_port_by_port(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 100)
    node, down = make_node(), Deaths()
    node.mon(PEER, down)  # in vain: it does not listen
    down.wait()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        deaths = [Deaths() for _ in range(101)]
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        node.snd(f"{PEER}#{UNIQUE}abc", "hello")
        peer.take(102)
    for died in deaths:
        died.wait()
    assert caplog.text.count("are shunned until they are monitored again") == 1
    ports = node._network.peers[PEER].ports  # type: ignore[union-attr]
    assert len(ports._ports) <= 1, "each is remembered"
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for name in ("7", "abc", "def"):
            node.snd(f"{PEER}#{UNIQUE}{name}", "to the dead")
        with node.mon(f"{PEER}#{UNIQUE}8", print):
            node.snd(f"{PEER}#{UNIQUE}8", "alive")
            assert peer.take(2) == [["", "mon1", f"{UNIQUE}8"], [f"{UNIQUE}8", "alive"]]
        assert peer.packet() == ["", "mon0", f"{UNIQUE}8"]
        ports._forget_idle()
        node.snd(f"{PEER}#{UNIQUE}8", "still alive")
        assert peer.packet() == [f"{UNIQUE}8", "still alive"]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        node.snd(f"{PEER}#{UNIQUE}7", "alive")
        assert peer.packet() == [f"{UNIQUE}7", "alive"]


def test_dropped_messages_are_logged_once_for_each_port_and_loss(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    node = make_node()
    ports = f"{PEER}#{UNIQUE}1", f"{PEER}#{UNIQUE}2"
    for loss in (1, 2):
        deaths = Deaths(), Deaths()
        with RawPeer.dial(node, extras=SAME).shake() as peer:
            wait_until(node.up_nodes)
            for port, died in zip(ports, deaths, strict=True):
                node.mon(port, died)
            peer.take(2)
        for died in deaths:
            died.wait()
        for number in range(3):
            for port in ports:
                node.snd(port, "card number", number)
                node.snd_nowait(port, "card number", number)
        node.snd(port, "marker")
        dropped = f"message 7 to {ports[1]} dropped"
        wait_until(lambda: sum(dropped in text for text in caplog.messages) == loss)  # noqa: B023  # run at once
        warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "dropped" in r.getMessage()]
        assert len(warned) == 2 * loss
        for port in ports:
            assert sum(port in text and "monitor it again" in text for text in warned) == loss
    assert "card number" not in caplog.text


@pytest.mark.parametrize("extras", [SAME, OTHER, PERL, ()], ids=["same", "restarted", "perl", "another-program"])
def test_port_with_a_given_name_is_reached_again_once_its_loss_was_reported(
    make_node: MakeNode, extras: tuple[tuple[str, str], ...]
) -> None:
    """A name is the address of whoever holds it; nobody was told that it will never answer again."""
    node = make_node()
    first = SAME if extras == OTHER else extras
    for name in ("echo", "distributed", "10", "Some::Service.1"):
        with RawListener() as listener:
            port, died = f"{listener.id}#{name}", Deaths()
            node.mon(port, died)
            with listener.accept(extras=first).shake() as peer:
                assert peer.packet() == ["", "mon1", name]
            assert died.wait()[0] == "transport_error"
            node.snd(port, "hello")  # and has it dialled
            with listener.accept(extras=extras).shake() as peer:
                assert peer.packet() == [name, "hello"]


@pytest.mark.parametrize("extras", [PERL, ()], ids=["perl", "another-program"])
def test_peer_that_tells_no_incarnation_is_not_shunned(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, extras: tuple[tuple[str, str], ...]
) -> None:
    """Not even ports with names like ours, however many: but those that this node spawned are killed first."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 3)
    node = make_node()
    deaths = [Deaths() for _ in range(5)]
    with RawPeer.dial(node, extras=extras).shake() as peer:
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        peer.take(5)
        orphan = spawned(node, peer)
    for died in deaths:
        died.wait()
    with RawPeer.dial(node, extras=extras).shake() as peer:
        assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", orphan], ["", "mon1", orphan]]
        node.snd(f"{PEER}#{orphan}", "to the dead")
        for number in range(5):
            node.snd(f"{PEER}#{UNIQUE}{number}", "hello")
            assert peer.packet() == [f"{UNIQUE}{number}", "hello"]


@pytest.mark.parametrize("how", ["unreachable", "JSON"])
def test_what_is_sent_between_a_loss_and_its_report_is_lost_too(make_node: MakeNode, how: str) -> None:
    """The monitor's action is queued; others who run before it must not send behind the hole."""
    node = make_node()
    events: list[Any] = []
    with RawListener() as listener:
        port = f"{listener.id}#p"
        node.mon(port, lambda *reason: events.append("reported"))
        peer = node._network.peers[listener.id]  # type: ignore[union-attr]
        node.snd(port, b"lost")

        def lose() -> None:
            node.snd(eager, "go")  # stands in the run queue before the report does
            if how == "unreachable":
                peer._unreachable("said the test")
            else:
                peer.ports.missed("p", ("transport_error", "said the test"))

        def send() -> None:
            events.append("sent")
            node.snd(port, "behind the hole")

        eager = node.port(lambda _go: send())
        on_hub(lose)
        wait_until(lambda: len(events) == 2)
        assert events == ["sent", "reported"]
        node.snd(port, "after the report")
        with listener.accept().shake() as other:
            queued = [] if how == "unreachable" else [["", "mon1", "p"], ["p", b"lost"], ["", "mon0", "p"]]
            expected = [*queued, ["p", "after the report"]]
            assert other.take(len(expected)) == expected


@pytest.mark.parametrize("what", ["another monitor", "another incarnation"])
def test_nothing_opens_a_port_again_before_a_loss_was_reported(make_node: MakeNode, what: str) -> None:
    node = make_node()
    events: list[Any] = []
    port = f"{PEER}#p"

    def send() -> None:
        if what == "another monitor":
            node.mon(port, lambda *reason: events.append(("second heard", reason[0])))
        node.snd(port, "behind the hole")
        events.append(("waits for a link", peer.is_waiting))

    with RawPeer.dial(node, extras=SAME).shake() as first:
        node.mon(port, lambda *reason: events.append(("first heard", reason[0])))
        assert first.packet() == ["", "mon1", "p"]
        peer = node._network.peers[PEER]  # type: ignore[union-attr]
        eager = node.port(lambda _go: send())

        def lose() -> None:
            node.snd(eager, "go")  # stands in the run queue before the report does
            peer._lose("said the test")
            if what == "another incarnation":
                peer.ports.reincarnated()

        on_hub(lose)
        second = [("second heard", "transport_error")] if what == "another monitor" else []
        wait_until(lambda: len(events) == 2 + len(second))
        assert events == [("waits for a link", False), ("first heard", "transport_error"), *second]
    with RawPeer.dial(node, extras=OTHER).shake() as other:
        assert other.answers()
        node.snd(port, "after the report")
        assert other.packet() == ["p", "after the report"]


# --- what a second review found ---------------------------------------------------------------


def linked_anew(node: Node, monkeypatch: pytest.MonkeyPatch) -> RawPeer:
    """Have more ports reported dead than are remembered one by one; return the same process, come back."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 3)
    deaths = [Deaths() for _ in range(5)]
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        peer.take(5)
    for died in deaths:
        died.wait()
    peer = RawPeer.dial(node, extras=SAME).shake()
    assert peer.answers()
    return peer


def test_port_spawned_on_a_wholly_shunned_node_is_reached(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node()
    with linked_anew(node, monkeypatch) as peer:
        name = spawned(node, peer)
        node.snd(f"{PEER}#{name}", "hello")
        node.snd(f"{PEER}#{UNIQUE}", "to the dead")
        assert peer.packet() == [name, "hello"]
        assert peer.answers()


def test_ports_monitored_for_a_moment_are_forgotten_on_a_wholly_shunned_node(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_REMOTE_PORTS", 20)
    node = make_node()
    with linked_anew(node, monkeypatch) as peer:
        for number in range(200):
            node.mon(f"{PEER}#{UNIQUE}f{number}", print).cancel()
        assert len(node._network.peers[PEER].ports._ports) < 60  # type: ignore[union-attr]
        peer.take(400)


@pytest.mark.parametrize("how", ["in vain", "until the link is up"])
def test_monitor_that_was_cancelled_before_the_link_is_up_opens_no_port(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.redialling, "_FIRST_RETRY_SECONDS", 0.02)
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        port, other = f"{listener.id}#{UNIQUE}", f"{listener.id}#other"
        node.mon(port, died)
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["", "mon1", UNIQUE]
        died.wait()
        if how == "in vain":
            listener.close()
        with node.mon(port, print):
            pass
        if how == "in vain":
            wait_until(lambda: node._network.peers[listener.id].is_quiet)  # type: ignore[union-attr]
            again = RawPeer.dial(node, listener.id, extras=SAME)
        else:
            again = listener.accept(extras=SAME)
        with again.shake():
            if how != "in vain":
                assert again.take(2) == [["", "mon1", UNIQUE], ["", "mon0", UNIQUE]]
            node.snd(port, "to the dead")
            node.snd(other, "alive")
            assert again.packet() == ["other", "alive"]


def test_orphan_that_was_monitored_for_a_moment_is_seen_to_die(make_node: MakeNode) -> None:
    """While the link is made; what stops that watch must not stop ours."""
    node, lost = make_node(), Deaths()
    with RawListener() as listener:
        node.mon(listener.id, lost)
        with listener.accept(extras=SAME).shake() as peer:
            name = spawned(node, peer)
        lost.wait()
        node.mon(f"{listener.id}#{name}", print).cancel()
        with listener.accept(extras=SAME).shake() as peer:
            packets = [packet[:3] for packet in peer.take(4)]
            assert packets == [["", verb, name] for verb in ("kil1", "mon1", "mon0", "mon1")]
            peer.send(["", "kil0", name, "killed"])
            ports = node._network.peers[listener.id].ports._ports  # type: ignore[union-attr]
            wait_until(lambda: name not in ports)


def test_port_is_watched_anew_after_a_message_that_json_could_not_carry(make_node: MakeNode) -> None:
    node, died, again = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        port = f"{listener.id}#p"
        node.mon(port, died)
        node.snd(port, b"lost")
        with listener.accept(framing="json").shake() as peer:
            assert peer.take(2) == [["", "mon1", "p"], ["", "mon0", "p"]]
            died.wait()
            node.mon(port, again)
            assert peer.packet() == ["", "mon1", "p"]
            peer.send(["", "kil0", "p", "once"])
            assert again.wait() == ("once",)


def test_replies_do_not_reach_a_port_that_was_reported_dead(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(f"{PEER}#{UNIQUE}", died)
        assert peer.packet() == ["", "mon1", UNIQUE]
    died.wait()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for reply_to in (UNIQUE, "q"):
            peer.send(["", "time", f"{PEER}#{reply_to}", "now"])
        assert peer.packet()[:2] == ["q", "now"]


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
        count = limit // 10_000 + 10
        senders = [gevent.spawn(node.snd, f"{listener.id}#p", n, bytes(10_000)) for n in range(count)]
        innocent = gevent.spawn(node.mon, f"{listener.id}#q", print)
        unsent: list[int] = []
        # Behind all of them, and before anything leaves.
        gevent.spawn(lambda: unsent.append(node._network.peers[listener.id].unsent))  # type: ignore[union-attr]
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
        assert node._network.peers[listener.id]._paused_bytes == 0  # type: ignore[union-attr]


def test_late_monitor_hears_of_a_loss_before_anything_is_sent_again(make_node: MakeNode) -> None:
    """Set while the loss was being reported: what was sent since is lost, and nothing may arrive behind that."""
    node = make_node()
    events: list[Any] = []
    port = f"{PEER}#p"

    def monitor_anew(*reason: Any) -> None:
        events.append("first heard")
        node.mon(port, lambda *reason: events.append("late one heard"))
        node.snd(port, "into the hole")
        node.snd(eager, "go")  # stands in the run queue before anything that comes now

    def send() -> None:
        events.append("sent")
        node.snd(port, "after the hole")

    eager = node.port(lambda _go: send())
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(port, monitor_anew)
        assert peer.packet() == ["", "mon1", "p"]
    wait_until(lambda: len(events) == 3)
    assert events == ["first heard", "late one heard", "sent"]
