# SPDX-License-Identifier: MIT
"""Traces of OpenTelemetry across ports and nodes. Needs the extra ``opentelemetry``.

Once in each process, after the SDK is set up, and before ports get their handlers::

    from aemp_gevent.contrib.opentelemetry import instrument

    instrument()

Each ``call`` becomes a span, and so does what serves it, here or on another node: the header of the call carries W3C's
``traceparent``. Callbacks of ``after`` and ``cal``, ports with greenlets of their own, and spawned functions, here and
on other nodes, continue in the trace in which they were made. Nothing is patched.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeVar, cast

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    text = "aemp_gevent.contrib.opentelemetry needs opentelemetry-api: pip install 'aemp_gevent[opentelemetry]'"
    raise ImportError(text) from error

from aemp_gevent import default_node
from aemp_gevent._version import __version__
from aemp_gevent.calls.serve import call_of
from aemp_gevent.node.access import request_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.peers.remote_port import trace_messages
from aemp_gevent.ports.callbacks import is_python_function
from aemp_gevent.ports.port import trace_inboxes
from aemp_gevent.ports.reasons import describe
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import TRACING, Trace

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["instrument", "uninstrument"]

F = TypeVar("F", bound=Callable[..., Any])

_PROPAGATOR = TraceContextTextMapPropagator()

_MAX_TAG = 100  # characters of the name of a span

_OURS: ContextVar[Context | None] = ContextVar("aemp_gevent_trace", default=None)
"""The context that the library made the current one here. Another one belongs to a span that the code has begun."""

_complaints = BoundedLog(Log().log, "spans that fail")


def instrument(
    node: Node | None = None, *, messages: bool = False, tracer_provider: TracerProvider | None = None
) -> None:
    """Trace the calls of a node's code, and what serves calls in this process, from now on. Idempotent for a node.

    Handlers and functions that are registered before do not get the trace of the calls that they handle; functions
    given to ``serve`` do.

    Args:
        node: The node whose calls become spans; None: the default node. Call this again for others, and in forked
            children, whose nodes are fresh ones.
        messages: Whether plain messages carry the trace as well, and become spans where handlers get them. For ports
            that get their first message after this call.
        tracer_provider: Where spans go; None: the global provider.
    """
    tracer = trace.get_tracer("aemp_gevent", __version__, tracer_provider)
    if not isinstance(TRACING.tracer, _OpenTelemetry) or tracer_provider is not None:
        TRACING.tracer = _OpenTelemetry(tracer)
    if messages:
        _trace_messages(True)
    host = request_host_of(default_node if node is None else node)
    host.unwatch_calls(_CallSpans)
    host.watch_calls(_CallSpans(tracer))


def uninstrument(node: Node | None = None) -> None:
    """Stop tracing. Handlers that were registered meanwhile stay as they are, and do no harm."""
    TRACING.tracer = None
    _trace_messages(False)
    request_host_of(default_node if node is None else node).unwatch_calls(_CallSpans)


def _trace_messages(wanted: bool) -> None:
    TRACING.has_messages = wanted
    trace_inboxes(wanted)
    trace_messages(wanted)


class _OpenTelemetry:
    """What the library asks: see :class:`aemp_gevent.runtime.tracing.Tracer`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def carried(self, function: F) -> F:
        now = context.get_current()
        return _bound(function, now) if now else function

    def outgoing(self) -> Trace | None:
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers)
        return headers or None

    def served(self, function: F, tag: object, port: str | None, trace: Trace | None) -> F:
        tracer = self._tracer

        def serve(*args: Any) -> Any:
            attributes = {"rpc.system": "aemp", "rpc.method": _name_of(tag), "aemp.port": port or ""}
            with _span(tracer, f"serve {_name_of(tag)}", SpanKind.SERVER, _context_of(trace), attributes):
                return function(*args)

        return cast("F", serve)

    def handled(self, function: F) -> F:
        if not is_python_function(function):  # whose return values mean something else
            return function

        name = f"handle {getattr(function, '__qualname__', 'a message')}"

        def handle_message(*args: Any) -> Any:
            sender = trace.get_current_span().get_span_context()
            if not sender.is_valid:
                return function(*args)
            links = [trace.Link(sender)]
            with _span(self._tracer, name, SpanKind.CONSUMER, links=links):
                return function(*args)

        @functools.wraps(function)
        def handle(*args: Any) -> Any:
            call = call_of(args)
            if call is None:
                return handle_message(*args)
            if call.trace is None:
                return function(*args)
            token = context.attach(_context_of(call.trace))
            try:
                return function(*args)
            finally:
                context.detach(token)

        return cast("F", handle)

    def current(self) -> object:
        now = context.get_current()
        return now if trace.get_current_span(now).get_span_context().is_valid else None

    def arrived(self, sent: object) -> None:
        now = context.get_current()
        if now and now is not _OURS.get():
            return
        # Never detached: the library gives the next port that is served here a fresh context.
        if now or sent is not None:
            where = context.Context() if sent is None else cast("Context", sent)
            context.attach(where)
            _OURS.set(where)

    @contextlib.contextmanager
    def arriving(self, headers: Trace) -> Generator[None, None, None]:
        token = context.attach(_context_of(headers))
        try:
            yield
        finally:
            context.detach(token)


class _CallSpans:
    """Makes a span of each call that a node's code makes. Calls to nodes, which operators' tools make, have none."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def began(self, port: str, tag: object) -> _CallSpan | None:
        if "#" not in port:
            return None
        attributes = {
            "rpc.system": "aemp",
            "rpc.method": _name_of(tag),
            "server.address": port.partition("#")[0],
            "aemp.port": port,
        }
        span = _started(self._tracer, f"call {_name_of(tag)}", SpanKind.CLIENT, None, attributes)
        return None if span is None else _CallSpan(span)


class _CallSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] = context.attach(trace.set_span_in_context(span))

    def sent(self) -> None:
        context.detach(self._token)

    def ended(self, error: BaseException | None) -> None:
        _ended(self._span, error)


def _bound(function: F, where: Context) -> F:
    """Return a function that does the same in another context."""

    @functools.wraps(function)
    def bound(*args: Any) -> Any:
        token, own_token = context.attach(where), _OURS.set(where)
        try:
            return function(*args)
        finally:
            _OURS.reset(own_token)
            context.detach(token)

    return cast("F", bound)


def _context_of(headers: Trace | None) -> Context:
    """Return the context that headers name. Not on top of the current one, which is another request's."""
    empty = context.Context()
    return empty if headers is None else _PROPAGATOR.extract(headers, empty)


def _name_of(tag: object) -> str:
    return tag[:_MAX_TAG] if isinstance(tag, str) else quoted(tag, _MAX_TAG)


# --- spans: samplers and processors are the program's, and must not make calls and handlers fail ---


@contextlib.contextmanager
def _span(
    tracer: trace.Tracer,
    name: str,
    kind: SpanKind,
    where: Context | None = None,
    attributes: Mapping[str, str] | None = None,
    links: Sequence[trace.Link] = (),
) -> Generator[None, None, None]:
    """Run a block in a span of its own, below the span of a context; None: the current one."""
    span = _started(tracer, name, kind, where, attributes, links)
    outer = context.get_current() if where is None else where
    token = context.attach(outer if span is None else trace.set_span_in_context(span, outer))
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
        raise
    finally:
        context.detach(token)
        if span is not None:
            _ended(span, failure)
        del failure  # its traceback has this frame: a reference cycle, which would keep the arguments alive


def _started(
    tracer: trace.Tracer,
    name: str,
    kind: SpanKind,
    where: Context | None,
    attributes: Mapping[str, str] | None,
    links: Sequence[trace.Link] = (),
) -> Span | None:
    try:
        return tracer.start_span(name, where, kind, attributes, links)
    except Exception as error:  # noqa: BLE001
        _complaints.warn("span %s left out: %s", name, describe(error))
        return None


def _ended(span: Span, error: BaseException | None) -> None:
    try:
        if error is not None:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end()
    except Exception as problem:  # noqa: BLE001
        _complaints.warn("span lost: %s", describe(problem))
