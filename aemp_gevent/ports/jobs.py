# SPDX-License-Identifier: MIT
"""Function calls that wait in the run queue. What every job has is :class:`~aemp_gevent.ports.port.Job`."""

from __future__ import annotations

from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Job, Port
from aemp_gevent.ports.reasons import Reason


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
