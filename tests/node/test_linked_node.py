# SPDX-License-Identifier: MIT
"""Messages, kills, monitors and calls between nodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aemp_gevent.addresses.ids import node_of
from aemp_gevent.errors import (
    InvalidPortError,
    MessageTooLargeError,
    NodePortError,
    NotLocalError,
    UnencodableMessageError,
)
from tests.node.local import VALUES
from tests.support.helpers import turns, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode
from tests.support.seams import ports_of
from tests.support.settling import PortLike

# --- messages ----------------------------------------------------------------------------


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
    """Messages queued while the link is made, and later ones."""
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


def test_spawn_monitor_send_and_kill_at_once_arrive_in_order(make_node: MakeNode) -> None:
    """Spawn, monitor, send, kill: nothing is up yet, and they arrive in this order."""
    one, two = make_node(), make_node(allow_spawn=["tests.support.node_functions.*"])
    from tests.support import node_functions

    node_functions.node = two
    died, answers = Deaths(), Inbox(one)
    port = one.spawn(two.NODE(), "tests.support.node_functions.echo", answers.port)
    one.mon(port, died)
    one.snd(port, "one", 1)
    one.snd(port, "two", 2)
    one.kil(port, "enough", [1])
    one.snd(port, "behind the kill")
    assert one.up_nodes() == []
    assert died.wait() == ("enough", [1])
    wait_until(lambda: len(answers.messages) == 2, show=lambda: answers.messages)
    assert answers.messages == [("one", 1), ("two", 2)]


def test_spawned_port_that_is_killed_at_once_dies(make_node: MakeNode) -> None:
    one, two = make_node(), make_node(allow_spawn=["tests.support.node_functions.*"])
    died = Deaths()
    port = one.spawn(two.NODE(), "tests.support.node_functions.note")
    one.mon(port, died)
    one.kil(port, "at once")
    assert died.wait() == ("at once",)
    # Until all of its monitors ran, a new one would hear of the same death.
    wait_until(lambda: port not in ports_of(one))
    again = Deaths()
    one.mon(port, again)
    assert again.wait()[0] == "no_such_port"


def test_kill_with_a_reason_that_cannot_travel_is_refused_and_the_port_lives_on(make_node: MakeNode) -> None:
    one, two = make_node(max_message_bytes=1000), make_node()
    inbox = Inbox(two)
    for reason, error in ((object(), UnencodableMessageError), (b"x" * 2000, MessageTooLargeError)):
        with pytest.raises(error):
            one.kil(inbox.port, "die", reason)
    one.snd(inbox, "after it")
    wait_until(lambda: inbox.messages == [("after it",)], show=lambda: inbox.messages)


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
    """Its position in the packet, after the library's own elements, does not matter."""
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


def test_shutting_down_fires_our_own_monitors_of_other_nodes(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    died, port = Deaths(), two.port()
    one.mon(port, died)
    assert one.syncal(5, two.NODE(), "can", "time") == (1,)
    one.shutdown()
    assert died.wait() == ("shutdown", one.NODE())
