# SPDX-License-Identifier: MIT
"""Traces with OpenTelemetry's own SDK: parents are right across greenlets, ports and nodes, also under load."""

from __future__ import annotations

import contextvars
import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from aemp_gevent import CallTimeout, Node, PortDied, RemoteError, receive, spawnable
from aemp_gevent.calls import header
from aemp_gevent.calls.serve import ReplyPortID
from aemp_gevent.ports.inboxes import TracedInbox
from aemp_gevent.ports.port import activate
from aemp_gevent.runtime.tracing import TRACING, trace_in
from aemp_gevent.testing import wait_until
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.vocabulary import SPAWN
from tests.support.helpers import Proxy
from tests.support.injecting import between_bytecodes
from tests.support.native import threading
from tests.support.networking import ROOT, MakeNode

pytest.importorskip("opentelemetry.sdk", reason="the extra 'opentelemetry' and its SDK are not installed")

from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from aemp_gevent.contrib.opentelemetry import instrument, uninstrument

TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


class Spans:
    """The spans that have ended."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = provider
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("the test")

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all() if span.name == name]
        return span

    def parent_of(self, span: ReadableSpan) -> ReadableSpan | None:
        if span.parent is None:
            return None
        return next((other for other in self.all() if other.context.span_id == span.parent.span_id), None)

    def line(self, name: str) -> list[str]:
        """Return the names of a span's parents, from the first to the span itself, all of one trace."""
        span: ReadableSpan | None = self.named(name)
        found: list[ReadableSpan] = []
        while span is not None:
            found.insert(0, span)
            span = self.parent_of(span)
        assert len({each.context.trace_id for each in found}) == 1
        return [each.name for each in found]


@pytest.fixture
def spans() -> Iterator[Spans]:
    yield Spans(TracerProvider())
    TRACING.tracer = None
    assert not context.get_current(), "the test's own greenlet must not be left in a trace"


@pytest.fixture
def pair(make_node: MakeNode, spans: Spans) -> tuple[Node, Node]:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    for node in (one, two):
        instrument(node, tracer_provider=spans.provider)
    return one, two


def current_span_id() -> str:
    return format(trace.get_current_span().get_span_context().span_id, "x")


def inside(spans: Spans, name: str) -> Any:
    return spans.tracer.start_as_current_span(name)


# --- calls ---


@pytest.mark.parametrize("where", ["here", "there"])
def test_span_of_what_serves_is_below_the_span_of_the_call(pair: tuple[Node, Node], spans: Spans, where: str) -> None:
    one, two = pair
    asked = (one if where == "there" else two).port()
    (one if where == "there" else two).serve(asked, price=lambda pieces: 5 * pieces)
    with inside(spans, "request"):
        assert two.call(asked, "price", 3) == 15
    assert spans.line("serve price") == ["request", "call price", "serve price"]
    call, serve = spans.named("call price"), spans.named("serve price")
    assert (call.kind, serve.kind) == (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    assert call.attributes["aemp.port"] == serve.attributes["aemp.port"] == asked  # type: ignore[index]
    assert call.attributes["server.address"] == asked.partition("#")[0]  # type: ignore[index]
    assert call.status.is_ok or call.status.status_code.name == "UNSET"


def test_trace_goes_from_the_browser_to_the_database(pair: tuple[Node, Node], spans: Spans) -> None:
    flask = pytest.importorskip("flask")
    one, two = pair
    stock = one.port()

    def look_up(name: str) -> int:
        with inside(spans, "SELECT"), sqlite3.connect(":memory:") as base:
            base.execute("create table stock (name, pieces)")
            base.execute("insert into stock values (?, 7)", (name,))
            return int(base.execute("select pieces from stock where name = ?", (name,)).fetchone()[0])

    one.serve(stock, pieces=look_up)
    prices = two.port()
    two.serve(prices, offer=lambda name: {"pieces": two.call(stock, "pieces", name)})
    app = flask.Flask("shop")

    @app.route("/<name>")
    def offer(name: str) -> Any:
        with inside(spans, "GET /<name>"):
            return two.call(prices, "offer", name)

    assert app.test_client().get("/nuts").json == {"pieces": 7}
    assert spans.line("SELECT") == [
        "GET /<name>", "call offer", "serve offer", "call pieces", "serve pieces", "SELECT"
    ]  # fmt: skip


def test_calls_under_load_keep_to_their_traces(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair
    asked = [one.port() for _ in range(5)]
    for port in asked:
        one.serve(port, work=lambda number: (gevent.sleep(0.001), number)[1])

    def ask(number: int) -> None:
        with inside(spans, f"request {number}"):
            gevent.sleep(0)
            if number % 2:
                assert two.call(asked[number % 5], "work", number) == number
            else:
                assert two.call_async(asked[number % 5], "work", number).get(timeout=30) == number

    gevent.joinall([gevent.spawn(ask, number) for number in range(60)], raise_error=True)
    wait_until(lambda: len(spans.all()) == 180)  # spans of call_async end a moment after the answer came
    servers = [span for span in spans.all() if span.name == "serve work"]
    assert len(servers) == 60
    roots = set()
    for server in servers:
        client = spans.parent_of(server)
        assert client is not None and client.name == "call work"
        root = spans.parent_of(client)
        assert root is not None
        assert root.context.trace_id == server.context.trace_id
        roots.add(root.name)
    assert len(roots) == 60


def test_errors_and_timeouts_are_in_the_spans(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair
    port, silent, dying = one.port(), one.port(lambda *_message: None), one.port()

    def fail() -> None:
        raise ValueError("on purpose")

    one.serve(port, bad=fail)
    one.rcv(dying, "die", lambda *_rest: one.kil(dying, "x"))
    with inside(spans, "request"):
        with pytest.raises(RemoteError):
            two.call(port, "bad")
        with pytest.raises(CallTimeout):
            two.call(silent, "wait", timeout=0.01)
        with pytest.raises(PortDied):
            two.call(dying, "die")
        with pytest.raises(RemoteError):
            two.call_async(port, "bad").get()
    wait_until(lambda: len(spans.all()) == 7)
    kinds = {
        (span.name, (span.attributes or {}).get("error.type"), span.status.status_code.name)
        for span in spans.all()
        if span.name != "request"
    }
    assert kinds == {
        ("call bad", "RemoteError", "ERROR"),
        ("serve bad", "ValueError", "ERROR"),
        ("call wait", "CallTimeout", "ERROR"),
        ("call die", "PortDied", "ERROR"),
    }


def test_handler_that_answers_by_itself_works_in_the_trace_of_its_call(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair

    def answer(*rest: Any) -> None:
        with inside(spans, "work"):
            one.snd(rest[-1], "answer")

    by_tag, by_callback = one.port(), one.port(answer)
    one.rcv(by_tag, "ask", answer)
    for port in (by_tag, by_callback):
        with inside(spans, "request"):
            assert two.call(port, "ask") == "answer"
    parents = [spans.parent_of(span) for span in spans.all() if span.name == "work"]
    assert [parent.name for parent in parents if parent] == ["call ask", "call ask"]


def test_handler_gets_a_proxy_that_is_not_looked_into(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    got: list[object] = []
    proxy = Proxy()
    port = one.port(lambda *message: got.extend(message))
    one.snd(port, "about", proxy)
    wait_until(lambda: got)
    assert got[1] is proxy


def test_sampling_is_honoured(make_node: MakeNode) -> None:
    spans = Spans(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    for node in (one, two):
        instrument(node, tracer_provider=spans.provider)
    flags: list[int] = []
    port = one.port()
    one.serve(port, work=lambda: flags.append(trace.get_current_span().get_span_context().trace_flags))
    with inside(spans, "request"):
        two.call(port, "work")
    TRACING.tracer = None
    assert not flags[0] & trace.TraceFlags.SAMPLED
    assert not spans.all()


def test_requests_to_nodes_have_no_spans(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair
    two.call(one.NODE(), "inspect", [])
    assert not spans.all()


def test_uninstrumented_nodes_cost_and_send_nothing(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair
    uninstrument(two)
    replies: list[Any] = []
    port = one.port(lambda *message: (replies.append(message[-1]), one.snd(message[-1]))[1])
    with inside(spans, "request"):
        two.call(port, "x")
    assert replies[0].trace is None
    assert not two._ports_host.watches
    assert [span.name for span in spans.all()] == ["request"]


# --- exporters ---


class Failing(SpanProcessor):
    """A span processor that raises."""

    def __init__(self, where: str) -> None:
        self._where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self._where == "start":
            raise RuntimeError("on purpose")

    def on_end(self, span: Any) -> None:
        if self._where == "end":
            raise RuntimeError("on purpose")


@pytest.mark.parametrize("where", ["start", "end"])
def test_span_processor_that_fails_does_no_harm(
    traced_pair: tuple[Node, Node], spans: Spans, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = traced_pair
    spans.provider.add_span_processor(Failing(where))
    got: list[Any] = []
    port, plain = one.port(), one.port(lambda *message: got.append(message))
    one.serve(port, work=lambda: "done")
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(PARENT)))
    try:
        assert two.call(port, "work") == "done"
        assert two.call_async(port, "work").get(timeout=10) == "done"
        two.snd(plain, 1)
    finally:
        context.detach(token)
    wait_until(lambda: got == [(1,)])
    assert "on purpose" in caplog.text
    wait_until(lambda: caplog.text.count("on purpose") == 5)  # two calls at each end, and a handler


PARENT = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))


class Waiting(SpanExporter):
    """An exporter that waits for its server."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def export(self, spans: Any) -> SpanExportResult:
        gevent.sleep(0)
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def test_exporter_may_wait_wherever_a_span_ends(pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = pair
    exporter = Waiting()
    spans.provider.add_span_processor(SimpleSpanProcessor(exporter))
    port = one.port()
    one.serve(port, work=lambda: "done")
    two.call(port, "work")
    two.call_async(port, "work").get(timeout=10)
    wait_until(lambda: sorted(exporter.names) == ["call work", "call work", "serve work", "serve work"])


# --- what continues in a trace ---


def test_what_is_begun_in_a_trace_continues_in_it(spans: Spans) -> None:
    node = Node()
    instrument(node, tracer_provider=spans.provider)
    begun: set[str] = set()

    def work(name: str) -> None:
        begun.add(name)
        with inside(spans, name):
            gevent.sleep(0)

    answering = node.port(lambda *message: node.snd(message[-1], "yes"))
    with inside(spans, "request"):
        node.after(0.001, lambda: work("after"))
        node.after(0.001, node.port(lambda name: None), "sent later")
        node.cal(answering, "ask", cb=lambda *_answer: work("cal"))
        port = node.port_async(lambda: (work("port_async"), gevent.sleep(100)))
        node.rcv_async(node.port(), lambda: work("rcv_async"))
        node.peval_async(node.port(), lambda: work("peval_async"))
        node.spawn(node.NODE(), f"{__name__}.spawned")
    wait_until(lambda: {span.name for span in spans.all()} >= {*begun, "spawned"} and len(begun) == 5)
    for name in [*begun, "spawned"]:
        assert spans.line(name) == ["request", name]
    node.kil(port)


@pytest.mark.parametrize("reads", [True, False], ids=["new", "old"])
def test_function_spawned_on_another_node_continues_in_the_trace(
    pair: tuple[Node, Node], spans: Spans, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    one, two = pair
    monkeypatch.setattr(two._network.peers[one.NODE()], "reads_traces", reads)
    with inside(spans, "request"):
        two.spawn(one.NODE(), "tests.spawned_in_a_trace")
    wait_until(lambda: any(span.name == "spawned" for span in spans.all()))
    assert spans.line("spawned") == (["request", "spawned"] if reads else ["spawned"])


@pytest.mark.parametrize("reads", [True, False], ids=["new", "old"])
def test_what_waits_for_a_link_carries_its_trace_if_the_peer_turns_out_to_read_it(
    make_node: MakeNode, spans: Spans, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(Greeting, "reads_traces", reads)
    one, two = make_node(), make_node()
    for node in (one, two):
        instrument(node, messages=True, tracer_provider=spans.provider)
    seen: list[str] = []
    port = one.port(lambda *message: seen.append(f"{message} {current_span_id() != '0'}"))
    with inside(spans, "request"):
        two.spawn(one.NODE(), "tests.spawned_in_a_trace")
        two.snd(port, "message", 1)
        two.call_async(port, "call")
    two.snd(port, "last")
    wait_until(lambda: len(seen) == 3 and any(span.name == "spawned" for span in spans.all()))
    assert spans.line("spawned") == (["request", "spawned"] if reads else ["spawned"])
    assert seen[0] == f"('message', 1) {reads}"
    assert seen[2] == "('last',) False"
    uninstrument(two)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(TRACE, id="without a tracer here"),
        pytest.param({"traceparent": 7}, id="odd"),
        pytest.param([], id="no map"),
    ],
)
def test_function_is_spawned_whatever_its_trace_is(pair: tuple[Node, Node], spans: Spans, headers: Any) -> None:
    one, two = pair
    if headers is TRACE:
        TRACING.tracer = None
    begun: list[int] = []

    @spawnable("tests.begins")
    def begin(number: int) -> None:
        begun.append(number)

    peer = two._network.peers[one.NODE()]
    peer.send(["", SPAWN, two._new_name(), {"tests.begins": headers}, 5])
    wait_until(lambda: begun == [5])


@spawnable("tests.spawned_in_a_trace")
def spawned() -> None:
    tracer = TRACING.tracer
    assert tracer is not None
    with tracer._tracer.start_as_current_span("spawned"):  # type: ignore[attr-defined]
        gevent.sleep(0)


def test_one_trace_never_shows_in_another_port(spans: Spans) -> None:
    node = Node()
    instrument(node, tracer_provider=spans.provider)
    seen: list[bool] = []
    other = node.port(lambda: seen.append(trace.get_current_span().get_span_context().is_valid))
    port = node.port()
    node.serve(port, work=lambda: node.snd(other))
    for _ in range(20):
        with inside(spans, "request"):
            node.call(port, "work")
    wait_until(lambda: len(seen) == 20)
    assert not any(seen)


# --- messages ---


@pytest.fixture
def traced_pair(pair: tuple[Node, Node], spans: Spans) -> Iterator[tuple[Node, Node]]:
    for node in pair:
        instrument(node, messages=True, tracer_provider=spans.provider)
    yield pair
    for node in pair:
        uninstrument(node)


@pytest.mark.parametrize("where", ["here", "there"])
def test_message_brings_its_trace_to_its_handler(traced_pair: tuple[Node, Node], spans: Spans, where: str) -> None:
    one, two = traced_pair
    got: list[Any] = []

    def take(*message: Any) -> None:
        with inside(spans, "work"):
            got.append(message)

    port = (one if where == "there" else two).port(take)
    with inside(spans, "request"):
        two.snd(port, "tag", 1)
    two.snd(port, "outside")
    wait_until(lambda: len(got) == 2)
    assert got == [("tag", 1), ("outside",)]
    (handled,) = [span for span in spans.all() if span.name.startswith("handle ")]
    request = spans.named("request")
    assert handled.kind == trace.SpanKind.CONSUMER
    assert [link.context.span_id for link in handled.links] == [request.context.span_id]
    parents = [spans.parent_of(span) for span in spans.all() if span.name == "work"]
    assert [parent and parent.name for parent in parents] == [handled.name, None]


def test_messages_cost_nothing_more_once_nothing_is_traced(
    pair: tuple[Node, Node], spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    monkeypatch.setattr("aemp_gevent.peers.remote_port.outgoing", lambda: looks.append(None))
    one, two = pair
    port = two.port()
    instrument(two, messages=True, tracer_provider=spans.provider)
    one.snd(port, "traced")
    assert len(looks) == 1
    uninstrument(two)
    one.snd(port, "not traced")
    assert len(looks) == 1
    last = two.port()
    two.snd(last, "first")
    assert type(two.scheduler.ports[last].inbox) is deque


def test_order_of_traced_messages_and_others_is_kept(traced_pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = traced_pair
    got: list[int] = []
    port = one.port(got.append)
    for number in range(200):
        if number % 3:
            two.snd(port, number)
        else:
            with inside(spans, "request"):
                two.snd(port, number)
    wait_until(lambda: len(got) == 200)
    assert got == list(range(200))


def test_receive_continues_in_the_trace_of_what_it_takes(traced_pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = traced_pair
    seen: list[tuple[str, str]] = []

    def body() -> None:
        for tag in ("second", "first", "third"):
            receive(tag)
            seen.append((tag, current_span_id()))

    port = one.port_async(body)
    sent = {}
    for name in ("first", "second"):
        with inside(spans, name) as span:
            two.snd(port, name)
            sent[name] = format(span.get_span_context().span_id, "x")
    two.snd(port, "third")
    wait_until(lambda: len(seen) == 3)
    assert seen == [("second", sent["second"]), ("first", sent["first"]), ("third", "0")]


def test_messages_keep_their_traces_when_a_handler_gives_its_port_a_body(
    traced_pair: tuple[Node, Node], spans: Spans
) -> None:
    one, _ = traced_pair
    seen: list[tuple[Any, str]] = []

    def body() -> None:
        for _ in range(2):
            seen.append((receive(), current_span_id()))

    port = one.port(lambda *_message: one.rcv_async(port, body))
    one.snd(port, "begin")
    sent = []
    for number in range(2):
        with inside(spans, "request") as span:
            one.snd(port, "work", number)
            sent.append(format(span.get_span_context().span_id, "x"))
    wait_until(lambda: len(seen) == 2)
    assert seen == [(("work", number), sent[number]) for number in range(2)]
    assert {type(message) for message, _ in seen} == {tuple}


WAYS_TO_TAKE = {
    "call": lambda node, port: node.call(port, "work"),
    "call of a node": lambda node, _port: node.call(node.NODE(), "inspect", []),
    "syncal": lambda node, port: node.syncal(10, port, "work"),
    "call by another node": lambda _node, _port: _call_by_another_node(),
    "receive": lambda node, _port: _receive_in_a_request(node),
    "receive of a tag": lambda node, _port: _receive_in_a_request(node, "tag"),
    "receive of a message without a trace": lambda node, _port: _receive_in_a_request(node, is_traced=False),
}


def _call_by_another_node() -> Any:
    other = Node()
    port = other.port()
    other.serve(port, work=lambda: "done")
    return other.call(port, "work")


def _receive_in_a_request(node: Node, *patterns: str, is_traced: bool = True) -> Any:
    with node.attach() as port:
        if is_traced:
            with TRACING.tracer._tracer.start_as_current_span("another request"):  # type: ignore[union-attr]
                gevent.spawn(contextvars.copy_context().run, node.snd, port, "tag").join()
        else:
            gevent.spawn(node.snd, port, "tag").join()
        return receive(*patterns, timeout=10)


@pytest.mark.parametrize("way", WAYS_TO_TAKE)
def test_code_in_a_span_of_its_own_stays_there_whatever_it_takes(
    traced_pair: tuple[Node, Node], spans: Spans, way: str
) -> None:
    one, _ = traced_pair
    port = one.port()
    one.serve(port, work=lambda: "done")
    with inside(spans, "request"):
        before = context.get_current()
        assert WAYS_TO_TAKE[way](one, port)
        assert context.get_current() is before


def test_trace_of_a_message_ends_with_the_block_that_received_it(traced_pair: tuple[Node, Node], spans: Spans) -> None:
    one, _ = traced_pair
    seen: list[str] = []

    def work() -> None:
        with one.attach() as port:
            with inside(spans, "request"):
                gevent.spawn(contextvars.copy_context().run, one.snd, port, "tag").join()
            receive(timeout=10)
            seen.append(current_span_id())
        seen.append(current_span_id())

    gevent.spawn(work).join()
    assert seen == [format(spans.named("request").context.span_id, "x"), "0"]


class NamesOfThreads:
    """Takes the name of the thread that sends for the trace."""

    def __init__(self) -> None:
        self.arrivals: list[object] = []

    def current(self) -> object:
        return threading.current_thread().name

    def arrived(self, sent: object) -> None:
        self.arrivals.append(sent)


@between_bytecodes
def test_message_of_another_thread_comes_between_no_message_and_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = NamesOfThreads()
    monkeypatch.setattr(TRACING, "tracer", tracer)
    node = Node()
    owner = node.scheduler.ports[node.port()]
    activate(owner).inbox = owner.mailbox = inbox = TracedInbox(owner)

    def strike(frame: Any, event: str, _arg: object) -> Any:
        if frame.f_code is TracedInbox.append.__code__ and event == "line":
            other = threading.Thread(target=lambda: inbox.append(("other",)), name="other")
            other.start()
            other.join()
        return strike

    def send() -> None:
        sys.settrace(strike)
        inbox.append(("sender",))

    sender = threading.Thread(target=send, name="sender")
    sender.start()
    sender.join()
    names = [name for (name,) in inbox]
    assert set(names) == {"sender", "other"}
    assert inbox[0] == (names[0],)
    while inbox:
        inbox.popleft()
    assert tracer.arrivals == names


def test_traced_inbox_can_be_read_while_another_thread_sends() -> None:
    node = Node()
    owner = node.scheduler.ports[node.port()]
    activate(owner).inbox = owner.mailbox = inbox = TracedInbox(owner)
    inbox.append((1,))
    found = iter(inbox)
    inbox.append((2,))
    assert list(found) == [(1,)]
    assert list(inbox) == [(1,), (2,)]


def test_older_nodes_get_messages_without_traces(
    traced_pair: tuple[Node, Node], spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = traced_pair
    monkeypatch.setattr(two._network.peers[one.NODE()], "reads_traces", False)
    got: list[Any] = []
    port = one.port(lambda *message: got.append((message, trace.get_current_span().get_span_context().is_valid)))
    with inside(spans, "request"):
        two.snd(port, "tag")
        two.snd(port)
    wait_until(lambda: len(got) == 2)
    assert got == [(("tag",), False), ((), False)]


def test_traced_message_reaches_a_node_that_does_not_trace(traced_pair: tuple[Node, Node], spans: Spans) -> None:
    one, two = traced_pair
    got: list[Any] = []
    port = one.port(lambda *message: got.append(message))
    dead = one.port()
    one.kil(dead)
    peer = two._network.peers[one.NODE()]
    TRACING.tracer = None
    for name in (port, dead):
        peer.post_traced(name.partition("#")[2], ("tag", 1), TRACE)
        peer.post_traced(name.partition("#")[2], ("tag", 2), {"traceparent": 7})  # type: ignore[dict-item]
    wait_until(lambda: len(got) == 2)
    assert got == [("tag", 1), ("tag", 2)]


# --- the header ---


def test_header_of_a_call_has_the_trace_and_older_nodes_can_read_it() -> None:
    full = header.in_full("a#b", 3.0, ("a#c",), TRACE)
    assert full == {**TRACE, "reply": "a#b", "chain": ("a#c",), "left": 3.0}
    assert "traceparent" not in header.in_full("a#b", None, ())
    reply = header.read(full, "a", 255)
    assert reply.trace == TRACE
    assert header.read({"reply": "a#b"}, "a", 255).trace is None
    assert header.read(header.in_short("a#b", None, ()), "a", 255).trace is None


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"traceparent": 7}, id="number"),
        pytest.param({"traceparent": "x" * 2000}, id="long"),
        pytest.param({**TRACE, "tracestate": []}, id="state"),
        pytest.param({**TRACE, "tracestate": "x\nERROR forged line"}, id="line-end"),
        pytest.param({**TRACE, "tracestate": "a=\u202e"}, id="direction"),
    ],
)
def test_odd_traces_of_peers_are_left_out(odd: dict[str, Any]) -> None:
    assert trace_in(odd) is None


def test_header_that_names_no_trace_begins_a_new_one(pair: tuple[Node, Node], spans: Spans) -> None:
    one, _ = pair
    port, answers = one.port(), []
    one.serve(port, work=lambda: 1)
    reply = one.port(lambda *answer: answers.append(answer))
    one.snd(port, "work", ReplyPortID(reply, None, (), {"traceparent": "not a trace"}))
    wait_until(lambda: answers)
    assert spans.named("serve work").parent is None


def test_trace_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ReplyPortID("a#b", None, (), TRACE))).trace == TRACE


# --- patched programs ---

PROGRAM = """
    {patch}
    import gevent
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from aemp_gevent import port, serve, call, port_async, Node
    from aemp_gevent.contrib.opentelemetry import instrument
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(tracer_provider=provider)
    tracer = provider.get_tracer("x")
    import time
    asked = port()
    serve(asked, work=lambda n: (time.sleep(0.001) if {sleeps} else gevent.sleep(0.001)))
    def ask(n):
        with tracer.start_as_current_span(f"root {{n}}"):
            call(asked, "work", n)
    gevent.joinall([gevent.spawn(ask, n) for n in range(20)], raise_error=True)
    spans = {{s.context.span_id: s for s in exporter.get_finished_spans()}}
    servers = [s for s in spans.values() if s.name == "serve work"]
    roots = {{spans[spans[s.parent.span_id].parent.span_id].name for s in servers}}
    print(len(servers), len(roots))
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_patched", [False, True], ids=["unpatched", "patched"])
def test_traces_are_right_in_patched_programs_too(is_patched: bool) -> None:
    patch = "from gevent import monkey; monkey.patch_all()" if is_patched else ""
    program = textwrap.dedent(PROGRAM).format(patch=patch, sleeps=is_patched)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "20 20\n", done.stderr
