# SPDX-License-Identifier: MIT
"""Blocking ``receive``: Erlang's selective receive, and Coro::MP's forms of it.

These functions act on the port of the running greenlet and need no node. Which message they return is decided in
:mod:`aemp_gevent.ports.receiving`. Compiled, ``receive.pyx`` takes the place of this module: it does the same with
functions that the interpreter calls directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from greenlet import getcurrent

from aemp_gevent.errors import ReceiveTimeout
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.patterns import Message, Pattern, Tag, match_any_of
from aemp_gevent.ports.port import RUNNING, Port
from aemp_gevent.ports.receiving import receive_for
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.quantities import Seconds, to_seconds

_RAISE: Final = str(b"raise ReceiveTimeout", "ascii")
"""Made here, so that no other object is identical; a text, because signatures of C functions show only plain values."""


def receive(*patterns: Pattern, timeout: Seconds | None = None, default: Any = _RAISE) -> Any:
    """Return the first queued message that matches any pattern, as a tuple; wait for one if none does.

    Messages that do not match stay queued, in order. On a port with a greenlet of its
    own, its tag handlers and patterns are served here, in order; what they leave is
    what this sees. May switch greenlets, also while it looks through a long mailbox, except
    with ``timeout=0``: a loop that only polls starves everybody else. A predicate may receive
    itself; it is asked once about each message.

    Args:
        patterns: Alternatives, each for a whole message: a tag (str), a list of elements as in ``rcv``, a type (of the
            first element), or a predicate called with ``*msg``. None given: any message.
            What a predicate raises is raised here; an element that cannot be compared does not match.
        timeout: Seconds to wait; None waits forever, 0 polls: it looks at what is queued when it is called.
        default: Returned instead of raising ``ReceiveTimeout``.

    Raises:
        ReceiveTimeout: Nothing matched in time.
        PortKilled: The port was killed; let it pass. Every later call raises it again.
        NoPortContextError: Not in a port; see ``port_async`` and ``attach``.
        ReceiverBusyError: Another greenlet receives for this port.
        EndlessWaitError: Nothing is left that could send, and no timeout is given.
        TypeError: One of the patterns is not a pattern, or the timeout is not a number.
    """
    current = getcurrent()
    port: Port | None
    if type(current) is Runner:  # an attribute of a known class, as in nearly all cases
        runner: Runner = current
        port = runner.aemp_port
    else:
        port = getattr(current, "aemp_port", None)
    if port is not None and not patterns and timeout is None:
        cell = port.cell
        if cell.handlers is None and cell.runner is current and port.state == RUNNING:
            # By far the most common case: an actor takes its next message. receive_for would do the
            # same in twice the time.
            scheduler: Scheduler = cell.scheduler  # type: ignore[assignment]  # the only kind of PortHost
            while cell.dying is None:
                inbox = cell.inbox
                if inbox:
                    scheduler.credit -= 1
                    if scheduler.credit <= 0 and scheduler.turn_is_over():
                        scheduler.visit_hub(port, current)
                        continue
                    scheduler.scan = None
                    return inbox.popleft()
                scheduler.wait(port, current, 0)
    limit = to_seconds(timeout, "receive()")
    try:
        return receive_for(port or require_port("receive()"), match_any_of(patterns), limit)
    except ReceiveTimeout:
        if default is _RAISE:
            raise
        return default


def get(tag: Tag, timeout: Seconds | None = None) -> Message:
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
