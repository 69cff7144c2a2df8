# SPDX-License-Identifier: MIT
"""Batches are limited in things and in bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aemp_gevent.runtime.batches import MAX_BYTES, in_batches, size_of


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([1] * 7, [3, 3, 1], id="many"),
        pytest.param([MAX_BYTES // 2] * 5, [2, 2, 1], id="large"),
        pytest.param([MAX_BYTES // 2, MAX_BYTES // 2, 1], [2, 1], id="full"),
        pytest.param([1, 2 * MAX_BYTES, 1], [1, 1, 1], id="too-large"),
    ],
)
def test_batches_are_limited_in_things_and_in_bytes(sizes: list[int], lengths: list[int]) -> None:
    things = list(enumerate(sizes))
    batches = list(in_batches(((thing, thing[1]) for thing in things), 3))
    assert list(map(len, batches)) == lengths
    assert [thing for batch in batches for thing in batch] == things


def test_batches_are_made_when_they_are_asked_for() -> None:
    taken: list[int] = []

    def things() -> Iterator[tuple[int, int]]:
        for number in range(9):
            taken.append(number)
            yield number, 1

    batches = in_batches(things(), 2)
    assert next(batches) == [0, 1] and taken == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "word", "\N{GREEK SMALL LETTER OMEGA}" * 3, "\N{PILE OF POO}", "\ud800"])
def test_size_is_that_of_the_encoded_text(text: str) -> None:
    assert size_of(text) == 5 + len(text.encode("utf-8", "surrogatepass"))
