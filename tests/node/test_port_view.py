# SPDX-License-Identifier: MIT
"""One port in full: its stack, and the messages that it gets, which are masked, bounded and watched only on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from aemp_gevent import Node, PortDied, receive
from aemp_gevent.node import port_view
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.tap import MailboxTap
from aemp_gevent.testing import wait_until
from tests.support.helpers import Proxy
from tests.support.networking import MakeNode


@pytest.fixture
def node(make_node: MakeNode) -> Iterator[Node]:
    made = make_node()
    yield made
    made._requests.views.stop()


def look(node: Node, port: str, **what: Any) -> dict[str, Any]:
    found = node.call(node.NODE(), "inspect", {"port": port, **what}, timeout=10)
    assert isinstance(found, dict)
    return found


def mailbox_of(node: Node, port: str) -> Any:
    return node.scheduler.ports[port].mailbox


def wait_here() -> None:
    gevent.sleep(100)


def test_stack_shows_where_the_code_of_a_port_waits(node: Node) -> None:
    port = node.port_async(wait_here)
    wait_until(lambda: node.scheduler.ports[port].state == 2)
    found = look(node, port)
    assert "test_port_view.py" in "\n".join(found["stack"])
    assert "in wait_here" in "\n".join(found["stack"])
    assert any("gevent.sleep(100)" in line for line in found["stack"])
    assert found["port"]["state"] == "blocked"
    assert "messages" not in found
    node.kil(port)


def test_stack_is_bounded(node: Node) -> None:
    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        else:
            wait_here()

    port = node.port_async(deeper, 200)
    wait_until(lambda: node.scheduler.ports[port].state == 2)
    stack = look(node, port)["stack"]
    assert len(stack) <= port_view.MAX_FRAMES
    assert "wait_here" in "\n".join(stack), "the innermost calls are shown"
    node.kil(port)


def test_port_that_does_nothing_has_no_stack(node: Node) -> None:
    assert look(node, node.port())["stack"] == []


def test_messages_are_shown_from_the_first_look_on_without_what_is_in_them(node: Node) -> None:
    port = node.port(lambda *_message: None)
    node.serve(port, price=lambda pieces: pieces)
    node.snd(port, "earlier")
    assert look(node, port, messages=True)["messages"] == []
    node.snd(port, "secret", "the password", 5, [1, 2])
    node.snd(port, "a text that is too long to be a tag, and so must be data")
    node.snd(port)
    assert node.call(port, "price", 7) == 7
    found = look(node, port, messages=True)
    assert found["seen"] == 4
    rows = found["messages"]
    assert [row["number"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["text"] == "message 'secret' with 3 more elements"
    assert rows[0]["elements"] == ["str of 6", "str of 12", "int", "list of 2"]
    assert [row["is_call"] for row in rows] == [False, False, False, True]
    assert "password" not in str(rows) and "too long" not in str(rows)


def test_proxies_in_messages_are_not_looked_into(node: Node) -> None:
    got: list[Any] = []
    port = node.port(lambda *message: got.append(len(message)))
    look(node, port, messages=True)
    node.snd(port, "tag", Proxy())
    node.snd(port, Proxy())
    wait_until(lambda: got == [2, 1])
    seen = look(node, port, messages=True)["messages"]
    assert [row["text"] for row in seen] == ["message 'tag' with 1 more element", "message <Proxy>"]
    assert seen[0]["elements"] == ["str of 3", "Proxy"]


def test_messages_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_view, "MAX_SEEN", 3)
    monkeypatch.setattr(port_view, "MAX_PORTS", 1)
    port, other = node.port(lambda *_message: None), node.port()
    look(node, port, messages=True)
    for number in range(10):
        node.snd(port, "tag", *range(number * 10))
    found = look(node, port, messages=True)
    assert found["seen"] == 10
    assert [row["number"] for row in found["messages"]] == [8, 9, 10]
    assert len(found["messages"][-1]["elements"]) == 8
    assert "watched already" in look(node, other, messages=True)["error"]


def test_messages_are_watched_only_as_long_as_somebody_asks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    port = node.port(got.append)
    node.snd(port, 0)
    look(node, port)
    assert type(mailbox_of(node, port)) is deque
    monkeypatch.setattr(port_view, "KEEP_SECONDS", 0.01)
    look(node, port, messages=True)
    wait_until(lambda: type(mailbox_of(node, port)) is deque)
    node.snd(port, 1)
    wait_until(lambda: got == [0, 1])
    assert look(node, port, messages=True)["seen"] == 0


def test_shutdown_ends_the_watch(node: Node) -> None:
    port = node.port()
    look(node, port, messages=True)
    assert isinstance(mailbox_of(node, port), MailboxTap)
    node.shutdown()
    assert not isinstance(mailbox_of(node, port), MailboxTap)
    assert not node.scheduler.timers


@pytest.mark.parametrize("has_messages", [False, True])
def test_watched_port_handles_everything_in_order(node: Node, has_messages: bool) -> None:
    got: list[int] = []
    port = node.port(got.append)
    expected = []
    if has_messages:
        node.snd(port, -1)
        expected.append(-1)
    look(node, port, messages=True)
    for number in range(100):
        node.snd(port, number)
    wait_until(lambda: got == [*expected, *range(100)])


def test_watched_port_gets_its_messages_when_a_handler_gives_it_a_body(node: Node) -> None:
    got: list[Any] = []
    port = node.port(lambda *_message: node.rcv_async(port, lambda: got.extend(receive() for _ in range(3))))
    look(node, port, messages=True)
    for number in range(4):
        node.snd(port, number)
    wait_until(lambda: got == [(1,), (2,), (3,)])


def test_limit_of_a_watched_port_holds(node: Node) -> None:
    port = node.port(lambda *_message: gevent.sleep(100), limit=3)
    died: list[Any] = []
    node.mon(port, lambda *reason: died.append(reason))
    look(node, port, messages=True)
    for number in range(5):
        node.snd(port, number)
        gevent.sleep(0)
    wait_until(lambda: died == [("mailbox_overflow", 3)])


def test_watched_port_that_is_killed_gets_nothing_more(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    port = node.port(got.append)
    look(node, port, messages=True)
    found = node.scheduler.ports[port]
    node.snd(port, 1)
    node.kil(port)
    node.snd(port, 2)
    node._requests.views.stop()
    assert found.mailbox is NOWHERE
    wait_until(lambda: port not in node.scheduler.ports)
    assert got == [1]
    with pytest.raises(PortDied):
        node.call(port, "x")


@pytest.mark.parametrize("port", ["nothing", 5, None, ["x"], ""], ids=repr)
def test_port_that_does_not_exist_is_named_in_the_answer(node: Node, port: Any) -> None:
    assert "there is no port" in look(node, port)["error"]


def test_only_peers_with_the_right_to_look_see_it(make_node: MakeNode) -> None:
    closed = make_node(rules=[{"peer": "*", "inspect": False}])
    other = make_node("127.0.0.1:0", closed.NODE())
    other.wait_for_seeds()
    port = closed.port()
    found = other.call(closed.NODE(), "inspect", {"port": port, "messages": True}, timeout=10)
    assert "inspect this node" in found["error"]
    assert not isinstance(closed.scheduler.ports[port].mailbox, MailboxTap)
    open_to_all = make_node("127.0.0.1:0", closed.NODE())
    other.wait_for_seeds()
    port = open_to_all.port()
    assert other.call(open_to_all.NODE(), "inspect", {"port": port, "messages": True}, timeout=10)["seen"] == 0
    open_to_all._requests.views.stop()
