# SPDX-License-Identifier: MIT
"""Jobs that call a function. The base of all jobs is :class:`~aemp_gevent.ports.port.Job`."""

from __future__ import annotations

from aemp_gevent.ports.blame import blame
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
            self.function = None  # no call before the next line: a job that began does not begin again
            self.args = ()
            try:
                function(*args)
            except BaseException as error:
                blame(error, function, "function")
                raise

    def drop(self) -> None:
        """Cancel the call, and let go of its arguments."""
        self.function = None
        self.args = ()

    @property
    def is_due(self) -> bool:
        return self.function is not None

    def died(self, reason: Reason) -> bool:
        return self.is_due


A_JOB = Job(None)
"""The mark in the run queue for the first of the waiting jobs."""
