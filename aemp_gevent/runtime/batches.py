# SPDX-License-Identifier: MIT
"""Lists of things that are sent in several messages, none of which is too long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

MAX_BYTES = 16 * 1024
"""Bytes of one batch. Larger ones would save little, and fail where the setting ``max_message_bytes`` is small."""


def size_of(text: str) -> int:
    """Return how many bytes a text has as part of a message, at most."""
    return 5 + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def in_batches(weighed: Iterable[tuple[T, int]], max_things: int) -> Iterator[list[T]]:
    """Return things in lists, each of which is taken from them when it is asked for.

    Args:
        weighed: The things, each with its size in bytes. One that is larger than :data:`MAX_BYTES` is alone.
        max_things: How many things a list may have.
    """
    batch: list[T] = []
    size = 0
    for thing, its_size in weighed:
        if batch and (size + its_size > MAX_BYTES or len(batch) >= max_things):
            yield batch
            batch, size = [], 0
        batch.append(thing)
        size += its_size
    if batch:
        yield batch
