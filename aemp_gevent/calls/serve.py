# SPDX-License-Identifier: MIT
"""The side of a ``call`` that answers: what arrives with one, and handlers whose return value is the answer.

A call reaches its port as an ordinary message with the ID of a reply port
appended, as ``cal`` and Perl's AnyEvent::MP send it, so every handler that answers those
answers calls as well. What a call adds, the caller's deadline and the ports that wait for the
answer, travels with the ID of the reply port, which is a :class:`ReplyPortID` here.

A function that returns a :class:`~aemp_gevent.calls.later.Later` answers later, from any greenlet.

An answer is a message to the reply port. Anything else that ends a call (an exception, a circle of
calls) kills the reply port; the caller's side, :mod:`aemp_gevent.calls.call`, reads the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any, Protocol

import greenlet

from aemp_gevent.calls.later import Later
from aemp_gevent.errors import InvalidPortError, MessageTooLargeError, RefusedError, UnencodableMessageError
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.own_end import end_behind
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.reasons import describe
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import traceback_of
from aemp_gevent.runtime.quoting import escaped, quoted
from aemp_gevent.runtime.tracing import TRACING, Trace

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
getcurrent: Callable[[], greenlet.greenlet]
globals().update(getcurrent=greenlet.getcurrent)

FAILED = "call_failed"
"""First element of a reply port's exit reason when the code that served the call raised."""
CYCLE = "call_cycle"
"""First element of a reply port's exit reason when ports wait for each other; their IDs follow."""

MAX_TRACEBACK = 10_000
"""Characters of a traceback that travel: the last ones, because the first frames are the library's."""


class AnswerWay(Protocol):
    """The way that a call came by, and that its answer goes by."""

    def answer(self, port: str, answer: object) -> bool:
        """Send the answer to a reply port, if nothing about that is unusual; return whether it was sent. May pause.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        ...


class ReplyPortID(str):
    """The ID of the port that waits for the answer to a call, with the call's deadline and chain."""

    __slots__ = ("chain", "deadline", "trace", "way")

    deadline: float | None
    """The time when the caller gives up, on this process's monotonic clock; None: never."""
    chain: tuple[str, ...]
    """The ports that wait for the answer; the last one is the caller."""
    trace: Trace | None
    """The trace that the caller works for; None: there is none."""
    way: AnswerWay | None
    """The way that the answer may go without being looked for; None: it must be."""

    def __new__(
        cls, port: str, deadline: float | None, chain: Sequence[str], trace: Trace | None = None
    ) -> ReplyPortID:
        self = str.__new__(cls, port)
        self.deadline = deadline
        self.trace = trace
        self.chain = tuple(chain)
        self.way = None
        return self

    def __copy__(self) -> ReplyPortID:
        return self

    def __deepcopy__(self, _memo: object) -> ReplyPortID:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # By the wall clock, which other processes share.
        until = None if self.deadline is None else time() + self.deadline - monotonic()
        return _restore, (str(self), until, self.chain, self.trace)


def _restore(port: str, until: float | None, chain: tuple[str, ...], trace: Trace | None) -> ReplyPortID:
    """Return a reply port that was pickled, perhaps in another process."""
    return ReplyPortID(port, None if until is None else monotonic() + until - time(), chain, trace)


class Wait:
    """The call that a port is blocked in.

    Args:
        called: The port that was called.
        reply: The port that waits for the answer.
    """

    __slots__ = ("called", "reply")

    def __init__(self, called: str, reply: Port) -> None:
        self.called = called
        self.reply = reply

    @property
    def is_over(self) -> bool:
        """Whether the answer came, or cannot come any more, and the caller has not looked yet."""
        return bool(self.reply.inbox) or self.reply.dying is not None


class ServeHost(Protocol):
    """The node that serves calls, as this module sees it."""

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def waiting(self) -> dict[Port, Wait]:
        """The ports that are blocked in a call."""
        ...

    def split_port(self, port: object) -> tuple[str, str]:
        """Return a port ID's node ID and port name, or raise ``InvalidPortError``."""
        ...

    def snd(self, port: object, *msg: Any) -> None: ...
    def kil(self, port: object, *reason: Any) -> None: ...


def is_port(host: ServeHost, thing: object) -> bool:
    """Return whether something that came with a message is the ID of a port, and not of a node port.

    Code that answers outside of any port, where ``snd`` and ``kil`` raise for anything else, checks it first.
    """
    try:
        # Not isinstance(), which asks proxies for their class: they may raise there.
        return issubclass(type(thing), str) and bool(host.split_port(thing)[1])
    except InvalidPortError:
        return False


def call_of(message: Message) -> ReplyPortID | None:
    """Return the reply port of a message that is a call; None for one that is not."""
    # Not isinstance(): the element may be anything, even a proxy that raises there.
    return message[-1] if message and issubclass(type(message[-1]), ReplyPortID) else None


def take(host: ServeHost, port: Port, message: Message, reply: ReplyPortID) -> None:
    """Deliver a call to its port, unless that port waits for a port in the call's chain."""
    wait = host.waiting.get(port)
    if wait is not None and wait.called in reply.chain and not wait.is_over:
        circle = (*reply.chain[reply.chain.index(wait.called) :], port.id)
        host.kil(reply, CYCLE, *dict.fromkeys(circle))
        return
    host.scheduler.deliver(port, (*message, reply))


def call_being_served() -> ReplyPortID | None:
    """Return the reply port of the call that this greenlet serves."""
    return getattr(getcurrent(), "aemp_call", None)


def caller_of_call() -> str | None:
    """Return the ID of the node whose call this greenlet serves; None: there is no call, or its origin is not proven.

    The node port has checked that a peer's call has a reply port of that peer. An ordinary message with
    a reply port at its end can name any port.
    """
    call = call_being_served()
    return call.partition("#")[0] if isinstance(call, ReplyPortID) else None


def time_left(reply: str | None = None) -> float | None:
    """Return the seconds until the caller stops waiting for the answer to a call; 0 after that.

    Args:
        reply: The reply port that a handler, or ``receive``, got with the call. None: the reply port of
            the call that the running handler serves (see ``serve``).

    Returns:
        Seconds; None when the caller waits forever, or its deadline is unknown. Perl nodes, ``cal`` and
        ``syncal`` do not send one.
    """
    call = call_being_served() if reply is None else reply
    if not isinstance(call, ReplyPortID) or call.deadline is None:
        return None
    return max(call.deadline - monotonic(), 0.0)


def server(host: ServeHost, tag: object, function: Handler, complaints: BoundedLog | None = None) -> Handler:
    """Return a handler that calls ``function``, and answers with what it returns or raises.

    Args:
        host: The node.
        tag: The tag that is served.
        function: The function that serves it.
        complaints: The log for what callers do wrong; None: a log of this handler's own.
    """
    complaints = complaints or BoundedLog(host.scheduler.log, f"the server of {quoted(tag)}")

    def serve(*rest: Any) -> None:
        call = call_of(rest)
        reply = rest[-1] if rest else None
        if call is None and not is_port(host, reply):
            text = "message %s dropped: a call ends with a reply port, and this does not; use call(), or rcv() here"
            complaints.warn(text, tag)
            return
        if call is not None and call.deadline is not None and monotonic() >= call.deadline:
            complaints.log(logging.DEBUG, "skipped a call of %s: nobody waits for the answer any more", tag)
            return
        current = getcurrent()
        before = getattr(current, "aemp_call", None)
        current.aemp_call = reply  # type: ignore[attr-defined]  # any greenlet can carry it
        try:
            work = function
            if TRACING.tracer is not None:
                port = current_port()
                trace = None if call is None else call.trace
                work = TRACING.tracer.served(function, tag, None if port is None else port.id, trace)
            answer = work(*rest[:-1])
            if not issubclass(type(answer), Later):  # as in call_of()
                _answer(host, reply, call, answer)
            return
        # Not BaseException: a kill or a foreign Timeout is not the caller's business. The port dies of it,
        # and the caller hears of that.
        except Exception as error:  # noqa: BLE001
            failure = error
        finally:
            current.aemp_call = before  # type: ignore[attr-defined]
        end = end_behind(failure, current_port())
        if end is not None:
            host.kil(reply, *end)  # the caller's failure is not a crash, either
        elif isinstance(failure, RefusedError):  # nor is what the caller may not do
            complaints.warn("call of %s for %s refused: %s", tag, reply, failure)
            fail_with(host, reply, describe(failure))
        else:
            if call is None:  # callers of cal and syncal do not learn of it
                complaints.log(logging.ERROR, "exception in the server of %s", tag, exc_info=failure)
            fail(host, reply, failure)
        del failure  # its traceback has this frame: a reference cycle, which would keep the call's arguments alive

    return serve


def _answer(host: ServeHost, reply: object, call: ReplyPortID | None, answer: object) -> None:
    """Send the answer to a reply port, by the way that the call came by if that is possible."""
    if call is None or call.way is None or not call.way.answer(call, answer):
        host.snd(reply, answer)


def fail(host: ServeHost, reply: object, error: BaseException) -> None:
    """Report an exception to a caller, whose reply port :func:`is_port` accepts. Never raises."""
    text = describe(error)
    fail_with(host, reply, text, traceback_of(error)[-MAX_TRACEBACK:])


def fail_with(host: ServeHost, reply: object, text: str, trace: str = "") -> None:
    """Fail a call with a text, which its caller gets as ``RemoteError``. Never raises."""
    for words in ((text, trace), (escaped(text), ""), ()):
        try:
            host.kil(reply, FAILED, *words)
        except (UnencodableMessageError, MessageTooLargeError):
            continue
        return
