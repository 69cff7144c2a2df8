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
from aemp_gevent.runtime import forking
from aemp_gevent.runtime.hub_calls import repeated, see_through, stops_what_raises
from aemp_gevent.runtime.threads import Doorbell, close_with, doorbell_of, get_ident

RETRY_SECONDS = 0.05
"""How long after a timer's call was interrupted it is made again."""

MAX_TRIES = 10
"""How often at most: a call that raises by itself would otherwise do so forever, with a traceback each time."""


class HubThread:
    """A hub, found when it is first needed, and the native thread that runs it."""

    def __init__(self) -> None:
        self.thread = 0
        """The native thread that the ports belong to; 0 until the hub is known."""
        self._hub: Hub | None = None
        self._doorbell: Doorbell | None = None
        self._next_turn: Any = None  # gevent's watchers have no types
        self._wraps_timers = False
        self._timers: dict[Any, int] = {}  # how often the call of each was left by an exception
        self._helpers: weakref.WeakSet[forking.Helper] = weakref.WeakSet()

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

    def end_all_timers(self) -> None:
        """Stop and forget every timer: nobody is called back any more."""
        for timer in list(self._timers):
            self.end_timer(timer)

    def start_greenlet(self, function: Callable[..., Any], *args: Any) -> forking.Helper:
        """Start a greenlet beside the runners, which a forked child stops like these."""
        helper = forking.Helper.spawn(function, *args)
        self._helpers.add(helper)
        return helper

    def _interrupt(self, error: BaseException) -> None:
        """Raise in the main greenlet what ends the program: it reports what is to be reported.

        Not ``handle_error()``, which prints a traceback before that.
        """
        self.hub.handle_system_error(type(error), error, error.__traceback__)
