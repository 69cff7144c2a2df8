# SPDX-License-Identifier: MIT
"""Nodes whose IDs do not contain their addresses: other nodes are asked for these."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import aemp_gevent.peers.finding
import aemp_gevent.peers.listeners
import aemp_gevent.peers.network
import aemp_gevent.peers.seed
from aemp_gevent.node.node import Node
from aemp_gevent.peers.finding import _checked
from tests.support.helpers import turns, wait_until
from tests.support.networking import (
    SECRET,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    free_address,
)
from tests.support.seams import network_of


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
        network = network_of(node)
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
    other = network_of(patient).peer("quick")
    other._asked_to_rest(other.link)  # type: ignore[arg-type]  # the first one is refused for the monitor
    del directory.nodes["quick"]
    guard.cancel()
    peer = network_of(quick).peer("patient")
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
    # Again, after one of the seeds was lost, and not forever.
    network = network_of(one)
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
    return [str(endpoint) for endpoint in network_of(node).listeners.endpoints]


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
