# SPDX-License-Identifier: MIT
"""Nodes: how one gets its identity, what failing to leaves behind, and messages between several."""

from __future__ import annotations

import os
import re
import socket as std_socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import aemp_gevent.addresses.endpoints
import aemp_gevent.addresses.resolve
import aemp_gevent.node.becoming
from aemp_gevent.addresses.ids import node_of
from aemp_gevent.errors import (
    AempError,
    AlreadyInitialisedError,
    InvalidNoderefError,
    InvalidPortError,
    InvalidSettingError,
    ListenError,
    MessageTooLargeError,
    NodePortError,
    NoSecretError,
    NotLocalError,
    ResolveError,
    UnencodableMessageError,
    UnknownSettingError,
)
from aemp_gevent.node.node import Node
from tests.helpers import turns, wait_until
from tests.networking import SECRET, Deaths, Inbox, MakeNode, RawPeer, free_address, line_of, node_factory, process
from tests.settling import PortLike


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


@pytest.fixture
def default_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have another port than 4040, which other processes may use, as the one that a noderef without a port means."""
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


def test_unix_socket_endpoint_goes_with_its_node(make_node: MakeNode, tmp_path: Path) -> None:
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
def test_named_node_is_talked_to_once_it_dialled(make_node: MakeNode, binds: list[str] | None) -> None:
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


# --- messages ----------------------------------------------------------------------------


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    float("inf"),
    "",
    "grün \U0001f600 \x00",
    b"\x00\xff",
    [],
    [1, [2, [3]]],
    {},
    {"a": {1: b"x", None: 2.5, False: []}},
]


def test_values_of_all_types_arrive(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    for value in VALUES:
        one.snd(inbox, value)
    one.snd(inbox, *VALUES)
    one.snd(inbox)
    wait_until(lambda: len(inbox.messages) == len(VALUES) + 2)
    assert inbox.messages == [*((value,) for value in VALUES), tuple(VALUES), ()]
    assert [type(m[0]) for m in inbox.messages[: len(VALUES)]] == [type(v) for v in VALUES]


def test_tuples_arrive_as_lists_and_messages_are_copied_at_once(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    for _ in range(2):  # before the link is there, and over it
        value: list[Any] = [(1, 2), {"k": (3,)}, bytearray(b"x")]
        one.snd(inbox, value)
        value.append("later")
        wait_until(lambda: inbox.messages)
        assert inbox.messages.pop() == ([[1, 2], {"k": [3]}, b"x"],)


@pytest.mark.parametrize("first", ["before", "after"])
def test_messages_arrive_in_order(make_node: MakeNode, first: str) -> None:
    """Those queued while the link is made, and those after."""
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    for number in range(500):
        one.snd(inbox, number)
    wait_until(lambda: inbox.messages)
    for number in range(500, 1000):
        one.snd(PortLike(inbox.port) if number % 2 else inbox.port, number)
    wait_until(lambda: len(inbox.messages) == 1000)
    assert [number for (number,) in inbox.messages] == list(range(1000))


def test_one_link_serves_both_directions_and_is_made_on_demand(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    ours, theirs = Inbox(one), Inbox(two)
    assert one.up_nodes() == two.up_nodes() == []
    one.snd(theirs, 1)
    wait_until(lambda: theirs.messages)
    two.snd(ours, 2)
    wait_until(lambda: ours.messages)
    assert one.up_nodes() == [two.NODE()]
    assert two.up_nodes() == [one.NODE()]
    assert one.node_is_up(two.NODE())
    assert one.node_is_up(theirs)
    assert one.node_is_up(one.NODE())
    assert not one.node_is_up("127.0.0.1:1")


def test_everything_to_a_port_in_one_breath(make_node: MakeNode) -> None:
    """Spawn, monitor, send, kill: nothing is up yet, and they arrive in this order."""
    one, two = make_node(), make_node(allow_spawn=["tests.node_functions.*"])
    from tests import node_functions

    node_functions.node = two
    died, answers = Deaths(), Inbox(one)
    port = one.spawn(two.NODE(), "tests.node_functions.echo", answers.port)
    one.mon(port, died)
    one.snd(port, "one", 1)
    one.snd(port, "two", 2)
    one.kil(port, "enough", [1])
    one.snd(port, "behind the kill")
    assert one.up_nodes() == []
    assert died.wait() == ("enough", [1])
    wait_until(lambda: len(answers.messages) == 2, show=lambda: answers.messages)
    assert answers.messages == [("one", 1), ("two", 2)]


def test_spawned_port_that_is_killed_in_the_same_breath_is_dead(make_node: MakeNode) -> None:
    one, two = make_node(), make_node(allow_spawn=["tests.node_functions.*"])
    died = Deaths()
    port = one.spawn(two.NODE(), "tests.node_functions.note")
    one.mon(port, died)
    one.kil(port, "at once")
    assert died.wait() == ("at once",)
    again = Deaths()
    one.mon(port, again)
    assert again.wait()[0] == "no_such_port"


def test_kill_and_monitor_across_nodes(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    victim = Inbox(two)
    deaths = [Deaths() for _ in range(3)]
    for died in deaths:
        one.mon(victim, died)
    one.snd(victim, "last words")
    one.kil(victim, "bad", {"why": None})
    for died in deaths:
        assert died.wait() == ("bad", {"why": None})
    assert victim.messages == [("last words",)]
    one.snd(victim, "too late")
    turns(20)
    assert len(victim.messages) == 1
    assert [died.count for died in deaths] == [1, 1, 1]


def test_monitor_forms_across_nodes(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    mine, told, victim, died = Inbox(one), Inbox(one), Inbox(two), Deaths()
    one.mon(mine, died)
    one.mon(victim, mine)
    one.mon(victim, told, "it died", 1)
    two.kil(victim, "bad")  # and the monitors are not there yet
    assert died.wait()[0] in ("bad", "no_such_port")
    wait_until(lambda: told.messages)
    assert told.messages[0][:2] == ("it died", 1)


def test_normal_death_kills_nobody(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    mine, victim, died = Inbox(one), Inbox(two), Deaths()
    one.mon(victim, mine)
    one.mon(victim, died)
    one.kil(victim)
    assert died.wait() == ()
    one.snd(mine, "alive")
    wait_until(lambda: mine.messages)


def test_syncal_and_cal_across_nodes(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    double = two.port(lambda number, reply: two.snd(reply, 2 * number))
    assert one.syncal(5, double, 21) == (42,)
    got: list[Any] = []
    one.cal(double, 4, cb=lambda *reply: got.append(reply), timeout=5)
    wait_until(lambda: got)
    assert got == [(8,)]
    assert one.syncal(5, two.NODE() + "#nobody", 1) == ()
    two.kil(double)


def test_calls_on_ports_of_other_nodes_are_refused(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    port = two.port(print)
    one.snd(two.NODE(), "devnull")
    for call in (
        lambda: one.rcv(port, print),
        lambda: one.reg(port, "name"),
        lambda: one.peval(port, print),
        lambda: one.rcv_async(port, print),
    ):
        with pytest.raises(NotLocalError, match=port):
            call()
    with pytest.raises(NodePortError):
        one.kil(two.NODE())
    with pytest.raises(InvalidPortError):
        one.snd("localhost:4040#x", 1)


# --- messages that cannot travel -----------------------------------------------------------


CALLS: dict[str, tuple[Any, str]] = {
    "snd": (lambda node, port: node.snd(port, "tag", 1, object()), "argument 2 of 'tag'"),
    "snd of no tag": (lambda node, port: node.snd(port, 1, object()), "element 1"),
    "request": (lambda node, port: node.snd(node_of(port), "time", object()), "argument 1 of 'time'"),
    "call": (lambda node, port: node.call(port, "tag", 1, object()), "argument 2 of 'tag'"),
    "call of no tag": (lambda node, port: node.call(port, object()), "element 0"),
    "call_async": (lambda node, port: node.call_async(port, "tag", [object()]), "argument 1 of 'tag', element 0"),
    "cal": (lambda node, port: node.cal(port, "tag", object(), cb=print), "argument 1 of 'tag'"),
    "syncal": (lambda node, port: node.syncal(1, port, "tag", object()), "argument 1 of 'tag'"),
    "spawn": (lambda node, port: node.spawn(node_of(port), "x.y", 1, object()), "argument 2 of 'x.y'"),
    "kil": (lambda node, port: node.kil(port, "why", object()), "argument 1 of 'why'"),
    "db_set": (lambda node, _port: node.db_set("family", "key", object()), "argument 3 of 'db_set'"),
}


@pytest.mark.parametrize("where", ["remote", "strict"])
@pytest.mark.parametrize("call", CALLS)
def test_argument_that_cannot_travel_is_counted_as_the_caller_sees_it(
    make_node: MakeNode, where: str, call: str
) -> None:
    """Not as it stands in the packet, behind what the library adds."""
    make, words = CALLS[call]
    node = make_node(strict=where == "strict")
    if where == "strict" and call == "request":
        pytest.skip("a node's requests to itself are not copied")
    port = "127.0.0.1:1#p" if where == "remote" else node.port()
    with pytest.raises(UnencodableMessageError, match=f"cannot be encoded: {re.escape(words)} is an object, which"):
        make(node, port)


@pytest.mark.parametrize("is_up", [False, True], ids=["connecting", "up"])
@pytest.mark.parametrize(
    ("message", "named"),
    [
        (("ok", object()), ("argument 1 of 'ok'", "object")),
        (({1, 2},), ("element 0", "set")),
        (("a", ["b", {"k": 1j}]), ("argument 1 of 'a', element 1, key 'k'", "complex")),
        (({(1, 2): 3},), ("element 0", "tuple")),
        ((2**64,), ("element 0", "64 bits")),
        (("\udcff",), ("element 0", "surrogate")),
    ],
)
def test_message_that_cannot_be_encoded_raises_and_nothing_else_is_lost(
    make_node: MakeNode, is_up: bool, message: tuple[Any, ...], named: tuple[str, ...]
) -> None:
    one, two = make_node(), make_node()
    inbox, died = Inbox(two), Deaths()
    if is_up:
        one.snd(inbox, "first")
        wait_until(lambda: inbox.messages)
        inbox.messages.clear()
    one.mon(inbox, died)
    one.snd(inbox, "before")
    with pytest.raises(UnencodableMessageError) as caught:
        one.snd(inbox, *message)
    for word in named:
        assert word in str(caught.value)
    with pytest.raises(UnencodableMessageError):
        one.spawn(two.NODE(), "x.y", *message)
    with pytest.raises(UnencodableMessageError):
        one.kil(inbox, *message)
    one.snd(inbox, "behind")
    wait_until(lambda: len(inbox.messages) == 2)
    assert inbox.messages == [("before",), ("behind",)]
    assert died.count == 0


@pytest.mark.parametrize("is_up", [False, True], ids=["connecting", "up"])
def test_message_over_the_limit_raises_and_one_at_the_limit_arrives(make_node: MakeNode, is_up: bool) -> None:
    limit = 100_000
    one, two = make_node(max_message_bytes=limit), make_node(max_message_bytes=limit)
    inbox = Inbox(two)
    if is_up:
        one.snd(inbox, b"")
        wait_until(lambda: inbox.messages)
        inbox.messages.clear()
    with pytest.raises(MessageTooLargeError, match="100000") as caught:
        one.snd(inbox, bytes(limit))
    fits = bytes(limit - (caught.value.size - limit))
    one.snd(inbox, fits)
    with pytest.raises(MessageTooLargeError):
        one.snd(inbox, fits + b"x")
    one.snd(inbox, "behind")
    wait_until(lambda: len(inbox.messages) == 2)
    assert inbox.messages == [(fits,), ("behind",)]


def test_message_over_the_receivers_limit_costs_the_link_and_monitors_fire(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make_node(), make_node(max_message_bytes=1000)
    inbox, other, died = Inbox(two), Inbox(two), Deaths()
    one.mon(other, died)
    one.snd(inbox, b"x" * 2000)
    assert died.wait()[:2] == ("transport_error", two.NODE())
    assert inbox.messages == []
    assert "more than 1000 bytes" in caplog.text


# --- real processes --------------------------------------------------------------------------

CHILD = """
import os, sys
import aemp_gevent as mp

@mp.spawnable
def echo(reply):
    mp.rcv(mp.SELF(), lambda *message: mp.snd(reply, os.getpid(), *message))

mp.initialise_node("127.0.0.1:0")
mp.reg(mp.port(lambda *message: mp.snd(*message)), "relay")
print(mp.NODE(), flush=True)
with mp.attach():
    mp.receive()
"""


def test_two_processes_talk_and_one_hears_of_the_others_sudden_death(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node = make_node()
    inbox, died, gone = Inbox(node), Deaths(), Deaths()
    with process(CHILD) as child:
        there = line_of(child)
        node.mon(there, gone)
        echo = node.spawn(there, "__main__.echo", inbox.port)
        node.mon(echo, died)
        node.snd(echo, "hello", VALUES)
        node.snd(f"{there}#relay", inbox.port, "relayed")
        wait_until(lambda: len(inbox.messages) == 2)
        assert inbox.messages == [(child.pid, "hello", VALUES), ("relayed",)]
        assert child.pid != os.getpid()
        child.kill()
        assert died.wait()[:2] == ("transport_error", there)
        assert gone.wait()[:2] == ("transport_error", there)


def test_info_tells_who_a_node_is(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    (info,) = one.syncal(5, two.NODE(), "info")
    assert info["node"] == two.NODE()
    assert info["provider"].startswith("aemp_gevent-")
    assert info["up_nodes"] == [one.NODE()]
    assert info["ports"] == 0
    assert info["pid"] > 0


def test_shutting_down_fires_our_own_monitors_of_other_nodes(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    died, port = Deaths(), two.port()
    one.mon(port, died)
    assert one.syncal(5, two.NODE(), "can", "time") == (1,)
    one.shutdown()
    assert died.wait() == ("shutdown", one.NODE())


@pytest.mark.parametrize("bind", ["0", "*", "*:0"])
def test_bind_without_a_host_means_all_interfaces(bind: str) -> None:
    node = Node()
    node.configure(nodeid="everywhere", binds=[bind], secret=SECRET)
    try:
        (endpoint,) = node._network.listeners.endpoints
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
