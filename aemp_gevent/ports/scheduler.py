# SPDX-License-Identifier: MIT
# cython: nonecheck=False
# To test for None would cost every message: ports, cells and runners are never None here, and what may be is tested.
"""The scheduler: runs callbacks without a greenlet for each port, lets them block, and keeps a pool of idle runners.

It consists of layers, each of which knows only those below it: :class:`Scheduler` here, then
:mod:`giving way <aemp_gevent.ports.giving_way>`, :mod:`deaths <aemp_gevent.ports.deaths>`,
:mod:`pacing <aemp_gevent.ports.pacing>`, the :mod:`run queue <aemp_gevent.ports.run_queue>` and the
:mod:`hub's thread <aemp_gevent.ports.hub_thread>`. They are base classes, not parts, because one more attribute
look-up per message would be measurable. That is also why all layers together have more than 25 public names.
The rules that all layers keep are in :mod:`aemp_gevent.ports`.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from sys import getrefcount as _getrefcount
from time import perf_counter
from typing import Any

from greenlet import getcurrent, greenlet

from aemp_gevent.errors import PortKilled
from aemp_gevent.ports.blame import blame
from aemp_gevent.ports.deaths import NOBODY
from aemp_gevent.ports.giving_way import GivingWay
from aemp_gevent.ports.handlers import is_done
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.jobs import A_JOB
from aemp_gevent.ports.pacing import FIRST_LOOK, SLICE
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, REMOTE, RUNNING, STARTED, Job, Port, PortsOwner, activate
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.timer_queue import TimerQueue
from aemp_gevent.runtime import forking
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.hub_calls import hub_call, report_to
from aemp_gevent.runtime.logs import Brief, Log
from aemp_gevent.runtime.totals import Totals

MAX_IDLE_RUNNERS = 64
"""Idle runners kept for reuse, 4 KiB each. The number of blocked ones has no limit, which would be a deadlock."""

_log = Log()

# Tests replace this. Compiled code finds the class itself without looking at the module's variables.
_make_runner = Runner

_start = greenlet.switch
_throw = greenlet.throw

# Compiled, these names stand for C functions, and PURE for 0 (c_calls.pxd). Nothing can be assigned to them.
PURE: bool
getrefcount: Callable[[object], int]
popleft: Callable[[deque[Any]], Any]
switch: Callable[..., Any]
globals().update(PURE=True, getrefcount=_getrefcount, popleft=deque.popleft, switch=greenlet.switch)


class Scheduler(GivingWay):
    """Runs the ports of one node. Belongs to the hub of the thread that makes its first port.

    It has fewer than 30 attributes of its own: CPython 3.11 looks up each of them more slowly otherwise.

    Args:
        owner: Whose ports they are.
    """

    def __init__(self, owner: PortsOwner = NOBODY) -> None:
        super().__init__(owner)
        self.is_abandoned = False
        """Whether this is a forked child and the ports are the parent's: nothing runs here any more."""
        self.scan: object = None
        """What the last ``receive`` that looked at a message knows of its mailbox; None once a message was taken."""
        self.discarded = 0
        """Messages that found no handler."""
        self.totals = Totals()
        """What is counted besides, for those who monitor the node."""
        self.default: Callable[..., None] = self.discard
        """The default handler of every port that was given none: one bound method, not 64 bytes for each port."""
        self.complaints = BoundedLog(self.log, "messages that nobody takes")
        """Takes the log lines about messages without a handler or a port."""
        self._max_idle = MAX_IDLE_RUNNERS
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()
        self.pump = hub_call(self._pump, self.ask, self._report)

    # --- on the hub ---

    def _report(self, error: BaseException) -> None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self._interrupt(error)
        else:
            report_to(self.hub, error)

    def _pump(self) -> None:
        self.pumped = True
        self._turn_started = perf_counter()
        self._turn_over = False
        self.credit = self._pace = 1
        pool = self._pool
        runq = self.runq
        if self._deaths:
            self._reap()
        while runq:
            # The runner, or the greenlet that it hands over to, comes back when it blocks, has
            # nothing left to do, or the turn is over.
            if pool:
                runner = pool[-1]
                del pool[-1]
                runner.idle = False
                switch(runner)
            else:
                runner = _make_runner(self._run, self.hub)
                self._runners.add(runner)
                runner.idle = False
                _start(runner, runner)
            if self._turn_over:
                self._turn_started = 0.0
                # Not run_callback: gevent runs 50 of those between two looks at its
                # sockets, which starved them for 200 ms.
                self._next_turn.start(self.pump)
                return
            if self._deaths:
                self._reap()
        self._turn_started = 0.0
        self.pumped = False
        if runq or self._deaths:  # only after pumped is false: a finalizer may have sent in between
            self.ask()

    def end_idle_runners(self) -> None:
        """Keep no idle runners from now on, because they keep the whole node in memory. Called on the hub only."""
        self._max_idle = 0
        while self._pool:
            runner = self._pool.pop()
            runner.idle = False
            runner.switch()

    def _reap(self) -> None:
        """End killed ports, and throw into the greenlets inside. Called on the hub, so every greenlet is blocked."""
        deaths = self._deaths
        while deaths:
            port = deaths[0]
            cell = port.cell
            if port.state != RUNNING or cell.dying is None:
                # Its handler ended meanwhile, so it is dead or about to die. Or the kill was struck in the middle.
                del deaths[0]
                continue
            holder = cell.runner
            # An attached greenlet is not ours: its next blocking call of ours raises.
            is_inside = isinstance(holder, Runner) and holder.at is port and not holder.dead
            killed = PortKilled(*cell.dying)
            try:
                self.die(port, cell.dying)  # first, so that the greenlet's finally blocks find it dead
            finally:
                if port.state == DEAD:  # otherwise the next pump tries again
                    del deaths[0]
                    if is_inside:
                        _throw(holder, killed)  # type: ignore[arg-type]  # inside there is one

    # --- in the runners ---

    def _run(self, runner: Runner) -> None:
        """Serve what is due, one after the other, and park when nothing is.

        The body of the inner loop is one function on purpose: a call per message or per
        slice would cost 5 to 8 % of a local round trip.
        """
        runq = self.runq
        left_behind = runner.__dict__
        take = popleft
        is_pure = PURE  # a local variable, which costs sources less
        # Context variables that one port's handler sets must not show in the next port. To test whether any was
        # set costs a third of a fresh context for each port.
        context = runner.gr_context = Context()
        while True:
            references = getrefcount(runner)
            while runq:
                if self.credit <= 0 and self.turn_is_over():
                    break
                try:
                    due = take(runq)
                except BaseException:  # struck when it returned: what it took is lost
                    self._recover()
                    raise
                if due.state != QUEUED:
                    if due is A_JOB and self.jobs:
                        job: Any = self.jobs[0]
                        del self.jobs[0]  # not popleft(), for the same reason
                        try:
                            self._run_job(runner, job)
                        except BaseException:
                            if job.is_due:
                                self.enqueue_job(job)
                            raise
                        job = None
                        if context:
                            context = runner.gr_context = Context()
                        if runner.aemp_resumed or left_behind or getrefcount(runner) != references:
                            break
                    continue
                port = due
                cell = port.cell
                if cell.waiter is not None:
                    was_struck = True
                    try:
                        was_struck = self._park(runner, cell.waiter)
                    finally:
                        if was_struck and port.state == QUEUED:  # its greenlet may not have been resumed
                            self.runq += (port,)
                    references = getrefcount(runner)  # some greenlets that switched to it wait for their next turn
                    continue
                if cell.is_blank:  # its sender was struck, or is another thread that did not come to the mailbox yet
                    try:
                        cell = activate(port)
                    except BaseException:
                        runq += (port,)
                        raise
                failure = own_context = None
                room = SLICE
                step = left = FIRST_LOOK
                try:
                    port.state = RUNNING
                    cell.runner = runner
                    runner.at = runner.aemp_port = port
                    own_context = None if type(port) is Port else port.context
                    if own_context is not None:
                        runner.gr_context = own_context
                    if cell.dying is not None and (cell.inbox or cell.main is not None):
                        self.doom(port)  # its handlers, or its init function, may block
                    inbox = cell.inbox
                    if cell.main is not None:
                        self._run_main(port)
                        # An init function may have given the port a body, which receives these messages.
                        inbox = cell.inbox if cell.main is None else None
                    while inbox:
                        message = inbox.popleft() if is_pure else take(inbox)  # which tracing overrides
                        handlers = cell.handlers
                        if handlers is None or not handlers.serve(message):
                            value = port.default(*message)
                            if value is not None and is_done(port.default, value):
                                self.die(port, cell.dying or ())
                        left -= 1
                        if not left:
                            room -= step
                            if not room or self.turn_is_over():
                                break
                            step = left = min(room, self.credit)
                    self.credit -= step - left
                    if port.state == RUNNING:
                        port.state = IDLE
                        if cell.inbox:
                            self.enqueue(port)
                        elif cell.dying is not None:
                            self.die(port, cell.dying)
                        elif cell.main is not None:  # its handler gave the port a body
                            self.enqueue(port)
                except BaseException as error:  # noqa: BLE001
                    failure = error  # handled below, because nothing may switch inside an except block
                if failure is not None:
                    self.credit -= 1
                    try:
                        self.fail(port, failure)
                    finally:
                        failure = (
                            None  # its traceback has this frame: a reference cycle, which would keep the message alive
                        )
                        if port.state != DEAD:  # struck again: the hub ends the port
                            self._leave(port)
                cell.runner = None
                if context or own_context is not None:
                    context = runner.gr_context = Context()
                if runner.aemp_resumed or left_behind or getrefcount(runner) != references:
                    break
            # An idle runner's frame would keep these alive.
            due = port = cell = own_context = job = inbox = message = handlers = value = failure = None
            runner.at = runner.aemp_port = None
            if (runq or self._deaths) and not self.pumped:
                self.ask()
            if len(self._pool) >= self._max_idle:
                return
            if runner.aemp_resumed or left_behind or getrefcount(runner) != references:
                return
            self._park(runner, self.hub)

    def _recover(self) -> None:
        """Queue again what an interrupt took out of the run queue. Looks at all ports."""
        queued = set(map(id, self.runq))
        self.runq.extend(port for port in list(self.ports.values()) if port.state == QUEUED and id(port) not in queued)
        self.runq.extendleft([A_JOB] * (len(self.jobs) - self.runq.count(A_JOB)))

    def _park(self, runner: Runner, target: greenlet) -> bool:
        """Switch away from an idle runner until it is taken from the pool; return whether an exception struck."""
        # Into the pool before switching: the code that runs next may need a runner, and the hub would
        # otherwise start a new one each time.
        stray: BaseException | None = None
        try:
            runner.idle = True
            self._pool.append(runner)
            switch(target)
        except BaseException as error:  # noqa: BLE001
            stray = error
        if runner.idle:
            # It was not taken: a Timeout that a handler left running fired here, or Ctrl-C before the switch.
            runner.idle = False
            if runner in self._pool:
                self._pool.remove(runner)
        if stray is None:
            return False
        if isinstance(stray, (SystemExit, KeyboardInterrupt)):  # Ctrl-C
            self._interrupt(stray)
        else:
            _log.warning("%s was raised in an idle runner: a finished handler had left it running", stray)
        return True

    def _run_main(self, port: Port) -> None:
        """Run the function in a cell's ``main``: the body of a port with its own greenlet, or an init function."""
        cell = port.cell
        if cell.dying is not None and cell.main[2]:  # type: ignore[index]  # killed before its body began
            self.die(port, cell.dying)
            return
        self.credit -= 1  # otherwise bodies that start bodies would keep the hub from running
        function, args, ends_port = cell.main  # type: ignore[misc]  # a queued port's main is never a bool
        # An init function runs like a handler: ``receive`` in it serves no others.
        cell.main = STARTED if ends_port else None
        try:
            function(*args)
        except BaseException as error:
            blame(error, function, "function")
            raise
        if ends_port:
            self.die(port, () if cell.dying is None else cell.dying)

    def _run_job(self, runner: Runner, job: Job) -> None:
        self.credit -= 1
        runner.at = None  # it serves no port: the death of its context's port is not thrown into it
        runner.aemp_port = job.context
        failure = None
        try:
            job.run()
        except BaseException as error:  # noqa: BLE001
            failure = error
        if failure is not None:
            if job.is_due:  # struck before it began
                self.enqueue_job(job)
            self.fail(job.context, failure)
            failure = None  # see _run

    # --- messages without a handler, and forked children ---

    def discard(self, *message: Any) -> None:
        """Take a message that no handler matched: count it, and log it at debug level."""
        self.discarded += 1
        self.complaints.log(logging.DEBUG, "%s discarded: no handler matches", Brief(message))

    def abandon(self) -> None:
        """Stop forever, in a forked child: nothing runs or is thrown into a greenlet, and all objects are kept."""
        current = getcurrent()
        runners = list(self._runners)
        forking.keep(
            self, self._hub, runners, list(self._helpers), list(self.runq), list(self.jobs), list(self._deaths)
        )
        is_ours = not self.is_foreign  # the loop of another thread, which only the parent has, may be in any state
        self.is_abandoned = True
        self.thread = 0
        self.owner = NOBODY
        waiting: set[object] = {current}
        for port in self.ports.values():
            if port.state != REMOTE:
                cell = port.cell
                waiting.add(cell.waiter)
                port.state = DEAD
                port.mailbox = NOWHERE
                cell.dying = cell.dying or ()  # also in the blank cell, which no port of the child gets any more
        # The code that forked may come back to the runner's loop, which must find nothing to do. What is
        # appended from now on vanishes.
        served = current.at if isinstance(current, Runner) else None
        if isinstance(current, Runner):
            current.at = None
        inbox = None if served is None else served.inbox
        if inbox:
            forking.keep(list(inbox))
            inbox.clear()
        for queue in (self.runq, self.jobs, self._deaths, self._pool):
            queue.clear()
        self.runq = deque(maxlen=0)
        self.jobs = deque(maxlen=0)
        self._deaths = deque(maxlen=0)
        self.pumped = True
        for runner in runners:
            runner.stopped = runner is not current
        for helper in self._helpers:
            helper.stopped = helper is not current
        if is_ours and self._hub is not None:
            self.timers.stop()
            self._next_turn.stop()
            blocked = [runner for runner in runners if not (runner.idle or runner.dead or runner in waiting)]
            forking.stop_watchers_of([*blocked, *(helper for helper in self._helpers if helper is not current)])
        forking.keep(self.timers)
        self.timers = TimerQueue(self._hub)
