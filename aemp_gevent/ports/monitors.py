# SPDX-License-Identifier: MIT
"""Monitors: who wants to know about whose death, and what is done about it.

A monitor stands with the *watched* thing: a local :class:`~aemp_gevent.ports.port.Port`, or
a :class:`Watch` that stands for a port (or the link) of another node. When the watched
thing dies, each of its monitors becomes a job in the run queue: actions never run
inside the stack of the one who killed, may use every function of the library, and
may block without delaying anybody.

A monitor is one-shot, and is its own guard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aemp_gevent.ports.port import JOB, Job, Port, PortHost
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.threads import get_ident


class Watched(Protocol):
    """What can be monitored: a local port, or a :class:`Watch`."""

    monitors: Job | dict[Job, None] | None


class Monitor(Job):
    """One registered interest in one death; returned by ``mon`` as its guard.

    ``cancel()`` ends the interest: after it returned, the action does not run. As a
    context manager it cancels on exit. Dropping it does nothing.
    """

    __slots__ = ("_action", "_reason", "_scheduler", "_watched")

    def __init__(
        self, watched: Watched | None, action: Callable[..., Any], context: Port | None, scheduler: PortHost
    ) -> None:
        # Not by super(): a call less of the three that a monitor costs.
        self.state = JOB
        self.context = context
        self._watched = watched
        self._action: Callable[..., Any] | None = action
        self._reason: Reason = ()
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Stop monitoring. May be called any number of times, also after the death."""
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("cancel() of a monitor")
        self._action = None
        watched = self._watched
        if watched is not None:
            remove(watched, self)
            self._watched = None  # last: an interrupted call may be made again

    def died(self, reason: Reason) -> bool:
        """Take note of the death. For the scheduler only."""
        self._watched = None
        self._reason = reason
        return self._action is not None

    def run(self) -> None:
        """Do the action, unless it was cancelled. For the scheduler only."""
        # Looked up now, not when it was queued: a guard may have been cancelled meanwhile.
        action = self._action
        self._action = None
        if action is not None:
            action(*self._reason)

    @property
    def is_due(self) -> bool:
        return self._action is not None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.leave(self.cancel)


class KillMonitor(Monitor):
    """Kills a port of this node when another dies. No user code runs, so it needs no turn in the queue."""

    __slots__ = ("_victim",)

    def __init__(self, watched: Watched | None, victim: Port) -> None:
        super().__init__(watched, victim.scheduler.kill, None, victim.scheduler)
        self._victim = victim

    def died(self, reason: Reason) -> bool:
        if super().died(reason):
            self._victim.scheduler.kill(self._victim, reason)
        return False


class Watch:
    """What we watch on another node: the base of whatever stands for a port, or a link, over there."""

    __slots__ = ("monitors",)

    def __init__(self) -> None:
        self.monitors: Job | dict[Job, None] | None = None

    def unwatched(self) -> None:
        """Hear that the last monitor was cancelled."""

    def fire(self, scheduler: PortHost, reason: Reason) -> None:
        """Queue the actions of all monitors, which are taken off."""
        monitors = self.monitors
        self.monitors = None  # no call in between: a finalizer may monitor, too
        if monitors is None:
            return
        try:
            for monitor in tuple(monitors) if isinstance(monitors, dict) else (monitors,):
                if monitor.died(reason):
                    scheduler.enqueue_job(monitor)
        except BaseException:
            # Struck: who begins again finds all of them. Those that were queued already run once.
            if self.monitors is None:
                self.monitors = monitors
            raise


def add(watched: Watched, monitor: Job) -> None:
    """Register a monitor. One is stored as it is, several in a dict, for removal in constant time."""
    while True:
        monitors = watched.monitors
        if monitors is None:
            watched.monitors = monitor  # no call between test and store: a finalizer may monitor, too
            return
        several = monitors if isinstance(monitors, dict) else {monitors: None}
        several[monitor] = None
        if watched.monitors is monitors:
            watched.monitors = several
            return


def remove(watched: Watched, monitor: Job) -> None:
    """Take a monitor off, and tell a :class:`Watch` when it was the last one."""
    monitors = watched.monitors
    if isinstance(monitors, dict):
        monitors.pop(monitor, None)
        # No call between look and store: a finalizer may have added one, to this dict or in place of it.
        if monitors or watched.monitors is not monitors:
            return
        watched.monitors = None
    elif monitors is monitor:
        watched.monitors = None
    else:
        return
    if isinstance(watched, Watch):
        watched.unwatched()
