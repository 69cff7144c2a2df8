# SPDX-License-Identifier: MIT
"""Waiting for an answer: on a port that is made for it, until a message, a death or a timeout ends the wait."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, TypeAlias, overload

import greenlet

from aemp_gevent.errors import NoPortContextError, PortKilled, ReceiveTimeout
from aemp_gevent.ports import monitors
from aemp_gevent.ports.context import ON_THE_HUB
from aemp_gevent.ports.monitors import KillMonitor, Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import RUNNING, AnyPort, Port, ReplyPort, activate
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.receiving import receive_for
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import Scheduler

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
getcurrent: Callable[[], greenlet.greenlet]
globals().update(getcurrent=greenlet.getcurrent)


class Make(Protocol):
    """A function that makes ports without handlers, which nobody reaches before they are added to a table."""

    @overload
    def __call__(self) -> Port: ...
    @overload
    def __call__(self, kind: type[AnyPort]) -> AnyPort: ...


class AskingHost:
    """The node whose code asks, as :mod:`aemp_gevent.calls` sees it. A base class.

    Not a protocol: compiled code reads the attributes of a class that it knows without looking them up. They are the
    node's own functions, because methods that call these would cost every call of a program.
    """

    __slots__ = ("find", "make", "monitor", "own_end", "scheduler", "snd", "split_or_drop", "split_port")

    scheduler: Scheduler
    make: Make
    find: Callable[[object], Port | None]
    """Returns the living local port of this ID, if there is one."""
    split_port: Callable[[object], tuple[str, str]]
    """Returns a port ID's node ID and port name, or raises ``InvalidPortError``."""
    split_or_drop: Callable[[str, object], tuple[str, str] | None]
    """Returns a port ID's node ID and port name; or raises, or in code of a port logs that it is not one."""
    monitor: Callable[[object, Handler, Port | None], Monitor]
    """Calls a function when a port dies."""
    snd: Callable[..., None]
    own_end: Callable[[Reason], Reason | None]
    """Returns the shutdown of this node as a reason, if an answer is lost for this reason because of it."""


class Guard(Protocol):
    """A monitor or a timer that can be cancelled."""

    def cancel(self) -> None:
        """Cancel it. Idempotent."""


Ask: TypeAlias = Callable[..., "Guard | None"]
"""A function that asks: its first argument is the port that waits for the answer."""


class Unanswered(Exception):
    """The reply port was killed. Never leaves the library."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def wait_for_answer(
    host: AskingHost, call: str, timeout: float | None, ask: Ask, args: tuple[Any, ...] = (), asked: str = ""
) -> Message:
    """Wait for a message to a port made for it, and return it; ``()`` after the timeout, or that port's death.

    Args:
        host: The node that asks.
        call: What the user called, for error texts.
        timeout: Seconds; None waits forever.
        ask: Called with the port, and ``args``; it may return a guard, which is cancelled when the wait is over.
        args: Its other arguments.
        asked: The ID of the node that is asked, which may refuse; ``""``: this node asks itself.

    Raises:
        NoPortContextError: On the hub.
        PortKilled: The port in whose context this waits was killed.
    """
    try:
        return receive_answer(host, call, timeout, ask, args, asked)
    except (ReceiveTimeout, Unanswered):
        return ()


def receive_answer(
    host: AskingHost,
    call: str,
    timeout: float | None,
    ask: Ask,
    args: tuple[Any, ...],
    asked: str,
    not_taken: Reason = (),
) -> Message:
    """Wait like :func:`wait_for_answer`, but raise what went wrong.

    Args:
        host: As in :func:`wait_for_answer`, like the next five.
        call: What the user called.
        timeout: Seconds.
        ask: Called with the port.
        args: Its other arguments.
        asked: The node that is asked.
        not_taken: The reason that the port dies of if no message was taken; its monitors get it.

    Raises:
        ReceiveTimeout: No message came in time.
        Unanswered: The port that was made for the message was killed.
        NoPortContextError, PortKilled: As in :func:`wait_for_answer`.
    """
    current = getcurrent()
    me: Port | None = getattr(current, "aemp_port", None)
    if me is not None and me.dying is not None:  # also when kil(SELF()) came just before
        raise PortKilled(*me.dying)
    scheduler = host.scheduler
    is_runner = isinstance(current, Runner)
    if not is_runner and current is scheduler.hub:
        raise NoPortContextError(call, ON_THE_HUB)
    reply = host.make(ReplyPort)
    reply.asked = asked
    cell = activate(reply)
    cell.runner, reply.state = current, RUNNING
    guards: list[Guard] = []
    is_taken = False
    try:
        scheduler.table.add(reply)
        if me is not None and not (is_runner and current.at is me):  # type: ignore[attr-defined]  # a Runner
            # Nothing is thrown into an attached greenlet: its port's death ends the wait through the reply port.
            guards.append(end_with(host, me.id, reply))
        guard = ask(reply, *args)
        if guard is not None:
            guards.append(guard)
        message = receive_for(reply, None, timeout)
        is_taken = True
        return message
    except PortKilled:
        if reply.dying is None or (me is not None and me.dying is not None):
            raise  # the port that waits here was killed
        raise Unanswered(reply.dying) from None
    finally:
        reason = () if is_taken else not_taken
        try:
            cancel_all(guards)
            scheduler.die(reply, reason)
        except BaseException:  # an interrupt struck; again, because nothing else cleans up
            cancel_all(guards)
            scheduler.die(reply, reason)
            raise


def cancel_all(guards: list[Guard]) -> None:
    """Cancel the monitors and timers of a call."""
    for guard in guards:
        guard.cancel()


def deadline_of(timeout: float | None) -> float | None:
    """Return the time, on the monotonic clock, when a timeout in seconds ends; None never ends."""
    return None if timeout is None else monotonic() + timeout


def left_until(deadline: float | None) -> float | None:
    """Return the seconds until a deadline; 0 after it, None for None."""
    return None if deadline is None else max(deadline - monotonic(), 0.0)


def end_with(host: AskingHost, port: object, reply: Port) -> Monitor:
    """End the wait for the answer when ``port`` dies."""
    target = host.find(port)
    if target is None:
        return host.monitor(port, lambda *reason: host.scheduler.kill(reply, reason), None)
    monitor = KillMonitor(target, reply)
    monitors.add(target, monitor)
    return monitor
