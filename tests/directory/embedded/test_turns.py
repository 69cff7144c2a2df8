# SPDX-License-Identifier: MIT
"""Calls are made one after the other, and links that are lost meanwhile do not upset the order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aemp_gevent.directory.embedded.turns import MAX_TRIES, Turns
from aemp_gevent.node.node import Node
from aemp_gevent.ports.scheduler import Scheduler
from tests.directory.embedded.networks import OURS, PERL, Dial, become_global, handled, packets_until_now, shorten_grace
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawPeer
from tests.support.seams import embedded_of, network_of
from tests.support.settling import fresh_node
from tests.support.striking import DEPTHS, at_every_depth, nothing


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with fresh_node() as node:
        yield node.scheduler


@pytest.fixture
def turns(scheduler: Scheduler) -> Turns:
    turns = Turns(scheduler)
    turns.start()
    return turns


def test_link_that_is_lost_while_a_change_is_sent_does_not_upset_the_order(make_node: MakeNode) -> None:
    node = make_node(max_message_bytes=2**20, high_water_bytes=2**10)
    with ExitStack() as stack:
        slow, watcher = (stack.enter_context(RawPeer.dial(node, name, extras=PERL).shake()) for name in ("s", "w"))
        slow.send(["", "g_slave", {"f": {"k": "x" * 900_000}}], ["", "g_mon1", "f"])
        packets_until_now(slow)
        watcher.send(["", "g_mon1", "f"])
        packets_until_now(watcher)
        seen: dict[str, Any] = {}
        # Deleting ours shows the slow one's. It does not read: telling it so ends its link, at the hard
        # limit, and with that its entry, while the watcher is still to be told of the first change.
        for number in range(200):
            node.db_set("f", "k", number)
            node.db_del("f", "k")
            for _, _request, _family, entries, deleted in packets_until_now(watcher):
                seen = {key: value for key, value in {**seen, **entries}.items() if key not in deleted}
            if "s" not in node.up_nodes():
                break
        assert "s" not in node.up_nodes()
        assert seen == {}


@pytest.mark.slow
def test_link_that_is_lost_when_others_are_forgotten_does_not_upset_the_order(
    node: Node, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_grace(node, 0.2)
    slow, watcher, other = dial("s"), dial("w"), dial("g", OURS)
    become_global(other)
    other.send(["", "g_set", {"f": {"k": "a's"}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    for peer in (slow, watcher):
        peer.send(["", "g_mon1", "f"])
        assert peer.packet() == ["", "g_chg1", "f", {"k": "a's"}]
    slow.send(["", "g_slave", {"f": {"k": "s's"}}])
    handled(slow)
    mine = network_of(node).peer("s")
    monkeypatch.setattr(mine, "check_hard_limit", lambda: mine._give_up("it does not read"))
    other.close()
    assert watcher.take(2) == [["", "g_chg2", "f", {"k": "s's"}, []], ["", "g_chg2", "f", {}, ["k"]]]
    assert node.db_family("f") == {}


def test_directory_of_a_node_that_shut_down_does_nothing(make_node: MakeNode) -> None:
    node = make_node()
    node.shutdown()
    embedded_of(node).publish("f", {"k": None}, ())
    assert not embedded_of(node)._turns._due


def test_calls_inside_a_call_wait_for_its_end(turns: Turns) -> None:
    order: list[str] = []

    def outer() -> None:
        turns.take(order.append, "inner")
        order.append("outer")

    turns.take(outer)
    assert order == ["outer", "inner"]


def test_failing_calls_do_not_stop_the_others_and_the_first_exception_is_raised(turns: Turns) -> None:
    order: list[str] = []

    def fail(name: str) -> None:
        if name == "first":
            turns.take(fail, "second")
            turns.take(order.append, "third")
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        turns.take(fail, "first")
    assert order == ["third"]
    turns.take(order.append, "later")
    assert order == ["third", "later"]


def test_call_that_is_struck_is_made_again_between_two_calls_that_mend(scheduler: Scheduler) -> None:
    order: list[str] = []
    turns = Turns(scheduler, lambda: order.append("mend"))
    turns.start()

    def act() -> None:
        order.append("act")
        if order == ["act"]:
            turns.take(order.append, "inner")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.take(act)
    assert order == ["act", "mend", "act", "mend", "inner"]


def test_call_that_is_struck_twice_is_made_by_the_event_loop(turns: Turns) -> None:
    order: list[str] = []

    def act() -> None:
        order.append("act")
        if len(order) < 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.take(act)
    wait_until(lambda: order == ["act"] * 3, within=WAIT, show=lambda: order)
    turns.take(order.append, "later")
    assert order == [*["act"] * 3, "later"]


@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [
        (KeyboardInterrupt, ValueError, KeyboardInterrupt),
        (KeyboardInterrupt, MemoryError, KeyboardInterrupt),
        (MemoryError, KeyboardInterrupt, KeyboardInterrupt),
        (MemoryError, ValueError, ValueError),
    ],
)
def test_ctrl_c_is_raised_though_the_call_fails_when_it_is_made_again(
    turns: Turns, first: type[BaseException], second: type[BaseException], raised: type[BaseException]
) -> None:
    errors = [first, second]

    def act() -> None:
        if errors:
            raise errors.pop(0)

    with pytest.raises(raised):
        turns.take(act)


def test_call_that_always_lacks_memory_is_given_up_and_the_others_are_made(turns: Turns) -> None:
    order: list[str] = []

    def fail() -> None:
        order.append("failing")
        raise MemoryError

    with pytest.raises(MemoryError):
        turns.take(fail)
    with pytest.raises(MemoryError):
        turns.take(order.append, "later")
    begun = order.count("failing")
    wait_until(lambda: order == ["failing"] * (begun + MAX_TRIES) + ["later"], within=WAIT, show=lambda: order)


def test_call_that_was_struck_is_made_though_those_that_ask_next_are_at_the_recursion_limit(turns: Turns) -> None:
    made: list[int] = []

    def strike(number: int) -> None:
        strikes = [MemoryError, MemoryError]

        def act() -> None:
            if strikes:
                raise strikes.pop()
            nothing()  # which needs some stack
            made.append(number)

        with pytest.raises(MemoryError):
            turns.take(act)

    for _error in at_every_depth(lambda _: turns.take(nothing), strike):
        pass
    wait_until(lambda: made == list(range(DEPTHS)), within=WAIT, show=lambda: made)


def test_no_call_is_made_before_the_start_or_after_the_end(scheduler: Scheduler) -> None:
    turns = Turns(scheduler)
    order: list[str] = []
    turns.take(order.append, "early")
    turns.start()
    assert order == []

    def stop() -> None:
        turns.take(order.append, "waiting")
        turns.stop()
        turns.stop()

    turns.take(stop)
    turns.take(order.append, "late")
    assert order == []
