# SPDX-License-Identifier: MIT
"""Becoming a node: where it listens, its ID, and calls that fail."""

from __future__ import annotations

import socket as std_socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import aemp_gevent.addresses.endpoints
import aemp_gevent.addresses.resolve
import aemp_gevent.node.becoming
from aemp_gevent.errors import (
    AempError,
    AlreadyInitialisedError,
    InvalidNoderefError,
    InvalidSettingError,
    ListenError,
    NoSecretError,
    ResolveError,
    UnknownSettingError,
)
from aemp_gevent.node.node import Node
from tests.support.helpers import turns, wait_until
from tests.support.networking import SECRET, Deaths, Inbox, MakeNode, RawPeer, free_address, node_factory
from tests.support.seams import network_of


@pytest.fixture
def default_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Replace the default port 4040, which other processes may use."""
    port = int(free_address().partition(":")[2])
    for module in (aemp_gevent.addresses.endpoints, aemp_gevent.addresses.resolve, aemp_gevent.node.becoming):
        monkeypatch.setattr(module, "DEFAULT_PORT", port)
    return port


# --- becoming a node ----------------------------------------------------------------


def test_port_zero_becomes_the_real_port(make_node: MakeNode) -> None:
    host, _, port = make_node("127.0.0.1:0").NODE().partition(":")
    assert host == "127.0.0.1"
    assert 0 < int(port) < 65536


def test_fixed_port_is_kept(make_node: MakeNode) -> None:
    address = free_address()
    assert make_node(address).NODE() == address


def test_host_name_is_resolved(make_node: MakeNode) -> None:
    assert make_node("localhost:0").NODE().startswith("127.0.0.1:")


@pytest.mark.parametrize("noderef", [None, ""])
def test_no_noderef_means_this_host(monkeypatch: pytest.MonkeyPatch, default_port: int, noderef: str | None) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.resolve, "own_addresses", list)
    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "gethostname", lambda: "localhost")
    with node_factory() as make:
        node = make(None)
        node.initialise_node(noderef, secret=SECRET)
        assert node.NODE() == f"127.0.0.1:{default_port}"


@pytest.mark.parametrize("with_port", [True, False])
def test_star_listens_on_all_interfaces(make_node: MakeNode, default_port: int, with_port: bool) -> None:
    port = str(default_port)
    node = make_node(f"*:{port}" if with_port else "*")
    assert node.NODE() == aemp_gevent.addresses.resolve.resolve_node(port)
    with RawPeer.dial(f"127.0.0.1:{port}") as peer:  # which its ID does not say
        assert peer.greet().node == node.NODE()


def test_node_of_several_endpoints_is_reached_through_each(make_node: MakeNode) -> None:
    node = make_node(f"127.0.0.1:0,{free_address()}")
    first, second = node.NODE().split(",")
    assert first != second
    for endpoint in (first, second):
        host, _, port = endpoint.partition(":")
        std_socket.create_connection((host, int(port)), 5).close()
    inbox = Inbox(node)
    make_node().snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


def test_second_endpoint_is_dialled_when_the_first_is_dead(make_node: MakeNode) -> None:
    node = make_node(None)
    dead = free_address()
    alive = free_address()
    node.configure(nodeid=f"{dead},{alive}", binds=[alive], secret=SECRET)
    inbox = Inbox(node)
    make_node().snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


def test_ipv6_endpoint(make_node: MakeNode) -> None:
    try:
        node = make_node("[::1]:0")
    except ListenError:
        pytest.skip("this host has no IPv6")
    assert node.NODE().startswith("[::1]:")
    inbox = Inbox(node)
    make_node().snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


def test_unix_socket_is_removed_with_its_node(make_node: MakeNode, tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = make_node(f"unix:{path}")
    inbox = Inbox(node)
    make_node().snd(inbox, "hello")
    wait_until(lambda: inbox.messages)
    node.shutdown()
    assert not path.exists()


def test_node_may_listen_elsewhere_than_its_noderef_says(make_node: MakeNode) -> None:
    behind, public = free_address(), free_address()
    node = make_node(None)
    node.configure(nodeid=public, binds=[behind], secret=SECRET)
    assert node.NODE() == public
    host, _, port = behind.partition(":")
    std_socket.create_connection((host, int(port)), 5).close()


@pytest.mark.parametrize("binds", [None, ["*"], ["*:0"], ["127.0.0.1:0"], ["localhost:0"]])
def test_named_node_is_reached_over_the_link_that_it_dialled(make_node: MakeNode, binds: list[str] | None) -> None:
    public = make_node()
    named = make_node(None)
    named.configure(nodeid="backend/1", seeds=[public.NODE()], binds=binds, secret=SECRET)
    assert named.NODE() == "backend/1"
    wait_until(lambda: public.node_is_up("backend/1"))
    inbox = Inbox(named)
    public.snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


def test_secret_of_the_environment(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", "from the environment")
    one, two = make_node(None), make_node(None)
    one.initialise_node("127.0.0.1:0")
    two.configure(nodeid="127.0.0.1:0")
    inbox = Inbox(one)
    two.snd(inbox, "hello")
    wait_until(lambda: inbox.messages)


@pytest.mark.parametrize("how", ["initialise_node", "configure"])
def test_initialising_twice_is_refused(make_node: MakeNode, how: str) -> None:
    node = make_node()
    before = node.NODE()
    with pytest.raises(AlreadyInitialisedError, match=before):
        if how == "configure":
            node.configure(nodeid="127.0.0.1:0", secret=SECRET)
        else:
            node.initialise_node("127.0.0.1:0", secret=SECRET)
    assert node.NODE() == before


def test_initialising_at_the_same_time_is_refused(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(None)
    go_on = gevent.event.Event()

    def slow(noderef: str) -> str:
        go_on.wait()
        return "127.0.0.1:0"

    monkeypatch.setattr("aemp_gevent.addresses.resolve.resolve_node", slow)
    first = gevent.spawn(node.initialise_node, "host:0", secret=SECRET)
    turns(2)
    with pytest.raises(AlreadyInitialisedError):
        node.initialise_node("127.0.0.1:0", secret=SECRET)
    go_on.set()
    first.get(timeout=5)
    assert node.NODE().startswith("127.0.0.1:")


def in_use() -> Iterator[str]:
    with node_factory() as make:
        yield make().NODE()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda n, used: n.initialise_node("127.0.0.1:0"), NoSecretError, id="no-secret"),
        pytest.param(lambda n, used: n.configure(nodeid="x"), NoSecretError, id="configure-no-secret"),
        pytest.param(lambda n, used: n.initialise_node("anon/x", secret="s"), InvalidNoderefError, id="reserved-anon"),
        pytest.param(lambda n, used: n.configure(nodeid="anon/x", secret="s"), InvalidSettingError, id="conf-anon"),
        pytest.param(lambda n, used: n.configure(nodeid="slave/x", secret="s"), InvalidSettingError, id="conf-slave"),
        pytest.param(lambda n, used: n.configure(nodeid="a b", secret="s"), InvalidSettingError, id="malformed-name"),
        pytest.param(lambda n, used: n.initialise_node("a:b:c", secret="s"), InvalidNoderefError, id="malformed"),
        pytest.param(lambda n, used: n.initialise_node("h:99999", secret="s"), InvalidNoderefError, id="bad-port"),
        pytest.param(lambda n, used: n.configure(nodeid=5, secret="s"), InvalidSettingError, id="nodeid-no-string"),
        pytest.param(lambda n, used: n.initialise_node("no.invalid:1", secret="s"), ResolveError, id="unknown-host"),
        pytest.param(lambda n, used: n.initialise_node(used, secret="s"), ListenError, id="in-use"),
        pytest.param(
            lambda n, used: n.initialise_node("127.0.0.1:0," + used, secret="s"), ListenError, id="second-in-use"
        ),
        pytest.param(
            lambda n, used: n.configure(nodeid="x", binds=["127.0.0.1:0", "a:b:c"], secret="s"),
            InvalidSettingError,
            id="malformed-bind",
        ),
        pytest.param(
            lambda n, used: n.initialise_node("127.0.0.1:0", secret="s", max_mesage_bytes=1),
            UnknownSettingError,
            id="unknown-setting",
        ),
        pytest.param(
            lambda n, used: n.initialise_node("127.0.0.1:0", secret="s", monitor_timeout=0),
            InvalidSettingError,
            id="invalid-setting",
        ),
    ],
)
def test_failed_call_leaves_the_node_as_it_was(make_node: MakeNode, call: Any, error: type[AempError]) -> None:
    used = make_node().NODE()
    node = make_node(None)
    inbox = Inbox(node)
    before = node.NODE()
    with pytest.raises(error):
        call(node, used)
    assert node.NODE() == before
    assert node.NODE().startswith("anon/")
    assert node.up_nodes() == []
    node.snd(inbox, 1)
    wait_until(lambda: inbox.messages)
    node.initialise_node("127.0.0.1:0", secret=SECRET)
    make_node().snd(node.NODE() + "#" + inbox.port.partition("#")[2], 2)
    wait_until(lambda: len(inbox.messages) == 2)


def test_endpoints_bound_by_a_failed_call_are_free_again(make_node: MakeNode) -> None:
    used, other = make_node().NODE(), free_address()
    node = make_node(None)
    with pytest.raises(ListenError, match=used):
        node.initialise_node(f"{other},{used}", secret=SECRET)
    node.initialise_node(other, secret=SECRET)
    assert node.NODE() == other


def test_ids_made_before_initialising_keep_working_here(make_node: MakeNode) -> None:
    node = make_node(None)
    inbox, before = Inbox(node), node.NODE()
    node.reg(inbox.port, "name")
    old_id, died = inbox.port, Deaths()
    node.initialise_node("127.0.0.1:0", secret=SECRET)
    for port in (old_id, f"{before}#name", f"{node.NODE()}#name", node.NODE() + "#" + old_id.partition("#")[2]):
        node.snd(port, port)
    wait_until(lambda: len(inbox.messages) == 4)
    node.mon(old_id, died)
    node.rcv(old_id, lambda *message: True)
    node.kil(old_id, "enough")
    assert died.wait() == ("enough",)
    assert node._is_here(before)
    assert node.node_is_up(before)


@pytest.mark.parametrize("bind", ["0", "*", "*:0"])
def test_bind_without_a_host_means_all_interfaces(bind: str) -> None:
    node = Node()
    node.configure(nodeid="everywhere", binds=[bind], secret=SECRET)
    try:
        (endpoint,) = network_of(node).listeners.endpoints
        assert endpoint.host == "*"
        assert endpoint.port > 0
    finally:
        node.shutdown()


def test_port_0_in_the_noderef_is_refused_beside_binds() -> None:
    node = Node()
    with pytest.raises(InvalidNoderefError, match="the port that others dial"):
        node.configure(nodeid="127.0.0.1:0", binds=["127.0.0.1:0"], secret=SECRET)
    node.configure(nodeid="127.0.0.1:4040", binds=["127.0.0.1:0"], secret=SECRET)
    assert node.NODE() == "127.0.0.1:4040"
    node.shutdown()
