# SPDX-License-Identifier: MIT
"""The hub and the native thread that the ports of a node belong to, with their timers and greenlets.

This is the lowest layer of the scheduler (:mod:`aemp_gevent.ports.scheduler`). It knows nothing of ports.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import Hub

from aemp_gevent.errors import WrongThreadError
from aemp_gevent.ports.timer_queue import TimerQueue
from aemp_gevent.runtime import forking, threads
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.runtime.logs import frames_of
from aemp_gevent.runtime.threads import Doorbell, close_with, doorbell_of

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)


class HubThread:
    """A hub, found when it is first needed, and the native thread that runs it."""

    def __init__(self) -> None:
        self.thread = 0
        """The native thread that the ports belong to; 0 until the hub is known."""
        self._hub: Hub | None = None
        self._doorbell: Doorbell | None = None
        self._next_turn: Any = None  # gevent's watchers have no types
        self.timers = TimerQueue(None)
        """The timers."""
        self._helpers: weakref.WeakSet[forking.Helper] = weakref.WeakSet()

    @property
    def hub(self) -> Hub:
        """The hub that runs the pump and the timers; found at the first use."""
        return self._find_hub() if self._hub is None else self._hub

    def _find_hub(self) -> Hub:
        hub = gevent.get_hub()
        self._doorbell = doorbell_of(hub)
        self._next_turn = hub.loop.timer(0)
        close_with(self, self._next_turn, self._doorbell)
        self.timers.hub = hub
        self.thread = get_ident()
        self._hub = hub
        return hub

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

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> int:
        """Call ``call(*args)`` on the hub once, after some seconds; return the timer, for :meth:`end_timer`."""
        if self._hub is None:
            self._find_hub()
        timers = self.timers
        timer = timers.new()
        timers.set_off(timer, monotonic() + seconds, call, args)
        return timer

    def end_timer(self, timer: int) -> None:
        """Stop a timer and forget it. Idempotent."""
        self.timers.end(timer)

    def end_all_timers(self) -> None:
        """Stop and forget every timer: no call of theirs is made any more."""
        self.timers.end_all()

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
