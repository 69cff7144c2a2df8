# SPDX-License-Identifier: MIT
"""Take figures: the clock, the resident memory, and the form a figure has. Knows no row and no gevent."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

clock = time.perf_counter

# Of rates that people know as a time: the table prints microseconds for this unit.
LATENCY_UNIT = "network round trips/s"


class Figure(TypedDict, total=False):
    """What one run of one program gave. Keys that do not apply are left out.

    Percentiles are in seconds; ``others`` is the share of one processor that other processes took meanwhile.
    """

    rate: float
    unit: str
    seconds: float
    count: int
    bytes_each: float
    others: float
    skipped: str
    p50: float
    p90: float
    p99: float
    p999: float


def settle() -> None:
    """Collect garbage before the clock starts. The collector stays on, with its default thresholds."""
    gc.collect()


def figure(count: int, unit: str, seconds: float) -> Figure:
    """Return the rate of ``count`` operations in ``seconds``; ``unit`` ends in ``/s``."""
    return {"rate": count / seconds, "unit": unit, "seconds": seconds, "count": count}


def resident_bytes() -> int | None:
    """Return this process's resident memory, or None where there is no ``/proc/self/statm``."""
    gc.collect()
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def creation(n: int, make: Callable[[], object]) -> Figure:
    """Call ``make`` ``n`` times and take its rate and the growth of resident memory for each call."""
    before = resident_bytes()
    started = clock()
    for _ in range(n):
        make()
    made = figure(n, "ports/s", clock() - started)
    after = resident_bytes()
    if before is not None and after is not None:
        made["bytes_each"] = (after - before) / n
    return made


def traced_creation(n: int, make: Callable[[], object]) -> Figure:
    """Take what Python's own allocator handed out for each call. Gives no rate: tracing slows everything."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(n):
        make()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {"count": n, "bytes_each": (after - before) / n}
