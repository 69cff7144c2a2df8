# SPDX-License-Identifier: MIT
"""Attachments: ports for greenlets that the library did not start."""

from __future__ import annotations

from typing import Any

from gevent import Greenlet
from greenlet import GreenletExit, getcurrent

from aemp_gevent.ports.context import current_port, give_back
from aemp_gevent.ports.inboxes import TracedInbox
from aemp_gevent.ports.port import RUNNING, STARTED, AttachedPort, activate
from aemp_gevent.ports.reasons import Reason, describe
from aemp_gevent.runtime.tracing import TRACING


class Attachment:
    """The port that ``attach`` gave to a running greenlet. A context manager; ``str()`` is the port ID."""

    def __init__(self, port: AttachedPort) -> None:
        self._port = port
        self._greenlet = getcurrent()
        cell = activate(port)
        port.before = current_port()
        tracer = TRACING.tracer
        self._trace = tracer.current() if tracer is not None and TRACING.has_messages else None
        """The trace that the greenlet was in, and gets back."""
        if isinstance(self._greenlet, Greenlet):
            # The greenlet may end without leaving the block, and its port must not outlive it.
            self._greenlet.rawlink(self._ended)
        try:
            cell.scheduler.table.add(port)
        except BaseException:
            cell.scheduler.die(port, ())
            raise
        # Last, and without a call: the greenlet is attached, or it is not.
        cell.main = STARTED
        cell.runner = self._greenlet
        port.state = RUNNING
        self._greenlet.aemp_port = port  # type: ignore[attr-defined]  # any greenlet can carry it

    def _ended(self, ended: Greenlet[..., Any]) -> None:  # on the hub
        # gevent does not count Greenlet.kill() as an exception: the value is the exit.
        self._die(_reason_of(ended.exception or (ended.value if isinstance(ended.value, GreenletExit) else None)))

    @property
    def port(self) -> str:
        """The port's ID."""
        return self._port.id

    def __str__(self) -> str:
        return self._port.id

    def __enter__(self) -> str:
        return self._port.id

    def __exit__(self, exc_type: object, error: BaseException | None, traceback: object) -> None:
        self._port.scheduler.leave(self.detach, error)

    def detach(self, error: BaseException | None = None) -> None:
        """End the port, normally or by an exception, and restore the greenlet's former context.

        Any greenlet of this thread may call it. If the greenlet that attached waits for
        the port's messages, it gets ``PortKilled`` there.
        """
        port = self._port
        port.scheduler.check_thread("detach()")
        port.is_left = True
        if isinstance(self._greenlet, Greenlet):
            self._greenlet.unlink(self._ended)
        if getattr(self._greenlet, "aemp_port", None) is port:
            give_back(self._greenlet, port.before)
        if getcurrent() is self._greenlet:
            if TRACING.tracer is not None and isinstance(port.inbox, TracedInbox):
                TRACING.tracer.arrived(self._trace)
            self._die(_reason_of(error))
        else:  # it may wait in receive, where a kill wakes it
            port.scheduler.kill(port, _reason_of(error))

    def _die(self, reason: Reason) -> None:
        port = self._port
        port.scheduler.die(port, reason if port.dying is None else port.dying)


def _reason_of(error: BaseException | None) -> Reason:
    """Return the exit reason for code that ended, with or without an exception."""
    if error is None or isinstance(error, GeneratorExit):  # that closes a generator
        return ()
    return ("die", describe(error))
