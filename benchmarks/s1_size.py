# SPDX-License-Identifier: MIT
"""S1: a stream of binary messages to one port of another process, against their size; a variant is a size in bytes."""

from __future__ import annotations

from benchmarks import streams
from benchmarks.measure import Figure, figure

N = 100_000
SIZES = tuple(4**power for power in range(2, 11))
COMPARISONS = tuple((str(size), str(size)) for size in SIZES)
UNIT = "messages/s"
BYTES_EACH = 2_000


def messages(n: int, size: int) -> int:
    """Return how many to send: ``n``, or of large ones as many as make 2000 bytes for each of ``n``."""
    return max(16, min(n, n * BYTES_EACH // size))


def serve_ours(variant: str) -> str:
    """Count in a tag handler."""
    return streams.serve_counting()


def ours(n: int, variant: str = "65536") -> Figure:
    """``snd`` of ``bytes`` in a loop."""
    block = bytes(int(variant))
    count = messages(n, len(block))
    return figure(count, UNIT, streams.send(__name__, variant, count, block))


def serve_ceiling(variant: str) -> str:
    """Unpack, and call a function."""
    return streams.serve_unpacking()


def ceiling(n: int, variant: str = "65536") -> Figure:
    """Pack; write when 64 KiB have come together."""
    block = bytes(int(variant))
    count = messages(n, len(block))
    return figure(count, UNIT, streams.send_packed(__name__, variant, count, block))
