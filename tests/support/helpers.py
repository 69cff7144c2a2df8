# SPDX-License-Identifier: MIT
"""Turns of the loop, and a look at which greenlets are still alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from aemp_gevent.testing.waiting import wait_until


def turns(count: int) -> None:
    """Run ``count`` whole turns of the hub's loop, timers and sockets included.

    Not ``sleep(0)``, of which gevent makes many within one turn, so that ports whose turn was over did not run at all.
    """
    for _ in range(count):
        gevent.sleep(1e-9)


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
