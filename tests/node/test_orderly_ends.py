# SPDX-License-Identifier: MIT
"""Peers that join, send and end in order cause no warning, whatever the system does with their last connections."""

from __future__ import annotations

import contextlib
import logging
import struct
from typing import Any

import gevent
import pytest
from gevent import socket

from aemp_gevent.node.node import Node
from tests.support.helpers import turns, wait_until
from tests.support.networking import OUR_PROVIDER, Deaths, MakeNode, RawListener, RawPeer
from tests.support.seams import network_of

OURS = (*OUR_PROVIDER, ("uniq", "one process"))


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


def reset(peer: RawPeer) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_greeting_that_comes_after_our_goodbye_is_not_answered(node: Node) -> None:
    """Otherwise the peer would see a link come up and end without a goodbye, as if it were lost."""
    first = RawPeer.dial(node, extras=OURS).shake()
    second = RawPeer.dial(node, extras=OURS)
    wait_until(lambda: len(network_of(node).strangers.links) == 1)
    leaving = gevent.spawn(node.shutdown, 5)
    assert first.packet() == ["", "bye"]
    second.greet()
    try:
        said = second.sock.recv(1000)
    except ConnectionResetError:
        said = b""
    assert said == b"", "it proves itself, and the link is up for the peer"
    first.close()
    second.close()
    leaving.join()


def proved(node: Node, name: str) -> int:
    """Return on how many connections with a peer the node has proved itself."""
    peer: Any = network_of(node).peers.get(name)
    return 0 if peer is None else sum(link.proved for link in peer._links)


def prove(peer: RawPeer) -> None:
    peer.sock.sendall(peer.handshake.prove())
    while not peer.handshake.is_open:
        peer.handshake.receive(peer._read())
    peer._feed(peer.handshake.leftover)


def read_to_the_end(peer: RawPeer) -> list[Any]:
    """Return the packets that came, without heartbeats and the question whether an older process is there."""
    with contextlib.suppress(EOFError):
        while True:
            peer._feed(peer._read())
    return [packet for packet in peer._packets if packet and packet[1] != "time"]


@pytest.mark.parametrize(("extras", "goodbyes"), [(OURS, [["", "bye"]]), ((), [])], ids=["ours", "Perl's"])
def test_peer_that_knows_us_already_gets_a_goodbye_once_we_know_it(
    node: Node, extras: Any, goodbyes: list[Any]
) -> None:
    """For it the link may have been up when we left, and it would take this for a link that is lost."""
    peer = RawPeer.dial(node, extras=extras)
    peer.greet()
    wait_until(lambda: proved(node, peer.name))
    leaving = gevent.spawn(node.shutdown, 5)
    turns(5)
    prove(peer)
    assert read_to_the_end(peer) == goodbyes
    peer.close()
    leaving.join(timeout=2)
    assert leaving.dead, "it waits for nothing else"


@pytest.mark.parametrize("is_up", [True, False], ids=["waits for the old one", "in the middle of its handshake"])
def test_another_process_of_a_node_gets_a_goodbye_as_well(node: Node, is_up: bool) -> None:
    """It was started again, perhaps, and the link of the old one is not known to be lost yet."""
    old = RawPeer.dial(node, extras=OURS).shake()
    new = RawPeer.dial(node, extras=(*OUR_PROVIDER, ("uniq", "another process")))
    new.greet()
    wait_until(lambda: proved(node, new.name) == 2)
    if is_up:
        prove(new)
        wait_until(lambda: network_of(node).peers[new.name]._newcomer is not None)
    leaving = gevent.spawn(node.shutdown, 5)
    turns(5)
    if not is_up:
        prove(new)
    for peer in (new, old):
        assert read_to_the_end(peer) == [["", "bye"]]
        peer.close()
    leaving.join(timeout=2)
    assert leaving.dead


def test_peer_that_freezes_right_after_its_handshake_does_not_stop_a_shutdown(make_node: MakeNode) -> None:
    node = make_node(heartbeat_interval=0.1, heartbeat_timeout=0.2, monitor_timeout=0.1)
    peer = RawPeer.dial(node, extras=OURS)
    peer.greet()
    wait_until(lambda: proved(node, peer.name))
    leaving = gevent.spawn(node.shutdown, None)
    turns(5)
    prove(peer)
    leaving.join(timeout=5)
    assert leaving.dead
    peer.close()


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
def test_handshake_cut_by_a_process_that_said_goodbye_is_not_logged(
    node: Node, caplog: pytest.LogCaptureFixture, is_reset: bool
) -> None:
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    first = RawPeer.dial(node, extras=OURS).shake()
    died = Deaths()
    node.mon(first.name, died)
    first.send(["", "bye"])
    assert died.wait() == ("shutdown", first.name)
    second = RawPeer.dial(node, extras=OURS)
    second.greet()
    wait_until(lambda: not network_of(node).strangers.links)
    reset(second) if is_reset else second.close()
    wait_until(lambda: any(f"connection with {first.name} at" in text for text in caplog.messages))
    first.close()
    assert warnings(caplog) == []


def test_handshake_cut_by_a_process_without_a_link_is_a_warning(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    peer = RawPeer.dial(node, extras=OURS)
    peer.greet()
    wait_until(lambda: not network_of(node).strangers.links)
    peer.close()
    wait_until(lambda: warnings(caplog))
    assert f"connection with {peer.name} at" in warnings(caplog)[0]


def test_dialled_node_that_ends_before_it_greets_counts_as_unreachable(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    died = Deaths()
    with RawListener() as listener:
        node.mon(listener.id, died)
        reset(listener.accept())
        assert died.wait()[0] == "transport_error"
    assert warnings(caplog) == []
