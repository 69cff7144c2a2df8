# SPDX-License-Identifier: MIT
"""``call`` and ``call_async``: every outcome, here and over the network, and what is left behind (nothing)."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
import zope.event

from aemp_gevent.calls.serve import ReplyPortID, time_left
from aemp_gevent.errors import (
    CallCycleError,
    CallTimeout,
    InvalidPortError,
    NoPortContextError,
    PortDied,
    PortKilled,
    RemoteError,
    UnencodableMessageError,
    WrongThreadError,
)
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.networking import OUR_PROVIDER, UNIQUE, WAIT, Deaths, Inbox, MakeNode, RawListener, RawPeer, tables

PERL = (("provider", "AE-2.02"),)


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    """The caller and the called node: the same node, and then two with a link."""
    caller = make_node()
    if request.param == "here":
        return caller, caller
    other = make_node()
    assert caller.syncal(WAIT, other.NODE(), "time")
    return caller, other


@pytest.fixture
def caller(nodes: tuple[Node, Node]) -> Node:
    return nodes[0]


@pytest.fixture
def server(nodes: tuple[Node, Node]) -> Node:
    return nodes[1]


def shouter(server: Node) -> str:
    """A port of the old kind, whose handlers get a reply port as their last argument."""
    port = server.port()
    server.rcv(port, "shout", lambda word, reply: server.snd(reply, word.upper()))
    server.rcv(port, "none", server.snd)
    server.rcv(port, "two", lambda reply: server.snd(reply, 1, 2))
    server.rcv(port, "never", lambda reply: None)
    server.rcv(port, "refuse", lambda reply: server.kil(reply, "not", "today"))
    return port


# --- answers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        pytest.param(("shout", "hello"), "HELLO", id="one-element"),
        pytest.param(("none",), None, id="empty"),
        pytest.param(("two",), (1, 2), id="several"),
    ],
)
@pytest.mark.parametrize("how", ["call", "call_async"])
def test_a_handler_of_the_old_kind_answers(caller, server, how, message, answer):
    port = shouter(server)
    if how == "call":
        assert caller.call(port, *message) == answer
    else:
        assert caller.call_async(port, *message).get(timeout=WAIT) == answer


def test_an_actor_answers_and_sees_until_when(caller, server):
    def serve() -> None:
        tag, number, reply = receive()
        deadline = reply.deadline - time.monotonic()
        server.snd(reply, tag, number, 0 < deadline <= 7)

    assert caller.call(server.port_async(serve), "x", 1, timeout=7) == ("x", 1, True)


def test_served_functions_answer_with_what_they_return(caller, server):
    port = server.port()
    assert server.serve(port, add=lambda a, b: a + b) is port
    assert caller.call(port, "add", 1, 2) == 3
    assert caller.call(port, "add", True, False) == 1
    assert caller.call_async(port, "add", [1], [2]).get(timeout=WAIT) == [1, 2]


def test_call_and_snd_keep_their_order(caller, server):
    got: list[Any] = []
    port = server.port()
    server.rcv(port, "note", got.append)
    server.serve(port, note_too=got.append)
    results = []
    for number in range(0, 30, 3):
        caller.snd(port, "note", number)
        results.append(caller.call_async(port, "note_too", number + 1))
        caller.snd(port, "note", number + 2)
    gevent.wait(results, timeout=WAIT)
    caller.call(port, "note_too", 30)
    assert got == list(range(31))


def test_call_works_in_every_kind_of_greenlet(caller, server):
    port = shouter(server)
    answers: list[Any] = []

    def ask(*_: Any) -> None:
        answers.append((caller.call(port, "shout", "x"), SELF()))

    ask()
    gevent.spawn(ask).get()
    with caller.attach() as me:
        ask()
    body = caller.port_async(ask)
    handler = caller.port(ask)
    caller.snd(handler)
    second = caller.peval_async(handler, ask)
    caller.after(0, ask)
    caller.peval(handler, ask)
    wait_until(lambda: len(answers) == 8)
    second.join()
    assert sorted(answers, key=str) == sorted(
        [("X", None)] * 3 + [("X", me), ("X", body), ("X", handler), ("X", handler), ("X", handler)], key=str
    )


def test_call_of_a_node_asks_its_node_port(caller, server):
    assert abs(caller.call(server.NODE(), "time", timeout=WAIT) - time.time()) < WAIT


def test_gevent_waits_for_what_call_async_returned(caller, server):
    port = shouter(server)
    results = [caller.call_async(port, "shout", word) for word in "abc"]
    assert {result.get() for result in gevent.iwait(results, timeout=WAIT)} == {"A", "B", "C"}


# --- what goes wrong --------------------------------------------------------------


@pytest.fixture(params=["call", "call_async"])
def ask(request: pytest.FixtureRequest, caller: Node) -> Callable[..., Any]:
    """Call, either way."""
    if request.param == "call":
        return caller.call
    return lambda *message, **how: caller.call_async(*message, **how).get(timeout=WAIT)


def test_no_answer_in_time_raises(ask, server):
    port = shouter(server)
    with pytest.raises(CallTimeout, match=r"did not answer 'never' within 0.05 s") as raised:
        ask(port, "never", timeout=0.05)
    assert (raised.value.port, raised.value.tag, raised.value.timeout) == (port, "never", 0.05)
    assert isinstance(raised.value, TimeoutError)


def test_a_call_without_time_sends_nothing(caller, server):
    inbox = Inbox(server)
    with pytest.raises(CallTimeout):
        caller.call(inbox, "x", timeout=0)
    caller.snd(inbox, "y")
    wait_until(lambda: inbox.messages)
    assert inbox.messages == [("y",)]


def test_death_of_the_port_raises_at_once_with_its_reason(ask, server):
    port = shouter(server)
    server.after(0.05, lambda: server.kil(port, "tired", 1))
    with pytest.raises(PortDied) as raised:
        ask(port, "never", timeout=None)
    assert (raised.value.port, raised.value.reason) == (port, ("tired", 1))


def test_a_port_that_does_not_exist_raises_at_once(ask, server):
    with pytest.raises(PortDied) as raised:
        ask(f"{server.NODE()}#nobody", "x", timeout=None)
    assert raised.value.reason[0] == "no_such_port"


def test_an_answer_before_the_death_is_an_answer(ask, server):
    port = server.port()

    @server.rcv(port, "last")
    def last(reply: str) -> None:
        server.snd(reply, "words")
        server.kil(port, "dead")

    assert ask(port, "last") == "words"


def test_an_exception_travels_with_its_traceback_and_the_port_lives_on(ask, server):
    port = server.port()

    def divide(a: int, b: int) -> float:
        return a / b

    server.serve(port, divide=divide)
    with pytest.raises(RemoteError, match="ZeroDivisionError: division by zero") as raised:
        ask(port, "divide", 1, 0)
    assert raised.value.port == port
    assert raised.value.error == "ZeroDivisionError: division by zero"
    assert "in divide\n    return a / b" in raised.value.traceback
    assert "\n  |     return a / b\n" in str(raised.value)
    with pytest.raises(RemoteError, match="missing 1 required positional argument"):
        ask(port, "divide", 1)
    assert ask(port, "divide", 1, 2) == 0.5


def test_a_handler_of_the_old_kind_refuses_by_killing_the_reply_port(ask, server):
    with pytest.raises(RemoteError) as raised:
        ask(shouter(server), "refuse")
    assert (raised.value.error, raised.value.traceback) == ("not today", "")


def test_a_tag_without_a_handler_is_reported_at_once(ask, server):
    with pytest.raises(RemoteError, match="no handler for 'nothing'"):
        ask(shouter(server), "nothing", timeout=None)


def test_a_call_to_a_refused_spawn_raises_its_refusal(ask, caller, server):
    with pytest.raises(PortDied) as raised:
        ask(caller.spawn(server.NODE(), "no.such.function"), "x", timeout=None)
    assert raised.value.reason[0] == "spawn_refused"


def test_bad_arguments_raise_and_leave_nothing(caller, server):
    port = shouter(server)
    before = tables(caller, server)
    for how in (caller.call, caller.call_async):
        with pytest.raises(InvalidPortError):
            how("no port", "x")
        if caller is not server:
            with pytest.raises(UnencodableMessageError):
                how(port, "x", object())
    wait_until(lambda: tables(caller, server) == before, show=lambda: (tables(caller, server), before))


def test_call_on_the_hub_says_what_to_do(make_node):
    node = make_node()
    raised: list[BaseException] = []

    def try_it() -> None:
        try:
            node.call(node.NODE(), "time")
        except NoPortContextError as error:
            raised.append(error)

    on_hub(try_it)
    assert "spawn a greenlet" in str(raised[0])


def test_calls_in_other_native_threads_are_refused(make_node):
    node = make_node()
    port = shouter(node)
    for how in (node.call, node.call_async, node.serve):
        with pytest.raises(WrongThreadError, match=rf"{how.__name__}\(\) works only in the native thread"):
            gevent.get_hub().threadpool.apply(how, (port, "shout", "x"))


def test_a_lost_link_raises_at_once(make_node):
    caller = make_node()
    with RawListener() as listener:
        result = caller.call_async(f"{listener.id}#p", "x", timeout=None)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            peer.take(2)
        with pytest.raises(PortDied) as raised:
            result.get(timeout=WAIT)
    assert raised.value.reason[0] == "transport_error"


def test_a_call_from_a_private_node_fails_with_the_remedy():
    node = Node()
    with pytest.raises(PortDied, match="initialise_node"):
        node.call("127.0.0.1:9#p", "x")


# --- the caller's own end -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["actor", "handler", "attached", "borrowed"])
def test_the_kill_of_the_caller_ends_the_call(caller, server, kind):
    port = shouter(server)
    ended: list[Any] = []
    before = tables(caller, server)

    def ask(*_: Any) -> None:
        try:
            caller.call(port, "never", timeout=None)
        except PortKilled as error:
            ended.append(error.reason)
            raise

    if kind == "attached":
        with pytest.raises(PortKilled), caller.attach() as me:
            caller.after(0.02, lambda: caller.kil(me, "enough"))
            ask()
    else:
        me = caller.port_async(ask) if kind == "actor" else caller.port(ask)
        if kind == "borrowed":
            victim = caller.port(lambda: caller.peval(me, ask))
            caller.snd(victim)
        else:
            victim = me
            caller.snd(me)
        wait_until(lambda: len(tables(caller)[0][3]) == 1)
        caller.kil(victim, "enough")
        wait_until(lambda: ended)
        caller.kil(me)
    assert ended == [("enough",)]
    wait_until(lambda: tables(caller, server) == before, show=lambda: (tables(caller, server), before))


def test_an_answer_that_comes_late_is_discarded(caller, server):
    inbox = Inbox(server)
    with caller.attach():
        with pytest.raises(CallTimeout):
            caller.call(inbox, "x", timeout=0.02)
        wait_until(lambda: inbox.messages)
        server.snd(inbox.messages[0][-1], "late")
        assert caller.call(shouter(server), "shout", "x") == "X"
        assert receive(timeout=0, default="nothing") == "nothing"


def test_a_server_that_monitors_the_reply_port_hears_whether_its_answer_was_taken(caller, server):
    taken, late = Deaths(), Deaths()
    port = server.port()

    @server.rcv(port, "x")
    def answer(reply: str) -> None:
        server.mon(reply, taken)
        server.snd(reply, 1)

    server.rcv(port, "never", lambda reply: server.mon(reply, late))
    caller.call(port, "x")
    assert taken.wait() == ()
    with pytest.raises(CallTimeout):
        caller.call(port, "never", timeout=0.02)
    assert late.wait() == ("call_ended",)


def test_failed_calls_are_not_reported_as_deaths(make_node):
    node, heard = make_node(), []
    zope.event.subscribers.append(heard.append)
    try:
        with pytest.raises(CallTimeout):
            node.call(shouter(node), "never", timeout=0.01)
        with pytest.raises(RemoteError):
            node.call(shouter(node), "refuse")
        with pytest.raises(CallTimeout):
            node.call_async(shouter(node), "never", timeout=0.01).get()
        turns(3)
    finally:
        zope.event.subscribers.remove(heard.append)
    assert heard == []


@pytest.mark.no_cover
@pytest.mark.slow
def test_ten_thousand_calls_leave_everything_as_it_was(caller, server):
    port = shouter(server)
    server.serve(port, add=lambda a, b: a + b)

    def many(count: int) -> None:
        for number in range(count):
            assert caller.call(port, "add", number, 1) == number + 1

    def some_that_fail() -> None:
        for _ in range(20):
            with pytest.raises(CallTimeout):
                caller.call(port, "never", timeout=0.001)
            with pytest.raises(RemoteError):
                caller.call(port, "refuse")
            with pytest.raises(PortDied):
                caller.call(f"{server.NODE()}#x", "x")
            assert caller.call_async(port, "shout", "x").get() == "X"

    many(10)
    some_that_fail()
    gc.collect()
    before, objects = tables(caller, server), len(gc.get_objects())
    gevent.joinall([gevent.spawn(many, 2500) for _ in range(4)], raise_error=True)
    some_that_fail()
    wait_until(lambda: tables(caller, server) == before, show=lambda: (tables(caller, server), before))
    gc.collect()
    assert len(gc.get_objects()) < objects + 500


# --- circles ------------------------------------------------------------------------


def calling(node: Node, name: str) -> str:
    """A port that passes a call on to the first of the ports it is given, which gets the others."""
    port = node.port()

    def go(*ports: str) -> Any:
        return node.call(ports[0], "go", *ports[1:], timeout=WAIT) if ports else "the end"

    node.serve(port, go=go)
    node.reg(port, name)
    return port


@pytest.mark.parametrize("named", [False, True], ids=["by-id", "by-name"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_circle_of_calls_is_noticed_and_named(make_node, length, named):
    nodes = [make_node() for _ in range(min(length, 3))]
    ports = [calling(nodes[each % len(nodes)], f"p{each}") for each in range(length)]
    names = [f"{nodes[each % len(nodes)].NODE()}#p{each}" for each in range(length)] if named else ports
    assert nodes[0].call(ports[0], "go", *names[1:], timeout=WAIT) == "the end"
    started = time.monotonic()
    with pytest.raises(RemoteError, match="CallCycleError: these ports wait for each other's answers") as raised:
        nodes[0].call(ports[0], "go", *names[1:], names[0], timeout=WAIT)
    assert time.monotonic() - started < WAIT / 2
    line = next(line for line in raised.value.error.splitlines() if "CallCycleError" in line)
    assert all(port in line or name in line for port, name in zip(ports, names, strict=True))
    assert nodes[0].call(ports[0], "go", *names[1:], timeout=WAIT) == "the end"  # nobody is stuck


def test_a_circle_through_handlers_of_the_old_kind_is_noticed_when_it_has_two(caller, server):
    first, second = caller.port(), server.port()
    caught: list[CallCycleError] = []

    @server.rcv(second, "ask back")
    def ask_back(reply: str) -> None:
        try:
            server.call(first, "x")
        except CallCycleError as error:
            caught.append(error)
            server.snd(reply, "noticed")

    caller.rcv(first, lambda *message: caller.snd(message[-1], "x"))
    answers: list[Any] = []
    caller.rcv(first, "start", lambda: answers.append(caller.call(second, "ask back")))
    caller.snd(first, "start")
    wait_until(lambda: answers)
    assert answers == ["noticed"]
    assert set(caught[0].ports) == {first, second}


def test_two_that_call_each_other_at_once_are_not_stuck(nodes):
    caller, server = nodes
    ports = [caller.port(), server.port()]
    ended: list[Any] = []

    def start(node: Node, other: str) -> None:
        try:
            ended.append(node.call(other, "answer", timeout=WAIT))
        except CallCycleError as error:
            ended.append(set(error.ports))

    for node, port, other in zip(nodes, ports, reversed(ports), strict=True):
        node.rcv(port, "start", lambda node=node, other=other: start(node, other))
        node.serve(port, answer=lambda: "answer")
    started = time.monotonic()
    for node, port in zip(nodes, ports, strict=True):
        node.snd(port, "start")
    wait_until(lambda: len(ended) == 2)
    assert time.monotonic() - started < WAIT / 2
    assert all(each in ("answer", set(ports)) for each in ended)
    assert set(ports) in ended


@pytest.mark.parametrize("gone", ["gave up", "has its answer", "does not wait"])
def test_who_does_not_wait_is_in_no_circle(caller, server, gone):
    """The called port calls back when nobody is blocked any more: no circle, but an ordinary call."""
    first, second = caller.port(), server.port()
    answered, log = Deaths(), []
    caller.serve(first, x=lambda: "here")

    @server.serve(second, "work")
    def work() -> str:
        wait_until(lambda: "free" in log)
        log.append(server.call(first, "x", timeout=WAIT))
        answered()
        return "done"

    @server.rcv(second, "answer first")
    def answer_first(reply: str) -> None:
        server.snd(reply, "done")
        work()

    @caller.rcv(first, "start")
    def start() -> None:
        if gone == "gave up":
            with pytest.raises(CallTimeout):
                caller.call(second, "work", timeout=0.02)
        elif gone == "has its answer":
            assert caller.call(second, "answer first") == "done"
        else:
            caller.call_async(second, "work")
        log.append("free")

    caller.snd(first, "start")
    answered.wait()
    assert log == ["free", "here"]


def test_a_caller_that_waits_for_somebody_else_by_now_is_in_no_circle(make_node):
    """It gave up the call that the chain names, and is blocked in another one."""
    node = make_node()
    first, second, third = (node.port() for _ in range(3))
    first_port, waiting = node.scheduler.table.find(first), ports_host_of(node).waiting
    assert first_port is not None
    node.serve(first, x=lambda: "here")
    results: list[Any] = []

    @node.serve(second, "work")
    def work() -> None:
        wait_until(lambda: first_port in waiting and waiting[first_port].called == third)
        results.append(node.call(first, "x", timeout=WAIT))

    node.rcv(third, "hold", lambda reply: node.after(0.2, reply, "held"))

    @node.rcv(first, "start")
    def start() -> None:
        with pytest.raises(CallTimeout):
            node.call(second, "work", timeout=0.02)
        assert node.call(third, "hold") == "held"

    node.snd(first, "start")
    wait_until(lambda: results)
    assert results == ["here"]


def test_who_has_an_answer_that_it_has_not_looked_at_is_in_no_circle(nodes):
    """The one that was called answers, and asks back in the same breath: its answer is there before its call."""
    caller, server = nodes
    results: list[Any] = []

    @caller.port_async
    def first() -> None:
        results.append(caller.call(second, "work", timeout=WAIT))
        _tag, reply = receive("x", timeout=WAIT)
        caller.snd(reply, "here")

    second = server.port()

    @server.rcv(second, "work")
    def work(reply: str) -> None:
        server.snd(reply, "done")
        results.append(server.call(first, "x", timeout=WAIT))

    wait_until(lambda: len(results) == 2)
    assert results == ["done", "here"]


def test_a_caller_that_gave_up_is_not_part_of_a_circle(make_node):
    """First gave up a call that second still serves; then third waits for first, and second asks third."""
    node = make_node()
    first, second, third = (node.port() for _ in range(3))
    node.serve(first, y=lambda: "y")
    node.serve(third, x=lambda: "x")
    results: list[Any] = []

    @node.rcv(first, "start")
    def start() -> None:
        with pytest.raises(CallTimeout):
            node.call(second, "work", timeout=0.02)
        node.snd(third, "go")
        wait_until(lambda: node.scheduler.table.find(second) in ports_host_of(node).waiting or results)

    @node.serve(second, "work")
    def work() -> None:
        wait_until(lambda: node.scheduler.table.find(third) in ports_host_of(node).waiting)
        results.append(node.call(third, "x", timeout=WAIT))

    node.rcv(third, "go", lambda: results.append(node.call(first, "y", timeout=WAIT)))
    node.snd(first, "start")
    wait_until(lambda: len(results) == 2)
    assert results == ["y", "x"]


def test_what_a_port_asks_without_waiting_is_in_no_circle(make_node):
    """First waits for second, third for first; but second waits for nobody, and its answer frees them all."""
    node = make_node()
    first, second, third = (node.port() for _ in range(3))
    node.serve(first, x=lambda: "here")
    node.serve(third, work=lambda: node.call(first, "x", timeout=WAIT))
    results: list[Any] = []

    @node.serve(second, "work")
    def work() -> None:
        results.append(node.call_async(third, "work", timeout=WAIT))
        wait_until(lambda: node.scheduler.table.find(third) in ports_host_of(node).waiting)

    node.rcv(first, "start", lambda: node.call(second, "work", timeout=WAIT))
    node.snd(first, "start")
    wait_until(lambda: results)
    assert results[0].get(timeout=WAIT) == "here"


# --- on the wire --------------------------------------------------------------------


def test_a_node_of_ours_gets_the_deadline_and_the_chain(make_node):
    node = make_node()
    with RawListener() as listener:
        done: list[Any] = []

        @node.port_async
        def me() -> None:
            done.append(node.call(f"{listener.id}#p", "x", [1], timeout=7))

        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            assert peer.packet() == ["", "mon1", "p"]
            request, header, *rest = peer.packet()[1:]
            assert (request, rest) == ("call", ["p", "x", [1]])
            assert header == {"reply": header["reply"], "left": 7, "chain": [me]}
            peer.send([header["reply"].partition("#")[2], "answer"])
            assert peer.packet() == ["", "mon0", "p"]
    assert done == ["answer"]


def test_a_node_that_reads_short_headers_gets_one(make_node: MakeNode) -> None:
    """Once that is known: what waits for the link has its header in full."""
    node = make_node()
    done: list[Any] = []
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("calls", "short"))).shake() as peer:

        @node.port_async
        def me() -> None:
            done.append(node.call(f"{peer.name}#{UNIQUE}", "x", [1], timeout=7))
            done.append(node.call(f"{peer.name}#{UNIQUE}", "y", timeout=None))

        name = "#" + me.partition("#")[2]
        assert peer.packet() == ["", "mon1", UNIQUE]
        request, (reply, *header), *rest = peer.packet()[1:]
        assert (request, header, rest) == ("call", [7, name], [UNIQUE, "x", [1]])
        peer.send([reply[1:], "answer"])
        request, (reply, *header), *rest = peer.packet()[1:]
        assert (request, header, rest) == ("call", [None, name], [UNIQUE, "y"]), "the port is still watched"
        peer.send([reply[1:], "another"])
        wait_until(lambda: done == ["answer", "another"])


@pytest.mark.parametrize(
    "header",
    [
        lambda _node: ["#reply", 7, "#me", "other#port"],
        lambda node: {"reply": f"{node}#reply", "left": 7, "chain": [f"{node}#me", "other#port"]},
    ],
    ids=["short", "in full"],
)
def test_both_forms_of_a_header_are_read(make_node: MakeNode, header: Callable[[str], Any]) -> None:
    node = make_node()
    calls: list[Any] = []
    server = node.port()
    node.rcv(server, "ask", lambda reply: calls.append((reply, reply.chain, time_left(reply))))
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        peer.send(["", "call", header(peer.name), server.partition("#")[2], "ask"])
        wait_until(lambda: calls)
        ((reply, chain, left),) = calls
        assert (reply, chain) == (f"{peer.name}#reply", (f"{peer.name}#me", "other#port"))
        assert 0 < left <= 7


@pytest.mark.parametrize("framing", ["msgpack", "json"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_perl_node_gets_what_its_own_cal_would_send(make_node, framing, when):
    """This also works if the call was sent before the peer's program was known."""
    node = make_node()
    with RawListener() as listener:
        if when == "after":
            node.snd(f"{listener.id}#p", "hello")
        else:
            result = node.call_async(f"{listener.id}#p", "x", [1], timeout=7)
        with listener.accept(extras=PERL, framing=framing).shake() as peer:
            if when == "after":
                assert peer.packet() == ["p", "hello"]
                wait_until(lambda: node.node_is_up(listener.id))
                result = node.call_async(f"{listener.id}#p", "x", [1], timeout=7)
            assert peer.packet() == ["", "mon1", "p"]
            name, tag, argument, reply = peer.packet()
            assert (name, tag, argument) == ("p", "x", [1])
            peer.send([reply.partition("#")[2], "answer"])
            assert result.get(timeout=WAIT) == "answer"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"left": 1}, id="no-reply"),
        pytest.param({"reply": "elsewhere#p"}, id="reply-elsewhere"),
        pytest.param({"reply": "127.0.0.1:9"}, id="reply-is-a-node"),
        pytest.param({"reply": "127.0.0.1:9#r", "left": float("nan")}, id="no-number"),
        pytest.param({"reply": "127.0.0.1:9#r", "left": -1}, id="negative"),
        pytest.param({"reply": "127.0.0.1:9#r", "left": "x"}, id="text"),
        pytest.param({"reply": "127.0.0.1:9#r", "chain": 7}, id="chain"),
        pytest.param(None, id="nothing"),
        pytest.param([], id="list"),
    ],
)
def test_a_bad_header_costs_a_log_line_and_nothing_else(make_node, caplog, header):
    node = make_node()
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        peer.send(["", "call", header, inbox.port.partition("#")[2], "x"])
        assert peer.answers()
        peer.send(["", "call", {"reply": "127.0.0.1:9#r"}, inbox.port.partition("#")[2], "y"])
        wait_until(lambda: inbox.messages)
    assert inbox.messages == [("y", "127.0.0.1:9#r")]
    assert any("'call'" in text for text in caplog.messages)


def test_a_reply_port_travels_and_serves_like_any_other(make_node):
    """A call may be passed on, to another node, which answers."""
    first, second = make_node(), make_node()
    back = second.port()
    second.rcv(back, "x", lambda reply: second.snd(reply, "from behind"))
    front = first.port()
    first.rcv(front, "x", lambda reply: first.snd(back, "x", reply))
    assert first.call(front, "x") == "from behind"
    assert isinstance(ReplyPortID("a#b", None, ()), str)


def test_a_call_to_a_port_reported_dead_reaches_nobody_before_it_is_known_to_live(make_node):
    """Dead stays dead: the call monitors, and the monitor decides."""
    node = make_node()
    with RawListener() as listener:
        result = node.call_async(f"{listener.id}#p", "x", timeout=None)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            peer.take(2)
        with pytest.raises(PortDied):
            result.get(timeout=WAIT)
        again = node.call_async(f"{listener.id}#p", "y", timeout=None)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            packets = peer.take(2)
            assert packets[0] == ["", "mon1", "p"]
            assert packets[1][3:] == ["p", "y"]
        with pytest.raises(PortDied):
            again.get(timeout=WAIT)


def test_a_call_while_a_loss_is_being_reported_is_lost_as_well(make_node):
    """No holes: nothing may get there before everybody who monitors the port has heard."""
    node = make_node()
    results: list[Any] = []
    with RawListener() as listener:
        port = f"{listener.id}#p"
        node.mon(port, lambda *_: results.append(node.call_async(port, "too early", timeout=None)))
        node.mon(port, lambda *_: None)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            assert peer.packet() == ["", "mon1", "p"]
        wait_until(lambda: results)
        with pytest.raises(PortDied):
            results[0].get(timeout=WAIT)
        node.mon(port, print)
        node.snd(port, "hello")
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            assert peer.take(2) == [["", "mon1", "p"], ["p", "hello"]]
            node.shutdown(0)
