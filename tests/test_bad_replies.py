# SPDX-License-Identifier: MIT
"""Invalid reply ports in a peer's messages harm only that peer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aemp_gevent.errors import InvalidPortError, NodePortError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.receive import receive
from tests.support.helpers import wait_until
from tests.support.networking import Inbox, MakeNode, RawPeer
from tests.support.seams import ports_of
from tests.support.settling import settle

BAD = {
    "none": None,
    "number": 5,
    "float": 1.5,
    "true": True,
    "list": ["127.0.0.1:9#r"],
    "map": {"reply": 1},
    "bytes": b"127.0.0.1:9#r",
    "empty": "",
    "no-node": "#r",
    "blanks": "a b#r",
    "unprintable": "a#\x1b[2J\n",
    "unresolved": "localhost:4040#r",
    "not-a-slave": "slave/@#r",
    "many-digits": "1.2.3.4:" + "9" * 5000 + "#r",
}


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
@pytest.mark.parametrize("kind", ["handler", "actor"])
def test_peers_bad_reply_port_kills_no_port(make_node: MakeNode, kind: str, reply: object) -> None:
    node = make_node()

    def actor() -> None:
        while True:
            _tag, text, port = receive("echo")
            node.snd(port, text)

    def echo(text: str, port: str) -> None:
        node.snd(port, text)

    port = node.port_async(actor) if kind == "actor" else node.rcv(node.port(), echo=echo)
    name = port.partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        peer.send([name, "echo", "x", reply], [name, "echo", "y", "127.0.0.1:9#r"])
        assert peer.packet() == ["r", "y"]
    node.kil(port)


CALLS: dict[str, Callable[[Node, Any], object]] = {
    "snd": lambda node, port: node.snd(port, "x"),
    "snd_nowait": lambda node, port: node.snd_nowait(port, "x"),
    "kil": lambda node, port: node.kil(port),
    "mon": lambda node, port: node.mon(port, print),
    "mon-kills": lambda node, port: node.mon(node.port(), port),
    "mon-sends": lambda node, port: node.mon(node.port(), port, "x"),
    "after": lambda node, port: node.after(0, port, "x"),
    "cal": lambda node, port: node.cal(port, "x", cb=print),
    "syncal": lambda node, port: node.syncal(1, port, "x"),
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bad_port_in_code_of_a_port_is_dropped_and_elsewhere_refused(
    node: Node, call: Callable[[Node, Any], object], reply: Any
) -> None:
    done: list[str] = []

    def handler() -> None:
        call(node, reply)
        done.append("went on")

    port = node.port(handler)
    for _ in range(2):
        node.snd(port)
    settle(node)
    assert done == ["went on"] * 2
    with pytest.raises(InvalidPortError):
        call(node, reply)


def test_node_id_given_to_kil_in_code_of_a_port_is_dropped_and_elsewhere_refused(node: Node) -> None:
    inbox: list[str] = []
    port = node.port(lambda: (node.kil(node.NODE()), node.mon(node.port(), "anon/x"), inbox.append("went on")))
    node.snd(port)
    settle(node)
    assert inbox == ["went on"]
    for call in (lambda: node.kil(node.NODE()), lambda: node.mon(node.port(), "anon/x")):
        with pytest.raises(NodePortError):
            call()


def test_monitor_of_what_is_not_a_port_fires_at_once_in_code_of_a_port(node: Node) -> None:
    reasons: list[tuple[Any, ...]] = []
    node.snd(node.port(lambda: node.mon("a b#c", lambda *reason: reasons.append(reason)) and None))
    settle(node)
    assert reasons == [("no_such_port", "cannot monitor nonexistent port", "a b#c")]


def test_cal_and_syncal_of_what_is_not_a_port_end_at_once_in_code_of_a_port(node: Node) -> None:
    answers: list[Any] = []

    def handler() -> None:
        node.cal(None, "x", cb=lambda *answer: answers.append(answer))
        answers.append(node.syncal(None, [], "x"))

    node.snd(node.port(handler))
    settle(node)
    assert answers == [(), ()]


def test_line_that_gave_it_is_named_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    frame = inspect.currentframe()
    assert frame is not None
    line = frame.f_lineno + 3

    def handler(reply: str) -> None:
        node.snd(reply, "private data")

    port = node.port(handler)
    for _ in range(3):
        node.snd(port, "a b")
    settle(node)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
    assert f"port {port}: snd() had no effect: 'a b' is not a port ID (it holds blanks" in caplog.messages[0]
    assert f"test_bad_replies.py:{line} (logged once" in caplog.messages[0]
    assert "private data" not in caplog.text


def test_peers_that_give_bad_reply_ports_do_not_flood_the_log(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.bounded_log.MAX_LINES", 10)
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    node = make_node()
    inbox = Inbox(node)
    name = str(node.port(lambda port: node.snd(port, "x"))).partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        peer.send(*([name, "a b"] for _ in range(50)), [name, inbox.port])
        wait_until(lambda: inbox.messages)
    assert len([text for text in caplog.messages if ": snd() had no effect: " in text]) == 11
