# SPDX-License-Identifier: MIT
# cython: nonecheck=False
# To test for None would cost every switch: ports, cells and runners are never None here, and what may be is tested.
"""Giving way: how a greenlet that waits for messages gives way to others.

Which message it waits for is decided in :mod:`aemp_gevent.ports.receiving`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.exceptions import LoopExit
from greenlet import greenlet

from aemp_gevent.errors import EndlessWaitError
from aemp_gevent.ports.deaths import NOBODY, Deaths
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, RUNNING, Port, PortsOwner
from aemp_gevent.ports.runner import Runner

# Compiled, these names stand for C functions, and PURE for 0 (c_calls.pxd). Nothing can be assigned to them.
PURE: bool
popleft: Callable[[deque[Any]], Any]
switch: Callable[..., Any]
globals().update(PURE=True, popleft=deque.popleft, switch=greenlet.switch)


class GivingWay(Deaths):
    """Switches from one waiting greenlet to the next, through a runner or the hub only if needed."""

    def __init__(self, owner: PortsOwner = NOBODY) -> None:
        super().__init__(owner)
        self._pool: list[Runner] = []

    def wait(self, port: Port, current: greenlet, scanned: int) -> None:
        """Give way until ``port`` has more than ``scanned`` messages, was killed, or ``current`` was resumed.

        The caller looks at the port afterwards, because this does not return why it was resumed.
        """
        if type(current) is Runner:  # an attribute of a known class, as in nearly all cases
            runner = current
            runner.aemp_resumed = True
        else:
            current.aemp_resumed = True  # type: ignore[attr-defined]  # any greenlet can carry it
        first = due = None
        port.cell.waiter = current  # its own cell, because the port is running
        port.state = IDLE
        try:
            # Idle first, then look: a finalizer may have sent after the caller's last look,
            # and all that is sent from here on queues the port.
            if port.cell.dying is None and not (port.cell.inbox and len(port.cell.inbox) > scanned):
                runq = self.runq
                if runq and self.credit > 0:
                    first = runq[0]
                    if first.state == QUEUED:
                        due = first
                if due is not None and due.cell.waiter is not None:
                    # From greenlet to greenlet, without a runner in between: the hot path of
                    # two actors that send to each other.
                    if PURE:
                        del runq[0]
                    else:
                        popleft(runq)
                    if due is not port:
                        switch(due.cell.waiter)
                else:
                    first = due = None  # this frame would keep it alive
                    self._give_way()
        except BaseException as error:
            # No "finally", nor a second "try": each takes more of the stack, which switches copy.
            port.cell.waiter = None
            if port.state != DEAD:
                port.state = RUNNING
            if due is not None and due is not port and due.state == QUEUED:  # struck before the other was resumed
                self.runq += (due,)
            self._struck(port, error)
            raise
        port.cell.waiter = None
        if port.state != DEAD:
            port.state = RUNNING

    def _struck(self, port: Port, error: BaseException) -> None:
        """Handle what was raised where a port's greenlet waited. The caller raises it again, unless this does."""
        # A foreign Timeout struck a port that was killed before the hub ended it: it leaves
        # receive, and its code may block elsewhere.
        if port.cell.dying is not None:
            self.doom(port)
        if isinstance(error, LoopExit):
            raise EndlessWaitError from error

    def _give_way(self) -> None:
        """Switch to an idle runner if something is due, otherwise to the hub."""
        runq = self.runq
        if runq and self.credit > 0 and self._pool:
            runner = self._pool[-1]
            del self._pool[-1]
            runner.idle = False
            switch(runner)
            return
        if (runq or self._deaths) and not self.pumped:
            self.ask()
        self.hub.switch()

    def visit_hub(self, port: Port, current: greenlet) -> None:
        """Switch to the hub, so that sockets and timers run, from a greenlet that always finds a message."""
        try:
            port.cell.waiter = current
            port.state = QUEUED
            current.aemp_resumed = True  # type: ignore[attr-defined]  # as in wait()
            self.runq += (port,)
            self.hub.switch()
        finally:
            port.cell.waiter = None
            if port.state != DEAD:
                port.state = RUNNING
                if port.cell.dying is not None:  # the hub may have passed it over, because it was queued
                    self.doom(port)
