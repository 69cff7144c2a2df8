# SPDX-License-Identifier: MIT
"""Peers: monitors across nodes, and what happens when a link is lost or never made."""

from __future__ import annotations

import logging
import re
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
from tests.peers.test_sending import send_without_pause
from tests.support.handshake_timers import HandshakeTimers
from tests.support.helpers import turns, wait_until
from tests.support.networking import (
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
from tests.support.seams import network_of

PEER = "127.0.0.1:9"


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


def test_link_loss_right_after_a_monitor_was_queued_fires_it(make_node: MakeNode) -> None:
    """The connection is made, and dies in its handshake: what was queued for it is reported lost."""
    node, died, gone = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#p", died)
        node.mon(listener.id, gone)
        with listener.accept() as peer:
            peer.greet()
        assert died.wait()[:2] == gone.wait()[:2] == ("transport_error", listener.id)


# --- lost links and log handlers ----------------------------------------------------------------


@pytest.mark.parametrize("when", ["lost", "in its handshake"])
def test_log_handler_that_blocks_keeps_no_monitor_from_firing(make_node: MakeNode, when: str) -> None:
    """Links are lost on the hub, where nothing may block: a patched program's log handlers have locks that do."""
    released = Event()
    seen: list[str] = []

    class Blocking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            released.wait()
            seen.append(record.getMessage())

    node, died = make_node(), Deaths()
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
        known: Any = network_of(node).peers[PEER]
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


@pytest.mark.usefixtures("open_scheduler")
def test_monitor_fires_although_a_stranger_claims_to_be_its_node(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, died, address = make_node(handshake_timeout=3 * WAIT), Deaths(), free_address()
    timers = HandshakeTimers(node, monkeypatch)
    with RawPeer.dial(node, address) as stranger:
        stranger.greet()
        (link,) = links_of(node, address, 1)
        node.mon(f"{address}#p", died)
        wait_until(lambda: link in network_of(node).peers[address]._hopes)  # our own connection failed
        assert died.count == 0
        timers.run_out()
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


@pytest.mark.no_cover
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
        known: Any = network_of(node).peers[PEER]
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
        node.snd(port, "monitored again")
        assert peer.take(2) == [["", "mon1", UNIQUE], [UNIQUE, "monitored again"]]


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


def links_of(node: Node, peer: str, count: int) -> list[Link]:
    """Wait until so many connections have greeted as a peer, and return them."""
    peers = network_of(node).peers
    wait_until(lambda: peer in peers and len(peers[peer]._links) == count)
    return peers[peer]._links


def incarnation(name: str) -> tuple[tuple[str, str], ...]:
    """Return the greeting of this library in a process of this name."""
    return (*OUR_PROVIDER, ("uniq", name))
