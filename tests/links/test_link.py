# SPDX-License-Identifier: MIT
"""One connection: packets however they are cut, and ``after``, which makes a link wait for another."""

from __future__ import annotations

import gc
import itertools
import math
import socket as std_socket

import gevent
import pytest

from aemp_gevent.links.link import JOBS_AT_ONCE, Link
from aemp_gevent.node.node import Node
from aemp_gevent.wire.framing_msgpack import MsgpackDecoder
from tests.support.clocks import use_clock
from tests.support.helpers import turns, wait_until
from tests.support.networking import OUR_PROVIDER, Deaths, Inbox, MakeNode, RawPeer, name_of, two_connections
from tests.support.seams import network_of

SAME = (*OUR_PROVIDER, ("uniq", "one process"))


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


@pytest.mark.parametrize("framing", ["msgpack", "json"])
def test_packets_arrive_byte_by_byte_with_keep_alives_between(node: Node, framing: str) -> None:
    inbox = Inbox(node)
    packets: list[list[object]] = [[name_of(inbox), 1], [], [name_of(inbox), "two", [3]], [""], [name_of(inbox)]]
    with RawPeer.dial(node, framing=framing).shake() as peer:
        for byte in b"".join(map(peer.encode, packets)):
            peer.sock.sendall(bytes([byte]))
            turns(1)
        wait_until(lambda: len(inbox.messages) == 3)
    assert inbox.messages == [(1,), ("two", [3]), ()]


def test_closed_link_keeps_nothing_of_what_came(node: Node) -> None:
    """Without the garbage collector's help: a peer could have us keep a message more each time it dials."""

    def decoders() -> int:
        return sum(isinstance(found, MsgpackDecoder) for found in gc.get_objects())

    peers = []
    gc.collect()
    gc.disable()
    try:
        before = decoders()
        for number in range(3):
            with RawPeer.dial(node, f"127.0.0.1:{number + 1}").shake() as peer:
                peers.append(peer)
                assert peer.answers()
                peer.sock.sendall(peer.encode(["name", bytes(100_000)])[:-1])
            wait_until(lambda: not node.up_nodes())
        assert decoders() - before == len(peers)  # their own, and none of the node's
    finally:
        gc.enable()


def test_handshake_byte_by_byte_and_packets_in_one_piece_with_its_end(node: Node) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node) as peer:
        for byte in peer.handshake.start():
            peer.sock.sendall(bytes([byte]))
            turns(1)
        while peer.handshake.state.name != "VERIFIED":
            peer.handshake.receive(peer._read())
        peer.sock.sendall(peer.handshake.prove() + peer.encode([name_of(inbox), "at once"]))
        wait_until(lambda: inbox.messages)
    assert inbox.messages == [("at once",)]


def test_what_follows_an_after_waits_for_the_end_of_the_connection_it_names(node: Node) -> None:
    inbox = Inbox(node)
    name = name_of(inbox)
    first, second = two_connections(node)
    with first, second:
        second.send(["", "after", first.nonce], [name, 2], [name, 3])
        second.send([name, 4])
        turns(20)
        assert inbox.messages == []
        first.send([name, 1])
        first.sock.shutdown(1)
        wait_until(lambda: len(inbox.messages) == 4)
        second.send([name, 5])
        wait_until(lambda: len(inbox.messages) == 5)
        assert inbox.messages == [(1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize("first_ends", ["before", "behind"])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_connection_that_ends_in_order_before_its_last_byte_came_loses_the_link(
    node: Node, missing: int, first_ends: str
) -> None:
    """A proxy may shut both halves of a connection in order, and lose what was under way."""
    inbox, died = Inbox(node), Deaths()
    name = name_of(inbox)
    first, second = two_connections(node)
    with first, second:
        node.mon("127.0.0.1:9#p", died)
        first.send([name, 1])
        wait_until(lambda: inbox.messages)
        (size,) = (link.received for link in links_of(node) if link.peer_nonce == first.nonce)
        if first_ends == "before":
            first.sock.shutdown(1)
            wait_until(lambda: all(link.has_ended for link in links_of(node) if link.peer_nonce == first.nonce))
        second.send(["", "after", first.nonce, size + missing], [name, 2])
        turns(20)
        if first_ends == "behind":
            first.sock.shutdown(1)
        if missing:
            assert died.wait()[2] == f"a connection ended in order after {size} of {size + 1} bytes"
            assert second.closed()
        else:
            wait_until(lambda: len(inbox.messages) == 2)
            assert not died.count
    assert inbox.messages == [(1,), (2,)][: 2 - missing]


def test_losing_the_connection_that_an_after_names_loses_the_link(node: Node) -> None:
    inbox, died = Inbox(node), Deaths()
    first, second = two_connections(node)
    with first, second:
        wait_until(node.up_nodes)
        node.mon("127.0.0.1:9#p", died)
        second.send(["", "after", first.nonce], [name_of(inbox), "never"])
        turns(20)
        first.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        first.close()
        assert died.wait()[0] == "transport_error"
        assert second.closed()
    assert inbox.messages == []


def test_losing_a_connection_before_it_is_up_here_loses_the_link_if_an_after_names_it(node: Node) -> None:
    """The peer may be up, and have sent, on a connection whose auth line never reached us."""
    inbox, died = Inbox(node), Deaths()
    first = RawPeer.dial(node, extras=SAME)
    with first:
        first.greet()
        while first.handshake.state.name != "VERIFIED":
            first.handshake.receive(first._read())
        second = RawPeer.dial(node, extras=SAME).shake()
        with second:
            node.mon("127.0.0.1:9#p", died)
            second.send(["", "after", first.nonce], [name_of(inbox), "never"])
            wait_until(lambda: any(link.is_held for link in links_of(node)))
            first.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
            first.close()
            assert died.wait()[0] == "transport_error"
            assert second.closed()
    assert inbox.messages == []


def links_of(node: Node) -> list[Link]:
    return network_of(node).peer("127.0.0.1:9")._links


@pytest.mark.parametrize("which", ["the one to send on", "the other"])
def test_losing_any_connection_that_is_up_loses_the_link(node: Node, which: str) -> None:
    died = Deaths()
    connections = two_connections(node)
    with connections[0], connections[1]:
        wait_until(lambda: len(links_of(node)) == 2 and all(link.is_up for link in links_of(node)))
        node.mon("127.0.0.1:9#p", died)
        # The smaller nonce wins; on the other one nothing more is sent, and the peer may still send.
        winner, loser = sorted(connections, key=lambda peer: peer.nonce)
        lost, left = (winner, loser) if which == "the one to send on" else (loser, winner)
        lost.sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")
        lost.close()
        assert died.wait()[0] == "transport_error"
        assert left.closed()


def test_greeting_while_a_link_is_up_is_answered_by_closing(node: Node) -> None:
    with RawPeer.dial(node, extras=SAME).shake() as first, RawPeer.dial(node, extras=SAME) as second:
        with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
            second.shake()
        assert first.answers()


def test_link_that_is_given_up_is_reset(node: Node) -> None:
    """An orderly end would say that everything before it was sent, and what an ``after`` holds back may be handled."""
    with RawPeer.dial(node).shake() as peer:
        assert peer.answers()
        peer.send([None])  # no port name
        with pytest.raises(ConnectionResetError):
            while peer.sock.recv(65536):
                pass
            pytest.fail("it ended in order")


def test_after_that_names_no_connection_loses_the_link(node: Node) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        peer.send(["", "after", "nobody's nonce"], [name_of(inbox), "never"])
        assert peer.closed()
    assert inbox.messages == []


@pytest.mark.parametrize("whom", ["itself", "each other"])
def test_connections_that_wait_for_themselves_lose_the_link(node: Node, whom: str) -> None:
    """None of them would ever be read again, nor missed for being silent."""
    died = Deaths()
    first, second = two_connections(node)
    with first, second:
        wait_until(node.up_nodes)
        node.mon("127.0.0.1:9#p", died)
        if whom == "itself":
            second.send(["", "after", second.nonce])
        else:
            second.send(["", "after", first.nonce])
            first.send(["", "after", second.nonce])
        assert died.wait()[:2] == ("transport_error", "127.0.0.1:9")
        assert "waits for itself" in died.wait()[2]
        assert first.closed()
        assert second.closed()


# --- requests take turns ------------------------------------------------------------------------


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each request a turn of its own."""
    monkeypatch.setattr("aemp_gevent.links.link.SLICE_SECONDS", 0.0)


def asked(inbox: Inbox, number: int) -> list[list[object]]:
    """Return a request that sends a number to an inbox, and a message with the next."""
    return [["", "snd", inbox.port, number], [name_of(inbox), number + 1]]


def many(inbox: Inbox, count: int, begin: int = 0) -> list[list[object]]:
    return [packet for number in range(begin, begin + count, 2) for packet in asked(inbox, number)]


def test_requests_of_one_peer_do_not_make_another_wait(short_turns: None, node: Node) -> None:
    """However many come in one read."""
    inbox = Inbox(node)
    seen = [0]
    with RawPeer.dial(node).shake() as peer:
        assert peer.answers()
        peer.send(*(["", "snd", inbox.port, number] for number in range(3000)))
        while seen[-1] < 3000:
            gevent.sleep(0.0001)  # by a timer, because a turn of callbacks is not a turn of the loop
            seen.append(len(inbox.messages))
            assert len(seen) < 100_000
    assert max(after - before for before, after in itertools.pairwise(seen)) < 100


def test_requests_that_queue_jobs_take_turns_by_their_number(
    monkeypatch: pytest.MonkeyPatch, make_node: MakeNode
) -> None:
    """Queueing one takes less time than running it, and later jobs wait for all of them."""
    monkeypatch.setattr("aemp_gevent.links.link.SLICE_SECONDS", math.inf)
    use_clock(monkeypatch, lambda: 1.0)  # one turn runs all that is queued, however slow the machine
    node = make_node(allow_spawn=["tests.support.node_functions.note"])
    waiting: list[int] = []

    def note() -> None:
        waiting.append(len(node.scheduler.runq))

    note.__module__, note.__qualname__ = "tests.support.node_functions", "note"
    monkeypatch.setattr("tests.support.node_functions.note", note)
    with RawPeer.dial(node).shake() as peer:
        peer.send(*(["", "tests.support.node_functions.note"] for _ in range(1000)))
        wait_until(lambda: len(waiting) == 1000, within=20, show=lambda: len(waiting))
    assert max(waiting) <= 2 * JOBS_AT_ONCE


def test_order_holds_although_requests_wait_for_their_turns(short_turns: None, node: Node) -> None:
    """Among requests and messages, over several reads, and with the end of the connection behind them."""
    inbox = Inbox(node)
    with RawPeer.dial(node).shake() as peer:
        peer.send(*many(inbox, 1000))
        peer.send(*many(inbox, 1000, 1000))
        peer.sock.shutdown(std_socket.SHUT_WR)
        wait_until(lambda: len(inbox.messages) == 2000, within=20, show=lambda: len(inbox.messages))
        assert inbox.messages == [(number,) for number in range(2000)]
        wait_until(lambda: not node.up_nodes())


def test_order_holds_when_requests_come_in_the_same_read_as_the_auth_line(short_turns: None, node: Node) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node) as peer:
        peer.greet()
        while peer.handshake.state.name != "VERIFIED":
            peer.handshake.receive(peer._read())
        data = b"".join(map(peer.encode, many(inbox, 1000)))
        assert len(data) > 3 * 4096
        peer.sock.sendall(peer.handshake.prove() + data)
        wait_until(lambda: len(inbox.messages) == 1000, within=20, show=lambda: len(inbox.messages))
    assert inbox.messages == [(number,) for number in range(1000)]


def test_what_an_after_held_back_takes_turns_too(short_turns: None, node: Node) -> None:
    inbox = Inbox(node)
    first, second = two_connections(node)
    with first, second:
        second.send(["", "after", first.nonce], *many(inbox, 1000, 1000))
        first.send(*many(inbox, 1000))
        wait_until(lambda: len(inbox.messages) == 1000, within=20, show=lambda: len(inbox.messages))
        turns(50)
        assert len(inbox.messages) == 1000
        first.sock.shutdown(std_socket.SHUT_WR)
        wait_until(lambda: len(inbox.messages) > 1000, within=20)
        assert len(inbox.messages) < 2000, "all in one turn"
        second.send(*many(inbox, 1000, 2000))
        wait_until(lambda: len(inbox.messages) == 3000, within=20, show=lambda: len(inbox.messages))
    assert inbox.messages == [(number,) for number in range(3000)]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["shutdown", "reset", "garbage"])
def test_link_that_ends_while_requests_wait_for_their_turns(short_turns: None, node: Node, end: str) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node).shake() as peer:
        peer.send(*(["", "snd", inbox.port, number] for number in range(5000)))
        wait_until(lambda: inbox.messages)
        assert len(inbox.messages) < 5000, "nothing waits"
        if end == "shutdown":
            node.shutdown(0.5)
        elif end == "reset":
            network_of(node).peer(peer.name)._lose("by the test")
        else:
            peer.sock.sendall(b"\xc1")
            wait_until(lambda: not node.up_nodes(), within=20)
        count = len(inbox.messages)
        turns(20)
        assert len(inbox.messages) == count
        assert inbox.messages == [(number,) for number in range(count)]
        assert peer.closed()
