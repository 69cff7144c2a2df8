# SPDX-License-Identifier: MIT
"""Monitors of families: they call back with each change, in order, in the context of a port."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from aemp_gevent.directory.engine import Entries
from aemp_gevent.directory.local_directory import Directory, Watching
from aemp_gevent.directory.merge import Change, difference
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.port import DEAD

MAX_CHANGES_BEHIND = 1000
"""Changes that wait for a monitor whose callback is slow; more of them become one."""

FamilyCallback: TypeAlias = Callable[[Mapping[str, Any], list[str], list[str], list[str]], object]
"""``cb(map, added, changed, deleted)``: all entries, and the keys of those that are new, changed and deleted."""


class _Report(CallJob):
    """A call of a monitor, which is due until the monitor has begun it: what strikes before has it made again."""

    __slots__ = ()

    def run(self) -> None:
        """Make the call, unless it was begun."""
        if self.function is not None:
            self.function(self)


class DirectoryMonitor(Watching):
    """A monitor, as returned by ``db_mon`` and ``grp_mon``: ``cancel()`` ends its calls; also a context manager."""

    def __init__(self, directory: Directory, family: str, callback: FamilyCallback) -> None:
        super().__init__(directory, family)
        self._callback = callback
        self._context = current_port()
        self._view: Entries = {}  # as of the last call; the local copy may be newer
        self._news: deque[tuple[Change, list[str]]] = deque()
        self._is_behind = False
        self._is_due = False
        self._report: _Report | None = None  # the last that was queued
        self._was_called = False
        self._is_over = False
        self._death: Monitor | None = None
        if self._context is not None:
            self._death = directory.host.monitor(self._context.id, lambda *_reason: self.cancel(), None)

    def heard(self, change: Change, added: list[str]) -> None:
        """Queue a change. For the directory only."""
        if self._is_behind:
            return  # the next call reports the difference
        self._news.append((change, added))
        if len(self._news) > MAX_CHANGES_BEHIND:
            self._is_behind = True
            self._news.clear()
        self._ask()

    def lost_track(self) -> None:
        """Report the difference in the next call. For the directory only."""
        self._is_behind = True
        self._news.clear()
        self._ask()

    def _ask(self) -> None:
        """Make the next call, unless one is being made: one at a time keeps the order."""
        if not (self._is_due or self._is_over) and (self._news or self._is_behind):
            try:
                report = _Report(self._context, self._call, ())
                self._report = report
                self._is_due = True
                self._directory.scheduler.enqueue_job(report)
            except BaseException:
                self._is_due = False  # if the job is queued nevertheless, it makes no call once another one is
                raise

    def _call(self, report: _Report) -> None:
        if report is not self._report:
            report.function = None
            return
        try:
            report.function = None  # no call before this line, so that a strike finds the report due, or in the try
            self._is_over = self._is_over or (self._context is not None and self._context.state == DEAD)
            if self._is_over:
                return
            if self._is_behind:
                change = difference(self._view, self._directory.copy(self.family) or {})
                is_news = not (change.is_empty and self._was_called)
                self._news = deque([(change, [key for key in change.entries if key not in self._view])] * is_news)
                self._is_behind = False
            if not self._news:
                return
            change, added = self._news[0]
            for key in change.deleted:
                self._view.pop(key, None)
            self._view.update(change.entries)
            fresh = set(added)
            changed = [key for key in change.entries if key not in fresh]
            arguments = MappingProxyType(self._view), list(added), changed, list(change.deleted)
            # Not before: what is interrupted until here is done again.
            if self._news:
                del self._news[0]
            self._was_called = True
            self._callback(*arguments)
        finally:
            self._is_due = False
            try:
                self._ask()
            except BaseException:
                self._ask()
                raise

    def cancel(self) -> None:
        """Make no more calls. May be called any number of times."""
        self._directory.scheduler.check_thread("cancel() of what db_mon() returned")
        self._is_over = True
        self._news.clear()
        if self._death is not None:
            self._death.cancel()
        super().cancel()

    def __enter__(self) -> DirectoryMonitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._directory.scheduler.leave(self.cancel)
