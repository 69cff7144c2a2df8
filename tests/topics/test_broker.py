# SPDX-License-Identifier: MIT
"""Topics between nodes: who gets what, in which order, and what is reported when something is lost."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

import aemp_gevent.topics.broker
import aemp_gevent.topics.destination
from aemp_gevent import SELF
from aemp_gevent.errors import (
    DeadPortError,
    DirectoryUnavailableError,
    InvalidPortError,
    InvalidTopicError,
    NoPortContextError,
    NotLocalError,
    RemoteError,
    TooManyTopicsError,
    UnencodableMessageError,
)
from aemp_gevent.node.access import network_of, ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.receive import receive
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from aemp_gevent.topics import Subscription, publish, subscribe
from aemp_gevent.topics.broker import GROUP, Broker, broker_of
from aemp_gevent.topics.session_port import Address
from tests.support.helpers import on_hub, wait_until
from tests.support.networking import Inbox, MakeNode, settled_tables
from tests.topics.conftest import QUICK, SEED, WAIT, begun, nodes_of, subscribed

# --- what subscribers get --------------------------------------------------------------------------


@pytest.mark.slow
def test_each_node_with_subscribers_gets_one_packet_and_each_port_one_message(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.topics.destination, "_CONFIRM_SECONDS", 1000.0)
    publisher, *others = nodes_of(network, 8)
    ports = 0
    got: list[tuple[int, tuple[Any, ...]]] = []
    for number, node in enumerate(others[:-1]):  # the last one has no subscribers to it
        for _ in range(1000 // 6 + (number < 4)):
            port = node.port(lambda *msg, number=number: got.append((number, msg)))
            subscription = subscribe("room.42", port, node=node)
            ports += 1
        subscribe("room.*", port, node=node)  # it gets the message once, all the same
        assert subscription.wait_until_known(WAIT)
    assert ports == 1000
    subscribed(others[-1], "room.43")
    begun(publisher, *others)

    def sent() -> dict[str, int]:
        return {peer.node: peer.link.sent_packets for peer in network_of(publisher).peers.values() if peer.link}  # type: ignore[union-attr]

    assert publisher.flush(WAIT)
    gevent.sleep(0)
    before = sent()
    assert publish("room.42", "hello", node=publisher) == 6
    wait_until(lambda: len(got) == 1000, within=WAIT, show=lambda: len(got))
    assert {msg for _, msg in got} == {("room.42", "hello")}
    after = sent()
    assert {node: after[node] - before[node] for node in after} == {
        other.NODE(): int(other is not others[-1]) for other in others
    }


@pytest.mark.slow
def test_messages_of_each_publisher_to_each_topic_arrive_in_order(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    inboxes = [subscribed(one, "a.*", "**"), subscribed(other, "a.**", "a.x", "a.y", "b")]
    begun(one, other)
    begun(other, one)

    def work(node: Node, name: str) -> None:
        for number in range(50):
            for topic in ("a.x", "a.y", "b"):
                publish(topic, name, number, node=node)
            if number % 7 == 0:
                gevent.sleep(0)

    publishers = [gevent.spawn(work, node, name) for node, name in ((one, "1"), (one, "2"), (other, "3"))]
    gevent.joinall(publishers, timeout=WAIT, raise_error=True)
    for inbox in inboxes:
        wait_until(lambda inbox=inbox: len(inbox.messages) == 450, within=WAIT, show=lambda inbox=inbox: inbox.messages)
        by_flow = defaultdict(list)
        for topic, name, number in inbox.messages:
            by_flow[topic, name].append(number)
        assert dict(by_flow) == {(t, n): list(range(50)) for t in ("a.x", "a.y", "b") for n in "123"}


def test_local_messages_stay_here_and_the_excluded_port_gets_none(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    me, neighbour, elsewhere = subscribed(one, "t"), subscribed(one, "t"), subscribed(other, "t")
    begun(one, other)
    assert publish("t", "local", local=True, node=one) == 1
    assert publish("t", "all but me", exclude=me, node=one) == 2
    assert publish("t", "all", node=one) == 2
    wait_until(lambda: len(elsewhere.messages) == 2, within=WAIT)
    assert [msg for _, msg in me.messages] == ["local", "all"]
    assert [msg for _, msg in neighbour.messages] == ["local", "all but me", "all"]
    assert [msg for _, msg in elsewhere.messages] == ["all but me", "all"]


def test_subscription_ends_with_its_guard_and_its_port(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    inbox = Inbox(other)
    twice = [subscribe("t", inbox, node=other) for _ in range(2)]
    assert twice[1].wait_until_known(WAIT)
    begun(one, other)
    assert publish("t", 1, node=one) == 1
    twice[0].cancel()
    twice[0].cancel()
    assert twice[1].wait_until_known(WAIT)
    assert publish("t", 2, node=one) == 1
    with subscribe("u", inbox, node=other) as guard:
        assert guard.wait_until_known(WAIT)
        assert (guard.pattern, guard.port, publish("u", 3, node=one)) == ("u", inbox.port, 1)
        assert "u" in repr(guard)
        wait_until(lambda: len(inbox.messages) == 3, within=WAIT)
    assert guard.wait_until_known(WAIT)
    assert publish("u", node=one) == 0
    other.kil(inbox.port)
    wait_until(lambda: publish("t", node=one) == 0, within=WAIT)
    assert inbox.messages == [("t", 1), ("t", 2), ("u", 3)]


def test_all_nodes_learn_of_a_subscription_whose_end_was_interrupted(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, node = nodes_of(network, 3)
    subscription = subscribe("t", node.port(), node=node)
    assert subscription.wait_until_known(WAIT)
    begun(one, node)
    begun(other, node)
    send = Address.send

    def send_slowly(self: Address, *words: Any) -> None:
        gevent.sleep(1)
        send(self, *words)

    monkeypatch.setattr(Address, "send", send_slowly)
    with gevent.Timeout(0.5, False), subscription:
        pass
    wait_until(lambda: not broker_of(one).destinations_by_topic.match("t"), within=WAIT)
    wait_until(lambda: not broker_of(other).destinations_by_topic.match("t"), within=WAIT)


def test_ports_of_a_private_node_talk_and_reach_others_once_it_is_initialised(make_node: MakeNode) -> None:
    alone, other = make_node(None), make_node()
    inbox = Inbox(alone)
    subscription = subscribe("t", inbox, node=alone)
    assert subscription.wait_until_known(0)
    assert publish("t", 1, node=alone) == 1
    alone.initialise_node("127.0.0.1:0", other.NODE(), secret="a secret of the tests")
    assert subscription.wait_until_known(WAIT)
    elsewhere = subscribed(other, "t")
    assert publish("t", 2, node=alone) == 2
    assert publish("t", 3, node=other) == 2
    wait_until(lambda: len(inbox.messages) == 3 and len(elsewhere.messages) == 2, within=WAIT)
    assert subscription.port == alone.NODE() + "#" + inbox.port.partition("#")[2]
    alone.reset()
    assert publish("t", 4, node=alone) == 0


def test_subscribing_and_publishing_leave_nothing_behind(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    subscribed(one, "t")
    subscribed(other, "t")
    begun(one, other)
    begun(other, one)
    before = settled_tables(one, other)
    for number in range(20):
        port = other.port()
        subscribe(f"t.{number}", port, node=other)
        with subscribe("t.*", port, node=other) as guard:
            assert guard.wait_until_known(WAIT)
            publish(f"t.{number}", node=one)
        other.kil(port)
    for node in (one, other):
        wait_until(lambda node=node: list(broker_of(node).ports_by_topic) == ["t"], within=WAIT)
    wait_until(lambda: list(broker_of(one).destinations_by_topic) == ["t"], within=WAIT)
    wait_until(lambda: not any(known._at_risk for known in broker_of(one)._destinations.values()), within=WAIT)
    assert settled_tables(one, other)[0][:4] == before[0][:4]


# --- what is lost is reported ------------------------------------------------------------------------


@pytest.mark.slow
def test_node_that_was_out_of_reach_gets_one_report_for_each_topic_with_messages(network: MemoryNetwork) -> None:
    publisher, other, third = nodes_of(network, 3)
    inbox, at_third = subscribed(other, "room.*", "room.1", "quiet"), subscribed(third, "room.*")
    begun(publisher, other, third)
    publish("room.1", "before", node=publisher)
    wait_until(lambda: inbox.messages, within=WAIT)
    destinations = broker_of(publisher)._destinations.values()
    wait_until(lambda: not any(known._at_risk for known in destinations), within=WAIT)  # it has arrived for certain
    network.partition([other])
    wait_until(lambda: any(known.is_away for known in destinations), within=WAIT)
    for number in range(3):
        assert publish("room.2", number, node=publisher) == 1  # third gets it
    assert publish("elsewhere", node=publisher) == 0
    wait_until(lambda: other.NODE() not in {p.partition("#")[0] for p in publisher.grp_get(GROUP) or ()}, within=WAIT)
    assert publish("room.3", node=publisher) == 1  # while the directory does not have the node either
    network.heal()
    wait_until(lambda: publish("quiet", "again", node=publisher), within=WAIT)
    wait_until(lambda: ("quiet", "again") in inbox.messages, within=WAIT, show=lambda: inbox.messages)
    publish("room.2", "after", node=publisher)
    wait_until(lambda: ("room.2", "after") in inbox.messages, within=WAIT, show=lambda: inbox.messages)
    told = [msg for msg in inbox.messages if msg != ("missed", "quiet")]  # some of its attempts may have failed
    assert told == [
        ("room.1", "before"),
        ("missed", "room.2"),
        ("missed", "room.3"),
        ("quiet", "again"),
        ("room.2", "after"),
    ]
    assert [msg for msg in at_third.messages if msg[0] == "missed"] == []


def test_message_that_was_on_its_way_when_the_link_was_lost_is_reported(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    inbox = subscribed(other, "t")
    begun(one, other)
    network.block(one, other)
    publish("t", "lost", node=one)
    (destination,) = broker_of(one)._destinations.values()
    wait_until(lambda: destination._at_risk._asked, within=WAIT)  # it asks whether the message has arrived
    assert network.cut(one, other) > 0
    network.heal()
    wait_until(lambda: inbox.messages == [("missed", "t")], within=WAIT, show=lambda: inbox.messages)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_no_message_is_missing_without_a_report_before_the_next_one(seed: int) -> None:
    """Connections are cut at random while two nodes publish."""
    dice = random.Random(seed)
    with MemoryNetwork(seed, jitter=0.003, split=0.2, time="virtual") as network:
        nodes = nodes_of(network, 3)
        inboxes = [subscribed(node, "t.*") for node in nodes]
        for node in nodes:
            begun(node, *(other for other in nodes if other is not node))
        count = 0
        for number in range(60):
            for index, node in enumerate(nodes):
                count += 1
                publish(f"t.{dice.randrange(2)}", index, number, node=node)
            if number % 15 == 5:
                network.cut(*dice.sample(nodes, 2))
            gevent.sleep(dice.choice([0, 0.002]))
        # The last messages, after which no gap is left.
        for index, node in enumerate(nodes):
            others = [other for other in nodes if other is not node]
            begun(node, *others)
            for topic in ("t.0", "t.1"):
                publish(topic, index, 1000, node=node)
        for inbox in inboxes:
            wait_until(
                lambda inbox=inbox: sum(msg[-1] == 1000 for msg in inbox.messages) == 6,
                within=WAIT,
                show=lambda inbox=inbox: inbox.messages[-10:],
            )
    dice = random.Random(seed)
    published: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number in range(60):
        for index in range(3):
            published[f"t.{dice.randrange(2)}", index].append(number)
        if number % 15 == 5:
            dice.sample(nodes, 2)
        dice.choice([0, 0.002])
    for inbox in inboxes:
        for topic in ("t.0", "t.1"):
            reports = 0
            arrived: dict[int, int] = dict.fromkeys(range(3), 0)
            gaps = 0
            for found, *rest in inbox.messages:
                if (found, rest) == ("missed", [topic]):
                    reports += 1
                elif found == topic:
                    index, number = rest
                    wanted = [*published[topic, index], 1000]
                    if wanted[arrived[index]] != number:
                        gaps += 1
                        assert reports >= 1, f"seed {seed}: {number} of {index} came after a gap without a report"
                        assert number > wanted[arrived[index]], "out of order"
                        arrived[index] = wanted.index(number)
                    arrived[index] += 1
            assert gaps <= reports <= 4, "an outage was reported more than once"  # there were four cuts


SUBSCRIBER = """
from aemp_gevent.topics import publish, subscribe
got = []
subscription = subscribe("t", mp.port(lambda *msg: got.append(msg)))
subscription.wait_until_known(20)
"""


@pytest.mark.slow
def test_stopped_process_delays_nobody_and_a_killed_one_is_forgotten(node_process: Callable[..., NodeProcess]) -> None:
    """Real processes; the stopped one falls behind by less than the link's buffer."""
    publisher = node_process()
    one, other = (node_process(seeds=publisher.node) for _ in range(2))
    for process in (publisher, one, other):
        assert process.run(SUBSCRIBER, timeout=WAIT)
    one.stop()
    work = "[publish('t', number) for number in range(200)]"
    assert publisher.run(work, timeout=WAIT) == [3] * 200
    everything = [("t", number) for number in range(200)]
    wait_until(lambda: other.run("got") == everything, within=WAIT)
    one.resume()
    wait_until(lambda: one.run("got") == everything, within=WAIT)
    one.kill()
    wait_until(lambda: publisher.run("publish('t', 'without it')") == 2, within=WAIT)
    one.restart()
    one.run(SUBSCRIBER, timeout=WAIT)
    assert publisher.run("publish('t', 'with it')") == 3
    wait_until(lambda: one.run("got") == [("t", "with it")], within=WAIT)


# --- rules, and bad peers ------------------------------------------------------------------------------


def test_rules_decide_which_peers_publish_and_subscribe(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    quiet, deaf = "10.7.0.2:4040", "10.7.0.3:4040"
    rules = [{"peer": quiet, "publish": False}, {"peer": deaf, "subscribe": False}]
    node = network.node(SEED, SEED, rules=rules, **QUICK)
    others = [network.node(name, SEED, **QUICK) for name in (quiet, deaf)]
    inbox = subscribed_soon(node)
    theirs = [subscribed_soon(other) for other in others]
    for other in (node, *others):
        publish("t", other.NODE(), node=other)
    wait_until(lambda: node.refusals.get("topics", 0) >= 2, within=WAIT, show=lambda: node.refusals)
    wait_until(lambda: publish("t", "to both", node=others[1]) == 3, within=WAIT)
    wait_until(lambda: publish("t", "from the node", node=node) == 2, within=WAIT)
    wait_until(lambda: ("t", "to both") in inbox.messages, within=WAIT)
    wait_until(lambda: ("t", "from the node") in theirs[0].messages, within=WAIT)
    assert not any(quiet in msg for msg in inbox.messages)
    assert not any(SEED in msg or "from the node" in msg for msg in theirs[1].messages)
    assert f"the rules do not let {quiet} publish" in caplog.text


def subscribed_soon(node: Node) -> Inbox:
    inbox = Inbox(node)
    subscribe("t", inbox, node=node)
    return inbox


def test_rules_that_change_end_sessions(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    inbox = subscribed(other, "t")
    begun(one, other)
    assert publish("t", 1, node=one) == 1
    wait_until(lambda: inbox.messages == [("t", 1)], within=WAIT)
    other.reload(seeds=[SEED], secret="a secret in memory", **QUICK, rules=[{"peer": "*", "publish": False}])
    publish("t", 2, node=one)
    wait_until(lambda: other.refusals.get("topics"), within=WAIT)
    wait_until(lambda: publish("t", 3, node=one) == 0, within=WAIT)
    other.reload(seeds=[SEED], secret="a secret in memory", **QUICK, rules=[])
    wait_until(lambda: publish("t", 4, node=one) == 1, within=WAIT)
    wait_until(lambda: ("t", 4) in inbox.messages, within=WAIT)
    assert inbox.messages[:2] == [("t", 1), ("missed", "t")]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(("publish",), id="no-topic"),
        pytest.param(("publish", 5, "x"), id="number"),
        pytest.param(("publish", "missed", "t"), id="reserved"),
        pytest.param(("publish", "t.*", "x"), id="pattern"),
        pytest.param(("missed", 5), id="missed-number"),
        pytest.param(("missed", ["t", []]), id="missed-list"),
        pytest.param(("missed", ["t"] * 1001), id="missed-flood"),
    ],
)
def test_bad_messages_of_a_publisher_end_its_session_only(network: MemoryNetwork, message: tuple[Any, ...]) -> None:
    node, bad, good = nodes_of(network, 3)
    inbox = subscribed(node, "**")
    begun(bad, node)
    begun(good, node)
    destination = next(d for d in broker_of(bad)._destinations.values() if d.node_id == node.NODE())
    inlet = destination._inlet
    assert inlet is not None
    inlet.send(bad, *message)
    wait_until(lambda: destination._inlet not in (None, inlet), within=WAIT)
    assert inbox.messages == []
    assert publish("t", "x", node=good) == 1
    wait_until(lambda: inbox.messages == [("t", "x")], within=WAIT)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(("add",), id="nothing"),
        pytest.param(("add", "t"), id="text"),
        pytest.param(("add", ["t", 5]), id="number"),
        pytest.param(("remove", ["**.t"]), id="bad-pattern"),
        pytest.param(("add", [str(number) for number in range(20)]), id="flood"),
    ],
)
def test_bad_messages_of_a_subscriber_end_its_session_only(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch, message: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(aemp_gevent.topics.destination, "MAX_PATTERNS", 10)
    node, bad, good = nodes_of(network, 3)
    inbox = subscribed(good, "t")
    subscribed(bad, "t")
    begun(node, bad, good)
    destination = next(d for d in broker_of(node)._destinations.values() if d.node_id == bad.NODE())
    outlet = destination._outlet
    assert outlet is not None
    outlet.address.send(bad, *message)
    wait_until(lambda: destination._outlet not in (None, outlet) and destination._inlet, within=WAIT)
    assert len(destination._patterns) == 1
    assert publish("t", node=node) == 2
    wait_until(lambda: ("t",) in inbox.messages, within=WAIT)


def test_session_is_begun_by_calls_with_a_port_of_the_caller_only(network: MemoryNetwork) -> None:
    node, other = nodes_of(network, 2)
    subscribed(node, "t")
    broker = broker_of(node)
    foreign = node.port()
    for outlet in (foreign, other.NODE(), 5, None):
        with pytest.raises(RemoteError, match="a port of the caller and a secret"):
            other.call(broker_port(node), "join", outlet, "secret")
    mine = Inbox(other)
    with pytest.raises(RemoteError, match="a port of the caller and a secret"):
        other.call(broker_port(node), "join", mine.port)
    other.snd(broker_port(node), "join", mine.port, "secret", other.port())  # looks like a call
    assert other.syncal(WAIT, node.NODE(), "time")
    assert broker._origins == {}
    for _ in range(3):
        other.call(broker_port(node), "join", other.port(), "secret")
    other.call(broker_port(node), "join", mine.port, "secret")
    wait_until(lambda: len([msg for msg in mine.messages if msg[0] == "ready"]) >= 1, within=WAIT)
    assert len(broker._origins) == 1, "a node has one session, however often it joins"


def broker_port(node: Node) -> str:
    members = node.grp_get(GROUP) or []
    return next(port for port in members if ports_host_of(node).find(port) is not None)


def test_entries_of_other_ports_harm_nobody(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    other.db_set(GROUP, "not a port")
    other.db_set(GROUP, other.NODE())
    other.grp_reg(GROUP, other.port())
    other.db_set(GROUP, f"{other.NODE()}#nosuchport")
    inbox = subscribed(other, "t")
    assert publish("t", node=one) == 1
    wait_until(lambda: inbox.messages == [("t",)], within=WAIT)


# --- slow subscribers --------------------------------------------------------------------------------


def test_slow_subscriber_slows_neither_the_publisher_nor_others(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    free = Event()
    slow = other.port(lambda *_msg: free.wait() and None)
    assert subscribe("t", slow, node=other).wait_until_known(WAIT)
    inbox = subscribed(other, "t")
    begun(one, other)
    for number in range(500):
        publish("t", number, node=one)
    wait_until(lambda: len(inbox.messages) == 500, within=WAIT)
    free.set()


def test_node_that_falls_too_far_behind_loses_its_session_and_hears_of_it(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.topics.session_port.MAX_WAITING", 50)
    one, other = nodes_of(network, 2)
    inbox = subscribed(other, "t")
    begun(one, other)
    for number in range(200):  # all in one turn of the other node's loop
        publish("t", number, node=one)
    wait_until(lambda: ("missed", "t") in inbox.messages, within=WAIT, show=lambda: inbox.messages)
    wait_until(lambda: publish("t", "after", node=one), within=WAIT)
    wait_until(lambda: ("t", "after") in inbox.messages, within=WAIT)
    assert inbox.messages.count(("missed", "t")) == 1


# --- wrong calls -------------------------------------------------------------------------------------


def test_message_that_cannot_travel_reaches_nobody(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    here, there = subscribed(one, "t"), subscribed(other, "t")
    begun(one, other)
    with pytest.raises(UnencodableMessageError, match="argument 2 of 't'"):
        publish("t", "fine", object(), node=one)
    assert publish("t", "next", node=one) == 2
    wait_until(lambda: there.messages == [("t", "next")], within=WAIT)
    assert here.messages == [("t", "next")]


def test_wrong_calls_are_refused_with_the_reason(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node, other = make_node(), make_node(None)
    dead = node.port()
    node.kil(dead)
    wait_until(lambda: ports_host_of(node).find(dead) is None)
    for port, error in ((dead, DeadPortError), (other.port(), NotLocalError), ("#", InvalidPortError)):
        with pytest.raises(error):
            subscribe("t", port, node=node)
        with pytest.raises(error):
            publish("t", exclude=port, node=node)
    with pytest.raises(NoPortContextError):
        subscribe("t", node=node)
    with pytest.raises(NoPortContextError):
        publish("t", exclude=SELF, node=node)
    with pytest.raises(InvalidTopicError):
        publish("t.*", node=node)
    monkeypatch.setattr(aemp_gevent.topics.broker, "MAX_PATTERNS", 2)
    port = node.port()
    held = [subscribe(pattern, port, node=node) for pattern in ("a", "b", "a")]
    with pytest.raises(TooManyTopicsError, match="2 topics"):
        subscribe("c", port, node=node)
    assert [type(guard) for guard in held] == [Subscription] * 3
    assert len(broker_of(node).ports_by_topic) == 2


def test_first_publication_needs_the_directory_and_a_greenlet(make_node: MakeNode) -> None:
    lost = make_node("127.0.0.1:0", "127.0.0.1:1")
    with pytest.raises(DirectoryUnavailableError):
        publish("t", timeout=0.05, node=lost)
    subscription = subscribe("t", lost.port(), node=lost)
    assert subscription.wait_until_known(0.05) is False
    raised: list[BaseException] = []

    def call() -> None:
        try:
            publish("t", node=lost)
        except NoPortContextError as error:
            raised.append(error)

    on_hub(call)
    assert raised
    assert publish("t", local=True, node=lost) == 1


def test_port_subscribes_itself(make_node: MakeNode) -> None:
    node = make_node(None)
    got: list[tuple[Any, ...]] = []

    def work() -> None:
        subscribe("t", node=node)
        publish("t", "to others", exclude=SELF, node=node)
        publish("t", 1, node=node)
        got.append(receive())

    node.port_async(work)
    wait_until(lambda: got == [("t", 1)], within=WAIT)
    assert isinstance(broker_of(node), Broker)
