# SPDX-License-Identifier: MIT
"""The scheduler: what lets callbacks block without a greenlet for each port.

Ports with work stand in a run queue. A *runner* greenlet takes them one by one and
calls their handlers as plain functions, so that a message costs a call and not a
switch. When a handler blocks, its runner simply stays with that port: the hub, which
gets control then, runs the *pump*, sees that the queue still has work and starts
another runner. A greenlet that waits in ``receive`` is resumed by a runner directly,
or switches directly to the next one that is due.

Who may do what (every rule was paid for with a hang, a leak or a starved socket):

1. Work is queued, or a port stands in ``_deaths`` => ``pumped``: a pump is asked for
   or on the hub's stack. Whoever appends, and whoever goes to the hub leaving
   entries behind, sees to it.
2. A port is queued only from idle to queued. Entries that are no longer queued when
   they are popped are stale, and skipped.
3. Only the hub *starts* runners (who starts a greenlet lends it its own recursion
   depth) and only the hub *throws*. Nothing of the user's runs on the hub.
4. Idle first, then look: a port's state becomes idle before its mailbox is tested,
   because a finalizer may send between any two steps.
5. The value of a switch is never trusted: a foreign ``Timeout`` may resume anybody.
6. An exception may strike in the middle: see below. The step that counts comes last.

**Exceptions that nobody raised on purpose** strike our own code, too. At the recursion limit every call raises;
where a function begins, a call returned or a loop jumps back, the interpreter may run a signal handler, and that
raises (Ctrl-C). Nothing else lets them in: tests, loads, stores and operators do not. So:

- Who asks for the pump does that first. A pump too many does no harm, and when asking fails nothing was changed.
- A port is queued before its message is appended, and before it is marked as killed: without those two
  a queued port is served in vain. The appending, or the marking, is the last step.
- What is marked as queued, but may not be in the queue, is put there by an operator (``runq += (port,)``). What is
  taken from a queue is taken by ``[0]`` and ``del``, so that it is in a variable before anything can strike. Only the
  runners' own ``runq.popleft()`` is not (that would cost 6 % of a local round trip): when it is struck, all
  ports are looked at for those that lost their place. Jobs stand in a queue of their own, each with a
  mark in the run queue, so that none is lost with it.
- ``pumped`` is set by the caller that asks, and taken back when that fails. What the loop calls is
  no function but a suspended generator, which goes on *inside* a ``try`` (:mod:`aemp_gevent.runtime.hub_calls`).
- A runner that is struck while it serves a port has that port die, as if it had happened in the port's handler.
- :meth:`Scheduler.die` stores *dead* last and may be begun again.
- A timer of ours repeats until its call came to its end, so its call must bear to be made twice.

**Other native threads** send to local ports by the same few steps as everybody, without
a lock and without being recognised (that would cost a twentieth of a local message).
The interpreter switches threads only when a call returned, when a Python function
begins, and when a loop jumps back. So each of these is one step for all threads:
seeing that a port is not idle, finding its mailbox *and* appending to it
(``target.mailbox.append(msg)``); seeing that a port is idle *and* making it queued;
testing *and* storing a mailbox where no call stands between. Between two such steps a
thread may stop for any time, and then:

- stopped before it appends the message, it holds a port, never a mailbox: it appends to whatever is
  the port's mailbox by then (diverted, bounded, or nowhere), and in the same step it saw that the
  port is not idle, or else it queues it again;
- stopped when it has asked for the pump, that may have run in vain: it looks at everything again;
- stopped when it has queued the port, that may have been served in vain: it looks at the state again;
- a port may come to stand in the run queue twice, when this thread and the hub's each
  see it idle: rule 2 makes the second entry stale.

So nobody but the thread of the hub pops, throws, ends ports, or stores another state than
*queued*, and ``kil`` only notes the reason and stores the mailbox where messages vanish;
the rest is handed to the hub. Everything else that other threads call raises
:class:`~aemp_gevent.errors.WrongThreadError`.

This module is not about matching messages (:mod:`aemp_gevent.ports.receive`) nor about who
is told of deaths (:mod:`aemp_gevent.ports.monitors`). Prior art: Erlang's run queues and
reductions, Coro's ready queue, trio's "hand over, don't wake".
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from sys import getrefcount
from time import perf_counter
from typing import Any

import gevent
from gevent import monkey
from gevent.exceptions import LoopExit
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

from aemp_gevent.errors import EndlessWaitError, PortKilled, WrongThreadError
from aemp_gevent.ports.callbacks import called_function
from aemp_gevent.ports.handlers import is_done
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import DEAD, IDLE, JOB, NOWHERE, QUEUED, REMOTE, RUNNING, STARTED, Port, Reason
from aemp_gevent.runtime import forking
from aemp_gevent.runtime.bounded_log import BoundedLog, ErrorLog
from aemp_gevent.runtime.hub_calls import hub_call, repeated, report_to, see_through, stops_what_raises
from aemp_gevent.runtime.logs import Brief, Log
from aemp_gevent.runtime.quoting import said
from aemp_gevent.runtime.threads import Doorbell, close_with, doorbell_of, get_ident

SLICE = 32
"""Messages one port may handle before the next one's turn. Longer slices save little (7 % from 16
to 64), and a port behind a thousand busy ones waits for all of theirs."""

FIRST_LOOK = 2
"""Messages of a slice after which there is a look at the clock in any case, as its port's handlers may be slow. Most
slices have one message, and do not pay for it."""

CREDIT = 16
"""Messages between two looks at the clock (45 ns each, so 3 ns a message), however many ports had them."""

TURN_SECONDS = 0.003
"""How long ports may run before sockets and timers get a look: about what a loop iteration with
a few hundred ready sockets takes."""

CAREFUL_LOOKS = 256
"""For so many messages there is a look at the clock after each, once a turn took four times as long as it should. That
is 15 microseconds, which does not matter when the turn was long because other processes needed the processor."""

MAX_IDLE_RUNNERS = 64
"""Idle runners kept for reuse, 4 KiB each. Blocked ones are never capped: that would be a deadlock."""

RETRY_SECONDS = 0.05
"""How long after a timer's call was interrupted it is made again."""

MAX_TRIES = 10
"""How often at most: a call that raises by itself would otherwise do so forever, with a traceback each time."""

_log = Log()


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
_throw = greenlet.throw


class Job:
    """Something to run once that is not a message: a monitor's action, a timer's callback.

    Jobs share the run queue with ports, so that they take their turn in order.
    """

    __slots__ = ("context", "state")

    def __init__(self, context: Port | None) -> None:
        self.state = JOB
        self.context = context
        """The port in whose context it runs, and which dies of its exceptions."""

    def run(self) -> None:
        """Do it. Runs in a runner, in the port's context; may block and may raise."""
        raise NotImplementedError

    @property
    def is_due(self) -> bool:
        """Whether it is still to be done: it was neither begun nor cancelled."""
        return False

    def died(self, reason: Reason) -> bool:
        """A port this job monitors died; return whether it is to be run now."""
        raise NotImplementedError


class CallJob(Job):
    """A function call as a job."""

    __slots__ = ("args", "function")

    def __init__(self, context: Port | None, function: Handler, args: Message) -> None:
        super().__init__(context)
        self.function: Handler | None = function
        self.args = args

    def run(self) -> None:
        """Make the call, once."""
        function, args = self.function, self.args
        if function is not None:
            self.function = None  # no call before the next: begun is begun
            self.args = ()
            function(*args)

    def drop(self) -> None:
        """Do not make the call any more, and keep nothing for it."""
        self.function = None
        self.args = ()

    @property
    def is_due(self) -> bool:
        return self.function is not None

    def died(self, reason: Reason) -> bool:
        return self.is_due


A_JOB = Job(None)
"""What stands in the run queue for the first of the jobs that wait."""


class Scheduler:
    """Runs the ports of one node. Belongs to the hub of the thread that makes its first port."""

    def __init__(self) -> None:
        self.ports: dict[str, Port] = {}
        """Every living port by its ID, and by its aliases."""
        self.aliases: dict[Port, list[str]] = {}
        """Other IDs that reach a port: a registered name, its ID before the node was initialised."""
        self.runq: deque[Any] = deque()  # Any: ports and jobs, told apart by their state
        self.jobs: deque[Job] = deque()
        """The jobs for each of which :data:`A_JOB` stands in the run queue, in order."""
        self.pumped = False
        """Whether a pump is asked for, or on the hub's stack."""
        self.credit = CREDIT
        self.scan: object = None
        """What the last ``receive`` to look at a message knows of its mailbox; None when one took a message since."""
        self.discarded = 0
        """Messages that found no handler."""
        self.default: Callable[..., None] = self.discard
        """The default handler of every port that was given none: one bound method, not 64 bytes for each port."""
        self.node: Any = None
        """The node whose ports these are, for code that is spawned on it and wants to know; nothing here does."""
        self.on_unmonitored_death: Callable[[str, Reason], Job | None] = _ignore
        """Called when a port dies of something and nobody monitored it; returns what is to be run then."""
        self._failures = ErrorLog(self.log)
        self.complaints = BoundedLog(self.log, "messages that nobody takes")
        """What is logged about such messages."""
        self._pool: list[Runner] = []
        self._max_idle = MAX_IDLE_RUNNERS
        self._deaths: deque[Port] = deque()
        self.thread = 0
        """The native thread that the ports belong to; 0 as long as there never was one."""
        self._hub: Hub | None = None
        self._doorbell: Doorbell | None = None
        self._turn_started = 0.0  # 0: by no pump; who was resumed by something else begins one at its first look
        self._turn_over = False
        self._careful_looks = 0
        self._pace = 1  # the credit that was given last
        self._next_turn: Any = None  # gevent's watchers have no types
        self._wraps_timers = False
        self._timers: dict[Any, int] = {}  # how often the call of each was left by an exception
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()
        self._helpers: weakref.WeakSet[forking.Helper] = weakref.WeakSet()
        self.pump = hub_call(self._pump, self.ask, self._report)
        """Have runners work until nothing is due or the turn is over. Called on the hub only; raises nothing.

        The link layer calls it right after it delivered what it read, which saves a loop iteration a message.
        """
        self.is_abandoned = False
        """Whether this is a forked child, and this the parent's: everything stands still forever."""

    # --- asking for work to be done ---

    @property
    def hub(self) -> Hub:
        """The hub that orders our work."""
        if self._hub is None:
            hub = gevent.get_hub()
            self._doorbell = doorbell_of(hub)
            self._next_turn = hub.loop.timer(0)
            self._wraps_timers = stops_what_raises(hub)
            close_with(self, self._next_turn, self._doorbell)
            self.thread = get_ident()
            self._hub = hub
        return self._hub

    @property
    def is_foreign(self) -> bool:
        """Whether this code runs in another native thread than the ports'."""
        return get_ident() != self.thread and self.thread != 0

    def check_thread(self, call: str) -> None:
        """Refuse a call that is made in another native thread.

        Raises:
            WrongThreadError: It is; the text names ``call``.
        """
        if get_ident() != self.thread and self.thread:
            raise WrongThreadError(call, is_patched=monkey.is_module_patched("threading"))

    def call_on_hub(self, call: Callable[..., object], *args: Any) -> None:
        """Call ``call(*args)`` on the hub soon, whichever native thread this is; each thread's calls in order."""
        if self._doorbell is None:
            self._doorbell = doorbell_of(self.hub)
        self._doorbell.ring(call, *args)

    def leave(self, end: Callable[..., object], *args: Any) -> None:
        """Call what ends a ``with`` block, once more if something strikes it: here, or on the hub in other threads.

        In these the garbage collector may close a generator that holds the block. One that is left when the interpreter
        ends has nothing to end any more.
        """
        if sys.is_finalizing():
            return
        if self.is_foreign:
            self.call_on_hub(end, *args)
        else:
            see_through(end, *args)

    def enqueue(self, port: Port) -> None:
        """Queue a port if it is idle. Any native thread may call it. Written out in ``snd``: keep the two alike."""
        while not port.state:
            if not self.pumped:
                self.ask()
                continue  # other code may have run
            port.state = QUEUED
            try:
                self.runq.append(port)
            except BaseException:
                self.runq += (port,)  # no call; twice does no harm
                raise

    def enqueue_job(self, job: Job) -> None:
        """Queue a job; may be called on the hub."""
        if not self.pumped:
            self.ask()
        self.runq.append(A_JOB)  # first: one too many does no harm
        self.jobs.append(job)

    def enqueue_first(self, jobs: Iterable[Job]) -> None:
        """Queue jobs before everything that waits, in their order."""
        if not self.pumped:
            self.ask()
        first = list(jobs)
        self.runq.extendleft([A_JOB] * len(first))
        self.jobs.extendleft(reversed(first))

    def deliver(self, port: Port, message: Message) -> None:
        """Put a message into a port's mailbox. Never switches. Written out in ``snd``: keep the two alike."""
        while not port.state:  # tested again when it was queued, in one step with the next line
            self.enqueue(port)
        port.mailbox.append(message)

    def ask(self) -> None:
        """Ask the hub to run the pump soon. When this raises, nothing was asked for."""
        try:
            self.pumped = True  # first: another thread's hub may have run the pump before we go on
            if self.is_foreign:  # the hub sleeps in its own thread, and must be woken
                self.call_on_hub(self.pump)
            else:
                self.hub.loop.run_callback(self.pump)
        except BaseException:
            self.pumped = False  # if it was asked for all the same, it may run twice
            raise

    # --- timers and greenlets that end with the node ---

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        """Call ``call(*args)`` on the hub once, in a while; return the timer for :meth:`end_timer`."""
        timer = self.hub.loop.timer(max(seconds, 0), RETRY_SECONDS)
        # update: the loop's idea of now may be a whole turn of ours old.
        if self._wraps_timers:
            timer.start(repeated(self.hub, self._due, timer, call, args), update=True)
        else:  # which does the same at less cost
            timer.start(self._due, timer, call, args, update=True)
        self._timers[timer] = 0
        return timer

    def _due(self, timer: Any, call: Callable[..., object], args: tuple[Any, ...]) -> None:  # on the hub
        try:
            call(*args)
        except BaseException:
            if timer in self._timers:
                self._timers[timer] += 1
                if self._timers[timer] >= MAX_TRIES:  # it is the call that raises, and nothing that struck it
                    self.end_timer(timer)
            raise
        self.end_timer(timer)  # not before: what interrupts has it made again

    def end_timer(self, timer: Any) -> None:
        """Stop a timer and forget it. Idempotent."""
        self._timers.pop(timer, None)
        timer.stop()
        timer.close()

    def start_greenlet(self, function: Callable[..., Any], *args: Any) -> forking.Helper:
        """Start a greenlet beside the runners, which a forked child stops like these."""
        helper = forking.Helper.spawn(function, *args)
        self._helpers.add(helper)
        return helper

    def abandon(self) -> None:
        """Stop forever, in a forked child: nothing here runs on, nothing is thrown into anybody, and all is kept."""
        current = getcurrent()
        runners = list(self._runners)
        forking.keep(
            self, self._hub, runners, list(self._helpers), list(self.runq), list(self.jobs), list(self._deaths)
        )
        is_ours = not self.is_foreign  # the loop of a thread that only the parent has may be in any state
        self.is_abandoned = True
        self.thread = 0
        self.on_unmonitored_death = _ignore
        waiting: set[object] = {current}
        for port in self.ports.values():
            if port.state != REMOTE:
                waiting.add(port.waiter)
                port.state = DEAD
                port.mailbox = NOWHERE
                port.dying = port.dying or ()
        # Whoever forked may come back to the runner's loop, which must find nothing to do; what is
        # appended from now on vanishes.
        served = current.at if isinstance(current, Runner) else None
        if isinstance(current, Runner):
            current.at = None
        if served is not None and served.inbox:
            forking.keep(list(served.inbox))
            served.inbox.clear()
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
            for timer in [*self._timers, self._next_turn]:
                timer.stop()
            blocked = [runner for runner in runners if not (runner.idle or runner.dead or runner in waiting)]
            forking.stop_watchers_of([*blocked, *(helper for helper in self._helpers if helper is not current)])
        forking.keep(list(self._timers))
        self._timers.clear()

    # --- on the hub ---

    def _report(self, error: BaseException) -> None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self._interrupt(error)
        else:
            report_to(self.hub, error)

    def _interrupt(self, error: BaseException) -> None:
        """Raise in the main greenlet what ends the program: it reports what is to be reported.

        Not ``handle_error()``, which prints a traceback before that.
        """
        self.hub.handle_system_error(type(error), error, error.__traceback__)

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
            # The runner, or whoever it hands over to, comes back when it blocks, has
            # nothing left to do, or the turn is over.
            if pool:
                runner = pool[-1]
                del pool[-1]
            else:
                runner = Runner(self._run, self.hub)
                self._runners.add(runner)
            runner.idle = False
            _switch(runner, runner)
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
        if runq or self._deaths:  # first say no, then look: a finalizer may have sent in between
            self.ask()

    def end_all_timers(self) -> None:
        """Stop and forget every timer: nobody is called back any more."""
        for timer in list(self._timers):
            self.end_timer(timer)

    def end_idle_runners(self) -> None:
        """Keep no idle runners from now on: they would keep the whole node in memory. Runs on the hub only."""
        self._max_idle = 0
        while self._pool:
            runner = self._pool.pop()
            runner.idle = False
            runner.switch()

    def _reap(self) -> None:
        """Throw into the holders of killed ports. On the hub, so every greenlet is blocked."""
        deaths = self._deaths
        while deaths:
            port = deaths[0]
            if port.state != RUNNING or port.dying is None:
                # It left its handler meanwhile: dead, or about to die in order. Or the kill was struck in the middle.
                del deaths[0]
                continue
            holder = port.runner
            # An attached greenlet is somebody else's: it learns of the death in its next
            # blocking call of ours.
            is_inside = isinstance(holder, Runner) and holder.at is port and not holder.dead
            killed = PortKilled(*port.dying)
            try:
                self.die(port, port.dying)  # first, so that the greenlet's finally blocks find it dead
            finally:
                if port.state == DEAD:  # otherwise the next pump tries again
                    del deaths[0]
                    if is_inside:
                        _throw(holder, killed)  # type: ignore[arg-type]  # inside there is one

    # --- in the runners ---

    def _run(self, runner: Runner) -> None:
        """A runner's life: take the next that is due, serve it, and park when nothing is.

        The body of the inner loop is one function on purpose: a call per message or per
        slice would cost 5 to 8 % of a local round trip.
        """
        runq = self.runq
        left_behind = runner.__dict__
        # What one port's handler sets in a context variable must not show in the next port's. Looking whether it
        # set one costs a third of giving each a fresh context.
        context = runner.gr_context = Context()
        while True:
            references = getrefcount(runner)
            while runq:
                if self.credit <= 0 and self.turn_is_over():
                    break
                try:
                    port = runq.popleft()
                except BaseException:  # struck when it returned, and what it took is lost
                    self._recover()
                    raise
                if port.state != QUEUED:
                    if port is A_JOB and self.jobs:
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
                        if left_behind or getrefcount(runner) != references:
                            break
                    continue
                if port.waiter is not None:
                    was_struck = True
                    try:
                        was_struck = self._park(runner, port.waiter)
                    finally:
                        if was_struck and port.state == QUEUED:  # it may not have been resumed
                            self.runq += (port,)
                    references = getrefcount(runner)  # of those who switched to it, some wait for their next turn
                    continue
                failure = None
                room = SLICE
                step = left = FIRST_LOOK
                try:
                    port.state = RUNNING
                    port.runner = runner
                    runner.at = runner.aemp_port = port
                    if port.context is not None:
                        runner.gr_context = port.context
                    if port.dying is not None and (port.inbox or port.main is not None):
                        self.doom(port)  # its handlers, or its init function, may block
                    inbox = port.inbox
                    if port.main is not None:
                        self._run_main(port)
                        # An init function may have given the port a body, whose messages these are.
                        inbox = port.inbox if port.main is None else None
                    while inbox:
                        message = inbox.popleft()
                        handlers = port.handlers
                        if handlers is None or not handlers.serve(message):
                            value = port.default(*message)
                            if value is not None and is_done(port.default, value):
                                self.die(port, port.dying or ())
                        left -= 1
                        if not left:
                            room -= step
                            if not room or self.turn_is_over():
                                break
                            step = left = min(room, self.credit)
                    self.credit -= step - left
                    if port.state == RUNNING:
                        port.state = IDLE
                        if port.inbox:
                            self.enqueue(port)
                        elif port.dying is not None:
                            self.die(port, port.dying)
                        elif port.main is not None:  # its handler gave it a body
                            self.enqueue(port)
                except BaseException as error:  # noqa: BLE001
                    failure = error  # dealt with below: nothing may switch inside an except block
                if failure is not None:
                    self.credit -= 1
                    try:
                        self.fail(port, failure)
                    finally:
                        failure = None  # its traceback has this frame: a circle, which would keep the message
                        if port.state != DEAD:  # struck again: the hub sees to the rest
                            self._leave(port)
                port.runner = None
                if context or port.context is not None:
                    context = runner.gr_context = Context()
                if left_behind or getrefcount(runner) != references:
                    break
            # What the frame of an idle runner holds would live on with it.
            port = job = inbox = message = handlers = value = failure = None
            runner.at = runner.aemp_port = None
            if (runq or self._deaths) and not self.pumped:
                self.ask()
            if len(self._pool) >= self._max_idle:
                return
            if left_behind or getrefcount(runner) != references:
                return
            self._park(runner, self.hub)

    def _recover(self) -> None:
        """Queue again what an interrupt took out of the run queue; looks at all ports."""
        queued = set(map(id, self.runq))
        self.runq.extend(port for port in list(self.ports.values()) if port.state == QUEUED and id(port) not in queued)
        self.runq.extendleft([A_JOB] * (len(self.jobs) - self.runq.count(A_JOB)))

    def _park(self, runner: Runner, target: greenlet) -> bool:
        """Switch away from an idle runner until somebody takes it from the pool; return whether an exception struck."""
        # Into the pool before switching: whoever runs next may want a runner, and would
        # otherwise make the hub start a new one each time.
        stray: BaseException | None = None
        try:
            runner.idle = True
            self._pool.append(runner)
            _switch(target)
        except BaseException as error:  # noqa: BLE001
            stray = error
        if runner.idle:
            # Nobody took it: a Timeout that a handler left running fired here, or Ctrl-C before it had left.
            runner.idle = False
            if runner in self._pool:
                self._pool.remove(runner)
        if stray is None:
            return False
        if isinstance(stray, (SystemExit, KeyboardInterrupt)):  # Ctrl-C, just now
            self._interrupt(stray)
        else:
            _log.warning("%s reached an idle runner: a handler that had ended left it behind", stray)
        return True

    def _run_main(self, port: Port) -> None:
        """Run what stands in ``port.main``: the body of a port with its own greenlet, or an init function."""
        if port.dying is not None and port.main[2]:  # type: ignore[index]  # killed before its body began
            self.die(port, port.dying)
            return
        self.credit -= 1  # without it, bodies that start bodies would keep the hub from running
        function, args, ends_port = port.main  # type: ignore[misc]  # a queued port's main is never a bool
        # An init function runs like a handler: ``receive`` in it serves no others.
        port.main = STARTED if ends_port else None
        function(*args)
        if ends_port:
            self.die(port, () if port.dying is None else port.dying)

    def _run_job(self, runner: Runner, job: Job) -> None:
        self.credit -= 1
        runner.at = None  # it serves no port: what waits here for its context's port is not thrown into
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

    def turn_is_over(self) -> bool:
        """Renew the credit, or say that ports ran long enough; the caller goes to the hub then.

        Before the hub gets control a pump is asked for, whoever called.
        """
        now = perf_counter()
        if self._turn_started == 0.0:
            self._turn_started = now
        elif now - self._turn_started > TURN_SECONDS:
            if now - self._turn_started > 4 * TURN_SECONDS:
                self._careful_looks = CAREFUL_LOOKS
            self._turn_over = True
            self.credit = 0  # also the caller's own loop looks at it
            if not self.pumped:
                _ = self.hub
                self._next_turn.start(self.pump)
                self.pumped = True
            return True
        # Few messages at first: the first handlers of a turn may be slow ones, too.
        if self._careful_looks:
            self._careful_looks -= 1
            self._pace = 1
        elif self._pace < CREDIT:
            self._pace *= 2
        self.credit = self._pace
        return False

    # --- in a greenlet that waits for messages ---

    def wait(self, port: Port, current: greenlet, scanned: int) -> None:
        """Give way until ``port`` has more than ``scanned`` messages, was killed, or ``current`` was resumed.

        The caller looks at the port afterwards: why it was resumed is not told.
        """
        current.aemp_resumed = True  # type: ignore[attr-defined]  # any greenlet can carry it
        port.waiter = current
        port.state = IDLE
        try:
            # Idle first, then look: a finalizer may have sent after the caller's last look,
            # and whoever sends from here on queues the port.
            if port.dying is None and not (port.inbox and len(port.inbox) > scanned):
                runq = self.runq
                if runq and self.credit > 0 and (due := runq[0]).state == QUEUED and due.waiter is not None:
                    # Greenlet to greenlet, without a runner in between: the hot path of
                    # two actors that talk to each other.
                    del runq[0]
                    if due is not port:
                        try:
                            _switch(due.waiter)
                        except BaseException:
                            if due.state == QUEUED:  # struck before it was resumed
                                self.runq += (due,)
                            raise
                else:
                    due = None  # which this frame would keep alive
                    self._give_way()
        except BaseException as error:
            # A foreign Timeout, which came before us to a port that was killed: it leaves
            # receive, and may block elsewhere.
            if port.dying is not None:
                self.doom(port)
            if isinstance(error, LoopExit):
                raise EndlessWaitError from error
            raise
        finally:
            port.waiter = None
            if port.state != DEAD:
                port.state = RUNNING

    def _give_way(self) -> None:
        """Switch to a runner that can serve what is due, or else to the hub."""
        runq = self.runq
        if runq and self.credit > 0 and self._pool:
            runner = self._pool[-1]
            del self._pool[-1]
            runner.idle = False
            _switch(runner)
            return
        if (runq or self._deaths) and not self.pumped:
            self.ask()
        self.hub.switch()

    def visit_hub(self, port: Port, current: greenlet) -> None:
        """Give sockets and timers a turn, from a greenlet that always finds a message."""
        try:
            port.waiter = current
            port.state = QUEUED
            current.aemp_resumed = True  # type: ignore[attr-defined]  # as in wait()
            self.runq += (port,)
            self.hub.switch()
        finally:
            port.waiter = None
            if port.state != DEAD:
                port.state = RUNNING
                if port.dying is not None:  # and the hub may have passed it over, as it was queued
                    self.doom(port)

    # --- deaths ---

    def kill(self, port: Port, reason: Reason) -> None:
        """Kill a port with ``reason`` once it handled what was sent before. The first kill wins."""
        if port.dying is not None:
            return
        # First what may raise. Queued without having been killed it would be served, or looked at, in vain.
        self._hurry(port)
        if port.dying is None:  # no call before the two stores: other native threads kill, too
            port.dying = reason
            port.mailbox = NOWHERE

    def _hurry(self, port: Port) -> None:
        """See that a killed port dies, whoever is inside."""
        if port.state == IDLE:
            self.enqueue(port)
        elif port.state == RUNNING:
            self.doom(port)

    def kill_from_afar(self, port: Port, reason: Reason) -> None:
        """Do as :meth:`kill` in another native thread: the port is killed at once, the hub sees to the rest."""
        if port.dying is None:
            self.call_on_hub(self._kill_here, port, reason)
            if port.dying is None:
                port.dying = reason
                port.mailbox = NOWHERE

    def _kill_here(self, port: Port, reason: Reason) -> None:  # on the hub
        self.kill(port, reason)
        self._hurry(port)  # if it was marked in the other thread

    def overflow(self, port: Port, limit: int) -> None:
        """Kill a port that has too many messages, whichever native thread sent the last one."""
        reason = ("mailbox_overflow", limit)
        if self.is_foreign:
            self.kill_from_afar(port, reason)
            self.call_on_hub(self.kill_now, port, reason)  # what waits in it is not to be handled
        else:
            self.kill_now(port, reason)

    def doom(self, port: Port) -> None:
        """End a killed port with a greenlet inside at the latest when that blocks.

        If a greenlet is still inside when the hub gets control, it is blocked, and waiting
        for it to end would make a sleeping port unkillable. To be called whenever a greenlet
        enters a killed port to handle what was sent before the kill, too.
        """
        if not self.pumped:
            self.ask()
        self._deaths.append(port)

    def _leave(self, port: Port) -> None:
        """Leave it to the hub to end a port that nobody is inside any more. Nothing in here can be struck."""
        port.state = RUNNING
        port.runner = None
        port.mailbox = NOWHERE
        if port.dying is None:
            port.dying = ("die", "interrupted")
        self._deaths += (port,)

    def kill_now(self, port: Port, reason: Reason) -> None:
        """Kill a port with ``reason`` without handling what was sent before."""
        self.kill(port, reason)
        # Afterwards, so that a finalizer of a message cannot send to the port any more.
        if port.inbox:
            port.inbox.clear()

    def fail(self, port: Port | None, error: BaseException) -> None:
        """Kill a port at once for an exception of its code, and drop its backlog; log it if it is news.

        Args:
            port: Whose code raised; None when it ran outside any port.
            error: What it raised.
        """
        is_news = not isinstance(error, PortKilled) or port is None or port.dying is None
        if port is not None and port.state != DEAD:
            reason = ("die", describe(error)) if port.dying is None else port.dying
            if port.state == RUNNING and port.runner is getcurrent():
                self.die(port, reason)
            else:
                self.kill_now(port, reason)
        # Afterwards: a log handler may block, and a foreign Timeout strike there.
        where = f"port {port.id}" if port else "a callback outside any port"
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self.log(logging.INFO, "%s was interrupted: %s", where, describe(error))
            self._interrupt(error)
        elif is_news:
            called = called_function(error, port.default if port else None)
            self._failures.log(error, "exception in %s%s", where, called and f"; {called}")

    def log(self, level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log, from wherever. On the hub it takes a turn in the run queue: log handlers may block.

        So it does for other native threads: log handlers in patched programs have greenlets' locks.
        """
        if self.is_foreign or getcurrent() is self._hub:
            self.log_soon(level, text, *args, exc_info=exc_info)
        else:
            _log.log(level, text, *args, exc_info=exc_info)

    def log_soon(self, level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log in a turn of its own, for code that must not switch: log handlers may."""
        if not _log.is_enabled_for(level):
            return
        job = CallJob(None, partial(_log.log, level, text, *args, exc_info=exc_info), ())
        if self.is_foreign:
            self.call_on_hub(self.enqueue_job, job)
        else:
            self.enqueue_job(job)

    def die(self, port: Port, reason: Reason) -> None:
        """End a port's life now: nothing more is handled, and its monitors' actions are queued.

        Only for whoever is inside the port, or the hub. Never switches.
        """
        # Whatever interrupts this in the middle, it may be begun again: what shows that all is done comes last.
        if port.state == DEAD:
            return
        port.dying = reason
        port.mailbox = NOWHERE
        if port.inbox:
            port.inbox.clear()
        port.handlers = None
        ports = self.ports
        ports.pop(port.id, None)
        if self.aliases:
            for alias in self.aliases.get(port, ()):
                ports.pop(alias, None)
            self.aliases.pop(port, None)
        monitors = port.monitors
        if monitors is None and reason:
            monitors = port.monitors = self.on_unmonitored_death(port.id, reason)  # a job, which runs once
        if monitors is not None:
            for monitor in tuple(monitors) if isinstance(monitors, dict) else (monitors,):
                if monitor.died(reason):
                    self.enqueue_job(monitor)
            port.monitors = None
        port.state = DEAD

    def discard(self, *message: Any) -> None:
        """Take a message that no handler matched: count it, and log it at debug level."""
        self.discarded += 1
        self.complaints.log(logging.DEBUG, "%s discarded: no handler matches", Brief(message))


def describe(error: BaseException) -> str:
    """Return what a reason says of an exception: its class and text."""
    try:
        text = said(error)
    except BaseException:  # noqa: BLE001  # the user's __str__; whoever asks reports a death, and must come to its end
        text = "<str() failed>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ignore(port: str, reason: Reason) -> None:
    """Stand in for a callback that nobody set: there is nothing to run."""
