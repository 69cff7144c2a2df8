# SPDX-License-Identifier: MIT
"""The links of a node: seeds, strangers, and what a greeting says."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import aemp_gevent.peers.finding
import aemp_gevent.peers.listeners
import aemp_gevent.peers.network
import aemp_gevent.peers.seed
from aemp_gevent._version import PROVIDER
from aemp_gevent.errors import InvalidNoderefError, InvalidSettingError, ListenError
from aemp_gevent.node.node import Node
from aemp_gevent.peers.finding import _checked
from tests.helpers import turns, wait_until
from tests.networking import (
    SECRET,
    UNIQUE,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    free_address,
    node_factory,
)


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    monkeypatch.setattr(aemp_gevent.peers.seed, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 0.05)
    with node_factory() as make:
        yield make


def test_seeds_are_linked_to_from_the_start(make_node: MakeNode) -> None:
    seeds = [make_node() for _ in range(3)]
    host, port = seeds[2].NODE().split(":")
    node = make_node("127.0.0.1:0", seeds[0].NODE(), seeds[1].NODE(), f"localhost:{port}")
    wait_until(lambda: len(node.up_nodes()) == 3)
    for seed in seeds:
        wait_until(lambda: seed.up_nodes() == [node.NODE()])  # noqa: B023


def test_seed_that_is_down_at_first_is_dialled_until_it_is_up(make_node: MakeNode) -> None:
    address = free_address()
    node = make_node("127.0.0.1:0", address, "no-such-host.invalid:1")
    seed = make_node(address)
    wait_until(lambda: node.up_nodes() == [address])
    seed.shutdown()
    wait_until(lambda: node.up_nodes() == [])
    make_node(address)
    wait_until(lambda: node.up_nodes() == [address])


def test_seed_that_closes_its_link_is_dialled_again(make_node: MakeNode) -> None:
    with RawListener() as listener:
        make_node("127.0.0.1:0", listener.id)
        for _ in range(3):
            listener.accept().shake().close()


def test_node_that_is_its_own_seed_gives_it_up_in_silence(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    address, other = free_address(), make_node()
    node = make_node(address, address, f"localhost:{address.partition(':')[2]}", other.NODE())
    wait_until(lambda: node.up_nodes() == [other.NODE()])
    assert node._network is not None
    numeric, name, _other = node._network.seeds._seeds
    wait_until(lambda: len(node._network.seeds.workers) == 2)  # the name may get other addresses
    wait_until(lambda: [c.is_own for (e,), c in name.candidates.items() if e.host == "127.0.0.1"] == [True])
    assert numeric.chosen == name.chosen == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_node_that_is_its_own_seed_by_another_address_gives_it_up(make_node: MakeNode) -> None:
    behind = free_address()
    node = make_node(None)
    node.configure(nodeid=free_address(), binds=[behind], seeds=[behind], secret="s")
    network: Any = node._network
    wait_until(lambda: network.seeds.workers == [])
    assert node.up_nodes() == []


def test_sending_to_ourselves_by_another_name_is_refused(make_node: MakeNode) -> None:
    behind = free_address()
    node = make_node(None)
    node.configure(nodeid="named", binds=[behind], secret="s")
    reasons: list[Any] = []
    node.mon(f"{behind}#x", lambda *reason: reasons.append(reason))
    wait_until(lambda: reasons)
    assert "myself" in reasons[0][2]


def test_greeting_says_who_we_are(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as one, RawPeer.dial(node) as two:
        first, second = one.greet(), two.greet()
        assert first.node == node.NODE()
        assert first.auth_methods == ("hmac_sha3_512",)
        assert first.framings == ("msgpack", "cbor", "json")
        assert first.provider == PROVIDER
        assert first.extra("mproto") == "1"
        assert first.extra("peeraddr") == "{}:{}".format(*one.sock.getsockname())
        assert first.uniq
        assert first.uniq == second.uniq
        nonces = {peer.handshake._peer_lines[1] for peer in (one, two)}
        assert len(nonces) == 2
        assert all(len(nonce) == 88 for nonce in nonces)


def test_strangers_are_forgotten(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever node IDs they claim: memory is not theirs to fill."""
    monkeypatch.setattr(aemp_gevent.peers.network, "IDLE_PEERS", 5)
    node = make_node()
    network = node._network
    assert network is not None
    network._sweep_at = 5
    for number in range(30):
        with RawPeer.dial(node, f"stranger/{number}", secret="wrong") as stranger:
            stranger.greet()
            stranger.sock.sendall(stranger.handshake.prove())
            assert stranger.closed()
    wait_until(lambda: not network.strangers.links)
    assert len(network.peers) < 12


def test_memory_of_nodes_that_are_gone_is_bounded(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that come under a new name each time, are monitored, and crash."""
    monkeypatch.setattr(aemp_gevent.peers.network, "IDLE_PEERS", 5)
    monkeypatch.setattr(aemp_gevent.peers.network, "MAX_LOST_PEERS", 10)
    node = make_node()
    network = node._network
    assert network is not None
    network._sweep_at = 5
    for number in range(60):
        died = Deaths()
        with RawPeer.dial(node, f"worker/{number}", extras=(("uniq", "one"),)).shake() as worker:
            node.mon(f"worker/{number}#{UNIQUE}", died)
            assert worker.packet() == ["", "mon1", UNIQUE]
        died.wait()
    assert len(network.peers) < 40
    assert "worker/59" in network.peers
    assert "worker/0" not in network.peers
    assert len(network.scheduler.ports) < 100
    assert "forgetting which ports" in caplog.text


def test_shutdown_closes_strangers_too(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as stranger:
        stranger.greet()
        node.shutdown()
        assert stranger.closed()


def test_two_nodes_have_links_of_their_own(make_node: MakeNode) -> None:
    one, two, three = make_node(), make_node(), make_node()
    inboxes = [Inbox(three) for _ in range(2)]
    one.snd(inboxes[0], 1)
    wait_until(lambda: inboxes[0].messages)
    assert two.up_nodes() == []
    two.snd(inboxes[1], 2)
    wait_until(lambda: inboxes[1].messages)
    assert sorted(three.up_nodes()) == sorted([one.NODE(), two.NODE()])


# --- what a review found ---------------------------------------------------------------------


SEEDS = ["a:b:c", "host:http", "host:70000", "[::1", "two words", "slave/x", "anon/x", "unix:relative", "4" * 5000]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: repr(seed[:20]))
@pytest.mark.parametrize("call", ["initialise_node", "configure"])
def test_malformed_seed_is_refused_at_once(make_node: MakeNode, seed: str, call: str) -> None:
    """It would never be reached, in silence."""
    node = make_node(None)
    with pytest.raises(InvalidSettingError, match="setting 'seeds'") as caught:
        if call == "initialise_node":
            node.initialise_node("127.0.0.1:0", "127.0.0.1:1", seed, secret="s")
        else:
            node.configure(nodeid="named", seeds=["127.0.0.1:1", seed], secret="s")
    assert caught.value.name == "seeds"
    node.initialise_node("127.0.0.1:0", secret="s")


def test_huge_node_name_is_refused(make_node: MakeNode) -> None:
    """No greeting could say it."""
    node = make_node(None)
    for name in ("n" * 5000, "n/" * 2500, "n" * 256):
        with pytest.raises(InvalidSettingError):
            node.configure(nodeid=name, secret="s")
    node.configure(nodeid="n" * 255, secret="s")


@pytest.mark.parametrize("noderef", [4041, b"127.0.0.1:0", ["127.0.0.1:0"], 0, False], ids=repr)
def test_noderef_that_is_no_string_is_refused(make_node: MakeNode, noderef: Any) -> None:
    with pytest.raises(InvalidNoderefError, match="a noderef must be a string"):
        make_node(None).initialise_node(noderef, secret="s")


@pytest.mark.parametrize(("name", "value"), [("nodeid", "named"), ("nodeid", None), ("seeds", ["127.0.0.1:1"])])
def test_what_initialise_node_takes_by_position_is_refused_by_name(make_node: MakeNode, name: str, value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=f"setting '{name}'.*by position") as caught:
        make_node(None).initialise_node("127.0.0.1:0", secret="s", **{name: value})
    assert caught.value.name == name


def test_node_callback_of_a_dead_port_is_dropped(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    mine: list[Any] = []
    others: list[Any] = []
    node.mon(node.port_async(lambda: node.mon_nodes(lambda *change: mine.append(change))), died)
    node.mon_nodes(lambda *change: others.append(change))
    assert died.wait() == ()
    with RawPeer.dial(node).shake():
        wait_until(lambda: others)
    wait_until(lambda: len(others) == 2)
    assert mine == []
    assert len(node._node_monitors._callbacks) == 1


def test_timeouts_may_be_longer_than_the_system_takes(make_node: MakeNode) -> None:
    """Links come up, whoever dials; Linux knows no keep-alives of 100 000 s."""
    patient = {"heartbeat_timeout": 100_000, "monitor_timeout": 100_000.0, "handshake_timeout": 100_000}
    one, two, other = make_node(**patient), make_node(**patient), make_node()
    for sender, receiver in ((one, two), (other, one), (two, other)):
        inbox, died = Inbox(receiver), Deaths()
        sender.mon(inbox, died)
        sender.snd(inbox, "hello")
        wait_until(lambda: inbox.messages)  # noqa: B023
        assert died.count == 0


# --- nodes whose IDs do not say where they listen -------------------------------------------


class Directory:
    """A stand-in for a directory engine: a dictionary."""

    def __init__(self) -> None:
        self.nodes: dict[str, Any] = {}
        self.asked: list[str] = []
        self.unanswered: list[tuple[str, Callable[[Any], None]]] = []
        self.is_connected = True

    def find(self, node: str, answered: Callable[[Any], None]) -> None:
        self.asked.append(node)
        self.unanswered.append((node, answered))
        if self.is_connected:
            gevent.get_hub().loop.run_callback(self.answer)

    def answer(self) -> None:
        while self.unanswered:
            node, answered = self.unanswered.pop()
            answered(self.nodes.get(node))


MakeNamed = Callable[..., Node]


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def make_named(make_node: MakeNode, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> MakeNamed:
    monkeypatch.setattr(aemp_gevent.peers.finding, "SETTLE_SECONDS", 0.0)

    def make(name: str, **settings: Any) -> Node:
        node = make_node(None)
        node.configure(nodeid=name, binds=["127.0.0.1:0"], secret=SECRET, **settings)
        network = node._network
        assert network is not None
        network.listener.find = directory.find
        directory.nodes[name] = [str(endpoint) for endpoint in network.listeners.endpoints]
        return node

    return make


def test_named_nodes_find_each_other_on_demand(make_named: MakeNamed) -> None:
    backend, client, other = (make_named(name) for name in ("backend", "client/1", "client/2"))
    inbox, answers = Inbox(backend), Inbox(client)
    died = Deaths()
    client.mon(inbox, died)
    client.snd(inbox, "to a name")
    wait_until(lambda: inbox.messages == [("to a name",)])
    backend.snd(answers, "and back")
    wait_until(lambda: answers.messages == [("and back",)])
    assert other.up_nodes() == []
    backend.kil(inbox.port, "enough")
    assert died.wait() == ("enough",)


@pytest.mark.slow
def test_idle_link_of_named_nodes_is_closed_if_both_can_be_found(make_named: MakeNamed, directory: Directory) -> None:
    one, two = (make_named(name, idle_timeout=0.2) for name in ("one", "two"))
    inboxes = Inbox(one), Inbox(two)
    for number in range(1, 3):
        one.snd(inboxes[1], number)
        wait_until(lambda: len(inboxes[1].messages) == number)  # noqa: B023
        wait_until(lambda: one.up_nodes() == two.up_nodes() == [])
        two.snd(inboxes[0], number)
        wait_until(lambda: len(inboxes[0].messages) == number)  # noqa: B023
        wait_until(lambda: one.up_nodes() == two.up_nodes() == [])
    hidden = directory.nodes.pop("one")
    one.snd(inboxes[1], 3)
    wait_until(lambda: two.up_nodes() == ["one"])
    asked = directory.asked.count("one")
    wait_until(lambda: directory.asked.count("one") > asked + 3, within=10)
    assert (one.up_nodes(), two.up_nodes()) == (["two"], ["one"])
    directory.nodes["one"] = hidden
    wait_until(lambda: one.up_nodes() == two.up_nodes() == [])


@pytest.mark.slow
def test_idle_link_stays_if_the_other_node_cannot_be_found_just_now(
    make_named: MakeNamed, directory: Directory
) -> None:
    """The patient one is asked, and knew the address of the other when it dialled."""
    quick, patient = make_named("quick", idle_timeout=0.2), make_named("patient", idle_timeout=0.35)
    guard = patient.mon(Inbox(quick), Deaths())
    wait_until(lambda: quick.up_nodes() and patient.up_nodes())
    assert patient._network is not None
    other = patient._network.peer("quick")
    other._asked_to_rest(other.link)  # type: ignore[arg-type]  # the first one is refused for the monitor
    del directory.nodes["quick"]
    guard.cancel()
    peer = quick._network.peer("patient")  # type: ignore[union-attr]
    link, asked = peer.link, directory.asked.count("quick")
    wait_until(lambda: directory.asked.count("quick") > asked + 3, within=20)
    assert peer.link in (link, None) and peer._links == [link]
    directory.nodes["quick"] = directory.nodes["patient"]
    wait_until(lambda: quick.up_nodes() == patient.up_nodes() == [], within=20)


def test_name_that_nobody_knows_fires_monitors_with_a_word_on_what_to_do(make_named: MakeNamed) -> None:
    node, died = make_named("one"), Deaths()
    node.mon("nobody#x", died)
    kind, name, why = died.wait()
    assert (kind, name) == ("transport_error", "nobody")
    assert re.search("no known address.*running.*seeds", why)


@pytest.mark.slow
def test_name_is_asked_for_again_while_others_may_be_on_their_way_to_a_seed(
    make_named: MakeNamed, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.finding, "SETTLE_SECONDS", 60.0)
    one, two = make_named("one"), make_named("two")
    where, died, inbox = directory.nodes.pop("two"), Deaths(), Inbox(two)
    one.mon(inbox, died)
    one.snd(inbox, "early")
    wait_until(lambda: directory.asked.count("two") > 2)
    directory.nodes["two"] = where
    wait_until(lambda: inbox.messages == [("early",)])
    assert died.count == 0
    # Again, after one of the seeds was lost, and not for ever.
    network = one._network
    assert network is not None
    monkeypatch.setattr(aemp_gevent.peers.finding, "SETTLE_SECONDS", 1.0)
    network.finding._settled_at = 0.0
    for changes, expected in ((False, 1), (True, 2)):
        node = f"nobody/{expected}"
        if changes:
            network.seeds_changed()
        one.mon(f"{node}#x", died := Deaths())
        assert died.wait()[2].startswith("no known address: is it running")
        assert (directory.asked.count(node) > 1) == changes


@pytest.mark.slow
def test_asking_again_ends_in_time_and_says_what_was_answered(
    make_named: MakeNamed, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.finding, "SETTLE_SECONDS", 60.0)
    node, died = make_named("one", monitor_timeout=1.2, handshake_timeout=0.2), Deaths()
    node.mon("nobody#x", died)
    wait_until(lambda: directory.asked.count("nobody") > 1)
    directory.is_connected = False
    assert died.wait()[2].startswith("no known address: is it running")


@pytest.mark.slow
def test_nobody_to_ask_fires_monitors_in_time(make_named: MakeNamed, directory: Directory) -> None:
    node, died = make_named("one", monitor_timeout=1.2, handshake_timeout=0.2), Deaths()
    directory.is_connected = False
    node.mon("two#x", died)
    assert re.search("no known address: nobody could be asked for it within 1 s.*seed up", died.wait()[2])
    directory.answer()  # too late, and harmless
    turns(5)
    assert died.count == 1


def test_answer_may_come_late_and_all_that_waited_is_sent(make_named: MakeNamed, directory: Directory) -> None:
    one, two = make_named("one"), make_named("two")
    inbox = Inbox(two)
    directory.is_connected = False
    one.mon(inbox, Deaths())
    for number in range(3):
        one.snd(inbox, number)
    wait_until(lambda: directory.unanswered)
    assert directory.asked == ["two"]
    directory.answer()
    wait_until(lambda: inbox.messages == [(0,), (1,), (2,)])


def test_stale_address_fires_monitors_and_says_who_is_there(make_named: MakeNamed, directory: Directory) -> None:
    one, two, three = (make_named(name) for name in ("one", "two", "three"))
    directory.nodes["two"] = directory.nodes["three"]
    died = Deaths()
    one.mon(Inbox(two), died)
    assert "is three" in died.wait()[2]


def addresses_of(node: Node) -> list[str]:
    assert node._network is not None
    return [str(endpoint) for endpoint in node._network.listeners.endpoints]


def someone_without_the_secret(make_node: MakeNode, name: str) -> Node:
    node = make_node(None)
    node.configure(nodeid=name, binds=["127.0.0.1:0"], secret="a wrong secret")
    return node


@pytest.mark.parametrize(
    "liar",
    [
        "another node",
        "nobody",
        "this node itself",
        "no proof",
        pytest.param("all of them, and silence", marks=pytest.mark.slow),
    ],
)
def test_wrong_addresses_of_a_node_do_not_hide_the_right_one(
    make_named: MakeNamed, make_node: MakeNode, directory: Directory, liar: str
) -> None:
    one = make_named("one", handshake_timeout=1.0 if "silence" in liar else 10.0)
    two, three = make_named("two"), make_named("three")
    with RawListener() as silent:
        wrong = {
            "another node": addresses_of(three),
            "nobody": [free_address()],
            "this node itself": addresses_of(one),
            "no proof": addresses_of(someone_without_the_secret(make_node, "two")),
            "silence": [silent.id],  # a connection is made, and nobody says anything
        }
        told = wrong[liar] if liar in wrong else [address for its in wrong.values() for address in its]
        directory.nodes["two"] = [*told, *addresses_of(two)]
        inbox, died = Inbox(two), Deaths()
        one.mon(inbox, died)
        one.snd(inbox, "reaches it")
        wait_until(lambda: inbox.messages or died.count, within=WAIT)
    assert inbox.messages == [("reaches it",)]
    assert died.count == 0


def test_somebody_silent_at_a_wrong_address_delays_a_link_by_little(
    make_named: MakeNamed, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.peers.attempts.QUICK_SECONDS", 0.2)
    one, two = make_named("one"), make_named("two")
    with RawListener() as silent:
        directory.nodes["two"] = [silent.id, *addresses_of(two)]
        inbox = Inbox(two)
        one.snd(inbox, "reaches it")
        wait_until(lambda: inbox.messages, within=5)  # a handshake may take 10 s


def test_node_that_none_of_its_addresses_leads_to_is_lost_in_time_and_each_is_named(
    make_named: MakeNamed, make_node: MakeNode, directory: Directory
) -> None:
    one, three = make_named("one"), make_named("three")
    told = [*addresses_of(three), *addresses_of(someone_without_the_secret(make_node, "two"))]
    directory.nodes["two"] = told
    died = Deaths()
    one.mon("two#x", died)
    text = died.wait()[2]
    assert f"{told[0]}: the node at {told[0]} is three; {told[1]}: " in text


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param([], id="none"),
        pytest.param("127.0.0.1:1", id="text"),
        pytest.param(5, id="number"),
        pytest.param([None, 5, b"127.0.0.1:1", ["127.0.0.1:1"], {}], id="other-types"),
        pytest.param(
            ["", "localhost:1", "*:1", "127.0.0.1", "127.0.0.1:0", "slave/x", "x" * 10_000], id="no-addresses"
        ),
    ],
)
def test_answers_are_not_trusted(make_named: MakeNamed, directory: Directory, addresses: Any) -> None:
    node, died = make_named("one"), Deaths()
    directory.nodes["two"] = addresses
    node.mon("two#x", died)
    assert died.wait()[2].startswith("no known address")


def test_of_many_addresses_some_are_tried(make_named: MakeNamed, directory: Directory) -> None:
    one, two = make_named("one"), make_named("two")
    (address,) = directory.nodes["two"]
    directory.nodes["two"] = [5, free_address(), address, *(f"10.255.0.1:{port}" for port in range(1, 10_000))]
    inbox = Inbox(two)
    one.snd(inbox, "hello")
    wait_until(lambda: inbox.messages, within=20)


@pytest.mark.parametrize("name", ["anon/x", "slave/x@127.0.0.1:4040", "127.0.0.1:1"])
def test_only_names_are_asked_for(make_named: MakeNamed, directory: Directory, name: str) -> None:
    node, died = make_named("one"), Deaths()
    node.mon(f"{name}#x", died)
    assert died.wait()[:2] == ("transport_error", name)
    assert directory.asked == []


@pytest.mark.parametrize(
    ("addresses", "endpoints"),
    [
        pytest.param(["10.0.0.1:4040", "127.0.0.1:1"], ["10.0.0.1:4040", "127.0.0.1:1"], id="several"),
        pytest.param(
            ["[2001:db8:0:1::]:1", "[2001:db8::1:0:0:0:1]:1"], ["[2001:db8:0:1::]:1", "[2001:db8:0:1::1]:1"], id="v6"
        ),
        pytest.param(["unix:/tmp/x"], ["unix:/tmp/x"], id="unix"),
        pytest.param(["1.2.3.4:1,1.2.3.4:2"], ["1.2.3.4:1", "1.2.3.4:2"], id="noderef"),
        pytest.param(
            ["host:1", "x y", "1.2.3.4:0", "1.2.3.4:65536", "", 7, None, ["1.2.3.4:1"], "4" * 5000], [], id="bad"
        ),
        pytest.param([], [], id="none"),
        pytest.param(None, [], id="unknown"),
        pytest.param("1.2.3.4:1", [], id="text"),
        pytest.param({"1.2.3.4:1": None}, ["1.2.3.4:1"], id="map"),
    ],
)
def test_addresses_that_others_tell_are_checked(addresses: object, endpoints: list[str]) -> None:
    """Perl shortens IPv6 addresses a little differently from Python."""
    assert [str(endpoint) for endpoint in _checked(addresses)] == endpoints


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
    """Only where it listens, and nobody else can dial 0.0.0.0 or [::]: that is his own host."""
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: ["192.0.2.7", "2001:db8::7"])
    node = make_node(None)
    try:
        node.configure(nodeid="backend", binds=[bind], secret=SECRET)
    except ListenError:
        pytest.skip("this host has no IPv6")
    assert [address.rpartition(":")[0] for address in node._network.addresses()] == hosts
    assert not any(address.endswith(":0") for address in node._network.addresses())


def test_node_says_which_ports_the_system_chose(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.listeners, "own_addresses", lambda _others: ["192.0.2.7"])
    node = make_node(None)
    assert node.addresses() == []
    node.configure(nodeid="192.0.2.17:4040", binds=["*:0", "127.0.0.1:0"], secret=SECRET)
    ports = [endpoint.port for endpoint in node._network.listeners.endpoints]
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
    ports = [endpoint.port for endpoint in node._network.listeners.endpoints]
    assert [int(endpoint.rpartition(":")[2]) for endpoint in node.NODE().split(",")] == ports
    assert node._network.addresses() == node.NODE().split(",")
    assert f"means all interfaces and cannot be dialled; the node ID is {node.NODE()}" in caplog.text
    with RawPeer.dial(f"127.0.0.1:{ports[-1]}") as peer:
        assert peer.greet().node == node.NODE()
