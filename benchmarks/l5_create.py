# SPDX-License-Identifier: MIT
"""L5: create idle ports: how many a second, and how much memory each takes.

``resident`` takes the growth of resident memory (``/proc/self/statm``, after a garbage collection on both sides), so
what the dict that finds the port and the allocator add is in it. ``traced`` is the cross-check in a run of its own:
what Python's allocators handed out according to tracemalloc. It has no rate, as tracing slows creation several times.
"""

from __future__ import annotations

from benchmarks.bare import RunQueue
from benchmarks.measure import Figure, creation, traced_creation

N = 100_000
COMPARISONS = (("resident", "resident"), ("traced", "traced"))


def ours(n: int, variant: str = "resident") -> Figure:
    """``port()`` without handlers. One port is made before the measurement, so the node itself does not count."""
    from aemp_gevent import port

    port()
    return traced_creation(n, port) if variant == "traced" else creation(n, port)


def ceiling(n: int, variant: str = "resident") -> Figure:
    """An object with eight slots, found by its ID in a dict."""
    port = RunQueue().port
    port()
    return traced_creation(n, port) if variant == "traced" else creation(n, port)
