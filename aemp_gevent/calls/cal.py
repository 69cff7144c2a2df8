# SPDX-License-Identifier: MIT
"""``cal`` and its blocking form ``syncal``: ask a port, and get its answer or nothing.

Both are AnyEvent::MP's. They send a message with the ID of a reply port appended, and monitor the
port that they ask. The answer, that port's death and the timeout are one race, which has one winner.
"""

from __future__ import annotations

from typing import Any

from aemp_gevent.calls.answers import AskingHost, Guard, cancel_all, end_with, wait_for_answer
from aemp_gevent.ports.callbacks import DONE, check_callable
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import ReplyPort
from aemp_gevent.ports.timers import Timer
from aemp_gevent.runtime.tracing import carried


def cal(host: AskingHost, port: object, msg: Message, cb: Handler, timeout: float | None) -> None:
    """Send ``msg`` with a reply port appended; call ``cb`` once with the answer, or with nothing. See ``cal``."""
    check_callable("cal(), cb", cb)
    parts = host.split_or_drop("cal()", port)  # first, so that an invalid one leaves nothing behind
    scheduler = host.scheduler
    context = current_port()
    cb = carried(cb)
    reply = host.make(ReplyPort)
    reply.asked = "" if parts is None else parts[0]
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
        scheduler.table.add(reply)
        guards.append(host.monitor(reply.id, lambda *_reason: answered(), None))
        guards.append(host.monitor(port, gone, None))
        if timeout is not None:
            guards.append(Timer(scheduler, timeout, None, gone, ()))
        host.snd(port, *msg, reply.id)  # last: the call is made with its guards, or not at all
    except BaseException:
        cancel_all(guards)  # not in a function: at the recursion limit one call more can be one too many
        scheduler.die(reply, ())
        raise


def syncal(host: AskingHost, timeout: float | None, port: object, msg: Message) -> Message:
    """Send ``msg`` with a reply port appended, wait, and return the answer, or ``()``. See ``syncal``."""
    parts = host.split_or_drop("syncal()", port)  # first, so that an invalid one leaves nothing behind

    asked = "" if parts is None else parts[0]
    return wait_for_answer(host, "syncal()", timeout, _ask, (host, port, msg), asked)


def _ask(reply: ReplyPort, host: AskingHost, port: object, msg: Message) -> Monitor:
    """Send a message with a reply port appended; return the monitor of the port that is asked."""
    guard = end_with(host, port, reply)
    try:
        host.snd(port, *msg, reply.id)
    except BaseException:
        guard.cancel()
        raise
    return guard
