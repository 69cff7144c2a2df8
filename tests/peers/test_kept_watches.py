# SPDX-License-Identifier: MIT
"""Watches that outlive their last monitor: calls in sequence ask the peer once, and nothing is watched forever."""

from __future__ import annotations

from time import monotonic

import pytest

from aemp_gevent.errors import CallTimeout, PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.peers import kept_watches, remote_ports
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, UNIQUE, Deaths, Inbox, MakeNode, RawPeer, name_of
from tests.support.seams import end_kept_watches, network_of

P, Q, R = (UNIQUE + letter for letter in "abc")
"""Names that no program chose."""


def monitors_for_a_moment(node: Node, port: str) -> None:
    node.mon(port, print).cancel()


def test_calls_in_sequence_ask_the_peer_once_to_watch(make_node: MakeNode) -> None:
    caller, server = make_node(), make_node()
    port = server.serve(server.port(), add=lambda one, two: one + two)
    assert caller.call(port, "add", 1, 2) == 3
    link = network_of(caller).peers[server.NODE()].link
    assert link is not None
    before = link.sent_packets
    for number in range(10):
        assert caller.call(port, "add", number, 1) == number + 1
    assert link.sent_packets - before == 10


def test_a_death_is_heard_by_the_next_to_monitor(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        port, died = f"{peer.name}#{P}", Deaths()
        monitors_for_a_moment(node, port)
        assert peer.packet() == ["", "mon1", P]
        node.mon(port, died)
        peer.send(["", "kil0", P, "it is over"])
        assert died.wait() == ("it is over",)
        node.mon(port, died)
        assert peer.packet() == ["", "mon1", P], "it died, so the next to monitor it must ask"


def test_a_death_that_nobody_monitored_is_forgotten(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        died = Deaths()
        monitors_for_a_moment(node, f"{peer.name}#{P}")
        assert peer.packet() == ["", "mon1", P]
        peer.send(["", "kil0", P, "it is over"])
        assert peer.answers()
        node.mon(f"{peer.name}#{P}", died)
        assert peer.packet() == ["", "mon1", P]
        node.snd(f"{peer.name}#{P}", "hello")
        assert peer.packet() == [P, "hello"]
        assert died.count == 0


def test_a_watch_ends_after_a_while(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_watches, "KEPT_SECONDS", 0.1)
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        monitors_for_a_moment(node, f"{peer.name}#{P}")
        still = node.mon(f"{peer.name}#{Q}", print)
        assert peer.take(3) == [["", "mon1", P], ["", "mon1", Q], ["", "mon0", P]]
        still.cancel()
        assert peer.packet() == ["", "mon0", Q]
        assert not network_of(node).peers[peer.name].ports.kept
        assert not node.scheduler.timers


def test_a_watch_that_is_needed_again_stays(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        died = Deaths()
        monitors_for_a_moment(node, f"{peer.name}#{P}")
        node.mon(f"{peer.name}#{P}", died)
        end_kept_watches(node)
        assert peer.packet() == ["", "mon1", P]
        peer.send(["", "kil0", P, "it is over"])
        assert died.wait() == ("it is over",), "or the peer was told to stop"


def test_few_watches_are_kept_those_that_were_needed_last(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ports, "MAX_KEPT", 2)
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        for name in (P, Q, P, R):
            monitors_for_a_moment(node, f"{peer.name}#{name}")
        assert peer.take(4) == [["", "mon1", P], ["", "mon1", Q], ["", "mon1", R], ["", "mon0", Q]]
        assert peer.answers()


def test_a_peer_that_has_no_room_gets_some(make_node: MakeNode) -> None:
    """It watches three ports for us at most, and two of them in vain."""
    node, other = make_node(), make_node(max_watched_ports=3)
    ports = [Inbox(other).port for _ in range(5)]
    died = [Deaths() for _ in ports]
    node.mon(ports[0], died[0])
    for port in ports[1:3]:
        monitors_for_a_moment(node, port)
    for number in (3, 4):
        node.mon(ports[number], died[number])
        wait_until(lambda number=number: watched_by(other, node) >= {name_of(ports[0]), name_of(ports[number])})
    for number in (0, 3, 4):
        other.kil(ports[number], "it is over")
        assert died[number].wait() == ("it is over",)


def test_a_peer_that_has_no_room_for_several_at_once_is_asked_again_for_each(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        died = [Deaths(), Deaths()]
        monitors_for_a_moment(node, f"{peer.name}#{R}")
        for name, death in zip((P, Q), died, strict=True):
            node.mon(f"{peer.name}#{name}", death)
        assert peer.take(3) == [["", "mon1", R], ["", "mon1", P], ["", "mon1", Q]]
        peer.send(*(["", "kil0", name, "monitor_refused", name, "no room"] for name in (P, Q)))
        assert peer.take(3) == [["", "mon0", R], ["", "mon1", P], ["", "mon1", Q]]
        peer.send(["", "kil0", P, "monitor_refused", P, "no room"], ["", "kil0", Q, "it is over"])
        assert [death.wait()[0] for death in died] == ["monitor_refused", "it is over"]
        assert peer.answers(), "it was asked no third time"


def test_a_peer_that_refuses_all_the_same_is_believed(make_node: MakeNode) -> None:
    node, other = make_node(), make_node(max_watched_ports=1)
    ports, died = [Inbox(other).port for _ in range(2)], Deaths()
    node.mon(ports[0], print)
    node.mon(ports[1], died)
    assert died.wait()[0] == "monitor_refused"


def watched_by(node: Node, other: Node) -> set[str]:
    """Return the names of the ports that a node watches for another."""
    peer = network_of(node).peers.get(other.NODE())
    return set(peer.peer_monitors._monitors) if peer else set()


def test_a_watch_does_not_outlive_the_link(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, "127.0.0.1:9", extras=OUR_PROVIDER).shake() as peer:
        monitors_for_a_moment(node, f"{peer.name}#{P}")
        assert peer.packet() == ["", "mon1", P]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, "127.0.0.1:9", extras=OUR_PROVIDER).shake() as peer:
        wait_until(node.up_nodes)
        node.mon(f"{peer.name}#{P}", print)
        assert peer.packet() == ["", "mon1", P]


def test_a_call_that_ends_without_an_answer_leaves_the_watch_whole(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        port = f"{peer.name}#{P}"
        with pytest.raises(CallTimeout):
            node.call(port, "ask", timeout=0.05)
        answer = node.call_async(port, "ask")
        assert peer.packet() == ["", "mon1", P]
        peer.take(2)  # both calls, and nothing between them
        peer.send(["", "kil0", P, "it is over"])
        with pytest.raises(PortDied):
            answer.get(timeout=10)


def test_a_name_that_a_program_chose_is_looked_up_for_each_monitor(make_node: MakeNode) -> None:
    """It may be another port's by then, and the peer watches a port."""
    node, other, died = make_node(), make_node(), Deaths()
    old, new = other.port(), other.port()
    other.reg(old, "db")
    monitors_for_a_moment(node, f"{other.NODE()}#db")
    other.reg(new, "db")
    node.mon(f"{other.NODE()}#db", died)
    assert node.syncal(10, other.NODE(), "time")
    other.kil(new, "it is over")
    assert died.wait() == ("it is over",)


def test_a_port_that_was_itself_refused_a_monitor_dies_as_any_other(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        died = Deaths()
        monitors_for_a_moment(node, f"{peer.name}#{Q}")
        node.mon(f"{peer.name}#{P}", died)
        peer.send(["", "kil0", P, "monitor_refused", R, "that one watches too much"])
        assert died.wait()[:2] == ("monitor_refused", R)


def test_watches_lapse_though_ending_one_was_interrupted(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        for name in (P, Q):
            monitors_for_a_moment(node, f"{peer.name}#{name}")
        kept = network_of(node).peers[peer.name].ports.kept
        monkeypatch.setattr(kept_watches, "KEPT_SECONDS", 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(network_of(node).peers[peer.name], "send_if_connected", lambda _packet: 1 // 0)
            wait_until(lambda: kept._since[next(iter(kept._since))] + 0.05 < monotonic())
            node.scheduler.end_timer(kept._timer)
            with pytest.raises(ZeroDivisionError):
                kept._look()  # as the timer does it
        assert peer.take(4)[2:] == [["", "mon0", P], ["", "mon0", Q]]


def test_watches_lapse_though_keeping_one_was_interrupted(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_watches, "KEPT_SECONDS", 0.05)
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        monitors_for_a_moment(node, f"{peer.name}#{P}")
        kept = network_of(node).peers[peer.name].ports.kept
        kept._since.clear()  # as if the next to keep it had been struck between its two steps
        wait_until(lambda: not node.scheduler.timers)
        monitors_for_a_moment(node, f"{peer.name}#{Q}")
        assert peer.take(3)[2] == ["", "mon0", Q]
