# SPDX-License-Identifier: MIT
"""N2: a stream of small messages to one port of another process, then an ack."""

from __future__ import annotations

from benchmarks import streams
from benchmarks.bare import CHUNK
from benchmarks.measure import Figure, figure

N = 200_000
COMPARISONS = (("snd", "coalesced"), ("snd", "one write each"))
UNIT = "messages/s"
TEXT = "x" * 64


def serve_ours(variant: str) -> str:
    """Count in a tag handler."""
    return streams.serve_counting()


def ours(n: int, variant: str = "snd") -> Figure:
    """``snd`` in a loop."""
    return figure(n, UNIT, streams.send(__name__, variant, n, TEXT))


def serve_ceiling(variant: str) -> str:
    """Unpack, and call a function."""
    return streams.serve_unpacking()


def ceiling(n: int, variant: str = "coalesced") -> Figure:
    """Pack; write when 64 KiB have come together, or after every message."""
    limit = CHUNK if variant == "coalesced" else 1
    return figure(n, UNIT, streams.send_packed(__name__, variant, n, TEXT, limit))
