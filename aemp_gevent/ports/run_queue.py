# SPDX-License-Identifier: MIT
"""The run queue: the ports and jobs that have something to do, in order, and the request to the hub to run them.

Which steps may be struck by an exception, and which are safe for other native threads, is explained in
:mod:`aemp_gevent.ports`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from greenlet import getcurrent

from aemp_gevent.ports.hub_thread import HubThread
from aemp_gevent.ports.jobs import A_JOB, CallJob
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import QUEUED, Job, Receiver
from aemp_gevent.runtime.logs import Log

# Compiled, this name stands for a C function, and PURE for 0 (c_calls.pxd). Nothing can be assigned to them.
PURE: bool
append: Callable[[deque[Any], Any], None]
globals().update(PURE=True, append=deque.append)

_log = Log()


class RunQueue(HubThread):
    """The ports and jobs that are due. Any native thread may add a port."""

    pump: Callable[[], object]
    """Call runners until nothing is due or the turn is over. Called on the hub only; raises nothing.

    The link layer calls it right after it delivered what it read, which saves a loop iteration a message.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runq: deque[Any] = deque()  # Any: ports and jobs, which their state tells apart
        self.jobs: deque[Job] = deque()
        """The jobs for each of which :data:`~aemp_gevent.ports.jobs.A_JOB` stands in the run queue, in order."""
        self.pumped = False
        """Whether a pump is asked for, or on the hub's stack."""

    def enqueue(self, port: Receiver) -> None:
        """Queue a port if it is idle. Any native thread may call it. ``snd`` has a copy of this: keep the two alike."""
        while True:
            if port.state:
                return
            if self.pumped:
                if not port.state:  # again, in one step with what follows
                    port.state = QUEUED
                    try:
                        append(self.runq, port)
                    except BaseException:
                        self.runq += (port,)  # no call; a second entry does no harm
                        raise
            else:
                self.ask()  # other code may run

    def enqueue_job(self, job: Job) -> None:
        """Queue a job. May be called on the hub."""
        if not self.pumped:
            self.ask()
        self.runq.append(A_JOB)  # first: one mark too many does no harm
        self.jobs.append(job)

    def enqueue_first(self, jobs: Iterable[Job]) -> None:
        """Queue jobs, in their order, before everything that is queued."""
        if not self.pumped:
            self.ask()
        first = list(jobs)
        self.runq.extendleft([A_JOB] * len(first))
        self.jobs.extendleft(reversed(first))

    def deliver(self, port: Receiver, message: Message) -> None:
        """Put a message into a port's mailbox. Never switches. ``snd`` has a copy of this: keep the two alike."""
        while True:
            if port.state:
                if PURE:
                    port.mailbox.append(message)
                else:
                    append(port.mailbox, message)
                return
            self.enqueue(port)

    def ask(self) -> None:
        """Ask the hub to run the pump soon. If this raises, nothing was asked for."""
        try:
            self.pumped = True  # first: the hub, in another thread, may run the pump before the next line
            if self.is_foreign:  # the hub sleeps in its own thread and must be woken
                self.call_on_hub(self.pump)
            else:
                self.hub.loop.run_callback(self.pump)
        except BaseException:
            self.pumped = False  # if it was asked for nevertheless, it may run twice
            raise

    def log(self, level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log from anywhere. On the hub, the line is logged by a job, because log handlers may block.

        It is so for other native threads, too, because log handlers in patched programs have greenlets' locks.
        """
        if self.is_foreign or getcurrent() is self._hub:
            self.log_soon(level, text, *args, exc_info=exc_info)
        else:
            _log.log(level, text, *args, exc_info=exc_info)

    def log_soon(self, level: int, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log in a job, for code that must not switch: log handlers may switch."""
        if not _log.is_enabled_for(level):
            return
        job = CallJob(None, partial(_log.log, level, text, *args, exc_info=exc_info), ())
        if self.is_foreign:
            self.call_on_hub(self.enqueue_job, job)
        else:
            self.enqueue_job(job)
