# SPDX-License-Identifier: MIT
"""Runners: the greenlets in which handlers and jobs run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import Hub
from greenlet import greenlet

from aemp_gevent.ports.port import Port


class Runner(greenlet):
    """A greenlet that serves ports, one after the other.

    It goes on to the next port only if nothing of this one's is left on it. Whoever can still throw into it or
    resume it (a ``gevent.Timeout`` that was never closed, a link of an event) holds a reference to it, and
    ``gevent.local`` and whatever else is kept for a greenlet stands in its ``__dict__``: both show at once. While its
    code is switched out, others' references come and go, so there is no telling afterwards: such a runner ends, too.
    """

    __slots__ = ("aemp_call", "aemp_port", "at", "idle", "stopped")

    aemp_resumed: bool
    """Whether its port's code was switched out and resumed, as on every greenlet that waits for messages. In its
    ``__dict__`` if so, which is all that is looked at."""

    def __init__(self, run: Callable[[Runner], None], hub: Hub) -> None:
        super().__init__(run, hub)
        self.aemp_port: Port | None = None
        """Whose context this is, as on every greenlet (see :mod:`aemp_gevent.ports.context`)."""
        self.at: Port | None = None
        """The port it serves. Not the same: ``peval`` and ``attach`` change the context."""
        self.aemp_call: object = None
        """The call that it serves, as on every greenlet (see :mod:`aemp_gevent.calls.serve`)."""
        self.idle = False
        self.stopped = False
        """Whether it stays where it is, whoever wants to resume it: this is a forked child, and it the parent's."""

    # For gevent, which resumes blocked handlers. We ourselves call greenlet's methods: half a
    # microsecond would be felt there, and who is stopped does not stand where we look.

    def switch(self, *args: Any) -> Any:
        """Go on, unless stopped."""
        self.aemp_resumed = True
        return None if self.stopped else _switch(self, *args)

    def throw(self, *args: Any) -> Any:
        """Raise what is thrown into it, unless stopped, or ended: what a handler forgot strikes nobody then."""
        self.aemp_resumed = True
        return None if self.stopped or self.dead else greenlet.throw(self, *args)


_switch = greenlet.switch
