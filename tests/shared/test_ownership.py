# SPDX-License-Identifier: MIT
"""Shared state has one owner at a time, the next one when that ends, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import aemp_gevent.node.lasting_port
import aemp_gevent.shared.owned
import aemp_gevent.shared.ownership
from aemp_gevent.errors import InvalidSharedError, NoPortContextError, RemoteError, StateUnavailableError
from aemp_gevent.node.node import Node
from aemp_gevent.shared import Cache, Counter, Limiter, Once, host
from aemp_gevent.shared.counters import OwnedCounter
from aemp_gevent.shared.once import OwnedOnce
from aemp_gevent.shared.ownership import GROUP, OWNERS, ownership_of
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from tests.support.helpers import on_hub, wait_until
from tests.support.networking import MakeNode

WAIT = 20.0
QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}
SEEDS = ("10.7.0.1:4040", "10.7.0.2:4040")


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(time="virtual") as memory:
        yield memory


def nodes_of(network: MemoryNetwork, count: int, **settings: Any) -> list[Node]:
    """Return nodes that are all hosts of shared state, and know each other; the first two are seeds."""
    words = {**QUICK, **settings}
    nodes = [network.node(SEEDS[number] if number < 2 else None, *SEEDS, **words) for number in range(count)]
    for node in nodes:
        Counter("any", node=node, timeout=WAIT).value()
    for node in nodes:
        wait_until(lambda node=node: len(ownership_of(node)._hosts) == count, within=WAIT)
        wait_until(lambda node=node: "counter any" in ownership_of(node)._owners, within=WAIT)
    return nodes


def counters(nodes: list[Node], name: str = "hits") -> list[Counter]:
    return [Counter(name, node=node, timeout=WAIT) for node in nodes]


def owner_of(nodes: list[Node], key: str) -> Node:
    wait_until(lambda: sum(key in ownership_of(node)._owned for node in nodes) == 1, within=WAIT)
    return next(node for node in nodes if key in ownership_of(node)._owned)


def test_every_change_is_counted_once(network: MemoryNetwork) -> None:
    """All nodes begin at the same time, when nobody owns the counter."""
    nodes = nodes_of(network, 4)
    work = [gevent.spawn(lambda c=counter: [c.add() for _ in range(50)]) for counter in counters(nodes) * 2]
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    sums = [sum_ for greenlet in work for sum_ in greenlet.value]
    assert sorted(sums) == list(range(1, 401)), "no two changes led to the same sum"
    assert {counter.value() for counter in counters(nodes)} == {400}
    assert counters(nodes)[0].reset() == 400
    assert counters(nodes)[1].add(-2.5) == -2.5
    owner_of(nodes, "counter hits")


def test_names_are_spread_over_the_nodes(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 3)
    for number in range(40):
        Counter(f"number {number}", node=nodes[number % 3]).add()
    assert all(len(ownership_of(node)._owned) > 3 for node in nodes)


def test_node_that_shuts_down_hands_its_state_over(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 3)
    assert counters(nodes)[0].add(7) == 7
    limiter = [Limiter("api", 2, 100.0, node=node, timeout=WAIT) for node in nodes]
    assert limiter[0].hit("alice").allowed
    assert Once("mail", node=nodes[0]).first("today")
    for key in ("counter hits", "limiter api", "once mail"):
        owner = owner_of(nodes, key)
        nodes = [node for node in nodes if node is not owner] or nodes
        owner.shutdown()
        if len(nodes) == 1:
            break
    (last,) = nodes
    assert Counter("hits", node=last, timeout=WAIT).value() == 7
    assert Limiter("api", 2, 100.0, node=last, timeout=WAIT).hit("alice").remaining == 0
    assert not Once("mail", node=last, timeout=WAIT).first("today")


def test_state_is_handed_over_whole_whatever_its_size(network: MemoryNetwork) -> None:
    """It has more elements than a message may have, and more bytes than may wait to be sent."""
    nodes = nodes_of(network, 2, max_message_elements=4_000, high_water_bytes=20_000)
    limiter, once = Limiter("api", 1000, 1000.0, node=nodes[0]), Once("mail", node=nodes[0])
    limiter.hit("user 0")
    once.first("0")
    owner = owner_of(nodes, "limiter api")
    (other,) = (node for node in nodes if node is not owner)
    meters, flags = ownership_of(owner)._owned["limiter api"].owned, OwnedOnce(owner)
    for number in range(12):
        for _ in range(499):
            meters._hit(f"user {number}", 1, *limiter._rate)  # type: ignore[attr-defined]
        meters._hit(f"past {number}", 1, "sliding", 1, 0.001, 1)  # type: ignore[attr-defined]
    for number in range(3000):
        flags._first(str(number))
    owner_of(nodes, "once mail")
    for node in nodes:
        if "once mail" in ownership_of(node)._owned:
            ownership_of(node)._owned["once mail"].owned._until = flags._until  # type: ignore[attr-defined]
    for leaver in [node for node in nodes if node is not other]:
        gevent.sleep(1)  # what counted for a millisecond is over
        leaver.shutdown()
    there = ownership_of(other)._owned
    assert [Limiter("api", 1000, 1000.0, node=other).hit(f"user {n}").remaining for n in range(12)] == [499] + [
        500
    ] * 11
    assert not any(key.startswith("past") for _, key in there["limiter api"].owned._meters)  # type: ignore[attr-defined]
    assert not any(Once("mail", node=other).first(str(number)) for number in range(0, 3000, 100))


def test_long_keys_are_handed_over_in_small_messages(network: MemoryNetwork) -> None:
    """Together they are longer than a message may be."""
    nodes = nodes_of(network, 3, max_message_bytes=32 * 1024)
    limiter, once = Limiter("api", 5, 1000.0, node=nodes[0]), Once("mail", node=nodes[0])
    keys = [f"{number} " + "\N{GREEK SMALL LETTER OMEGA}" * 190 for number in range(200)]
    for key in keys:
        limiter.hit(key)
        once.first(key)
    owners = [owner_of(nodes, "limiter api"), owner_of(nodes, "once mail")]
    last = next(node for node in nodes if node not in owners)
    for leaver in (node for node in nodes if node is not last):
        leaver.shutdown()
    assert [Limiter("api", 5, 1000.0, node=last).hit(key).remaining for key in keys] == [3] * len(keys)
    assert not any(Once("mail", node=last).first(key) for key in keys)


@pytest.mark.parametrize("parts_done", [0, 1])
def test_part_whose_confirmation_is_late_is_added_once(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch, parts_done: int
) -> None:
    nodes = nodes_of(network, 2)
    assert counters(nodes)[0].add(7) == 7
    owner = owner_of(nodes, "counter hits")
    (other,) = (node for node in nodes if node is not owner)
    merge, merged = OwnedCounter.merge, []

    def merge_late(self: OwnedCounter, state: Any) -> None:
        merge(self, state)
        merged.append(state)
        if len(merged) == parts_done + 1:
            gevent.sleep(aemp_gevent.shared.ownership._PART_SECONDS + 1)

    monkeypatch.setattr(OwnedCounter, "merge", merge_late)
    monkeypatch.setattr(OwnedCounter, "parts", lambda self: iter([self._value - 1, 1]))
    leaving = ownership_of(owner)
    del leaving._owned["counter any"]
    leaving.leave(WAIT)
    owner.shutdown()
    assert merged == [6, 1]
    assert counters([other])[0].value() == 7


def test_call_reaches_an_owner_again_whose_link_was_lost_for_a_moment(network: MemoryNetwork) -> None:
    *_seeds, owner, other = nodes_of(network, 4)
    for number in range(100):
        name = f"number {number}"
        Counter(name, node=other).add()
        if f"counter {name}" in ownership_of(owner)._owned:
            break
    network.delay(owner, other, 0.3)
    lost = [(0.1, WAIT), (0.1, None), (0.45, WAIT), (0.45, None)]  # on the way there, and on the way back
    for number, (seconds, timeout) in enumerate(lost, 2):
        asking = gevent.spawn(Counter(name, node=other, timeout=timeout).add)
        gevent.sleep(seconds)
        assert network.cut(owner, other)
        assert asking.get(timeout=WAIT) == number, "counted once"


def test_nodes_that_all_shut_down_wait_for_one_that_joins(network: MemoryNetwork) -> None:
    """As gunicorn's workers do at SIGHUP; meanwhile the state can be used."""
    nodes = nodes_of(network, 3)
    assert counters(nodes)[0].add(7) == 7
    leaving = [gevent.spawn(ownership_of(node).leave, WAIT) for node in nodes]
    gevent.sleep(1)
    assert counters(nodes)[1].add() == 8
    new = network.node(None, *SEEDS, **QUICK)
    host(node=new)
    gevent.joinall(leaving, timeout=WAIT, raise_error=True)
    assert "counter hits" in ownership_of(new)._owned
    assert [counter.value() for counter in counters([new, *nodes])] == [8] * 4


def test_state_that_no_node_takes_in_time_is_reported(network: MemoryNetwork, caplog: pytest.LogCaptureFixture) -> None:
    node = nodes_of(network, 1)[0]
    ownership_of(node).leave(1.0)
    (line,) = (line for line in caplog.messages if "are lost" in line)
    assert "1 objects of shared state are lost: no other node has taken them over within 1.0 s" in line


def test_new_owner_answers_when_it_has_all_of_the_state(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    former, heir = other.port(), ownership_of(one)._port.id
    new = other.call(heir, "adopt", "counter hits", former)
    with pytest.raises(RemoteError, match="does not have all of this state yet"):
        other.call(new, "add", "one", 1)
    for _ in range(2):
        other.call(new, "merge", "two", 5)  # the same call, as if the answer had been lost
    asking = gevent.spawn(Counter("hits", node=one, timeout=WAIT).value)
    gevent.sleep(0.1)
    assert not asking.ready()
    other.kil(former)
    assert asking.get(timeout=WAIT) == 5
    ownership_of(one).leave()
    for words in (("open", "counter mails"), ("adopt", "counter mails", other.port())):
        with pytest.raises(RemoteError, match="shuts down"):
            other.call(heir, *words)


def test_former_owner_that_never_ends_is_not_waited_for(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = nodes_of(network, 2)
    new = other.call(ownership_of(one)._port.id, "adopt", "counter hits", other.port())
    other.call(new, "merge", "one", 5)
    with pytest.raises(StateUnavailableError):
        Counter("hits", node=one).value()
    counter = Counter("hits", node=one, timeout=aemp_gevent.shared.ownership._ADOPT_SECONDS)
    assert counter.value() == 5
    assert any("counter hits was not handed over" in record.getMessage() for record in caplog.records)
    other.call(new, "merge", "two", 2)  # a part that comes late all the same
    assert counter.value() == 7


def test_state_that_is_adopted_from_an_owner_who_knows_nothing_of_it_becomes_one_again(network: MemoryNetwork) -> None:
    """A peer claims that the owner shuts down: for a while two nodes own the state, and this one does not answer."""
    nodes = nodes_of(network, 3)
    least = min(nodes, key=lambda node: node.NODE())  # whose entry counts, if there are several
    names = (str(number) for number in range(100))
    name = next(
        name for name in names if counters(nodes, name)[0].add() and owner_of(nodes, f"counter {name}") is least
    )
    found = counters(nodes, name)
    former = ownership_of(least)._owned[f"counter {name}"].id
    for node in nodes:
        if node is not least:
            nodes[0].call(ownership_of(node)._port.id, "adopt", f"counter {name}", former)
    gevent.sleep(aemp_gevent.shared.ownership._ADOPT_SECONDS + 1)
    assert owner_of(nodes, f"counter {name}") is least
    assert [counter.add() for counter in found] == [2, 3, 4]


def test_owner_is_not_ignored_because_a_peer_names_it_for_other_state(network: MemoryNetwork) -> None:
    """A peer claims that the owner shuts down, and names state that it does not own."""
    nodes = nodes_of(network, 3)
    assert counters(nodes)[0].add() == 1
    owner = owner_of(nodes, "counter hits")
    former = ownership_of(owner)._owned["counter hits"].id
    for node in nodes:
        if node is not owner:
            owner.call(ownership_of(node)._port.id, "adopt", "counter any", former)
            assert ownership_of(node)._owner("counter hits") == former
            assert owner.call(ownership_of(node)._port.id, "open", "counter hits") == former
    assert [counter.add() for counter in counters(nodes)] == [2, 3, 4]


def test_heir_that_takes_nothing_does_not_stop_the_next_one(network: MemoryNetwork) -> None:
    """It answers with a port that answers nothing."""
    nodes = nodes_of(network, 2)
    assert counters(nodes)[0].add(7) == 7
    owner = owner_of(nodes, "counter hits")
    (other,) = (node for node in nodes if node is not owner)
    peer = network.node(None, *SEEDS, **QUICK)
    heir, silent = peer.port(), peer.port()
    peer.serve(heir, adopt=lambda _key, _former: silent)
    peer.grp_reg(GROUP, heir)
    wait_until(lambda: heir in ownership_of(owner)._hosts, within=WAIT)
    first = ownership_of(owner)._heirs("counter hits")
    order = [heir, *(each for each in first if each != heir)]
    ownership_of(owner)._heirs = lambda _key: order  # type: ignore[method-assign]
    owner.shutdown(30)
    assert Counter("hits", node=other, timeout=WAIT).value() == 7


@pytest.mark.no_cover
def test_many_hits_of_one_key_are_handed_over_in_small_messages(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 3, max_message_bytes=32 * 1024)
    limiter = Limiter("api", 10_000, 1000.0, node=nodes[0])
    for cost in [1] * 3000 + [1000]:
        assert limiter.hit("alice", cost).allowed
    owner = owner_of(nodes, "limiter api")
    owner.shutdown()
    last = next(node for node in nodes if node is not owner)
    assert Limiter("api", 10_000, 1000.0, node=last).hit("alice").remaining == 5999


@pytest.mark.parametrize("kind", [Counter, Once, Cache, lambda name, node: Limiter(name, 1, 1, node=node)])
def test_names_may_be_as_long_as_they_say(make_node: MakeNode, kind: Any) -> None:
    node = make_node(None)
    made = kind("\U0001f600" * 200, node=node)
    calls = {"counter": ("add",), "once": ("first",), "cache": ("get", "k", lambda: 1), "limiter": ("hit",)}
    method, *args = calls[made._kind]
    getattr(made, method)(*args, **({"ttl": 1} if made._kind == "cache" else {}))
    assert len(ownership_of(node)._owned) == 1


def test_flags_that_become_one_last_until_the_later_end(make_node: MakeNode) -> None:
    node = make_node(None)
    one, other = OwnedOnce(node), OwnedOnce(node)
    for number, (first, second, lasts) in enumerate([(0.0, 9, True), (9, 0.0, True), (None, 9, True), (9, None, True)]):
        assert one._first(str(number), first)
        assert other._first(str(number), second)
        one.merge([flag for part in other.parts() for flag in part])
        assert one._first(str(number), 9) is not lasts
    assert other._first("past", 0.0)
    assert all(key != "past" for part in other.parts() for key, _ in part)
    assert not other._forget("past")


def test_state_of_a_crashed_node_begins_again_elsewhere(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 4)
    assert counters(nodes)[0].add(7) == 7
    owner = owner_of(nodes, "counter hits")
    rest = [node for node in nodes if node is not owner]
    network.crash(owner)
    sums = [counter.add() for counter in counters(rest)]
    assert sums == [1, 2, 3]
    owner_of(rest, "counter hits")


@pytest.mark.slow
def test_two_owners_of_the_two_sides_of_a_partition_become_one(network: MemoryNetwork) -> None:
    nodes = nodes_of(network, 4)
    sides = nodes[0::2], nodes[1::2]
    network.partition(sides[0])
    for side in sides:
        for node in side:
            wait_until(lambda node=node: len(ownership_of(node)._hosts) == 2, within=WAIT)
        assert [counter.add(10) for counter in counters(side)] == [10, 20]
        assert Once("mail", node=side[0], timeout=WAIT).first("today")
    network.heal()
    for counter in counters(nodes):
        wait_until(lambda counter=counter: counter.value() == 40, within=WAIT, show=counter.value)
    owner_of(nodes, "counter hits")
    assert not any(Once("mail", node=node, timeout=WAIT).first("today") for node in nodes)


def test_state_of_a_private_node_is_shared_once_it_is_initialised(make_node: MakeNode) -> None:
    seed, alone = make_node(), make_node(None)
    for name in ("hits", "unused"):
        assert Counter(name, node=alone).add(3) == 3
    alone.initialise_node("127.0.0.1:0", seed.NODE(), secret="a secret of the tests")
    wait_until(lambda: seed.db_family(OWNERS).get("counter unused", "").startswith(alone.NODE()), within=WAIT)
    assert Counter("unused", node=seed, timeout=WAIT).add() == 4, "nobody has asked the node that has it"
    assert Counter("hits", node=alone, timeout=WAIT).add(1) == 4
    assert Counter("hits", node=seed, timeout=WAIT).value() == 4


@pytest.mark.slow
def test_killed_process_is_replaced_and_one_that_ends_in_order_hands_over(
    node_process: Callable[..., NodeProcess],
) -> None:
    first = node_process()
    others = [node_process(seeds=first.node) for _ in range(2)]
    for process in (first, *others):
        process.run("from aemp_gevent.shared import *\nfrom aemp_gevent.shared.ownership import *")
        process.run("counter = Counter('hits', timeout=20); counter.add()", timeout=WAIT)
    wait_until(
        lambda: all(process.run("len(ownership_of(mp.default_node)._hosts)") == 3 for process in (first, *others)),
        within=WAIT,
    )

    def owner() -> NodeProcess:
        node = first.run(f"mp.db_family({OWNERS!r})['counter hits']").partition("#")[0]
        return next(process for process in (first, *others) if process.node == node)

    expected = 3
    if owner() is not first:  # which the others need to find each other
        leaver = owner()
        leaver.run("mp.shutdown()")
        assert first.run("counter.value()", timeout=WAIT) == expected, "the state was handed over"
        leaver.close()
    if owner() is not first:
        owner().kill()
        expected = 0
    assert first.run("counter.add()", timeout=WAIT) == expected + 1


def test_owner_that_does_not_answer_is_reported_in_time(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(network, 3)
    owner = next(
        node for node in nodes if not Counter("hits", node=node).add(0) and owner_of(nodes, "counter hits") is node
    )
    other = next(node for node in nodes if node is not owner)
    network.block(owner, other)
    with pytest.raises(StateUnavailableError, match="'hits' could not be used within 0.1 s"):
        Counter("hits", node=other, timeout=0.1).add()
    network.heal()
    assert Counter("hits", node=other, timeout=WAIT).value() in (0, 1)  # the request may have arrived


def test_what_others_enter_harms_nobody(network: MemoryNetwork) -> None:
    one, other = nodes_of(network, 2)
    other.db_set(GROUP, "not a port")
    other.grp_reg(GROUP, other.port())
    other.db_set(OWNERS, "counter hits", 5)
    other.db_set(OWNERS, "nothing at all", "x#y")
    assert Counter("hits", node=one, timeout=WAIT).add() == 1
    home = ownership_of(one)._port.id
    for key in (5, "", "nothing hits", "x" * 300):
        with pytest.raises(RemoteError, match="no such kind|must be a str|characters"):
            other.call(home, "open", key)
    owner = owner_of([one, other], "counter hits")
    port = ownership_of(owner)._owned["counter hits"][0].port
    for state in (None, "x", [1], float("nan")):
        with pytest.raises(RemoteError):
            other.call(port, "merge", f"merge {state}", state)
        with pytest.raises(RemoteError, match="it must be a port"):
            other.call(home, "adopt", "counter hits", state)
    other.snd(home, "adopt")
    with pytest.raises(RemoteError):
        other.call(port, "add", "add", "x")
    for call in (None, 5, "", "x" * 201):
        with pytest.raises(RemoteError, match="call of shared state"):
            other.call(port, "add", call, 1)
    assert Counter("hits", node=one, timeout=WAIT).add() == 2


def test_number_of_answers_that_are_remembered_is_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(None)
    monkeypatch.setattr(aemp_gevent.shared.owned, "MAX_ANSWERS", 2)
    counter = OwnedCounter(node)
    sums = [node.call(counter.port, "add", call, 1) for call in ("a", "b", "a", "c", "d", "a")]
    assert sums == [1, 2, 1, 3, 4, 5]


def test_number_of_objects_is_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(None)
    monkeypatch.setattr(aemp_gevent.shared.ownership, "MAX_OBJECTS", 2)
    Counter("a", node=node).add()
    Counter("b", node=node).add()
    with pytest.raises(RemoteError, match="owns 2 objects"):
        Counter("c", node=node).add()
    assert Counter("a", node=node).add() == 2


def test_host_whose_port_was_killed_gets_another_one(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.node.lasting_port, "REOPEN_SECONDS", 0.01)
    node = make_node(None)
    assert Counter("hits", node=node).add() == 1
    host_port = ownership_of(node)._port
    former = host_port.id
    node.kil(former, "shutdown", node.NODE())  # as a peer may
    wait_until(lambda: host_port.id not in ("", former))
    assert Counter("hits", node=node).add() == 2
    port = ownership_of(node)._owned["counter hits"][0].port
    node.kil(port)
    wait_until(lambda: "counter hits" not in ownership_of(node)._owned)
    assert Counter("hits", node=node).add() == 1


@pytest.mark.parametrize("name", ["", None, 5, "x" * 201, "x\ud800"])
def test_names_that_cannot_be_are_refused(make_node: MakeNode, name: Any) -> None:
    with pytest.raises(InvalidSharedError):
        Counter(name, node=make_node(None))


@pytest.mark.parametrize("number", ["1", None, True, float("nan"), float("inf"), 2**54])
def test_numbers_that_cannot_be_added_are_refused(make_node: MakeNode, number: Any) -> None:
    counter = Counter("hits", node=make_node(None))
    with pytest.raises(InvalidSharedError):
        counter.add(number)
    assert counter.add(2**53) == 2**53
    with pytest.raises(InvalidSharedError, match="the sum would be beyond"):
        counter.add()
    assert counter.value() == 2**53


def test_hub_must_not_wait(make_node: MakeNode) -> None:
    node = make_node(None)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            Counter("hits", node=node).add()
        except NoPortContextError as error:
            raised.append(error)

    on_hub(call)
    assert raised
    assert "Counter hits" in repr(Counter("hits", node=node))


def test_flags_have_one_first_caller_until_their_time_is_over(
    network: MemoryNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_of(network, 3)
    work = [gevent.spawn(Once("mail", node=node, timeout=WAIT).first, "today") for node in nodes * 4]
    gevent.joinall(work, timeout=WAIT, raise_error=True)
    assert sorted(greenlet.value for greenlet in work) == [False] * 11 + [True]
    once = Once("mail", node=nodes[0])
    assert once.first()
    assert not once.first()
    assert once.forget()
    assert not once.forget()
    assert once.first("short", ttl=0.01)
    wait_until(lambda: once.first("short", ttl=1000))
    assert not once.first("short")
    for key, ttl in (("x" * 201, None), (5, None), ("a", -1), ("a", "soon")):
        with pytest.raises(InvalidSharedError):
            once.first(key, ttl)  # type: ignore[arg-type]
    monkeypatch.setattr(aemp_gevent.shared.owned, "MAX_KEYS", 3)
    assert [once.first(key) for key in ("a", "b", "a", "c", "d", "a", "b")] == [
        True,
        True,
        False,
        True,
        True,
        False,
        True,
    ]


def test_calls_that_wait_while_state_moves_change_nothing_and_are_made_again(make_node: MakeNode) -> None:
    """They are in the mailbox already, behind nothing but the move."""
    node = make_node(None)
    ownership = ownership_of(node)
    counter, cache = Counter("hits", node=node), Cache("pages", node=node)
    assert counter.add(5) == 5
    assert cache.get("k", lambda: 1, ttl=1000) == 1
    for key, words in (("counter hits", ("add", "one", 1)), ("cache pages", ("get", "two", "k", node.port()))):
        owned = ownership._owned[key][0]
        asked = node.call_async(owned.port, *words)
        owned.has_moved = True
        with pytest.raises(RemoteError, match="StateMovedError"):
            asked.get(timeout=WAIT)
        assert list(owned.parts()) == [5 if key == "counter hits" else None]
        node.kil(owned.port)
    wait_until(lambda: not ownership._owned)
    again = gevent.spawn(counter.add)
    gevent.idle()
    assert again.get(timeout=WAIT) == 1
