# SPDX-License-Identifier: MIT
"""Turns of the loop, and a look at which greenlets are still alive."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

from aemp_gevent.scheduler import Runner
from aemp_gevent.testing.waiting import wait_until


def turns(count: int) -> None:
    """Let the hub's loop go round ``count`` times: for showing that something does *not* happen."""
    for _ in range(count):
        gevent.sleep(0)


def on_hub(function: Callable[[], Any]) -> None:
    """Run a function on the hub, as a socket's or timer's callback would be, and return when it ran."""
    done: list[bool] = []

    def call() -> None:
        try:
            function()
        finally:
            done.append(True)

    gevent.get_hub().loop.run_callback(call)
    wait_until(lambda: done)


def live_greenlets() -> list[greenlet]:
    """Return every greenlet that stands somewhere, but for this one, the hubs and the idle runners."""
    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, greenlet)
        and thing.gr_frame is not None
        and thing is not getcurrent()
        and thing.parent is not None  # the main greenlet of a native thread: gevent's pool has some
        and not isinstance(thing, Hub)
        and not (isinstance(thing, Runner) and thing.idle)
    ]
