# SPDX-License-Identifier: MIT
"""The side of a ``call`` that answers: what arrives with one, and handlers whose return value is the answer.

A call reaches its port as a message like any other, with the ID of a reply port
appended, as ``cal`` and Perl's AnyEvent::MP send it: every handler that answers those
answers calls. What a call has beside that, until when somebody waits for the answer, and
which ports do, travels with the reply port's ID, which is a :class:`ReplyPort` here.

An answer is a message to the reply port. What is not an answer (an exception, a circle of
calls) is its death: the caller's side, :mod:`aemp_gevent.calls.call`, hears the reason.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

from greenlet import getcurrent

from aemp_gevent.errors import InvalidPortError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.reasons import describe
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quantities import to_seconds
from aemp_gevent.runtime.quoting import escaped, quoted
from aemp_gevent.wire.limits import is_long

FAILED = "call_failed"
"""First element of the reason that a reply port dies of when the code that served the call raised."""
CYCLE = "call_cycle"
"""The same for ports that wait for each other; they follow."""

MAX_TRACEBACK = 10_000
"""Characters of a traceback that travel, the last ones: the first frames are the library's."""

MAX_CHAIN = 1000
"""Ports that wait for an answer, one for the other, of which a call tells."""


class ReplyPort(str):
    """The port that wants the answer to a call, as the call's handler gets it: a port ID that knows a bit more."""

    __slots__ = ("chain", "deadline")

    deadline: float | None
    """When the caller gives up, on this process's monotonic clock; None: never."""
    chain: tuple[str, ...]
    """The ports that wait for the answer; the last one is the caller."""

    def __new__(cls, port: str, deadline: float | None, chain: Sequence[str]) -> ReplyPort:
        self = super().__new__(cls, port)
        self.deadline = deadline
        self.chain = tuple(chain)
        return self

    def __copy__(self) -> ReplyPort:
        return self

    def __deepcopy__(self, _memo: object) -> ReplyPort:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # By the clock on the wall, which other processes have, too.
        until = None if self.deadline is None else time() + self.deadline - monotonic()
        return _restore, (str(self), until, self.chain)


def _restore(port: str, until: float | None, chain: tuple[str, ...]) -> ReplyPort:
    """Return a reply port that was pickled, perhaps in another process."""
    return ReplyPort(port, None if until is None else monotonic() + until - time(), chain)


class Wait(NamedTuple):
    """What a port is blocked in: a call."""

    called: str
    reply: Port

    @property
    def is_over(self) -> bool:
        """Whether the answer is there, or none will come, and the caller has only not looked yet."""
        return bool(self.reply.inbox) or self.reply.dying is not None


class Host(Protocol):
    """The node that serves."""

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


def take(host: Host, port: Port, message: Message, reply: ReplyPort) -> None:
    """Give a call to the port that it is for, unless that waits for one of those who wait for the answer."""
    wait = host.waiting.get(port)
    if wait is not None and wait.called in reply.chain and not wait.is_over:
        circle = (*reply.chain[reply.chain.index(wait.called) :], port.id)
        host.kil(reply, CYCLE, *dict.fromkeys(circle))
        return
    host.scheduler.deliver(port, (*message, reply))


def read_header(header: Any, caller: str | None, max_name_bytes: int) -> ReplyPort:
    """Read what came with another node's call.

    Args:
        header: As it came: a map with ``reply``, ``left`` (seconds, or absent), and ``chain``.
        caller: The node that it came from; None: this one.
        max_name_bytes: How long a node ID, and a port name, may be.

    Raises:
        ValueError, TypeError, KeyError: It is not such a map; the text is for the log.
    """
    reply, left, chain = header["reply"], header.get("left"), header.get("chain", ())
    chain = chain[-MAX_CHAIN:]  # so a longer circle is not noticed
    if any(is_long(port, 2 * max_name_bytes) for port in (reply, *chain)):
        raise ValueError(f"a port ID in its header is longer than {2 * max_name_bytes} bytes")
    node, _, name = reply.partition("#")
    if not name or (caller is not None and node != caller):
        raise ValueError(f"{quoted(reply)} is not a port of the calling node")
    if left is not None and not left >= 0:  # nor is NaN
        raise ValueError(f"{quoted(left)} is not a number of seconds")
    left = to_seconds(left, "call()", "left")  # JSON and CBOR have integers of any size
    return ReplyPort(reply, None if left is None else monotonic() + left, chain)


def call_being_served() -> ReplyPort | None:
    """Return the reply port of the call that this greenlet serves."""
    return getattr(getcurrent(), "aemp_call", None)


def caller_of_call() -> str | None:
    """Return the ID of the node whose call this greenlet serves; None: none, or one that does not prove whose it is.

    The node port has checked that a peer's call has a reply port of that peer. What came as a usual message,
    with a reply port at its end, may name any.
    """
    call = call_being_served()
    return call.partition("#")[0] if isinstance(call, ReplyPort) else None


def time_left(reply: str | None = None) -> float | None:
    """Return the seconds for which somebody still waits for the answer to a call; 0 when nobody does any more.

    Args:
        reply: The reply port that a handler, or ``receive``, got with the call. None: that of the
            call which the running handler serves (see ``serve``).

    Returns:
        Seconds; None when that is not known, or the caller waits forever. Perl callers, and
        those that use ``cal`` and ``syncal``, do not tell.
    """
    call = call_being_served() if reply is None else reply
    if not isinstance(call, ReplyPort) or call.deadline is None:
        return None
    return max(call.deadline - monotonic(), 0.0)


def server(host: Host, tag: object, function: Handler, complaints: BoundedLog | None = None) -> Handler:
    """Return a handler that calls ``function``, and answers with what it returns or raises.

    Args:
        host: The node.
        tag: What is served.
        function: What serves it.
        complaints: Where to log what callers do wrong; None: apart for this handler.
    """
    complaints = complaints or BoundedLog(host.scheduler.log, f"the server of {quoted(tag)}")

    def serve(*rest: Any) -> None:
        reply = rest[-1] if rest else None
        if not isinstance(reply, ReplyPort) and not _is_port(host, reply):
            text = "message %s dropped: a call ends with a reply port, and this does not; use call(), or rcv() here"
            complaints.warn(text, tag)
            return
        if isinstance(reply, ReplyPort) and reply.deadline is not None and monotonic() >= reply.deadline:
            complaints.log(logging.DEBUG, "skipped a call of %s: nobody waits for the answer any more", tag)
            return
        greenlet = getcurrent()
        before = getattr(greenlet, "aemp_call", None)
        greenlet.aemp_call = reply  # type: ignore[attr-defined]  # any greenlet can carry it
        try:
            host.snd(reply, function(*rest[:-1]))
            return
        # Not BaseException: a kill or a foreign Timeout is not the caller's business. The port dies of it,
        # and that the caller hears.
        except Exception as error:  # noqa: BLE001
            failure = error
        finally:
            greenlet.aemp_call = before  # type: ignore[attr-defined]
        if not isinstance(reply, ReplyPort):  # cal and syncal do not tell their callers
            complaints.log(logging.ERROR, "exception in the server of %s", tag, exc_info=failure)
        fail(host, reply, failure)
        del failure  # its traceback has this frame: a circle, which would keep what the call came with

    return serve


def fail(host: Host, reply: object, error: BaseException) -> None:
    """Report an exception to a caller. Never raises."""
    text = describe(error)
    trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
    for words in ((text, trace), (escaped(text), ""), ()):
        try:
            host.kil(reply, FAILED, *words)
        except (UnencodableMessageError, MessageTooLargeError):
            continue
        return


def _is_port(host: Host, thing: object) -> bool:
    try:
        return isinstance(thing, str) and bool(host.split_port(thing)[1])
    except InvalidPortError:
        return False
