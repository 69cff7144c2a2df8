# SPDX-License-Identifier: MIT
"""The second path: beats of blocked nodes, and what others can do with datagrams."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest
import zope.event
from gevent import socket

from aemp_gevent.errors import CallTimeout
from aemp_gevent.events import NodeBlocked, NodeUnblocked
from aemp_gevent.links import second_path
from aemp_gevent.links.node_state import NodeState
from aemp_gevent.links.second_path import SecondPath
from aemp_gevent.node.node import Node
from aemp_gevent.peers import relaying
from aemp_gevent.peers.virtual_peer import opening
from aemp_gevent.transport.datagrams import AT_ONCE, DatagramSender
from aemp_gevent.wire.beats import MAX_SECONDS, SIZE, Beat, BeatKey
from tests.support import native
from tests.support.authority import authority, shared_certificate
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, SECRET, Deaths, Inbox, MakeNode, RawPeer, line_of, process
from tests.support.seams import network_of

QUICK = {"heartbeat_interval": 0.06, "heartbeat_timeout": 0.4, "monitor_timeout": 0.4}
EXTRAS = (*OUR_PROVIDER, ("second_path", "1"))
SHARED = shared_certificate().pem()
PLACE = "load.py:7 in read"
NOTHING: Any = (None, None, None)  # of what a path needs that is never up


def path_of(node: Node, other: Node | str) -> SecondPath:
    link: Any = network_of(node).peers[other if isinstance(other, str) else other.NODE()].link
    assert link.second_path is not None
    return link.second_path  # type: ignore[no-any-return]


def linked(one: Node, two: Node) -> None:
    """Link two nodes, and wait until beats would arrive at both."""
    inbox = Inbox(two)
    one.snd(inbox, "there")
    wait_until(lambda: inbox.messages)
    wait_until(lambda: path_of(one, two).works and path_of(two, one).works)


def block(node: Node, seconds: float = 2.0, where: str = PLACE) -> None:
    """Do what the watch's thread does while a node's loop is blocked."""
    network_of(node).second_paths.blocked(seconds, where)


def unblock(node: Node) -> None:
    network_of(node).second_paths.running()


def is_blocked(node: Node, other: Node) -> bool:
    return node.node_state(other.NODE()).state == "blocked"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, str, int]]:
    """What was sent by datagram, which arrives."""
    found: list[tuple[bytes, str, int]] = []
    send = DatagramSender.send

    def record(self: DatagramSender, datagram: bytes, host: str, port: int) -> None:
        found.append((datagram, host, port))
        send(self, datagram, host, port)

    monkeypatch.setattr(DatagramSender, "send", record)
    return found


def send_again(*datagrams: tuple[bytes, str, int]) -> None:
    with DatagramSender() as sender:
        for datagram in datagrams:
            sender.send(*datagram)


class Blocked:
    """A peer whose test sends its beats."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        peer.send(["", "beats", 9, "salt"])
        request, port, salt = peer.packet()[1:]
        assert request == "beats"
        self._port: int = port
        self.key: BeatKey = peer.handshake.beat_key(salt, of_peer=False)

    def beat(self, number: int, seconds: float = 2.0, where: str = PLACE) -> None:
        send_again((self.key.seal(Beat(number, seconds, where)), "127.0.0.1", self._port))


@pytest.fixture
def blocked_peer(make_node: MakeNode) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> tuple[Node, Blocked]:
            node = make_node(**{**QUICK, **settings})
            peer = stack.enter_context(RawPeer.dial(node, extras=(*EXTRAS, ("heartbeat", "0.4")))).shake()
            return node, Blocked(peer)

        yield make


def test_blocked_node_is_seen_so_until_it_says_otherwise(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(zope.event, "subscribers", [heard.append])
    caplog.set_level(logging.INFO, "aemp_gevent")
    one, two = make_node(**QUICK), make_node(**QUICK)
    states: list[Any] = []
    linked(one, two)
    one.mon_nodes(lambda *_: states.append("a link"), state=lambda *args: states.append(args))
    heard.clear()
    assert str(one.node_state(two.NODE())) == "up"
    block(two)
    wait_until(lambda: is_blocked(one, two))
    state = one.node_state(two.NODE() + "#port")
    assert state.where == PLACE
    assert state.since is not None
    assert str(state).startswith("blocked for 2.")
    assert str(state).endswith(" s in load.py:7 in read")
    assert one.node_is_up(two.NODE())
    wait_until(lambda: heard)
    assert heard == [NodeBlocked(two.NODE(), one.NODE(), state.since, PLACE)]
    block(two, 3.0, "load.py:9 in read")
    wait_until(lambda: one.node_state(two.NODE()).where == "load.py:9 in read")
    assert one.node_state(two.NODE()).since == state.since
    assert str(two.node_state(one.NODE())) == "up", "it was not this one"
    unblock(two)
    wait_until(lambda: not is_blocked(one, two))
    wait_until(lambda: len(heard) == 2)
    assert heard[1:] == [NodeUnblocked(two.NODE(), one.NODE())]
    assert states == [(two.NODE(), state), (two.NODE(), NodeState("up"))]
    assert f"node {two.NODE()} is blocked" in caplog.text
    assert f"node {two.NODE()} is not blocked any more" in caplog.text


def test_states_of_nodes_without_a_link(make_node: MakeNode) -> None:
    node = make_node()
    assert node.node_state(node.NODE()) == NodeState("up")
    assert node.node_state("127.0.0.1:1") == NodeState("gone")
    assert make_node(None).node_state("127.0.0.1:1") == NodeState("gone")


def test_nothing_is_sent_while_all_is_well(make_node: MakeNode, sent: list[Any]) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    assert len(sent) == 2, "one to see that datagrams arrive, each"
    for _ in range(5):
        one.syncal(10, two.NODE(), "time")
        gevent.sleep(0.06)
    assert len(sent) == 2


def test_beats_keep_a_silent_peer_and_its_monitors(blocked_peer: Any) -> None:
    node, blocked = blocked_peer()
    died = Deaths()
    node.mon(f"{blocked.peer.name}#p", died)
    for number in range(1, 16):
        blocked.beat(number)
        gevent.sleep(0.1)  # together nearly four times heartbeat_timeout
    assert died.count == 0
    assert node.node_state(blocked.peer.name).where == PLACE
    reason = died.wait()
    assert reason[2].startswith("nothing received for 0."), "gone, as also its beats ended"
    assert PLACE in reason[2]
    assert node.node_state(blocked.peer.name) == NodeState("gone")


def test_blocked_node_is_believed_only_for_so_long(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(blocked_timeout=0.5)
    died = Deaths()
    node.mon(f"{blocked.peer.name}#p", died)
    for number in range(1, 1000):
        blocked.beat(number)
        gevent.sleep(0.05)
        if died.count:
            break
    assert f" s in {PLACE}, and blocked_timeout is 0.5 s" in died.wait()[2]


def test_what_comes_over_the_link_shows_that_a_blocked_node_runs(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(blocked_timeout=0.3, heartbeat_timeout=10.0)
    died = Deaths()
    node.mon(f"{blocked.peer.name}#p", died)
    blocked.beat(1)
    for _ in range(15):
        blocked.peer.send(["nobody", "data"])
        gevent.sleep(0.05)  # together more than twice blocked_timeout
    assert died.count == 0
    assert f"in {PLACE}, and blocked_timeout is 0.3 s" in died.wait()[2]


def test_beat_says_at_once_that_the_loop_runs_again(blocked_peer: Any) -> None:
    """What is sent over the link leaves later, behind handlers that may block again."""
    node, blocked = blocked_peer(heartbeat_timeout=10.0)
    states: list[str] = []
    node.mon_nodes(lambda *_: None, state=lambda _node, state: states.append(state.state))
    blocked.beat(1)
    wait_until(lambda: states == ["blocked"])
    blocked.beat(2, 0.0)
    wait_until(lambda: states == ["blocked", "up"])
    assert str(node.node_state(blocked.peer.name)) == "up"


def test_node_says_so_before_it_waits_for_anything(make_node: MakeNode, sent: list[Any]) -> None:
    node = make_node(heartbeat_timeout=10.0)
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        peer.send(["", "beats", 9, "salt"])
        assert peer.answers()
        key = peer.handshake.beat_key("salt", of_peer=True)
        block(node)
        unblock(node)  # after which nothing switches
        beats = [key.open(datagram) for datagram, _, _ in sent]
        assert beats == [Beat(1, 0.0, ""), Beat(2, 2.0, PLACE), Beat(3, 0.0, "")]
        assert peer.packet() == ["", "unblocked", 2]
        unblock(node)
        assert len(sent) == 3
        assert peer.answers(), "and nothing more"


def test_late_report_of_an_end_does_not_end_a_newer_block(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(heartbeat_timeout=10.0)
    for number, where in ((1, PLACE), (5, "load.py:9 in read")):
        blocked.beat(number, where=where)
        wait_until(lambda: node.node_state(blocked.peer.name).where == where)  # noqa: B023
    for number, state in ((1, "blocked"), (4, "blocked"), (5, "up")):
        blocked.peer.send(["", "unblocked", number])
        assert blocked.peer.answers()
        assert node.node_state(blocked.peer.name).state == state


def test_call_that_times_out_names_what_blocks_the_other_side(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(heartbeat_timeout=10.0)
    blocked.beat(1)
    wait_until(lambda: node.node_state(blocked.peer.name).state == "blocked")
    port = f"{blocked.peer.name}#p"
    for ask in (node.call, lambda *args, **named: node.call_async(*args, **named).get()):
        with pytest.raises(CallTimeout, match=r"; its node is blocked for \d+\.\d s in load\.py:7 in read$") as caught:
            ask(port, "work", timeout=0.01)
        assert caught.value.blocked.endswith(PLACE)
    blocked.peer.send(["", "unblocked", 1])
    wait_until(lambda: str(node.node_state(blocked.peer.name)) == "up")
    with pytest.raises(CallTimeout, match="it was asked$") as caught:
        node.call(port, "work", timeout=0.01)
    assert caught.value.blocked == ""


def test_inspect_shows_it(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(heartbeat_timeout=10.0)

    def link() -> Any:
        return node.call(node.NODE(), "inspect", ["links"])["links"][0]

    assert (link()["blocked"], link()["blocked_in"], link()["second_path"]) == (None, "", False)
    blocked.beat(1, 5.0)
    wait_until(lambda: link()["blocked"])
    assert link()["blocked"] >= 5
    assert (link()["blocked_in"], link()["second_path"]) == (PLACE, True)


# --- which peers see where ---------------------------------------------------------------------


def test_peer_that_may_not_inspect_does_not_learn_where(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(rules=[{"peer": "*", "inspect": False}], **QUICK)
    linked(one, two)
    block(two)
    wait_until(lambda: is_blocked(one, two))
    assert one.node_state(two.NODE()).where == ""


def test_place_from_a_peer_is_made_harmless(blocked_peer: Any) -> None:
    node, blocked = blocked_peer(heartbeat_timeout=10.0)
    blocked.beat(1, where="\x1b[31m\nforged line")
    wait_until(lambda: node.node_state(blocked.peer.name).state == "blocked")
    assert node.node_state(blocked.peer.name).where == r"\x1b[31m\nforged line"


# --- on which links ------------------------------------------------------------------------


def identities() -> list[dict[str, Any]]:
    ca = authority()
    return [{"cert": ca.issue("aemp:127.0.0.1:*").pem(ca), "require_tls": True, "secret": None} for _ in range(2)]


@pytest.mark.parametrize(
    "how", ["unix", "shared certificate", "certificate for each", "secret and certificate", "IPv6"]
)
def test_second_path_beside_each_kind_of_link(make_node: MakeNode, tmp_path: Path, how: str) -> None:
    settings: list[dict[str, Any]] = [{}, {}]
    places = ["127.0.0.1:0"] * 2
    if how == "unix":
        places = [f"unix:{tmp_path}/{name}" for name in "ab"]
    elif how == "IPv6":
        if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
            pytest.skip("this host has no IPv6")
        places = ["[::1]:0"] * 2
    elif how == "shared certificate":
        settings = [{"cert": SHARED, "require_tls": True, "secret": None}] * 2
    elif how == "secret and certificate":
        settings = [{"cert": SHARED}] * 2
    elif how == "certificate for each":
        settings = identities()
    one, two = (make_node(place, **QUICK, **given) for place, given in zip(places, settings, strict=True))
    linked(one, two)
    for node, other in ((one, two), (two, one)):
        block(other)
        wait_until(lambda: is_blocked(node, other))  # noqa: B023  # called here only
        unblock(other)
        wait_until(lambda: not is_blocked(node, other))  # noqa: B023


def test_blocked_slave_and_blocked_master(make_node: MakeNode) -> None:
    master = make_node(**QUICK)
    slave, other = (make_node(f"slave/{name}", master.NODE(), **QUICK) for name in "ab")
    public = make_node(**QUICK)
    linked(master, slave)
    linked(master, other)
    linked(public, master)
    for node in (public, other):
        inbox = Inbox(slave)
        node.snd(inbox, "there")
        wait_until(lambda: inbox.messages)  # noqa: B023
    block(slave)
    for node in (master, public, other):
        wait_until(lambda: is_blocked(node, slave))  # noqa: B023
    assert master.node_state(slave.NODE()).where == PLACE
    assert public.node_state(slave.NODE()).where == "", "its rules are about its master"
    unblock(slave)
    for node in (master, public, other):
        wait_until(lambda: not is_blocked(node, slave))  # noqa: B023
    block(master)
    wait_until(lambda: is_blocked(other, master))
    assert is_blocked(other, slave)
    assert is_blocked(public, slave), "nothing comes from it through a blocked master"
    unblock(master)
    wait_until(lambda: not is_blocked(public, slave) and not is_blocked(other, slave))


def test_events_of_slaves_behind_a_blocked_master(make_node: MakeNode) -> None:
    master = make_node(**QUICK)
    slave, public = make_node("slave/a", master.NODE(), **QUICK), make_node(**QUICK)
    linked(master, slave)
    linked(public, master)
    inbox = Inbox(slave)
    public.snd(inbox, "there")
    wait_until(lambda: inbox.messages)
    states: list[tuple[str, str]] = []
    public.mon_nodes(lambda *_: None, state=lambda node, state: states.append((node, state.state)))
    block(master)
    wait_until(lambda: len(states) == 2)
    unblock(master)
    wait_until(lambda: len(states) == 4)
    both = {master.NODE(), slave.NODE()}
    assert set(states[:2]) == {(node, "blocked") for node in both}
    assert set(states[2:]) == {(node, "up") for node in both}


@pytest.mark.parametrize("most", [pytest.param(2, id="a few"), pytest.param(1000, id="all")])
def test_those_that_hear_that_a_slave_is_blocked_hear_the_end(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(relaying, "MAX_TOLD", most)
    master = make_node(heartbeat_interval=0.06, heartbeat_timeout=10.0)
    name = f"slave/a@{master.NODE()}"
    with contextlib.ExitStack() as stack:

        def dialled(node: str) -> RawPeer:
            extras = (*EXTRAS, ("heartbeat", "10"), ("uniq", node))
            return stack.enter_context(RawPeer.dial(master, node, extras=extras)).shake()

        def begin(number: int) -> RawPeer:
            """Begin a conversation with the slave."""
            peer = dialled(f"127.0.0.1:{number}")
            assert peer.packet()[:2] == ["", "beats"]
            peer.send(["", "via", peer.name, name, opening(peer.name, "uniq", "word", "")])
            assert slave.peer.packet()[:3] == ["", "via", peer.name]
            return peer

        slave = Blocked(dialled(name))
        peers = [begin(number) for number in range(1, 5)]
        slave.beat(1)
        wait_until(lambda: master.node_state(name).state == "blocked")
        peers += [begin(number) for number in range(5, 7)]
        slave.peer.send(["", "unblocked", 1])
        wait_until(lambda: master.node_state(name).state == "up")
        heard: list[list[float]] = []
        for peer in peers:
            peer.send(["", "time", f"{peer.name}#pong", "pong"])
            packets: list[Any] = []
            while not packets or packets[-1][0] != "pong":
                packets.append(peer.packet())
            heard.append([packet[4][3] for packet in packets[:-1] if packet[4][1] == "via_state"])
    ended = [len(each) == 2 and each[0] > each[1] == 0 for each in heard]
    assert sum(ended) == min(most, 6)
    assert sum(map(bool, heard)) == min(most, 6)


def test_slave_is_not_blocked_for_longer_than_anything_lasts(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=(*EXTRAS, ("uniq", "x"))).shake() as peer:
        name = f"slave/a@{peer.name}"
        peer.send(["", "via", name, node.NODE(), opening(name, "uniq", "word", "")])
        word = peer.packet()[4][4]
        peer.send(["", "via", name, node.NODE(), opening(name, "uniq", "word", word)])
        for seconds in (2**64 - 1, 1e300, MAX_SECONDS + 1, -1, "1", None):
            peer.send(["", "via", name, node.NODE(), ["", "via_state", name, seconds]])
        assert peer.answers()
        assert str(node.node_state(name)) == "up"


@pytest.mark.parametrize(
    "settings", [pytest.param({"udp_port": None}, id="switched off"), pytest.param({"udp_port": 0}, id="port taken")]
)
def test_without_it_all_is_as_before(
    make_node: MakeNode, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings["udp_port"] == 0:

        def refuse(*_args: object) -> None:
            raise OSError("in use")

        monkeypatch.setattr(second_path, "DatagramReceiver", refuse)
    node = make_node(**QUICK, **settings)
    with RawPeer.dial(node, extras=(*EXTRAS, ("heartbeat", "0.4"))).shake() as peer:
        died = Deaths()
        node.mon(f"{peer.name}#p", died)
        assert peer.packet() == ["", "mon1", "p"]
        assert died.wait()[2].startswith("nothing received for 0.")
        assert peer.closed()
        assert all(packet == [] for packet in peer._packets)


@pytest.mark.parametrize("extras", [OUR_PROVIDER, (("provider", "AE-2.02"),), ()], ids=["older", "Perl", "unknown"])
def test_others_are_offered_nothing(make_node: MakeNode, extras: tuple[tuple[str, str], ...]) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node, extras=(*extras, ("heartbeat", "0.4"))).shake() as peer:
        for _ in range(6):
            peer.send([])
            gevent.sleep(0.06)
        assert peer.answers()


def test_fixed_port(make_node: MakeNode) -> None:
    with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    node = make_node(udp_port=port, **QUICK)
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        assert peer.packet()[:3] == ["", "beats", port]


class FakeReceiver:
    """A receiver without a socket, which refuses some addresses."""

    port = 9
    refused: ClassVar[set[str]] = set()
    is_open = True

    def __init__(self, _hub: object, host: str, _port: int, _received: object) -> None:
        if host in self.refused:
            raise OSError(98, "Address already in use")

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def fake_receivers(monkeypatch: pytest.MonkeyPatch) -> type[FakeReceiver]:
    monkeypatch.setattr(second_path, "DatagramReceiver", FakeReceiver)
    monkeypatch.setattr(FakeReceiver, "refused", set())
    return FakeReceiver


def test_socket_is_closed_with_the_last_link_that_uses_it(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, fake_receivers: type[FakeReceiver]
) -> None:
    """So those who use many addresses, at once or over time, do not use them up for others."""
    monkeypatch.setattr(second_path, "MAX_RECEIVERS", 1)
    paths = network_of(make_node()).second_paths
    first, second = SecondPath(paths, *NOTHING), SecondPath(paths, *NOTHING)
    assert [paths.use("one", first), paths.use("one", second), paths.use("two", first)] == [9, 9, None]
    receiver: Any = paths._receivers["one"]
    paths.release("one", first)
    paths.release("one", first)  # as after an interrupt
    assert receiver.is_open
    assert paths.use("two", first) is None
    paths.release("one", second)
    assert not receiver.is_open
    assert paths.use("two", first) == 9


def test_interrupted_end_of_a_link_is_made_up_for(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(heartbeat_timeout=10.0)
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        assert peer.packet()[:2] == ["", "beats"]
        path, link = path_of(node, peer.name), network_of(node).peers[peer.name].link
        close = path.close

        def interrupted() -> None:
            monkeypatch.setattr(path, "close", close)
            raise KeyboardInterrupt

        monkeypatch.setattr(path, "close", interrupted)
        link.close()
        with pytest.raises(KeyboardInterrupt):
            network_of(node).pulse._tick()
        network_of(node).pulse._tick()
        assert not network_of(node).second_paths._receivers


def test_links_release_their_socket(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    paths = network_of(node).second_paths
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        assert peer.packet()[:2] == ["", "beats"]
        assert len(paths._receivers) == 1
    wait_until(lambda: not paths._receivers)


def test_address_without_a_socket_is_logged_once_and_tried_again(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, fake_receivers: type[FakeReceiver]
) -> None:
    fake_receivers.refused.add("one")
    paths = network_of(make_node(udp_port=4321)).second_paths
    path = SecondPath(paths, *NOTHING)
    assert [paths.use("one", path), paths.use("one", path)] == [None, None]
    text = "UDP port 4321 at one cannot be opened: Address already in use;"
    wait_until(lambda: text in caplog.text)
    fake_receivers.refused.clear()
    assert paths.use("one", path) == 9
    assert caplog.text.count(text) == 1


def test_refused_node_hears_nothing_before_that(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pauses between attempts grow only if that is the first packet."""
    offers: list[Any] = []
    offer = SecondPath.offer

    def record(self: SecondPath) -> None:
        offers.append(self._link)
        offer(self)

    monkeypatch.setattr(SecondPath, "offer", record)
    node = make_node(heartbeat_interval=0.06, heartbeat_timeout=10.0)
    with contextlib.ExitStack() as stack:

        def dialled(uniq: str) -> RawPeer:
            return stack.enter_context(RawPeer.dial(node, extras=(*EXTRAS, ("uniq", uniq)))).shake()

        old = dialled("old")
        assert old.packet()[:2] == ["", "beats"]
        newcomer = dialled("newcomer")
        wait_until(lambda: sum(link.is_held for link in offers) >= 2)
        old.send(["", "devnull"])
        assert newcomer.packet()[:2] == ["", "refused"]


@pytest.mark.parametrize("most", [20, 40])
def test_requests_that_are_too_large_for_the_limit_are_left_out(make_node: MakeNode, most: int) -> None:
    node = make_node(max_message_bytes=most, **QUICK)
    with RawPeer.dial(node, extras=(*EXTRAS, ("heartbeat", "0.4"))).shake() as peer:
        peer.send(["", "beats", 9, "s"])
        wait_until(lambda: path_of(node, peer.name)._outgoing)
        wait_until(lambda: path_of(node, peer.name)._was_offered)
        block(node)
        unblock(node)
        peer.send([])
        assert node.node_is_up(peer.name)
        assert path_of(node, peer.name).works is None
    assert not network_of(node).second_paths._receivers


FORKING = """
import os, sys, gevent
from aemp_gevent import *
from aemp_gevent.node.access import network_of
from aemp_gevent.transport.datagrams import DatagramSender
initialise_node("127.0.0.1:0", sys.argv[1], secret=sys.argv[2], heartbeat_interval=0.1, heartbeat_timeout=5)
paths = network_of(default_node).second_paths
while not any(path.works for path in paths._paths):
    gevent.sleep(0.01)
receivers = [each for each in paths._receivers.values()]
descriptors = [each._socket.fileno() for each in receivers]
sender = paths._sender = DatagramSender()  # as if its thread was sending
sender.send(b"x", "127.0.0.1", 9)
descriptors += [each.fileno() for each in sender._sockets.values()]
if os.fork() == 0:
    for descriptor in descriptors:
        try:
            os.fstat(descriptor)
        except OSError:
            os.write(1, f"closed {[each._socket.fileno() for each in receivers]}\\n".encode())
    gevent.sleep(0.1)
    os._exit(0)
os.write(1, f"forked {NODE()}\\n".encode())
gevent.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_leaves_the_second_path_to_its_parent(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    with process(FORKING, node.NODE(), SECRET) as parent:
        lines = sorted(line_of(parent) for _ in range(3))
        assert lines[:2] == ["closed [-1]"] * 2
        other = lines[2].removeprefix("forked ")
        wait_until(lambda: path_of(node, other).works)
        network_of(node).second_paths.blocked(2.0, PLACE)
        wait_until(lambda: node.call(other, "inspect", ["links"])["links"][0]["blocked"])


# --- what others can do --------------------------------------------------------------------


def test_beats_that_are_repeated_reflected_or_late_do_nothing(make_node: MakeNode, sent: list[Any]) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    block(two)
    wait_until(lambda: is_blocked(one, two))
    (forward,) = sent[2:]
    unblock(two)
    wait_until(lambda: not is_blocked(one, two))
    network_of(one).peers[two.NODE()].link.second_path._calm_until = 0.0  # type: ignore[union-attr]
    beats = network_of(one).peers[two.NODE()].link.beats  # type: ignore[union-attr]
    back = sent[0][2] if sent[0][2] != forward[2] else sent[1][2]
    send_again(forward, (forward[0], forward[1], back), *sent[:2])
    block(one)
    wait_until(lambda: is_blocked(two, one))  # which came behind them
    gevent.sleep(0.05)
    assert not is_blocked(one, two)
    assert network_of(one).peers[two.NODE()].link.beats == beats  # type: ignore[union-attr]


def test_beats_of_a_lost_link_do_nothing_for_the_next(make_node: MakeNode, sent: list[Any]) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    block(two)
    wait_until(lambda: is_blocked(one, two))
    old = sent[2]
    link: Any = network_of(one).peers[two.NODE()].link
    link.fail("cut")
    wait_until(lambda: not one.node_is_up(two.NODE()) and not two.node_is_up(one.NODE()))
    assert one.node_state(two.NODE()) == NodeState("gone")
    linked(one, two)
    wait_until(lambda: len(network_of(one).second_paths._by_id) == 1)
    send_again(old)
    gevent.sleep(0.1)
    assert not is_blocked(one, two)
    assert len(network_of(one).second_paths._paths) == 1, "the former one is forgotten"


def test_flood_of_strangers_neither_stops_nor_grows_anything(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    paths = network_of(one).second_paths
    (receiver,) = paths._receivers.values()
    key_id = next(iter(paths._by_id))
    before = len(paths._by_id), len(paths._paths), len(paths._receivers)
    is_over = False

    def flood() -> None:
        with DatagramSender() as sender:
            while not is_over:
                for size in (0, 1, 16, SIZE, 1000, 60_000):
                    sender.send(key_id + secrets.token_bytes(size), "127.0.0.1", receiver.port)
                    sender.send(secrets.token_bytes(size), "127.0.0.1", receiver.port)
                    native.sleep(0.0001)

    thread = native.threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(50):
            assert one.syncal(10, two.NODE(), "time")
    finally:
        is_over = True
        thread.join()
    assert (len(paths._by_id), len(paths._paths), len(paths._receivers)) == before
    assert str(one.node_state(two.NODE())) == "up"
    block(two)
    wait_until(lambda: is_blocked(one, two) or block(two))


def test_datagrams_are_taken_a_few_at_a_time(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    (receiver,) = network_of(one).second_paths._receivers.values()
    turns: list[int] = []
    taken = 0

    def count(_datagram: bytes) -> None:
        nonlocal taken
        taken += 1

    receiver._received = count
    send_again(*[(b"x", "127.0.0.1", receiver.port)] * 3 * AT_ONCE)
    readable = receiver._readable
    while taken < 3 * AT_ONCE:
        before = taken
        readable()
        turns.append(taken - before)
    assert max(turns) == AT_ONCE


@pytest.mark.parametrize(
    "request_",
    [
        ["beats"],
        ["beats", 0, "salt"],
        ["beats", 2**16, "salt"],
        ["beats", -1, "salt"],
        ["beats", True, "salt"],
        ["beats", "9", "salt"],
        ["beats", 9, "s" * 101],
        ["beats", 9, b"salt"],
        ["beats", 9, None],
        ["beats", 9.5, "salt"],
        ["unblocked"],
        ["unblocked", -1],
        ["unblocked", 2**64 - 1],
        ["unblocked", "1"],
        ["unblocked", None, []],
    ],
)
def test_malformed_requests_do_nothing(make_node: MakeNode, sent: list[Any], request_: list[Any]) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        peer.send(["", *request_])
        assert peer.answers()
        block(node)
        unblock(node)
        assert peer.answers()
    assert sent == []


def test_peer_says_only_once_where_beats_go(make_node: MakeNode, sent: list[Any]) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=EXTRAS).shake() as peer:
        peer.send(["", "beats", 9, "salt"], *[["", "beats", port, "salt"] for port in range(10, 100)])
        assert peer.answers()
    assert [port for _, _, port in sent] == [9]


def test_peer_cannot_change_its_state_all_the_time(blocked_peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_path, "_CALM_SECONDS", 60.0)
    node, blocked = blocked_peer(heartbeat_timeout=10.0)
    link: Any = network_of(node).peers[blocked.peer.name].link
    blocked.beat(1)
    wait_until(lambda: node.node_state(blocked.peer.name).state == "blocked")
    blocked.peer.send(["", "unblocked", 1])
    wait_until(lambda: str(node.node_state(blocked.peer.name)) == "up")
    blocked.beat(2)
    wait_until(lambda: link.beats == 2)
    assert str(node.node_state(blocked.peer.name)) == "up", "not again so soon"


def test_late_round_of_beats_is_outdated_later(make_node: MakeNode) -> None:
    """The thread may still be sending when the loop runs again."""
    one, two = make_node(**QUICK), make_node(**QUICK)
    linked(one, two)
    block(two)
    wait_until(lambda: is_blocked(one, two))
    unblock(two)
    wait_until(lambda: not is_blocked(one, two))
    network_of(one).peers[two.NODE()].link.second_path._calm_until = 0.0  # type: ignore[union-attr]
    block(two)  # as if it had begun before
    wait_until(lambda: is_blocked(one, two))
    unblock(two)
    wait_until(lambda: not is_blocked(one, two))
