# SPDX-License-Identifier: MIT
"""Raw peers of a global node, and what tests ask of them and of nodes."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import Any

from aemp_gevent.node.node import Node
from tests.support.networking import OUR_PROVIDER, RawListener, RawPeer
from tests.support.seams import network_of

PERL = (("gproto", "1"), ("provider", "AE-2.02"))
OURS = (*OUR_PROVIDER, ("gproto", "1"))


class Dial:
    """Connects raw peers to a global node."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        self._node = node
        self._stack = stack

    def __call__(self, name: str, extras: tuple[tuple[str, str], ...] = PERL, **options: Any) -> RawPeer:
        peer = self._stack.enter_context(RawPeer.dial(self._node, name, extras=extras, **options).shake())
        assert peer.packet() == ["", "g_global"]  # the first of all
        return peer


def attach(listener: RawListener) -> tuple[RawPeer, Any]:
    """Become the master of the node that dials; return that link and the database that it sent."""
    master = listener.accept(extras=PERL).shake()
    packet = master.packet()
    assert packet[:2] == ["", "g_slave"], packet
    return master, packet[2]


def handled(*peers: RawPeer) -> None:
    """Wait until the node has handled all that these peers sent."""
    for peer in peers:
        assert peer.answers()


def role(node: Node) -> str:
    text: str = node.info()["directory"]
    return text


def shorten_grace(node: Node, seconds: float) -> None:
    """Shorten the time that a node waits for the clients of a lost global node; heartbeats stay the same."""
    network_of(node).settings = dataclasses.replace(network_of(node).settings, heartbeat_timeout=seconds)


def found(peer: RawPeer, node: str) -> Any:
    """Return where a node listens, as the peer is answered."""
    peer.send(["", "g_find", node])
    while True:
        packet = peer.packet()
        if packet[:3] == ["", "g_found", node]:
            return packet[3]


def become_global(peer: RawPeer) -> None:
    """Introduce a peer as a global node, and read what it is sent."""
    peer.send(["", "g_global"])
    while peer.packet()[:2] != ["", "g_set"]:
        pass


def packets_until_now(peer: RawPeer) -> list[list[Any]]:
    """Return everything that the node has sent to a peer."""
    peer.send(["", "time", f"{peer.name}#pong"])
    packets: list[list[Any]] = []
    while True:
        packet = peer.packet()
        if packet[0] == "pong":
            return packets
        packets.append(packet)
