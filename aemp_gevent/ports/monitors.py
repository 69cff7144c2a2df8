# SPDX-License-Identifier: MIT
"""Monitors: what is done when a port dies, or the link to a node is lost.

A monitor is kept by the *monitored* object: a local :class:`~aemp_gevent.ports.port.Port`, or
a :class:`MonitoredRemote` that represents a port of another node, or the link to it. When the monitored
object dies, each of its monitors becomes a job in the run queue. So actions never run
inside the stack of the code that killed, may use every function of the library, and
may block without delaying other ports.

A monitor fires once, and is its own guard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aemp_gevent.ports.blame import blame
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import JOB, Job, Port, PortHost, Receiver
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime import threads
from aemp_gevent.runtime.totals import OTHER
from aemp_gevent.runtime.tracing import Trace

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)


class Monitored(Protocol):
    """What can be monitored: a local port, or a :class:`MonitoredRemote`."""

    monitors: Job | dict[Job, None] | None


class Monitor(Job):
    """An action for one death. ``mon`` returns it as the guard.

    After ``cancel()`` returned, the action does not run. As a
    context manager it cancels on exit. Dropping it does nothing.
    """

    __slots__ = ("_action", "_monitored", "_reason", "_scheduler")

    def __init__(
        self, monitored: Monitored | None, action: Callable[..., Any], context: Port | None, scheduler: PortHost
    ) -> None:
        # Without super(): that saves one of the three calls that a monitor costs.
        self.state = JOB
        self.context = context
        self._monitored = monitored
        self._action: Callable[..., Any] | None = action
        self._reason: Reason = ()
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Stop monitoring. May be called any number of times, also after the death."""
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("cancel() of a monitor")
        self._action = None
        monitored = self._monitored
        if monitored is not None:
            remove(monitored, self)
            self._monitored = None  # last, so that an interrupted call can be made again

    def died(self, reason: Reason) -> bool:
        """Note the death. For the scheduler only."""
        self._monitored = None
        self._reason = reason
        if self._action is None:
            return False
        fired = self._scheduler.totals.fired
        cause = reason[0] if reason else "normal"
        # Not isinstance, nor its class: the element may be anything, even a proxy that raises there.
        fired[cause if type(cause) is str and cause in fired else OTHER] += 1
        return True

    def run(self) -> None:
        """Run the action, unless it was cancelled. For the scheduler only."""
        # Looked up now, not when it was queued: the guard may have been cancelled meanwhile.
        action = self._action
        self._action = None
        if action is not None:
            try:
                action(*self._reason)
            except BaseException as error:
                blame(error, action, "monitor's action")
                raise

    @property
    def is_due(self) -> bool:
        return self._action is not None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.leave(self.cancel)


class KillMonitor(Monitor):
    """Kills a port of this node when another dies. No code of users runs, so it needs no job of its own."""

    __slots__ = ("_victim",)

    def __init__(self, monitored: Monitored | None, victim: Port) -> None:
        scheduler = victim.cell.scheduler
        super().__init__(monitored, scheduler.kill, None, scheduler)
        self._victim = victim

    def died(self, reason: Reason) -> bool:
        if Monitor.died(self, reason):  # compiled, a call of a C function
            self._victim.cell.scheduler.kill(self._victim, reason)
        return False


class LastAction(Job):
    """The last action for a death, and a call that is made right before it: no other code runs in between."""

    __slots__ = ("_action", "_before")

    def __init__(self, action: Job | None, before: Callable[[], None]) -> None:
        super().__init__(None if action is None else action.context)
        self._action = action
        self._before: Callable[[], None] | None = before

    def run(self) -> None:
        """Make the call, unless it has completed, and then do the other job."""
        if self._before is not None:
            self._before()
            self._before = None
        if self._action is not None:
            self._action.run()

    @property
    def is_due(self) -> bool:
        return self._before is not None or (self._action is not None and self._action.is_due)


class MonitoredRemote(Receiver):
    """A port of another node, or the link to it, that is monitored here. A base class."""

    __slots__ = ()

    def __init__(self) -> None:
        self.monitors: Job | dict[Job, None] | None = None

    def monitor(self, monitor: Job) -> None:
        """Add a monitor."""
        raise NotImplementedError

    def call(
        self,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
        trace: Trace | None = None,
    ) -> None:
        """Send a call: a message with its reply port, the seconds until its deadline, and the ports that wait."""
        raise NotImplementedError

    def unmonitored(self) -> None:
        """React to the end of the last monitor, which was cancelled."""

    def fire(self, scheduler: PortHost, reason: Reason, before_last: Callable[[], None]) -> None:
        """Queue the actions of all monitors, and remove them.

        Args:
            scheduler: Runs them.
            reason: What they hear.
            before_last: Called right before the last of them, or by itself if there is none; again if it is struck.
        """
        monitors = self.monitors
        self.monitors = None  # no call in between, because a finalizer may monitor, too
        try:
            several = () if monitors is None else tuple(monitors) if isinstance(monitors, dict) else (monitors,)
            due = [monitor for monitor in several if monitor.died(reason)]
            for monitor in due[:-1]:
                scheduler.enqueue_job(monitor)
            scheduler.enqueue_job(LastAction(due[-1] if due else None, before_last))
        except BaseException:
            # Struck: the call that begins again finds all of them. Those that were queued already run once.
            if self.monitors is None:
                self.monitors = monitors
            raise


def add(monitored: Monitored, monitor: Job) -> None:
    """Register a monitor. One is stored as it is, several in a dict, for removal in constant time."""
    while True:
        monitors = monitored.monitors
        if monitors is None:
            monitored.monitors = monitor  # no call between test and store, because a finalizer may monitor, too
            return
        several = monitors if isinstance(monitors, dict) else {monitors: None}
        several[monitor] = None
        if monitored.monitors is monitors:
            monitored.monitors = several
            return


def remove(monitored: Monitored, monitor: Job) -> None:
    """Remove a monitor, and inform a :class:`MonitoredRemote` if it was the last one."""
    monitors = monitored.monitors
    if isinstance(monitors, dict):
        monitors.pop(monitor, None)
        # No call between test and store: a finalizer may have added one, to this dict or in place of it.
        if monitors or monitored.monitors is not monitors:
            return
        monitored.monitors = None
    elif monitors is monitor:
        monitored.monitors = None
    else:
        return
    if isinstance(monitored, MonitoredRemote):
        monitored.unmonitored()
