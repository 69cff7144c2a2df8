# SPDX-License-Identifier: MIT
"""Where a node listens, and which addresses it gives to others."""

from __future__ import annotations

import pytest

import aemp_gevent.peers.finding
import aemp_gevent.peers.listeners
import aemp_gevent.peers.network
import aemp_gevent.peers.seed
from aemp_gevent.errors import ListenError
from tests.support.networking import (
    SECRET,
    MakeNode,
    RawPeer,
)
from tests.support.seams import network_of


@pytest.mark.parametrize(
    ("bind", "hosts"),
    [
        ("*", ["192.0.2.7", "[2001:db8::7]"]),
        ("0.0.0.0:0", ["192.0.2.7"]),
        ("[::]:0", ["[2001:db8::7]"]),
        ("127.0.0.1:0", ["127.0.0.1"]),
    ],
)
def test_named_node_says_where_others_reach_it(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, bind: str, hosts: list[str]
) -> None:
    """Only where it listens, and nobody else can dial 0.0.0.0 or [::], which mean the dialling host itself."""
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: ["192.0.2.7", "2001:db8::7"])
    node = make_node(None)
    try:
        node.configure(nodeid="backend", binds=[bind], secret=SECRET)
    except ListenError:
        pytest.skip("this host has no IPv6")
    assert [address.rpartition(":")[0] for address in network_of(node).addresses()] == hosts
    assert not any(address.endswith(":0") for address in network_of(node).addresses())


def test_node_says_which_ports_the_system_chose(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: ["192.0.2.7"])
    node = make_node(None)
    assert node.addresses() == []
    node.configure(nodeid="192.0.2.17:4040", binds=["*:0", "127.0.0.1:0"], secret=SECRET)
    ports = [endpoint.port for endpoint in network_of(node).listeners.endpoints]
    assert all(ports)
    assert node.addresses() == [f"192.0.2.7:{ports[0]}", f"127.0.0.1:{ports[1]}"]
    with RawPeer.dial(f"127.0.0.1:{ports[0]}") as peer:
        assert peer.greet().node == "192.0.2.17:4040"
    assert make_node("slave/", make_node().NODE()).addresses() == []


@pytest.mark.parametrize(
    ("settings", "is_warned"),
    [({}, True), ({"binds": ["0.0.0.0:0"]}, True), ({"binds": ["127.0.0.1:0"]}, False), ({"binds": []}, False)],
    ids=str,
)
def test_named_node_that_tells_others_only_loopback_says_so(
    make_node: MakeNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, object],
    is_warned: bool,
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: [])
    make_node(None).configure(nodeid="backend", secret=SECRET, **settings)
    assert ("no address was found at which other hosts can reach this one" in caplog.text) == is_warned


@pytest.mark.parametrize(
    ("noderef", "hosts"),
    [
        ("0.0.0.0:0", ["192.0.2.7"]),
        ("[::]:0", ["[2001:db8::7]"]),
        ("127.0.0.1:0,0.0.0.0:0", ["127.0.0.1", "192.0.2.7"]),
    ],
)
@pytest.mark.parametrize("how", ["initialise_node", "configure"])
def test_nobodys_address_does_not_become_a_node_id(
    make_node: MakeNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
    noderef: str,
    hosts: list[str],
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: ["192.0.2.7", "2001:db8::7"])
    node = make_node(None)
    try:
        if how == "configure":
            node.configure(nodeid=noderef, secret=SECRET)
        else:
            node.initialise_node(noderef, secret=SECRET)
    except ListenError:
        pytest.skip("this host has no IPv6")
    assert [endpoint.rpartition(":")[0] for endpoint in node.NODE().split(",")] == hosts
    ports = [endpoint.port for endpoint in network_of(node).listeners.endpoints]
    assert [int(endpoint.rpartition(":")[2]) for endpoint in node.NODE().split(",")] == ports
    assert network_of(node).addresses() == node.NODE().split(",")
    assert f"means all interfaces and cannot be dialled; the node ID is {node.NODE()}" in caplog.text
    with RawPeer.dial(f"127.0.0.1:{ports[-1]}") as peer:
        assert peer.greet().node == node.NODE()
