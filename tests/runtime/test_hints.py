# SPDX-License-Identifier: MIT
"""What a program probably got wrong is logged as a warning, once per place, with what to do."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import aemp_gevent.node.registering
from aemp_gevent.errors import RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.handlers import Handlers
from aemp_gevent.runtime.hints import MAX_PLACES, Hints, nearest
from aemp_gevent.testing import MemoryNetwork
from tests.support.helpers import wait_until
from tests.support.networking import Inbox
from tests.support.seams import ports_of
from tests.support.settling import settle


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork() as network:
        yield network


@pytest.fixture
def private() -> Iterator[Node]:
    node = Node()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_tag_that_no_handler_has_is_named_with_the_nearest(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    ports = [private.rcv(private.port(), start=print, finish=print) for _ in range(2)]
    for port in ports * 2:
        private.snd(port, "finsh", "private data")
    settle(private)
    [line] = warnings(caplog)
    assert f"port {ports[0]} discarded message 'finsh' with 1 more element" in line
    assert "handlers for ['start', 'finish']; did you mean 'finish'?" in line
    assert "private data" not in line
    private.snd(ports[0], "quite another")
    private.snd(ports[0])
    settle(private)
    assert len(warnings(caplog)) == 3


def test_discarded_messages_do_not_each_look_at_all_tags(private: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class WatchedHandlers(Handlers):
        @property
        def tags(self) -> list[str]:
            looks.append(1)
            return super().tags

    monkeypatch.setattr(aemp_gevent.node.registering, "Handlers", WatchedHandlers)
    port = private.rcv(private.port(), **{f"tag{number}": print for number in range(1000)})
    for number in range(100):
        private.snd(port, "nope", number)
    settle(private)
    assert private.scheduler.discarded == 100
    assert looks == [1]


def test_a_port_without_handlers_says_how_to_give_it_some(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    private.snd(private.port(), 5)
    settle(private)
    [line] = warnings(caplog)
    assert "discarded message <int>: it has no handlers; give it some with rcv()" in line


def test_a_port_whose_handler_removed_itself_says_why(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    port = private.rcv(private.port(), "once", lambda: True)
    private.snd(port, "once")
    private.snd(port, "once")
    settle(private)
    [line] = warnings(caplog)
    assert "it has no handlers left; one that returns DONE or True is removed" in line


def test_a_message_that_a_private_node_cannot_send_is_named_first(
    private: Node, caplog: pytest.LogCaptureFixture
) -> None:
    private.snd("elsewhere", "tag")
    assert warnings(caplog) == [
        "message 'tag' to elsewhere dropped: this node is private; call initialise_node() first"
    ]


def test_spawn_of_a_function_instead_of_its_name_says_what_to_give(private: Node) -> None:
    with pytest.raises(TypeError, match=r"spawn\(\) takes a function's full name, 'package\.module\.function', not <"):
        private.spawn(private.NODE(), print)  # type: ignore[arg-type]


def test_a_port_with_patterns_is_not_said_to_have_no_handlers(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    private.snd(private.rcv(private.port(), ["wanted", int], print), "wanted", "text")
    settle(private)
    [line] = warnings(caplog)
    assert "it has handlers for [] and patterns, which do not match" in line


class Unprintable:
    """As bad as what others send may be."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_a_tag_that_is_not_a_text_is_accepted(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    port = private.port()
    private.snd(port, Unprintable())
    private.snd(port, ["x" * 1000])
    settle(private)
    assert private.scheduler.table.find(port) is not None
    assert [line.partition(": ")[0] for line in warnings(caplog)] == [
        f"port {port} discarded message <Unprintable>",
        f"port {port} discarded message <list>",
    ]


def test_a_caller_hears_of_the_nearest_tag_and_the_log_does_not(
    private: Node, caplog: pytest.LogCaptureFixture
) -> None:
    port = private.serve(private.port(), price=print)
    with pytest.raises(RemoteError, match="no handler for 'prize'; did you mean 'price'"):
        private.call(port, "prize")
    assert warnings(caplog) == []


def test_late_answers_and_messages_of_the_library_are_not_mistakes(
    private: Node, caplog: pytest.LogCaptureFixture
) -> None:
    replies: list[str] = []
    port = private.port(lambda _tag, reply: replies.append(reply))
    assert private.syncal(0.001, port, "question") == ()
    # An answer that comes too late is sent by the library here, as in functions given to serve().
    private.after(0, private.snd, replies[0], "too late")
    settle(private)
    dead = private.port()
    private.kil(dead)
    private.mon(dead, private.port(lambda *_message: None), "gone")
    private.snd(dead)  # killed, and not dead yet
    settle(private)
    assert warnings(caplog) == []


def test_a_send_to_a_dead_port_is_named_once_per_line(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    dead = private.port()
    private.kil(dead)
    settle(private)
    frame = inspect.currentframe()
    assert frame is not None
    sent_at = frame.f_lineno + 2
    for _ in range(3):
        private.snd(dead, "tag", "private data")
    [line] = warnings(caplog)
    assert f"message 'tag' with 1 more element to port {dead} dropped: it is dead; monitor a port" in line
    assert f"{__file__}:{sent_at} " in line
    assert "private data" not in line
    private.snd(dead)
    assert len(warnings(caplog)) == 2


def test_a_misspelt_name_is_named_with_the_nearest(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    private.reg(private.port(), "printer")
    private.snd(f"{private.NODE()}#pinter", 1)
    gevent.spawn(private.snd, f"{private.NODE()}#pinter", 1).join()  # nobody's line
    [line] = warnings(caplog)
    assert "#pinter dropped: this node has no such port; did you mean 'printer'?" in line


@pytest.mark.parametrize("strict", [True, False])
def test_hints_are_the_same_in_strict_nodes(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    node = network.node(strict=strict)
    node.snd(f"{node.NODE()}#name", 1)
    [line] = warnings(caplog)
    assert f"{__file__}:" in line


def test_the_sender_hears_that_a_node_does_not_know_its_request(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = network.node(), network.node()
    for _ in range(2):
        sender.snd(receiver.NODE(), "tyme", "private data")
    wait_until(lambda: len(warnings(caplog)) >= 3)
    assert sender.flush(5)
    [line] = [line for line in warnings(caplog) if line.startswith("node ")]
    assert f"node {receiver.NODE()} refused the request 'tyme'" in line
    assert "did you mean 'time'?" in line
    assert "the ID of a port has a '#'" in line
    assert "private data" not in line


def test_a_call_of_a_node_by_mistake_fails_at_once(network: MemoryNetwork) -> None:
    sender, receiver = network.node(), network.node()
    with pytest.raises(RemoteError, match="request 'hello' refused: 'hello' is not allowed here.* has a '#'"):
        sender.call(receiver.NODE(), "hello", timeout=60)


@pytest.mark.parametrize("where", ["private", "own", "peer"])
@pytest.mark.parametrize(
    ("request_", "says"),
    [
        pytest.param(["inspect"], r"refused: TypeError: its arguments must be \(what, port, \*reply\)$", id="too-few"),
        pytest.param(["can", []], "refused: TypeError: unhashable type: 'list'$", id="wrong-type"),
        pytest.param(["can"], r"refused: TypeError: its arguments must be \(request, port, \*reply\)$", id="can"),
        pytest.param(["hello"], "refused: .* has a '#'$", id="unknown"),
    ],
)
def test_a_call_of_a_node_with_wrong_arguments_fails_at_once(
    network: MemoryNetwork, private: Node, request_: list[Any], says: str, where: str
) -> None:
    caller = private if where == "private" else network.node()
    asked = network.node() if where == "peer" else caller
    with pytest.raises(RemoteError, match=says):
        caller.call(asked.NODE(), *request_, timeout=60)
    with pytest.raises(RemoteError, match=says):
        caller.call_async(asked.NODE(), *request_, timeout=60).get(timeout=60)


@pytest.mark.parametrize("where", ["own", "peer"])
def test_a_call_of_eval_fails_at_once_where_that_is_off(network: MemoryNetwork, where: str) -> None:
    caller = network.node()
    asked = network.node() if where == "peer" else caller
    with pytest.raises(RemoteError, match="request 'eval' refused: eval is off here"):
        caller.call(asked.NODE(), "eval", "1", timeout=60)


def test_a_request_that_is_not_a_name_is_quoted_once(network: MemoryNetwork, caplog: pytest.LogCaptureFixture) -> None:
    sender, receiver = network.node(), network.node()
    with pytest.raises(RemoteError, match="request 5 refused: 5 is not the name of a function: "):
        sender.call(receiver.NODE(), 5, timeout=60)
    assert f"node {receiver.NODE()} refused the request 5: 5 is not the name" in caplog.text


def test_a_refusal_touches_only_ports_that_wait_for_an_answer(network: MemoryNetwork) -> None:
    sender, receiver = network.node(), network.node()
    inbox = Inbox(sender)
    sender.snd(receiver.NODE(), "hello", inbox.port)
    assert sender.flush(5)
    assert sender.flush(5)  # the refusal has been handled by now
    sender.snd(inbox, "alive")
    wait_until(lambda: inbox.messages == [("alive",)])


def test_requests_of_this_node_itself_are_named_too(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        private.snd(private.NODE(), "loockup")
    settle(private)
    [line] = warnings(caplog)
    assert "refused the request 'loockup'" in line
    assert "did you mean 'lookup'?" in line


@pytest.mark.parametrize("args", [(), ("hello",), (1, 2, 3), ("hello", "why", "nobody's#port"), ("\x1b[2J", "\n", "#")])
def test_a_peer_that_makes_refusals_up_does_no_harm(
    network: MemoryNetwork, caplog: pytest.LogCaptureFixture, args: tuple[Any, ...]
) -> None:
    one, other = network.node(), network.node()
    one.snd(other.NODE(), "not_done", *args)
    assert one.flush(5)
    assert one.flush(5)
    assert not any(set(line) & {"\x1b", "\n"} for line in warnings(caplog))


def test_places_are_bounded() -> None:
    hints = Hints()
    assert sum(hints.is_due("tag", number) for number in range(2 * MAX_PLACES)) == MAX_PLACES


def test_nearest_spends_no_time_on_values_that_are_not_names() -> None:
    assert nearest("x" * 10_000_000, ["x"]) == ""
    assert nearest(5, ["5"]) == ""
    assert nearest("abcd", ["x" * 10_000_000, "abce"]) == "; did you mean 'abce'?"
