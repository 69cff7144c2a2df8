# SPDX-License-Identifier: MIT
"""The side of a ``call`` that asks: the everyday request, blocking or not.

Unlike ``cal`` and ``syncal`` (:mod:`aemp_gevent.calls.cal`), which are AnyEvent::MP's, a call
reports what went wrong: nothing came in time, the port died, or the code that served it
raised. The caller's deadline and the chain of waiting ports travel with it. The other
side (:mod:`aemp_gevent.calls.serve`, the file to read with this) uses them to skip a call that nobody waits
for, and to notice ports that wait for each other.

**Circles.** A port that is blocked in a call knows the port it called. When it gets a call whose chain of
waiting ports contains that port, each of them waits for the next and none could ever continue, so
the call that closed the circle fails. No decision depends on how long something takes. One case is not noticed:
if a caller further up a chain is killed or interrupted, those who work for it do not know that.

**Reply ports** live as long as the call. One that dies before an answer was taken
dies abnormally, so that a server that monitors it learns whether its answer was taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet
from gevent.event import AsyncResult

from aemp_gevent.calls import answers
from aemp_gevent.calls.serve import CYCLE, FAILED, Wait, call_being_served, time_left
from aemp_gevent.errors import CallCycleError, CallTimeout, PortDied, ReceiveTimeout, RemoteError
from aemp_gevent.ports import monitors
from aemp_gevent.ports.callbacks import DONE
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.own_end import marked
from aemp_gevent.ports.patterns import Message, tag_of
from aemp_gevent.ports.port import JOB, REMOTE, RUNNING, Port, ReplyPort
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.timers import Timer

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
getcurrent: Callable[[], greenlet.greenlet]
globals().update(getcurrent=greenlet.getcurrent)

NOT_TAKEN = ("call_ended",)
"""The reason that a reply port dies of when the call is over and no answer was taken."""


class CallHost(answers.AskingHost):
    """The node whose code calls, as this module sees it. A base class."""

    __slots__ = ("blocked", "reach", "waiting", "watches")

    waiting: dict[Port, Wait]
    """The ports that are blocked in a call."""
    watches: tuple[Any, ...]  # Any: calls.watching, where a CallWatch is defined, imports this
    """What observes the calls that the node's code makes."""
    blocked: Callable[[object], str]
    """Returns for how long the node of a port has been blocked, and where; ``""`` if it is not."""
    reach: Callable[[object], Port | None]
    """Returns the port of an ID: one of this node, or one of another node that is known."""

    def ask(
        self,
        port: object,
        target: Port | None,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
    ) -> None:
        """Send a call: a message with its reply port, deadline and chain. ``target`` is what ``reach`` returns."""
        raise NotImplementedError


class Loss(Monitor):
    """The monitor of a port that is asked: it ends the wait for the answer. No code of users runs.

    Args:
        monitored: The port that is asked; None: the monitor is another one, which calls :meth:`gone`.
        reply: The port that waits.
        died: Gets the reason.
    """

    __slots__ = ("_died", "_reply")

    def __init__(self, monitored: Port | None, reply: Port, died: list[Reason]) -> None:
        self.state = JOB
        self.context = None
        self._monitored = monitored
        scheduler = reply.cell.scheduler
        self._action = scheduler.kill
        self._reason = ()
        self._scheduler = scheduler
        self._reply = reply
        self._died = died

    def run(self) -> None:
        """End the wait, unless it is over. For the scheduler only."""
        if self._action is not None:
            self.gone(*self._reason)
            self._action = None  # last, so that it is run again if it is struck

    def gone(self, *reason: Any) -> None:
        """End the wait."""
        if self._reply.dying is None:
            self._died.append(reason)
            self._scheduler.kill(self._reply, NOT_TAKEN)


def _monitor(host: CallHost, port: object, target: Port | None, reply: Port, died: list[Reason]) -> Monitor:
    """End the wait for an answer when the port that is asked dies."""
    if target is None:
        return host.monitor(port, Loss(None, reply, died).gone, None)
    monitor = Loss(target, reply, died)
    if target.state == REMOTE:
        remote: Any = target  # a MonitoredRemote, which stands in the table of ports
        remote.monitor(monitor)
    else:
        monitors.add(target, monitor)
    return monitor


def call(host: CallHost, port: object, message: Message, timeout: float | None) -> Any:
    """Send a call, wait, and return the answer. See ``call``."""
    name = str(port)  # first, because the object's own __str__ may raise
    if timeout is not None and timeout <= 0:
        raise CallTimeout(name, message[0], timeout)
    holder = _blocked_port()
    died: list[Reason] = []
    asked = name.partition("#")[0]  # monitoring the port checks that it is a port ID
    try:
        args = (host, port, name, message, timeout, holder, died)
        answer = answers.receive_answer(host, "call()", timeout, _ask, args, asked, NOT_TAKEN)
    except ReceiveTimeout:
        raise CallTimeout(name, message[0], timeout, host.blocked(name)) from None
    except answers.Unanswered as error:
        raise _failure(host, name, error.reason, died) from None
    finally:
        if holder is not None:
            host.waiting.pop(holder, None)
    return value_of(answer)


def _ask(
    reply: ReplyPort,
    host: CallHost,
    port: object,
    name: str,
    message: Message,
    timeout: float | None,
    holder: Port | None,
    died: list[Reason],
) -> Monitor:
    """Send a call; return the monitor of the port that is asked."""
    target = host.reach(port)
    guard = _monitor(host, port, target, reply, died)
    try:
        if holder is not None:
            host.waiting[holder] = Wait(name if target is None else target.id, reply)
        host.ask(port, target, message, reply.id, timeout, _chain(host, holder))
    except BaseException:
        guard.cancel()
        raise
    return guard


def call_async(host: CallHost, port: object, message: Message, timeout: float | None) -> AsyncResult[Any]:
    """Send a call, and return what will hold the answer. See ``call_async``."""
    name = str(port)
    asked, _ = host.split_port(port)  # first, so that an invalid one leaves nothing behind
    scheduler = host.scheduler
    result: AsyncResult[Any] = AsyncResult()
    died: list[Reason] = []
    guards: list[answers.Guard] = []
    reply = host.make(ReplyPort)
    reply.asked = asked

    def answered(*answer: Any) -> object:
        answers.cancel_all(guards)
        result.set(value_of(answer))
        return DONE

    def unanswered(*reason: Any) -> None:
        answers.cancel_all(guards)
        late = len(reason) == 1 and tag_of(reason) == NOT_TAKEN[0] and not died
        if late:
            result.set_exception(CallTimeout(name, message[0], timeout, host.blocked(name)))
        else:
            result.set_exception(_failure(host, name, reason, died))

    reply.default = answered
    target = host.reach(port)
    try:
        scheduler.table.add(reply)
        guards.append(host.monitor(reply.id, unanswered, None))
        guards.append(_monitor(host, port, target, reply, died))
        if timeout is not None:
            guards.append(Timer(scheduler, timeout, None, scheduler.kill, (reply, NOT_TAKEN)))
        # No chain: it blocks no port. Last: the call is made with its guards, or not at all.
        host.ask(port, target, message, reply.id, timeout, ())
    except BaseException:
        answers.cancel_all(guards)
        scheduler.die(reply, ())
        raise
    return result


def value_of(answer: Message) -> Any:
    """Return an answer as a value: its only element, None if it is empty, a tuple of several."""
    return answer[0] if len(answer) == 1 else (tuple(answer) or None)


def _failure(host: CallHost, port: str, reason: Reason, died: list[Reason]) -> Exception:
    """Return the error for a reply port that died of this reason without an answer."""
    reason = died[0] if died else reason
    end = host.own_end(reason)
    if died or end is not None:
        return marked(PortDied(port, reason), end)
    if tag_of(reason) == CYCLE:
        return CallCycleError(map(str, reason[1:]))
    if tag_of(reason) == FAILED:
        return RemoteError(port, *map(str, reason[1:3] or ("an error that could not travel",)))
    # A handler in AnyEvent::MP's style refused with kil(reply, …).
    return RemoteError(port, " ".join(map(str, reason)) or "it killed the reply port")


def _blocked_port() -> Port | None:
    """Return the port that is blocked while this greenlet waits."""
    current = getcurrent()
    port = current.at if isinstance(current, Runner) else current_port()
    return port if port is not None and port.cell.runner is current and port.state == RUNNING else None


def _chain(host: CallHost, holder: Port | None) -> tuple[str, ...]:
    """Return the ports that wait for this greenlet: the callers of the call that it serves, then its own port."""
    if holder is None:
        return ()
    names = host.scheduler.table.names_of(holder)
    served = call_being_served()
    # After its deadline, nobody waits for a call any more.
    if served is None or time_left(served) == 0:
        return names
    return (*getattr(served, "chain", ()), *names)
