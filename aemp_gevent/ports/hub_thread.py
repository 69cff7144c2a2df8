# SPDX-License-Identifier: MIT
"""The hub and the native thread that the ports of a node belong to, with their timers and greenlets.

This is the lowest layer of the scheduler (:mod:`aemp_gevent.ports.scheduler`). It knows nothing of ports.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import Hub

from aemp_gevent.errors import WrongThreadError
from aemp_gevent.runtime import forking, threads
from aemp_gevent.runtime.hub_calls import repeated, see_through, stops_what_raises
from aemp_gevent.runtime.logs import frames_of
from aemp_gevent.runtime.threads import Doorbell, close_with, doorbell_of

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)

RETRY_SECONDS = 0.05
"""Seconds after which a timer's call that raised is made again."""

MAX_TRIES = 10
"""How often a timer's call is made at most. Otherwise a call that always raises would be repeated forever."""


class HubThread:
    """A hub, found when it is first needed, and the native thread that runs it."""

    def __init__(self) -> None:
        self.thread = 0
        """The native thread that the ports belong to; 0 until the hub is known."""
        self._hub: Hub | None = None
        self._doorbell: Doorbell | None = None
        self._next_turn: Any = None  # gevent's watchers have no types
        self._wraps_timers = False
        self._timers: dict[Any, int] = {}  # how often the call of each has raised
        self._helpers: weakref.WeakSet[forking.Helper] = weakref.WeakSet()

    @property
    def hub(self) -> Hub:
        """The hub that runs the pump and the timers; found at the first use."""
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
        """Whether this code runs in a native thread that the ports do not belong to."""
        return get_ident() != self.thread and self.thread != 0

    def check_thread(self, call: str) -> None:
        """Raise if this is another native thread than the ports'.

        Raises:
            WrongThreadError: It is. The text names ``call``.
        """
        if get_ident() != self.thread and self.thread:
            raise WrongThreadError(call, is_patched=monkey.is_module_patched("threading"))

    def call_on_hub(self, call: Callable[..., object], *args: Any) -> None:
        """Call ``call(*args)`` on the hub soon. Any native thread may call it; the order of its calls is kept."""
        if self._doorbell is None:
            self._doorbell = doorbell_of(self.hub)
        self._doorbell.ring(call, *args)

    def leave(self, end: Callable[..., object], *args: Any) -> None:
        """Make the call that ends a ``with`` block, again if it is struck: here, or in other threads on the hub.

        In other threads the garbage collector may close a generator that holds the block. When the interpreter ends,
        nothing is left to be ended.
        """
        if sys.is_finalizing():
            return
        if self.is_foreign:
            self.call_on_hub(end, *args)
        else:
            see_through(end, *args)

    # --- timers, and greenlets beside the runners ---

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        """Call ``call(*args)`` on the hub once, after some seconds; return the timer, for :meth:`end_timer`."""
        timer = self.make_timer(seconds)
        self.set_off(timer, call, *args)
        return timer

    def make_timer(self, seconds: float) -> Any:
        """Return a timer that nothing has set off yet: its user can keep it first, and end it wherever it is struck."""
        return (self._hub or self.hub).loop.timer(max(seconds, 0), RETRY_SECONDS)

    def set_off(self, timer: Any, call: Callable[..., object], *args: Any) -> None:
        """Start a timer, which will call ``call(*args)`` on the hub once."""
        self._timers[timer] = 0
        try:
            # update: the loop's time may be as old as a whole turn of ours.
            if self._wraps_timers:
                timer.start(repeated(self.hub, self._due, timer, call, args), update=True)
            else:  # the same at less cost
                timer.start(self._due, timer, call, args, update=True)
        except BaseException:
            self.end_timer(timer)
            raise

    def _due(self, timer: Any, call: Callable[..., object], args: tuple[Any, ...]) -> None:  # on the hub
        try:
            call(*args)
        except BaseException:
            if timer in self._timers:
                self._timers[timer] += 1
                if self._timers[timer] >= MAX_TRIES:  # the call itself raises; it was not struck
                    self.end_timer(timer)
            raise
        self.end_timer(timer)  # not before, so that a call that is struck is made again

    def end_timer(self, timer: Any) -> None:
        """Stop a timer and forget it. Idempotent."""
        self._timers.pop(timer, None)
        timer.stop()
        timer.close()

    def end_all_timers(self) -> None:
        """Stop and forget every timer: no call of theirs is made any more."""
        for timer in list(self._timers):
            self.end_timer(timer)

    def start_greenlet(self, function: Callable[..., Any], *args: Any) -> forking.Helper:
        """Start a greenlet beside the runners. A forked child stops it as it stops these."""
        helper = forking.Helper.spawn(function, *args)
        self._helpers.add(helper)
        return helper

    def _interrupt(self, error: BaseException) -> None:
        """Raise an exception that ends the program in the main greenlet, which reports it.

        Not ``handle_error()``, which would print a traceback as well.
        """
        self.hub.handle_system_error(type(error), error, frames_of(error))
