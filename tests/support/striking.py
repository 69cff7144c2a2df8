# SPDX-License-Identifier: MIT
"""Strikes: calls at every depth of the stack, and what must work after an exception struck our own code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.receive import receive
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.settling import settle
from tests.support.thoroughness import sampled

_AT = os.environ.get("AEMP_STRIKE_AT")


def strike_in_turn(play: Callable[[int], object], count: int, thoroughly: int | None = None) -> None:
    """Play a scene again and again, struck at one point each time: at others in each run.

    ``AEMP_STRIKE_AT=28`` strikes at that point only.

    Args:
        play: Plays the scene, struck at the point of this number, from 1.
        count: How many points there are.
        thoroughly: At how many to strike if tests are thorough; None: at all.
    """
    for point in [int(_AT)] if _AT else sampled(range(1, count + 1), 10, thoroughly):
        try:
            play(point)
        except BaseException as failure:
            text = f"struck at point {point} of {count}, with AEMP_STRIKE_AT={point} at no other"
            raise AssertionError(text) from failure


def works(node: LocalNode) -> None:
    """Check that new ports, timers and timeouts of this node work."""
    got: list[object] = []
    died: list[tuple[object, ...]] = []
    port = node.port(got.append)
    node.mon(port, lambda *reason: died.append(reason))
    node.snd(port, "probe")
    with node.after(0.001, got.append, "timer"), node.attach():
        assert receive(timeout=0.001, default="timeout") == "timeout"
        wait_until(lambda: sorted(map(str, got)) == ["probe", "timer"], within=3, show=lambda: got)
    node.kil(port, "end")
    wait_until(lambda: died == [("end",)], within=3, show=lambda: died)
    settle(node)


DEPTHS = 50
"""How far from the limit it is tried: the deepest of the calls that cannot wait take some 30."""


def at_every_depth(
    call: Callable[[int], object], before: Callable[[int], object] = lambda _: None
) -> Iterator[RecursionError | None]:
    """Make a call (with its number) ever deeper in the stack; give what it raised, until it could not even begin."""

    def deep(levels: int, number: int) -> object:
        return deep(levels - 1, number) if levels else call(number)

    depth, frame = 0, sys._getframe()
    while frame:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    failed = 0
    limit = sys.getrecursionlimit() - depth
    for number, levels in enumerate(range(limit - DEPTHS + 3, limit + 3)):
        before(number)
        try:
            deep(levels, number)
        except RecursionError as error:
            failed += 1
            yield error.with_traceback(None)
        else:
            yield None
    assert failed > 2


def nothing(*_args: object) -> None:
    """Serve as a function that is spawned and called."""


STRIKES = [KeyboardInterrupt, MemoryError]


def from_afar(call: Callable[..., object], *args: object) -> None:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    thread.join(5)
