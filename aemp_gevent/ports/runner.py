# SPDX-License-Identifier: MIT
"""Runners: the greenlets in which handlers and jobs run.

Not here: the loop that they run, and the pool of idle ones with its bound ``MAX_IDLE_RUNNERS``
(:mod:`aemp_gevent.ports.scheduler`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import Hub
from greenlet import greenlet

from aemp_gevent.ports.port import Port


class Runner(greenlet):
    """A greenlet that serves ports, one after the other.

    It continues with the next port only if the last one left nothing on it. An object that can still throw into it or
    resume it (a ``gevent.Timeout`` that was never closed, a link of an event) holds a reference to it;
    ``gevent.local`` and other values that are kept for a greenlet stand in its ``__dict__``. Both can be seen at once.
    While its code is switched out, references come and go, so that afterwards they prove nothing: such a runner ends.
    """

    __slots__ = ("aemp_call", "aemp_port", "aemp_resumed", "at", "idle", "stopped")

    def __init__(self, run: Callable[[Runner], None], hub: Hub) -> None:
        super().__init__(run, hub)
        self.aemp_port: Port | None = None
        """The port in whose context it runs, as on every greenlet (see :mod:`aemp_gevent.ports.context`)."""
        self.at: Port | None = None
        """The port that it serves. Not the same: ``peval`` and ``attach`` change the context."""
        self.aemp_call: object = None
        """The call that it serves, as on every greenlet (see :mod:`aemp_gevent.calls.serve`)."""
        self.aemp_resumed = False
        """Whether its port's code was switched out and resumed, as on every greenlet that waits for messages."""
        self.idle = False
        self.stopped = False
        """Whether nothing resumes it any more: this is a forked child, and it is the parent's."""

    # For gevent, which resumes blocked handlers. Our own code calls greenlet's methods, because half a
    # microsecond counts there; it never finds a stopped runner.

    def switch(self, *args: Any) -> Any:
        """Continue, unless stopped."""
        self.aemp_resumed = True
        return None if self.stopped else _switch(self, *args)

    def throw(self, *args: Any) -> Any:
        """Raise what is thrown into it, unless stopped, or ended: what a handler left behind has no effect then."""
        self.aemp_resumed = True
        return None if self.stopped or self.dead else greenlet.throw(self, *args)


_switch = greenlet.switch
