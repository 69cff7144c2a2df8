# SPDX-License-Identifier: MIT
"""Logs when the event loop was blocked, with the stack of the code that blocked it.

A greenlet that computes for seconds, or calls something that blocks the whole thread,
stops every port, every socket and every heartbeat of its program, and is hard to find.
So a native thread, which can still run then, takes the stack of the loop's thread, and the
loop logs it once it is free again.
"""

from __future__ import annotations

import os
import sys
import traceback
from time import monotonic
from types import FrameType
from typing import Any, Protocol

import gevent
from gevent import monkey
from gevent.hub import Hub

from aemp_gevent.runtime.hub_calls import repeated
from aemp_gevent.runtime.logs import Lines, Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.threads import allocate_lock, doorbell_of, get_ident

BLOCKED_SECONDS = 1.0
"""A loop that was busy for longer counts as blocked."""

_BEAT_SECONDS = 0.25

_WORST_BEATS = 120
"""Beats over which the worst delay is taken, at most twice this number: 30 to 60 seconds."""

_LOOKS_A_CALL = 4
"""How often the thread looks for one call of the onlookers: they are called once a second."""

_MAX_PLACE = 120
"""Characters of a place: what beats carry, and peers show."""

_log = Log()

_watches: dict[Hub, LoopWatch] = {}


class Onlooker(Protocol):
    """Something that hears of blocked loops."""

    def blocked(self, seconds: float, where: str) -> None:
        """Take note that the loop is blocked. Called once a second, in the native thread of the watch. Must not raise.

        Args:
            seconds: For how long.
            where: The file, line and function of the code that runs.
        """

    def running(self) -> None:
        """Take note that it runs again. Called on the hub, if :meth:`blocked` was called, and perhaps once more."""


class LoopWatch:
    """Watches one hub's loop. Made by :func:`watch_loop`; call ``release()`` once for each call of that."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._users = 0
        self.process = os.getpid()
        """A forked child has this object, but not its thread."""
        self._thread_id = get_ident()
        self._last_beat = monotonic()
        self._stack: str | None = None
        self._onlookers: tuple[Onlooker, ...] = ()
        self._was_told = False  # whether onlookers have to hear that the loop runs again
        self._trouble = ""  # an exception in the thread, which the loop logs
        self.lag = 0.0
        """Seconds by which the last beat was late: how long a greenlet that is ready waits for its turn."""
        self.blocks = 0
        """How often the loop was blocked, and this was logged."""
        self.blocked_seconds = 0.0
        """How long it was, all these times together."""
        self._worst = (0.0, 0.0)  # of the beats counted now, and of the same number before
        self._beats = 0
        self._doorbell = doorbell_of(hub)
        loop: Any = hub.loop  # gevent's watchers have no types
        self._timer = loop.timer(_BEAT_SECONDS, _BEAT_SECONDS, ref=False)
        self._timer.start(repeated(hub, self._beat))
        self._end: Any = allocate_lock()
        self._end.acquire()
        # A real one: in a patched program a thread is one more greenlet of the loop that blocks.
        monkey.get_original("_thread", "start_new_thread")(self._look_on, ())

    def use(self) -> LoopWatch:
        """Count one more user."""
        self._users += 1
        return self

    def release(self) -> None:
        """Count one user less; after the last one the watch ends."""
        self._users -= 1
        if not self._users:
            # Not at once: the garbage collector may have ended a node, in any thread.
            self._doorbell.close(self._timer)
            self._end.release()
            if _watches.get(self._hub) is self:
                del _watches[self._hub]

    def add(self, onlooker: Onlooker) -> None:
        """Call an onlooker when the loop is blocked, until :meth:`remove`."""
        self._onlookers += (onlooker,)

    def remove(self, onlooker: Onlooker) -> None:
        """Call it no more; a call may still be under way in the watch's thread."""
        self._onlookers = tuple(each for each in self._onlookers if each is not onlooker)

    @property
    def worst_lag(self) -> float:
        """The worst lag in seconds of the last 30 to 60 seconds."""
        return max(self._worst)

    def _beat(self) -> None:  # on the hub
        now = monotonic()
        blocked, self._last_beat = now - self._last_beat - _BEAT_SECONDS, now
        self.lag = max(blocked, 0.0)
        self._beats = (self._beats + 1) % _WORST_BEATS
        worst, before = self._worst
        self._worst = (max(worst, self.lag), before) if self._beats else (self.lag, worst)
        if self._was_told:
            self._was_told = False  # before the calls: the thread may be calling at this moment
            try:
                for onlooker in self._onlookers:
                    onlooker.running()
            except BaseException:  # Ctrl-C: again with the next beat
                self._was_told = True
                raise
        trouble, self._trouble = self._trouble, ""
        if trouble:
            gevent.spawn(_report_trouble, trouble)
        stack, self._stack = self._stack, None
        if blocked > BLOCKED_SECONDS:
            self.blocks += 1
            self.blocked_seconds += blocked
            gevent.spawn(_report, blocked, stack)

    def _look_on(self) -> None:  # in a thread of its own
        looks, last_beat = 0, 0.0  # while the loop has not beaten since then
        while not self._end.acquire(timeout=_BEAT_SECONDS):
            late = monotonic() - self._last_beat - _BEAT_SECONDS
            if late <= BLOCKED_SECONDS:
                continue
            looks = looks + 1 if last_beat == self._last_beat else 0
            last_beat = self._last_beat
            try:
                if not self._look(late, looks):
                    return  # the thread has ended, and its loop with it
            except Exception as error:  # noqa: BLE001  # such as a MemoryError: the next look may succeed
                self._trouble = quoted(error)

    def _look(self, late: float, looks: int) -> bool:
        """Look at the code that blocks the loop, and call the onlookers; return whether there is any."""
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return False
        if self._stack is None:
            self._stack = "".join(traceback.format_stack(frame))
        # Not at the first look: if the whole process stood still, the loop is about to run.
        if looks % _LOOKS_A_CALL == 1:
            self._was_told = True
            for onlooker in self._onlookers:
                onlooker.blocked(late, place_of(frame))
            self._was_told = True  # again, as the loop may have run meanwhile, and not all have heard by then
        return True


def place_of(frame: FrameType) -> str:
    """Return where code is, as ``file:line in function``. If that is long, the file's name is cut first."""
    code = frame.f_code
    file, rest = os.path.basename(code.co_filename), f":{frame.f_lineno} in {code.co_name}"  # noqa: PTH119
    room = max(_MAX_PLACE - len(rest), 20)
    if len(file) > room:
        file = "…" + file[1 - room :]
    return (file + rest)[:_MAX_PLACE]


# In a greenlet each: log handlers may block.


def _report_trouble(trouble: str) -> None:
    _log.warning("the watch of the event loop failed while it was blocked: %s", trouble)


def _report(seconds: float, stack: str | None) -> None:
    where = Lines(f"in:\n{stack}") if stack else "but no stack was captured: perhaps the whole process was stopped"
    _log.warning("the event loop was blocked for %.1f s, %s", seconds, where)


def watch_loop(hub: Hub) -> LoopWatch:
    """Return the watch of a hub's loop, which runs in this thread; one for all nodes in it."""
    watch = _watches.get(hub)
    if watch is None or watch.process != os.getpid():
        watch = _watches[hub] = LoopWatch(hub)
    return watch.use()
