# SPDX-License-Identifier: MIT
"""Blocking ``receive``: Erlang's selective receive, and Coro::MP's forms of it.

These act on the port of the running greenlet and need no node. How a greenlet that
waits gives way, and to whom, is :meth:`aemp_gevent.scheduler.Scheduler.wait`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from greenlet import getcurrent, greenlet

from aemp_gevent.context import require_port
from aemp_gevent.errors import PortKilled, ReceiverBusyError, ReceiveTimeout
from aemp_gevent.handlers import Handlers
from aemp_gevent.matching import Matcher, Message, Pattern, match_any_of
from aemp_gevent.port import DEAD, INSIDE, RUNNING, STARTED, Port
from aemp_gevent.quantities import Seconds, to_seconds

_RAISE: Final = object()


class Deadline:
    """A timer that resumes a greenlet waiting for a port; close it afterwards."""

    def __init__(self, port: Port, seconds: float) -> None:
        self.expired = False
        self._port = port
        self._timer = port.scheduler.start_timer(seconds, self._expire)

    def close(self) -> None:
        self._port.scheduler.end_timer(self._timer)

    def _expire(self) -> None:  # on the hub
        self.expired = True
        port = self._port
        if port.waiter is not None and not port.state:
            port.scheduler.enqueue(port)


def receive(*patterns: Pattern, timeout: Seconds | None = None, default: Any = _RAISE) -> Any:
    """Return the first queued message that matches any pattern, as a tuple; wait for one if none does.

    Messages that do not match stay queued, in order. On a port with a greenlet of its
    own, its tag handlers and patterns are served here, in order; what they leave is
    what this sees. May switch greenlets, except with ``timeout=0``: a loop that only
    polls starves everybody else.

    Args:
        patterns: Each a tag (str), a list of elements as in ``rcv``, a type (of the
            first element), or a predicate called with ``*msg``. None given: any message.
            What a predicate raises is raised here; an element that cannot be compared does not match.
        timeout: Seconds to wait; None waits forever, 0 polls.
        default: Returned instead of raising ``ReceiveTimeout``.

    Raises:
        ReceiveTimeout: Nothing matched in time.
        PortKilled: The port was killed; let it pass. Every later call raises it again.
        NoPortContextError: Not in a port; see ``port_async`` and ``attach``.
        ReceiverBusyError: Another greenlet receives for this port.
        TypeError: One of the patterns is none.
    """
    current = getcurrent()
    port: Port | None = getattr(current, "aemp_port", None)
    if (
        port is not None
        and not patterns
        and timeout is None
        and port.handlers is None
        and port.runner is current
        and port.state == RUNNING
    ):
        # The usual case by far: an actor takes its next message. receive_for would do the
        # same in twice the time.
        scheduler = port.scheduler
        while port.dying is None:
            inbox = port.inbox
            if inbox:
                scheduler.credit -= 1
                if scheduler.credit <= 0 and scheduler.turn_is_over():
                    scheduler.visit_hub(port, current)
                    continue
                return inbox.popleft()
            scheduler.wait(port, current, 0)
    limit = to_seconds(timeout, "receive()")
    try:
        return receive_for(port or require_port("receive()"), match_any_of(patterns), limit)
    except ReceiveTimeout:
        if default is _RAISE:
            raise
        return default


def get(tag: str, timeout: Seconds | None = None) -> Message:
    """Wait for the first message with this tag, and return it without the tag.

    Otherwise like :func:`receive`, with the same errors.

    Source:
        Coro::MP, ``get``.
    """
    return receive_for(require_port("get()"), match_any_of((tag,)), to_seconds(timeout, "get()"))[1:]


def get_cond(predicate: Callable[..., Any], timeout: Seconds | None = None) -> Message:
    """Wait for the first message for which ``predicate(*msg)`` is true, and return all of it.

    Otherwise like :func:`receive`, with the same errors.

    Source:
        Coro::MP, ``get_cond``.
    """
    return receive_for(require_port("get_cond()"), match_any_of((predicate,)), to_seconds(timeout, "get_cond()"))


def receive_for(port: Port, matches: Matcher | None, timeout: float | None) -> Message:
    """Receive for a port that this greenlet holds; for :func:`receive` and whoever waits for an answer."""
    current = getcurrent()
    scheduler = port.scheduler
    _check_holder(port)
    scanned = 0  # how many messages at the front of the inbox are known not to match
    deadline: Deadline | None = None
    try:
        while True:
            inbox = port.inbox
            if inbox and port.dying is not None:
                scheduler.doom(port)  # handlers, predicates and our caller may block
            while inbox and scanned < len(inbox):
                message = inbox[scanned]
                if port.main is STARTED and port.handlers is not None and _serve(port, port.handlers, message, scanned):
                    _spend(port, current, timeout)
                    scanned = 0  # the handler may have received, and so shifted the inbox
                    continue
                matched = matches is None or matches(message)
                if matched:
                    # Paid before it is taken: a foreign Timeout that strikes meanwhile must not lose it.
                    # The same as _spend(), in line.
                    scheduler.credit -= 1
                    if scheduler.credit <= 0 and (timeout is None or timeout > 0) and scheduler.turn_is_over():
                        scheduler.visit_hub(port, current)
                # A predicate may have received, too, and so shifted the inbox.
                if scanned < len(inbox) and inbox[scanned] is message:
                    if matched:
                        del inbox[scanned]
                        return message
                    scanned += 1
                else:
                    scanned = 0
            # In this order: a message that is there beats the kill and the timeout that
            # came after it, or in the same loop iteration.
            if port.state == DEAD:
                raise PortKilled(*(port.dying or ()))
            if port.dying is not None:
                scheduler.die(port, port.dying)
                raise PortKilled(*port.dying)
            if timeout is not None and (timeout <= 0 or (deadline is not None and deadline.expired)):
                raise ReceiveTimeout(timeout)
            if timeout is not None and deadline is None:
                deadline = Deadline(port, timeout)
            scheduler.credit -= 1  # predicates that send to each other's ports find no message, ever
            scheduler.wait(port, current, scanned)
    finally:
        if deadline is not None:
            deadline.close()


def _check_holder(port: Port) -> None:
    """Refuse to receive where another greenlet is the one that may."""
    port.scheduler.check_thread("receive()")
    if port.state == DEAD:
        raise PortKilled(*(port.dying or ()))
    if port.runner is not getcurrent() or port.state != RUNNING:
        raise ReceiverBusyError(port.id, "this greenlet only borrows its context (psub, peval, a callback)")


def _spend(port: Port, current: greenlet, timeout: float | None) -> None:
    """Pay for a message; a greenlet that always finds one must not keep the hub from running, unless it polls."""
    scheduler = port.scheduler
    scheduler.credit -= 1
    if scheduler.credit <= 0 and (timeout is None or timeout > 0) and scheduler.turn_is_over():
        scheduler.visit_hub(port, current)


def _serve(port: Port, handlers: Handlers, message: Message, index: int) -> bool:
    """Give a message to the handlers that want it; an exception in one kills the port."""
    served = False
    failure: BaseException | None = None
    port.main = INSIDE
    try:
        calls = handlers.find(message)
        inbox = port.inbox
        # A pattern's predicate may have received, and so shifted the inbox.
        if calls and inbox and index < len(inbox) and inbox[index] is message:
            del inbox[index]
            served = True
            for call in calls:
                call()
    except BaseException as error:  # noqa: BLE001
        failure = error
    port.main = STARTED
    if failure is not None:
        port.scheduler.fail(port, failure)
        raise PortKilled(*(port.dying or ())) from failure
    return served
