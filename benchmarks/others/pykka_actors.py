# SPDX-License-Identifier: MIT
"""pykka: actors in native threads."""

from __future__ import annotations

import threading
from typing import Any

import pykka

from benchmarks import l1_local_cb, l2_local_pingpong
from benchmarks.measure import Figure, clock, figure, settle


class Sink(pykka.ThreadingActor):
    """Waits for "done"."""

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self._done = done

    def on_receive(self, message: Any) -> None:
        """Take a message."""
        if message == "done":
            self._done.set()


class Player(pykka.ThreadingActor):
    """Sends what it gets to the other one, less one, until nothing is left."""

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self._done = done

    def on_receive(self, message: Any) -> None:
        """Take who the other is, and how many are left."""
        other, left = message
        if left:
            other.tell((self.actor_ref, left - 1))
        else:
            self._done.set()


def l1(n: int, variant: str) -> Figure:
    """``tell`` in a loop, then wait for the last."""
    done = threading.Event()
    sink = Sink.start(done)
    settle()
    started = clock()
    for number in range(n):
        sink.tell(number)
    sink.tell("done")
    done.wait()
    seconds = clock() - started
    sink.stop()
    return figure(n, l1_local_cb.UNIT, seconds)


def l2(n: int, variant: str) -> Figure:
    """Two actors; a tenth of the work."""
    done = threading.Event()
    one, other = Player.start(done), Player.start(done)
    settle()
    started = clock()
    one.tell((other, 2 * (n // 10)))
    done.wait()
    seconds = clock() - started
    for player in (one, other):
        player.stop()
    return figure(n // 10, l2_local_pingpong.UNIT, seconds)
