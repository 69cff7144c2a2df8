# SPDX-License-Identifier: MIT
"""The IDs of a node's ports, and how ports are created."""

from __future__ import annotations

import logging
import re

import pytest
from gevent.event import Event

from aemp_gevent.errors import (
    InvalidPortError,
    NotLocalError,
)
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import SELF
from tests.node.local import NO_PORTS, deaths_of, in_port
from tests.support.seams import ports_of
from tests.support.settling import PortLike, settle

# --- NODE, IDs ------------------------------------------------------------------


def test_a_node_that_was_never_initialised_is_private(node):
    assert re.fullmatch(r"anon/[A-Za-z0-9]{10}", node.NODE())
    assert node.NODE() in repr(node)


@pytest.mark.parametrize("wrap", [str, PortLike])
def test_node_of_a_port_is_the_node_part(node, wrap):
    assert node.NODE(wrap(node.port())) == node.NODE()
    assert node.NODE(wrap("1.2.3.4:4040#p")) == "1.2.3.4:4040"
    assert node.NODE(wrap("elsewhere")) == "elsewhere"


@pytest.mark.parametrize("port", NO_PORTS[1:])
def test_node_of_an_invalid_port_is_refused_with_advice(node, port):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.NODE(port)


def test_port_ids_are_plain_strings_of_this_node(node):
    port = node.port()
    assert type(port) is str
    assert port.startswith(node.NODE() + "#")


def test_no_id_is_used_twice_by_any_node(node):
    nodes = [LocalNode() for _ in range(100)]
    made = [port for each in nodes for port in (each.port(), each.port_async(id, 0), each.port())]
    made += [each.spawn(nodes[0].NODE(), "posixpath.join") for each in nodes]
    names = [port.partition("#")[2] for port in made]
    assert len(set(names)) == len(made), "the names alone differ: spawned ports carry them to other nodes"
    assert len({each.NODE() for each in nodes}) == len(nodes)
    for each in nodes:
        settle(each)


def test_ids_of_dead_ports_are_not_used_again(node):
    seen = set()
    for _ in range(300):
        port = node.port()
        assert port not in seen
        seen.add(port)
        node.kil(port)
        settle(node)


def test_ids_made_before_the_node_got_its_name_keep_working(node, log):
    port = node.port(log)
    before = node.NODE()
    node.reg(port, "service")
    selves = []
    node.rcv(port, self=lambda: selves.append(SELF()))
    node._rename("shop")
    renamed = port.replace(before, "shop")
    for each in (port, renamed, "shop#service", f"{before}#service"):
        node.snd(each, each)
    node.snd(port, "self")
    assert node.NODE() == "shop"
    assert node.port().startswith("shop#")
    settle(node)
    assert log == [(port,), (renamed,), ("shop#service",), (f"{before}#service",)]
    assert selves == [renamed], "the library's own calls use the new ID"
    deaths = deaths_of(node, port)
    node.kil(renamed, "why")
    settle(node)
    assert deaths == [("why",)]


# --- port -----------------------------------------------------------------------


def test_a_miniport_gets_every_message_whole(node, log):
    port = node.port(log)
    for message in ((), ("tag",), ("tag", 1), (1, 2), (None,), ([],), ({"a": 1}, "b")):  # type: ignore[var-annotated]
        node.snd(port, *message)
    settle(node)
    assert log == [(), ("tag",), ("tag", 1), (1, 2), (None,), ([],), ({"a": 1}, "b")]


def test_a_miniport_that_returns_true_is_destroyed_normally(node, log):
    port = node.port(lambda *msg: log(*msg) or msg == ("stop",))
    deaths = deaths_of(node, port)
    for message in ("a", "stop", "b"):
        node.snd(port, message)
    settle(node)
    assert log == [("a",), ("stop",)], "what came after is discarded"
    assert deaths == [()]


@pytest.mark.parametrize("value", [1, "True", [1], 1.0, object(), False, 0])
def test_a_miniport_that_returns_anything_else_lives_on(node, log, value):
    port = node.port(lambda *msg: (log(*msg), value)[1])
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    assert log == [(1,), (2,)]


def test_the_first_kill_wins_over_returning_true(node):
    port = node.port(lambda: (node.kil(SELF(), "first"), True)[1])
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    assert deaths == [("first",)]


def test_messages_without_a_handler_are_discarded_counted_and_logged_at_debug_level(node, log, caplog):
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    port = node.port()
    node.rcv(port, wanted=log)
    for message in (("unwanted", 1), (), ([], 2)):  # type: ignore[var-annotated]
        node.snd(port, *message)
    settle(node)
    assert log == []
    assert node.scheduler.discarded == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG] * 3
    assert "message 'unwanted' with 1 more element discarded: no handler matches" in caplog.text
    assert port in ports_of(node)


def test_a_full_mailbox_kills_its_port_and_drops_its_messages(node, log):
    port = node.port(log, limit=2)
    deaths = deaths_of(node, port)
    for number in range(5):
        node.snd(port, number)
    settle(node)
    assert deaths == [("mailbox_overflow", 2)]
    assert log == []


def test_a_bounded_port_that_keeps_up_lives(node, log):
    port = node.port(log, limit=2)
    for number in range(5):
        node.snd(port, number)
        settle(node)
    assert log == [(number,) for number in range(5)]


def test_a_bounded_port_that_blocks_is_killed_by_one_message_too_many(node):
    port = node.port(lambda *_msg: Event().wait(), limit=1)
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    node.snd(port, "waits")
    settle(node)
    assert deaths == []
    node.snd(port, "too many")
    settle(node)
    assert deaths == [("mailbox_overflow", 1)]


@pytest.mark.parametrize("callback", ["name", 5, b"x"])
def test_a_callback_that_cannot_be_called_is_refused(node, callback):
    with pytest.raises(TypeError, match="cannot be called"):
        node.port(callback)


# --- several nodes in one process ---


def test_two_nodes_in_one_process_are_independent(node, log):
    other = LocalNode()
    port = other.port(log)
    node.snd(port, "x")
    node.kil(port)
    with pytest.raises(NotLocalError, match=re.escape(node.NODE())):
        node.rcv(port, print)
    settle(node)
    settle(other)
    assert log == []
    assert port in ports_of(other)


def test_a_handler_of_one_node_may_use_another(node, log):
    other = LocalNode()
    target = other.port(log)
    in_port(node, lambda: other.snd(target, SELF()))
    settle(other)
    [(sender,)] = log
    assert node.NODE(sender) == node.NODE()
