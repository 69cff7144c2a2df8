# SPDX-License-Identifier: MIT
"""What masters pass on, and what their peers accept, when peers send anything."""

from __future__ import annotations

from typing import Any

import gevent
import msgpack
import pytest

import aemp_gevent.peers.relaying
from aemp_gevent import Node
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, SECRET, Deaths, Inbox, MakeNode, RawListener, RawPeer
from tests.support.seams import network_of

OURS = (*OUR_PROVIDER, ("uniq", "once"))


def raw(node: Node, name: str = "127.0.0.1:9") -> RawPeer:
    return RawPeer.dial(node, name, extras=OURS).shake()


def slave_of(master: Node, name: str = "raw") -> str:
    return f"slave/{name}@{master.NODE()}"


def up(origin: str, word: str, echo: str = "", uniq: str = "its") -> list[Any]:
    return ["", "via_up", origin, uniq, word, echo]


def via(origin: str, destination: str, packet: Any) -> list[Any]:
    return ["", "via", origin, destination, packet]


def open_to(peer: RawPeer, origin: str, node: Node | str) -> None:
    """Open a virtual link from the raw peer to a node."""
    destination = node if isinstance(node, str) else node.NODE()
    peer.send(via(origin, destination, up(origin, "word")))
    answer = peer.packet()
    assert answer[:4] == ["", "via", destination, origin] and answer[4][:3] == ["", "via_up", destination], answer
    assert answer[4][5] == "word"
    peer.send(via(origin, destination, up(origin, "word", answer[4][4])))


@pytest.mark.slow
def test_raw_slave_opens_and_is_heard(make_node: MakeNode) -> None:
    master, public = make_node(), make_node()
    inbox = Inbox(public)
    with raw(master, slave_of(master)) as slave:
        open_to(slave, slave_of(master), public)
        slave.send(via(slave_of(master), public.NODE(), [inbox.port.partition("#")[2], "hello"]))
        wait_until(lambda: inbox.messages == [("hello",)])
        # Its own death is reported in its name.
        wait_until(lambda: public.node_is_up(slave_of(master)))
    wait_until(lambda: not public.node_is_up(slave_of(master)))


def test_what_is_not_echoed_is_not_heard(make_node: MakeNode) -> None:
    """Nothing from before a loss arrives behind it."""
    master, public = make_node(), make_node()
    inbox, me = Inbox(public), slave_of(master)
    name = inbox.port.partition("#")[2]
    with raw(master, me) as slave:
        slave.send(via(me, public.NODE(), up(me, "word")), via(me, public.NODE(), [name, "too early"]))
        answer = slave.packet()
        slave.send(via(me, public.NODE(), [name, "still too early"]))
        slave.send(via(me, public.NODE(), up(me, "word", answer[4][4])), via(me, public.NODE(), [name, "in time"]))
        wait_until(lambda: inbox.messages)
        deaths = Deaths()
        public.mon(me, deaths)
        slave.send(via(me, public.NODE(), up(me, "other word")), via(me, public.NODE(), [name, "of no link"]))
        assert deaths.wait()[0] == "transport_error"
        slave.send(via(me, public.NODE(), up(me, "other word", "guessed")), via(me, public.NODE(), [name, "of none"]))
        assert slave.packet()[4][:3] == ["", "via_up", public.NODE()]
        assert slave.answers()
    assert inbox.messages == [("in time",)]


@pytest.mark.parametrize("name", ["slave/x@1.2.3.4:5", "slave/@1.2.3.4:5", "slave/x", "slave/x y@127.0.0.1:1"])
def test_slave_of_another_node_is_refused(make_node: MakeNode, name: str) -> None:
    node = make_node()
    with RawPeer.dial(node, name, extras=OURS) as peer:
        peer.greet()
        assert peer.closed()
    assert name not in network_of(node).peers


def forged(master: Node, me: str, victim: Node) -> dict[str, list[Any]]:
    """Packets that nobody may take, or pass on, from an ordinary peer called ``me``."""
    slave, to = slave_of(master, "real"), victim.NODE()
    return {
        "in-a-slaves-name": via(slave, to, up(slave, "word")),
        "in-another-nodes-name": via("10.0.0.1:1", to, up("10.0.0.1:1", "word")),
        "in-another-slaves-name": via("slave/x@10.0.0.1:1", to, up("slave/x@10.0.0.1:1", "word")),
        "in-its-own-name-to-no-slave": via(me, "10.0.0.1:1", up(me, "word")),
        "to-another-masters-slave": via(me, "slave/x@10.0.0.1:1", up(me, "word")),
        "in-its-own-name-to-this-node": via(me, to, up(me, "word")),
        "from-nowhere": via("", to, up("", "word")),
        "no-node-id": via("a b\n", to, up("a b\n", "word")),
        "origin-of-no-name": via(5, to, []),
        "packet-is-none": via(me, slave, "packet"),
        "too-short": ["", "via"],
        "too-long": [*via(me, slave, []), 1],
        "nested": ["", "snd", to, "via", slave, to, up(slave, "word")],
        "closing-in-a-slaves-name": via(slave, to, ["", "via_down", slave, "shutdown", slave]),
    }


CASES = list(forged(Node(), "x", Node()))


@pytest.mark.parametrize("case", CASES)
def test_forged_packet_is_dropped_by_a_master_and_by_the_addressed(make_node: MakeNode, case: str) -> None:
    master = make_node()
    real = make_node("slave/real", master.NODE())
    inbox, deaths = Inbox(master), Deaths()
    master.mon(real.NODE(), deaths)
    before = set(network_of(master).peers)
    with raw(master) as peer:
        peer.send(forged(master, "127.0.0.1:9", master)[case])
        assert peer.answers()
        assert set(network_of(master).peers) <= {*before, "127.0.0.1:9", real.NODE()}
        assert not network_of(master).routes._conversations
        peer.send(["", "snd", str(inbox), "still heard"])
        wait_until(lambda: inbox.messages == [("still heard",)])
    assert deaths.count == 0
    assert master.node_is_up(real.NODE())


def test_conversation_of_others_cannot_be_entered_or_ended(make_node: MakeNode) -> None:
    master, public = make_node(), make_node()
    real = make_node("slave/real", master.NODE())
    inbox, deaths = Inbox(real), Deaths()
    public.mon(inbox, deaths)
    public.snd(inbox, "true")
    wait_until(lambda: inbox.messages)
    name = inbox.port.partition("#")[2]
    with raw(master) as peer, raw(public) as other:
        for origin, destination in ((public, real), (real, public)):
            here, there = origin.NODE(), destination.NODE()
            for packet in ([name, "false"], ["", "kil1", name], ["", "via_down", here, "x"], up(here, "word")):
                peer.send(via(here, there, packet))
                other.send(via(here, there, packet))
        assert peer.answers() and other.answers()
    public.snd(inbox, "last")
    wait_until(lambda: len(inbox.messages) == 2)
    assert inbox.messages == [("true",), ("last",)] and deaths.count == 0
    assert network_of(public).routes.dropped and network_of(master).routes.dropped


def test_slave_believes_only_its_master(make_node: MakeNode) -> None:
    """A master of ours that is a raw peer: what it passes on is taken, but not what it wraps as its own."""
    with RawListener() as listener:
        node = Node()
        joining = gevent.spawn(node.initialise_node, "slave/x", listener.id, secret=SECRET)
        master = listener.accept(extras=OURS).shake()
        try:
            me = f"slave/x@{listener.id}"
            echo = master.packet()
            assert echo == via(me, me, [])
            master.send(echo)
            joining.get(timeout=10)
            assert node.NODE() == me
            inbox = Inbox(node)
            name = inbox.port.partition("#")[2]
            master.send(via(listener.id, me, up(listener.id, "word")), via(me, me, [name, "own"]))
            open_to(master, "10.0.0.1:1", me)
            master.send(
                via("10.0.0.1:1", me, [name, "passed on"]), via("10.0.0.1:1", "10.0.0.2:1", up("10.0.0.1:1", "w"))
            )
            wait_until(lambda: inbox.messages == [("passed on",)])
            assert master.answers()
        finally:
            master.close()
            node.shutdown(0.2)


@pytest.mark.slow
def test_slave_links_with_nobody_but_its_master(make_node: MakeNode) -> None:
    """Also when somebody else has its master's address."""
    with RawListener() as listener:
        node = Node()
        joining = gevent.spawn(node.initialise_node, "slave/x", listener.id, secret=SECRET)
        try:
            with listener.accept(extras=OURS).shake() as master:
                master.send(master.packet())
                joining.get(timeout=10)
            sock, _address = listener.sock.accept()
            with RawPeer(sock, "10.0.0.1:1", extras=OURS) as other:
                assert other.greet().node == node.NODE()
                assert other.closed()
            with listener.accept(extras=OURS).shake():
                wait_until(lambda: node.node_is_up(listener.id))
            assert "10.0.0.1:1" not in network_of(node).peers
        finally:
            node.shutdown(0.2)


@pytest.mark.parametrize("packet", [[], [5], [None, 1], [["x"]], ["nobody"], ["", "via_up"], ["", "via_down"], ["", 5]])
def test_bad_packet_inside_hurts_nobody(make_node: MakeNode, packet: list[Any]) -> None:
    master, public = make_node(), make_node()
    me = slave_of(master)
    with raw(master, me) as slave:
        open_to(slave, me, public)
        slave.send(via(me, public.NODE(), packet))
        slave.send(via(me, public.NODE(), ["", "time", f"{me}#pong", "pong"]))
        assert slave.packet()[4][:2] == ["pong", "pong"]


def test_peer_of_another_library_is_neither_passed_on_to_nor_from(make_node: MakeNode) -> None:
    master = make_node()
    real = make_node("slave/real", master.NODE())
    with RawPeer.dial(master).shake() as foreign:
        deaths = Deaths()
        real.mon("127.0.0.1:9#x", deaths)
        assert "does not support slave nodes" in deaths.wait()[2]
        foreign.send(via("127.0.0.1:9", real.NODE(), up("127.0.0.1:9", "word")))
        assert foreign.answers()  # and got nothing before
        assert not network_of(master).routes._conversations


def test_node_of_another_library_carries_nothing(make_node: MakeNode) -> None:
    with RawListener() as listener:
        node, deaths = make_node(), Deaths()
        node.mon(f"slave/x@{listener.id}#x", deaths)
        with listener.accept().shake() as foreign:
            assert "does not support slave nodes" in deaths.wait()[2]
            foreign.send(["", "time", f"{listener.id}#pong", "pong"])
            assert foreign.packet()[0] == "pong"


def test_conversations_are_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.relaying, "MAX_CONVERSATIONS", 3)
    master = make_node()
    real = make_node("slave/real", master.NODE())
    with raw(master) as other:
        names = [f"slave/{number}@127.0.0.1:9" for number in range(5)]
        other.send(*(via(name, real.NODE(), up(name, "word")) for name in names))
        answers = {packet[3]: packet[4][1] for packet in other.take(5)}
    assert sorted(answers.values()) == ["via_down"] * 2 + ["via_up"] * 3
    wait_until(lambda: not network_of(master).routes._conversations)


def test_virtual_links_are_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.relaying, "MAX_RIDERS", 3)
    node = make_node()
    with raw(node) as other:
        names = [f"slave/{number}@127.0.0.1:9" for number in range(5)]
        other.send(*(via(name, node.NODE(), up(name, "word")) for name in names))
        answers = [packet[4][1] for packet in other.take(5)]
    assert answers == ["via_up"] * 3 + ["via_down"] * 2


def test_dials_for_slaves_are_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.relaying, "MAX_DIALS", 2)
    master = make_node()
    with raw(master, slave_of(master)) as slave, RawListener() as one, RawListener() as two, RawListener() as three:
        me = slave_of(master)
        slave.send(*(via(me, listener.id, up(me, "word")) for listener in (one, two, three)))
        packet = slave.packet()
        assert packet[2] == three.id and "too many" in str(packet[4])


def test_master_that_cannot_pass_a_message_on_tells_both_ends(make_node: MakeNode) -> None:
    """Floats of four bytes, which only others send, take eight when they are passed on."""
    master, public = make_node(max_message_bytes=2000), make_node()
    me = slave_of(master)
    with raw(master, me) as slave:
        open_to(slave, me, public)
        inbox, deaths = Inbox(public), Deaths()
        public.mon(me, deaths)
        wait_until(lambda: public.node_is_up(me))
        name = inbox.port.partition("#")[2]
        slave.sock.sendall(msgpack.packb(via(me, public.NODE(), [name, *[1.5] * 350]), use_single_float=True))
        slave.send(via(me, public.NODE(), [name, "behind a hole"]))
        assert deaths.wait()[0] == "transport_error"
        packet = slave.packet()
        assert packet[2:4] == [public.NODE(), me]
        assert packet[4][:4] == [
            "",
            "via_down",
            public.NODE(),
            "transport_error",
        ]
        assert slave.answers()
        assert not network_of(master).routes._conversations
    assert inbox.messages == []
