# SPDX-License-Identifier: MIT
"""Asking a port and getting an answer: ``cal`` and its blocking form ``syncal``, as AnyEvent::MP has them.

Both send a message with the ID of a port made for the answer appended, and watch the
port they ask: an answer, its death and the timeout are one race, which somebody wins
once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from greenlet import getcurrent

from aemp_gevent.errors import NoPortContextError, PortKilled, ReceiveTimeout
from aemp_gevent.ports import monitors
from aemp_gevent.ports.callbacks import DONE, check_callable
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import KillMonitor, Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import RUNNING, AnyPort, Job, Port, ReplyPort
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.receive import receive_for
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.ports.timers import Timer


class Host(Protocol):
    """The node that asks."""

    @property
    def scheduler(self) -> Scheduler: ...

    def make(self, kind: type[AnyPort]) -> AnyPort:
        """Make a port without handlers, which nobody reaches before :meth:`enter`."""
        ...

    def enter(self, port: Port) -> None:
        """Make a new port reachable."""

    def find(self, port: object) -> Port | None:
        """Return the living local port of this ID, if there is one."""
        ...

    def split_port(self, port: object) -> tuple[str, str]:
        """Return a port ID's node ID and port name, or raise ``InvalidPortError``."""
        ...

    def split_or_drop(self, call: str, port: object) -> tuple[str, str] | None:
        """Return a port ID's node ID and port name; or raise, or in code of a port log that it is not one."""
        ...

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call a function when a port dies."""
        ...

    def snd(self, port: object, *msg: Any) -> None: ...


class Guard(Protocol):
    """What can be cancelled."""

    def cancel(self) -> None:
        """Cancel it. Idempotent."""


class Unanswered(Exception):
    """The reply port was killed. Never leaves the library."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Nobody(Job):
    """A monitor that does nothing: a reply port's abnormal death does not count as unmonitored."""

    __slots__ = ()

    def died(self, reason: Reason) -> bool:
        return False


_NOBODY = _Nobody(None)


def call(host: Host, port: object, msg: Message, cb: Handler, timeout: float | None) -> None:
    """Send ``msg`` with a reply port appended; call ``cb`` once with the answer, or with nothing. See ``cal``."""
    check_callable("cal(), cb", cb)
    parts = host.split_or_drop("cal()", port)  # first, so that a bad one leaves nothing behind
    scheduler = host.scheduler
    context = current_port()
    reply = host.make(ReplyPort)
    if parts is not None:
        reply.asked = parts[0]
    guards: list[Guard] = []

    def answered(*answer: Any) -> object:
        cancel_all(guards)
        scheduler.enqueue_job(CallJob(context, cb, answer))
        return DONE

    def gone(*_reason: Any) -> None:
        if reply.dying is None:
            scheduler.deliver(reply, ())

    reply.default = answered
    try:
        host.enter(reply)
        guards.append(host.monitor(reply.id, lambda *_reason: answered(), None))
        guards.append(host.monitor(port, gone, None))
        if timeout is not None:
            guards.append(Timer(scheduler, timeout, None, gone, ()))
        host.snd(port, *msg, reply.id)  # last: it is made with all that belongs to it, or not at all
    except BaseException:
        cancel_all(guards)  # here: at the recursion limit one call more could be one too many
        scheduler.die(reply, ())
        raise


def call_and_wait(host: Host, timeout: float | None, port: object, msg: Message) -> Message:
    """Send ``msg`` with a reply port appended, wait, and return the answer, or ``()``. See ``syncal``."""
    parts = host.split_or_drop("syncal()", port)  # first, so that a bad one leaves nothing behind

    def ask(reply: ReplyPort) -> Monitor:
        if parts is not None:
            reply.asked = parts[0]
        guard = _end_with(host, port, reply)
        try:
            host.snd(port, *msg, reply.id)
        except BaseException:
            guard.cancel()
            raise
        return guard

    return wait_for_answer(host, "syncal()", timeout, ask)


def wait_for_answer(host: Host, call: str, timeout: float | None, ask: Callable[[ReplyPort], Guard | None]) -> Message:
    """Wait for a message to a port made for it, and return it; ``()`` after the timeout, or that port's death.

    Args:
        host: The node that asks.
        call: What the user called, for error texts.
        timeout: Seconds; None waits forever.
        ask: Called with the port; it may return something to cancel afterwards.

    Raises:
        NoPortContextError: On the hub.
        PortKilled: The port in whose context this waits was killed.
    """
    try:
        return receive_answer(host, call, timeout, ask)
    except (ReceiveTimeout, Unanswered):
        return ()


def receive_answer(
    host: Host, call: str, timeout: float | None, ask: Callable[[ReplyPort], Guard | None], not_taken: Reason = ()
) -> Message:
    """Do the same, but say what went wrong.

    Args:
        host: As in :func:`wait_for_answer`.
        call: The same.
        timeout: The same.
        ask: The same.
        not_taken: What the port dies of, for those who monitor it, if no message was taken.

    Raises:
        ReceiveTimeout: No message came in time.
        Unanswered: The port that was made for the message was killed.
        NoPortContextError, PortKilled: As in :func:`wait_for_answer`.
    """
    me = current_port()
    if me is not None and me.dying is not None:  # also when kil(SELF()) came just before
        raise PortKilled(*me.dying)
    current = getcurrent()
    scheduler = host.scheduler
    if current is scheduler.hub:
        raise NoPortContextError(call, "it was called on the hub, which must never wait: spawn a greenlet")
    reply = host.make(ReplyPort)
    reply.runner, reply.state, reply.monitors = current, RUNNING, _NOBODY
    guards: list[Guard] = []
    is_taken = False
    try:
        host.enter(reply)
        if me is not None and not (isinstance(current, Runner) and current.at is me):
            # Into an attached greenlet nothing is thrown: its death reaches us through the reply port.
            guards.append(_end_with(host, me.id, reply))
        guard = ask(reply)
        if guard is not None:
            guards.append(guard)
        message = receive_for(reply, None, timeout)
        is_taken = True
        return message
    except PortKilled:
        if reply.dying is None or (me is not None and me.dying is not None):
            raise  # it is this code that was killed
        raise Unanswered(reply.dying) from None
    finally:
        reason = () if is_taken else not_taken
        try:
            cancel_all(guards)
            scheduler.die(reply, reason)
        except BaseException:  # an interrupt struck: once more, as nobody else will
            cancel_all(guards)
            scheduler.die(reply, reason)
            raise


def cancel_all(guards: list[Guard]) -> None:
    """Cancel what a call leaves behind."""
    for guard in guards:
        guard.cancel()


def deadline_of(timeout: float | None) -> float | None:
    """Return when so many seconds from now will have passed; None is never."""
    return None if timeout is None else monotonic() + timeout


def left_until(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, 0 after it."""
    return None if deadline is None else max(deadline - monotonic(), 0.0)


def _end_with(host: Host, port: object, reply: Port) -> Monitor:
    """End the wait for the answer when ``port`` dies."""
    target = host.find(port)
    if target is None:
        return host.monitor(port, lambda *reason: host.scheduler.kill(reply, reason), None)
    monitor = KillMonitor(target, reply)
    monitors.add(target, monitor)
    return monitor
