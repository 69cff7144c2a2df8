# SPDX-License-Identifier: MIT
"""Traces: which request of a user the running code works for, as a tracing library knows it.

The library carries what such a library calls a context, and knows nothing about it. While no tracer is installed, this
costs a look-up for each call, timer and new greenlet, and nothing for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

Trace: TypeAlias = "Mapping[str, str]"
"""The headers ``traceparent`` and ``tracestate`` of W3C's Trace Context."""

HEADERS = ("traceparent", "tracestate")

_MAX_HEADER = 1024
"""Characters of a header that another node sent. A ``tracestate`` has 512 at most."""

F = TypeVar("F", bound=Callable[..., Any])


class Tracer(Protocol):
    """What connects the library to a tracing library. Nothing in here may raise, or switch."""

    def carried(self, function: F) -> F:
        """Return a function that does the same in the context that is current now."""
        ...

    def outgoing(self) -> Trace | None:
        """Return the headers of the current context; None: there is no trace."""
        ...

    def served(self, function: F, tag: object, port: str | None, trace: Trace | None) -> F:
        """Return a function that does the same as the server of a call, whose caller sent these headers."""
        ...

    def handled(self, function: F) -> F:
        """Return a handler that does the same, in the trace of the call that it got, if it got one."""
        ...

    def current(self) -> object:
        """Return the current context, for a message that is being sent; None: there is no trace."""
        ...

    def arrived(self, sent: object) -> None:
        """Continue in the context in which a message was sent, which the running code has just taken; None: in none.

        Code that has begun a span of its own stays in it.
        """

    def arriving(self, headers: Trace) -> AbstractContextManager[object]:
        """Return a block in which the context is that of another node, whose message is put into a mailbox there."""
        ...


class Tracing:
    """The tracer of this process, as tracing libraries are for a process."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        """None: there is none."""
        self.has_messages = False
        """Whether messages carry traces, and not only calls."""


TRACING = Tracing()


def carried(function: F) -> F:
    """Return a function that does the same in the trace that is current now, if there is one."""
    tracer = TRACING.tracer
    return function if tracer is None else tracer.carried(function)


def outgoing() -> Trace | None:
    """Return the headers of the current trace; None: there is none."""
    tracer = TRACING.tracer
    return None if tracer is None else tracer.outgoing()


def handled(function: F) -> F:
    """Return a handler that does the same, in the trace of the call that it got, if it got one."""
    tracer = TRACING.tracer
    return function if tracer is None else tracer.handled(function)


def trace_in(header: Mapping[Any, Any]) -> Trace | None:
    """Return the trace in a header that another node sent; None: there is none that can be one."""
    found = {name: header[name] for name in HEADERS if name in header}
    return found if found and all(map(_can_be_header, found.values())) else None


def _can_be_header(value: object) -> bool:
    # OpenTelemetry logs what it does not understand as it is: no line ends, and nothing that a terminal obeys.
    return isinstance(value, str) and len(value) <= _MAX_HEADER and value.isascii() and value.isprintable()
