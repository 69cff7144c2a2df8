# SPDX-License-Identifier: MIT
"""Where chance puts faults in a stream."""

from __future__ import annotations

import math
import random
from itertools import islice

import pytest

from aemp_gevent.testing.faults import Faults, Places, boundaries, corruption, corruptions


def test_without_arguments_there_are_none() -> None:
    faults = Faults()
    assert faults.corrupted.next == faults.pieces.next == faults.cut_at == faults.reset_at == math.inf
    faults.corrupted.step()
    assert faults.corrupted.next == math.inf


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.9, 1.0])
def test_bytes_are_corrupted_as_often_as_asked(probability: float) -> None:
    places = [place for place, _ in islice(corruptions(random.Random(7), 1000, probability), 2000)]
    assert places[0] >= 1000
    assert places == sorted(set(places))
    assert len(places) / (places[-1] - 999) == pytest.approx(probability, rel=0.1)


def test_byte_may_be_the_first_and_is_always_changed() -> None:
    drawn = [next(corruptions(random.Random(seed), 0, 0.5)) for seed in range(1000)]
    assert min(place for place, _ in drawn) == 0
    assert min(mask for _, mask in drawn) > 0
    assert {mask for seed in range(5000) for _, mask in corruption(random.Random(seed), 3)} == set(range(1, 256))


def test_pieces_have_every_size_up_to_the_longest() -> None:
    places = [place for place, _ in islice(boundaries(random.Random(7), 10, 5), 500)]
    assert {after - before for before, after in zip([10, *places], places, strict=False)} == {1, 2, 3, 4, 5}


def test_places_are_walked_in_order() -> None:
    places = Places(iter([(3, 1), (9, 2)]))
    seen = []
    for _ in range(3):
        seen.append((places.next, places.mask))
        places.step()
    assert seen == [(3, 1), (9, 2), (math.inf, 0)]
