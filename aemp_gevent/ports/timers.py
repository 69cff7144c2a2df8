# SPDX-License-Identifier: MIT
"""Timers, which ``after`` returns: calls in the context of a port."""

from __future__ import annotations

from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Port, PortHost


class Timer:
    """A call that is made after some seconds. ``cancel()`` it, or use it as a context manager.

    After ``cancel()`` returned, the call is not made.
    """

    __slots__ = ("_job", "_scheduler", "_timer")

    def __init__(
        self, scheduler: PortHost, seconds: float | None, context: Port | None, function: Handler, args: Message
    ) -> None:
        self._scheduler = scheduler
        self._job = CallJob(context, function, args)
        self._timer: int | None = None
        if seconds is not None:
            self._timer = scheduler.start_timer(seconds, self._due)

    def _due(self) -> None:  # on the hub
        if self._job.is_due:
            self._scheduler.enqueue_job(self._job)
        self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._scheduler.end_timer(self._timer)
            self._timer = None

    def cancel(self) -> None:
        """Cancel the call. May be called any number of times, also after the call was made."""
        self._scheduler.check_thread("cancel() of a timer")
        self._job.drop()  # it may be queued already
        self._close()

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.leave(self.cancel)
