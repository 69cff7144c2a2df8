# SPDX-License-Identifier: MIT
"""``serve`` and ``time_left``: what the answering side of a call knows, and what it leaves undone."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

from aemp_gevent.calls.serve import time_left
from aemp_gevent.errors import CallTimeout, DeadPortError, NotLocalError, PortDied, RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.support.helpers import Proxy, wait_until
from tests.support.networking import WAIT, MakeNode


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node(None)


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    """The caller and the called node: the same node, and then two."""
    caller = make_node()
    return caller, caller if request.param == "here" else make_node()


def test_it_takes_the_forms_of_rcv_that_have_tags(node):
    port = node.port()
    assert node.serve(port, "a", lambda: "A", "b", lambda: "B", c=lambda: "C") is port

    @node.serve(port, "d")
    def d() -> str:
        return "D"

    assert d() == "D"
    assert [node.call(port, tag) for tag in "abcd"] == list("ABCD")
    node.serve(port, b=None)
    with pytest.raises(RemoteError, match="no handler for 'b'"):
        node.call(port, "b")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((print,), id="default"),
        pytest.param((["a"], print), id="pattern"),
        pytest.param(("a", 7), id="no-function"),
    ],
)
def test_other_forms_are_refused(node, arguments):
    with pytest.raises(TypeError):
        node.serve(node.port(), *arguments)


def test_only_living_local_ports_serve(node):
    with pytest.raises(NotLocalError):
        node.serve("127.0.0.1:9#p", a=print)
    with pytest.raises(DeadPortError):
        node.serve(f"{node.NODE()}#p", a=print)


def test_functions_run_in_their_port(nodes):
    caller, server = nodes
    port = server.port()
    server.serve(port, who=SELF)
    assert caller.call(port, "who", timeout=WAIT) == port


def test_a_function_of_an_actor_is_served_while_it_receives(nodes):
    caller, server = nodes
    got: list[Any] = []

    def body() -> None:
        server.serve(SELF(), double=lambda n: 2 * n)
        got.append(receive("stop"))

    port = server.port_async(body)
    wait_until(lambda: server.scheduler.table.find(port).cell.handlers is not None)
    assert caller.call(port, "double", 4, timeout=WAIT) == 8
    caller.snd(port, "stop")
    wait_until(lambda: got)


@pytest.mark.parametrize("error", [SystemExit, gevent.Timeout, gevent.GreenletExit])
def test_an_exception_that_is_not_an_error_ends_the_serving_port(node, error, caplog, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "handle_system_error", lambda *_: None)
    port = node.port()

    def end() -> None:
        raise error

    node.serve(port, end=end)
    with pytest.raises(PortDied):
        node.call(port, "end", timeout=WAIT)


@pytest.mark.slow
def test_an_answer_that_cannot_travel_is_an_error(make_node):
    caller, server = make_node(), make_node()
    port = server.port()
    server.serve(port, bad=object, huge=lambda: "x" * 2**27, fine=lambda: 1)
    with pytest.raises(RemoteError, match="UnencodableMessageError: the message cannot be encoded: element 0"):
        caller.call(port, "bad", timeout=WAIT)
    with pytest.raises(RemoteError, match="MessageTooLargeError"):
        caller.call(port, "huge", timeout=WAIT)
    assert caller.call(port, "fine", timeout=WAIT) == 1


@pytest.mark.parametrize("text", ["x" * 2**22, "\ud800" * 300], ids=["long", "no-unicode"])
def test_an_error_whose_text_cannot_travel_is_shortened(make_node, text):
    caller, server = make_node(), make_node(max_message_bytes=2**20)
    port = server.port()

    def bad() -> None:
        raise ValueError(text)

    server.serve(port, bad=bad)
    with pytest.raises(RemoteError, match=r"ValueError: (xxx|\\ud800)"):
        caller.call(port, "bad", timeout=WAIT)


# --- those that do not call ---------------------------------------------------------


def test_cal_and_syncal_are_answered_too_and_exceptions_logged(nodes, caplog):
    caller, server = nodes
    port = server.port()
    server.serve(port, divide=lambda a, b: (a / b, time_left()))
    assert list(caller.syncal(WAIT, port, "divide", 1, 2)[0]) == [0.5, None]
    assert not caplog.records
    assert caller.syncal(WAIT, port, "divide", 1, 0) == ()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[0] is ZeroDivisionError
    answers: list[Any] = []
    caller.cal(port, "divide", 1, 1, cb=lambda *answer: answers.append(answer))
    wait_until(lambda: answers)
    assert list(answers[0][0]) == [1, None]


@pytest.mark.parametrize("message", [(), (1,), ("no port",), ("a#",)], ids=str)
def test_a_message_without_a_reply_port_is_dropped_with_a_warning(node, caplog, message):
    called: list[Any] = []
    port = node.port()
    node.serve(port, x=lambda *args: called.append(args))
    node.snd(port, "x", *message)
    assert node.call(port, "x", 1) is None
    assert called == [(1,)]
    assert "dropped: a call ends with a reply port" in caplog.text


# --- time ---------------------------------------------------------------------------


def test_the_time_left_is_known_in_the_function_and_nowhere_else(nodes):
    caller, server = nodes
    port = server.port()
    seen: list[Any] = []

    def look() -> None:
        seen.append(time_left())
        gevent.spawn(lambda: seen.append(time_left())).join()
        gevent.sleep(0.02)
        seen.append(time_left())

    server.serve(port, look=look)
    caller.call(port, "look", timeout=7)
    server.rcv(port, "plain", lambda reply: server.snd(reply, time_left()))
    assert caller.call(port, "plain") is None  # by the same runner
    first, elsewhere, later = seen
    assert 0 < later <= first - 0.02 < 7
    assert elsewhere is None
    seen.clear()
    caller.call(port, "look", timeout=None)
    assert seen == [None] * 3
    assert time_left() is None


def test_time_left_of_a_reply_port(nodes):
    caller, server = nodes

    def body() -> None:
        _tag, reply = receive()
        server.snd(reply, time_left(reply), time_left("a#b"))

    left, unknown = caller.call(server.port_async(body), "x", timeout=7)
    assert 0 < left <= 7
    assert unknown is None


def test_a_call_whose_caller_gave_up_before_its_turn_is_skipped(nodes):
    caller, server = nodes
    done: list[Any] = []
    port = server.port()
    server.serve(port, work=lambda seconds: (gevent.sleep(seconds), done.append((seconds, time_left()))))
    first = caller.call_async(port, "work", 0.1, timeout=WAIT)
    with pytest.raises(CallTimeout):
        caller.call(port, "work", 0.01, timeout=0.05)
    caller.call(port, "work", 0, timeout=WAIT)
    first.get()
    assert [seconds for seconds, _ in done] == [0.1, 0]


def test_time_continues_after_the_caller_gave_up(nodes):
    caller, server = nodes
    seen: list[Any] = []
    port = server.port()
    server.serve(port, work=lambda: (gevent.sleep(0.25), seen.append(time_left())))
    with pytest.raises(CallTimeout):
        caller.call(port, "work", timeout=0.2)
    wait_until(lambda: seen)
    assert seen == [0.0]


def test_calls_inside_calls_each_have_their_own_time(node):
    inner, outer = node.port(), node.port()
    node.serve(inner, left=time_left)
    node.serve(outer, left=lambda: (node.call(inner, "left", timeout=3), time_left()))
    first, second = node.call(outer, "left", timeout=7)
    assert 0 < first <= 3 < second <= 7


def test_a_proxy_at_the_end_of_a_message_is_not_looked_into(node, caplog):
    port = node.port()
    node.serve(port, work=lambda *_: "done")
    node.snd(port, "work", Proxy())
    assert node.call(port, "work", Proxy(), timeout=WAIT) == "done"
    assert "a call ends with a reply port, and this does not" in caplog.text


def test_a_proxy_as_the_answer_is_not_looked_into(node):
    proxy = Proxy()
    port = node.port()
    node.serve(port, work=lambda: proxy)
    assert node.call(port, "work", timeout=WAIT) is proxy
