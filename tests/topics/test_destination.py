# SPDX-License-Identifier: MIT
"""Sessions between two nodes that publish and are subscribed: their ends, their reports, and what forgers achieve."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event

import aemp_gevent.node.lasting_port
import aemp_gevent.topics.broker
import aemp_gevent.topics.destination
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.topics import publish, subscribe
from aemp_gevent.topics.broker import GROUP, broker_of
from aemp_gevent.topics.destination import Destination
from aemp_gevent.topics.session_port import Address
from tests.support.helpers import wait_until
from tests.support.networking import Inbox
from tests.topics.conftest import QUICK, SEED, WAIT, begun, destination_of, nodes_of, subscribed


def in_session(network: MemoryNetwork, pattern: str) -> tuple[Node, Node, Inbox, Destination]:
    """Return a node that publishes, one that is subscribed, what it gets, and their session, which has begun."""
    one, other = nodes_of(network, 2)
    inbox = subscribed(other, pattern)
    begun(one, other)
    return one, other, inbox, destination_of(one, other)


def test_outage_is_reported_once_even_if_the_session_ends_again_soon(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.topics.destination, "_CONFIRM_SECONDS", 1000.0)
    one, other, inbox, destination = in_session(network, "t")
    network.block(one, other)
    publish("t", "lost", node=one)
    assert network.cut(one, other) > 0
    network.heal()
    wait_until(lambda: inbox.messages == [("missed", "t")], within=WAIT, show=lambda: inbox.messages)
    wait_until(lambda: not destination._at_risk, within=WAIT)
    for number in range(2):
        session = destination._session
        network.cut(one, other)
        wait_until(lambda: destination._session > session and destination._inlet, within=WAIT)  # noqa: B023
        publish("u", number, node=one)
    publish("t", "next", node=one)
    wait_until(lambda: len(inbox.messages) == 2, within=WAIT)
    assert inbox.messages == [("missed", "t"), ("t", "next")]


def test_nothing_is_published_before_the_whole_report_is_sent(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is long, and its sender is paused, as by a full buffer."""
    monkeypatch.setattr(aemp_gevent.topics.destination, "BATCH", 2)
    one, other, inbox, destination = in_session(network, "t.*")
    network.partition([other])
    network.cut(one, other)
    wait_until(lambda: destination.is_away, within=WAIT)
    for number in range(5):
        publish(f"t.{number}", "lost", node=one)
    begins, goes_on = Event(), Event()
    send = Address.send

    def paused(self: Address, node: Any, what: str, *rest: Any) -> None:
        send(self, node, what, *rest)
        if what == "missed":
            begins.set()
            goes_on.wait()

    monkeypatch.setattr(Address, "send", paused)
    network.heal()
    assert begins.wait(WAIT)
    assert [publish(topic, "lost as well", node=one) for topic in ("t.4", "t.5")] == [0, 0]
    goes_on.set()
    wait_until(lambda: publish("t.4", "next", node=one), within=WAIT)
    wait_until(lambda: ("t.4", "next") in inbox.messages, within=WAIT, show=lambda: inbox.messages)
    assert inbox.messages == [*(("missed", f"t.{number}") for number in range(6)), ("t.4", "next")]


def test_answers_that_nobody_asked_for_confirm_nothing(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.topics.destination, "_CONFIRM_SECONDS", 1000.0)
    one, other, _, _ = in_session(network, "t")
    publish("t", 1, node=one)
    destination = destination_of(one, other)
    timer, outlet = destination._timer, destination._outlet
    assert timer is not None
    assert outlet is not None
    for answer in ((), (0,), (1,), ("x",)):
        outlet.address.send(other, "seen", *answer)
    assert other.syncal(WAIT, outlet.id, "sync", outlet.address.secret)
    assert destination._timer is timer
    assert destination._at_risk


def test_topic_that_is_named_often_in_a_report_is_reported_once(network: MemoryNetwork) -> None:
    one, other, inbox, destination = in_session(network, "**")
    inlet = destination._inlet
    assert inlet is not None
    inlet.send(one, "missed", ["t"] * 500 + ["u"] * 500)
    publish("t", "next", node=one)
    wait_until(lambda: ("t", "next") in inbox.messages, within=WAIT)
    assert inbox.messages == [("missed", "t"), ("missed", "u"), ("t", "next")]


def test_third_node_that_knows_the_ports_of_a_session_achieves_nothing(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, third = nodes_of(network, 3)
    inbox = subscribed(other, "t")
    begun(one, other)
    destination = destination_of(one, other)
    session, outlet, inlet = destination._session, destination._outlet, destination._inlet
    assert outlet is not None
    assert inlet is not None
    for secret in ((), ("t",), ("wrong",), (5,), ("ü",), (b"x",)):
        for forged in (("publish", *secret, "t", "forged"), ("missed", *secret, ["t"]), ("publish", *secret, "t.*")):
            third.snd(inlet.port, *forged)
        for forged in (("remove", *secret, ["t"]), ("add", *secret, [5]), ("ready", *secret, third.port(), "x")):
            third.snd(outlet.id, *forged)
    assert third.syncal(WAIT, other.NODE(), "time")
    assert third.syncal(WAIT, one.NODE(), "time")
    sent: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(Address, "send", lambda *words: sent.append(words))
        third.snd(inlet.port, "begin")
        assert third.syncal(WAIT, other.NODE(), "time")
        gevent.sleep(0.1)
    assert sent == [], "nothing is sent because a stranger asks for it"
    assert publish("t", "true", node=one) == 1
    wait_until(lambda: inbox.messages, within=WAIT)
    assert inbox.messages == [("t", "true")]
    assert destination._session == session


def test_one_peer_cannot_fill_the_group(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.topics.broker, "MAX_NODES", 3)
    node, honest, bad = nodes_of(network, 3)
    broker = broker_of(node)
    for number in range(10):
        bad.db_set(GROUP, f"10.66.0.{number}:4040#nobody")
    wait_until(lambda: len(broker._destinations) == 3, within=WAIT)
    inbox = subscribed_soon(honest)
    wait_until(lambda: publish("t", 1, node=node) == 1, within=WAIT)
    wait_until(lambda: inbox.messages == [("t", 1)], within=WAIT)
    for number in range(10):
        bad.db_set(GROUP, f"10.66.1.{number}:4040#nobody")
    wait_until(lambda: any("10.66.1.9" in port for port in node.grp_get(GROUP) or ()), within=WAIT)
    assert len(broker._destinations) == 3
    assert publish("t", 2, node=node) == 1, "what had a session does not give way"


def subscribed_soon(node: Any) -> Inbox:
    inbox = Inbox(node)
    subscribe("t", inbox, node=node)
    return inbox


def test_broker_whose_port_was_killed_gets_another_one_and_reports_what_may_be_lost(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.node.lasting_port, "REOPEN_SECONDS", 0.01)
    monkeypatch.setattr(aemp_gevent.topics.destination, "_CONFIRM_SECONDS", 1000.0)
    one, other, inbox, _ = in_session(network, "t")
    broker = broker_of(other)
    for number, reason in enumerate([("die", "killed by a test"), ("shutdown", other.NODE())]):
        assert publish("t", number, node=one) == 1  # which nobody has confirmed when the port dies
        wait_until(lambda: inbox.messages[-1:] == [("t", number)], within=WAIT)  # noqa: B023
        killed = broker._port.id
        one.kil(killed, *reason)
        wait_until(lambda: broker._port.id not in ("", killed), within=WAIT)  # noqa: B023
        wait_until(lambda: f"{broker._port.id} up" in repr(destination_of(one, other)), within=WAIT)
    assert publish("t", 2, node=one) == 1
    wait_until(lambda: ("t", 2) in inbox.messages, within=WAIT)
    assert inbox.messages == [("t", 0), ("missed", "t"), ("t", 1), ("missed", "t"), ("t", 2)]
    assert len(broker_of(one)._destinations) == 1


def test_port_of_a_session_that_is_killed_as_if_its_node_had_shut_down_is_replaced(network: MemoryNetwork) -> None:
    one, other, inbox, _ = in_session(network, "t")
    for number, end in enumerate(["outlet", "inlet"]):
        destination = destination_of(one, other)
        session = destination._session
        (origin,) = broker_of(other)._origins.values()
        port = origin.outlet.port if end == "outlet" else origin._inlet.id
        other.kil(port, "shutdown", other.NODE())
        wait_until(lambda: destination._session > session and destination._inlet, within=WAIT)  # noqa: B023
        assert publish("t", number, node=one) == 1
        wait_until(lambda: ("t", number) in inbox.messages, within=WAIT)  # noqa: B023


def test_node_that_was_lost_first_is_forgotten_first(network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.topics.broker, "MAX_LOST", 1)
    node, early, late = nodes_of(network, 3)
    for other in (early, late):
        subscribed(other, "t")
    begun(node, early, late)
    broker = broker_of(node)
    for gone in (late, early):
        network.crash(gone)
        wait_until(lambda: destination_of(node, gone) in broker._lost, within=WAIT)  # noqa: B023
    assert [known.node_id for known in broker._destinations.values()] == [early.NODE()]


def test_subscription_is_known_although_a_peer_may_not_publish(network: MemoryNetwork) -> None:
    quiet = "10.9.0.1:4040"
    node = network.node(SEED, SEED, rules=[{"peer": quiet, "publish": False}], **QUICK)
    listener = network.node(quiet, SEED, **QUICK)
    inbox = subscribed_soon(listener)
    wait_until(lambda: publish("t", "hello", node=node) == 1, within=WAIT)
    wait_until(lambda: inbox.messages == [("t", "hello")], within=WAIT)
    refusals = node.refusals.get("topics", 0)
    assert subscribe("u", Inbox(node), node=node).wait_until_known(WAIT)
    assert node.refusals.get("topics", 0) == refusals, "the call itself asks nobody to publish"


def test_long_topics_and_reports_of_them_come_in_small_messages(network: MemoryNetwork) -> None:
    """Together they are longer than a message may be."""
    limits: dict[str, Any] = {**QUICK, "max_message_bytes": 64 * 1024}
    one, other = network.node(SEED, SEED, **limits), network.node(None, SEED, **limits)
    topics = [f"{number}." + "\N{GREEK SMALL LETTER OMEGA}" * 190 for number in range(300)]
    inbox = Inbox(other)
    subscriptions = [subscribe(topic, inbox, node=other) for topic in topics]
    assert subscriptions[-1].wait_until_known(WAIT)
    assert sum(publish(topic, "hello", node=one) for topic in topics) == len(topics)
    wait_until(lambda: len(inbox.messages) == len(topics), within=WAIT)
    network.partition([other])
    network.cut(one, other)
    wait_until(lambda: destination_of(one, other).is_away, within=WAIT)
    inbox.messages.clear()
    for topic in topics:
        publish(topic, "lost", node=one)
    network.heal()
    wait_until(lambda: len(inbox.messages) == len(topics), within=WAIT)
    assert sorted(inbox.messages) == sorted(("missed", topic) for topic in topics)
