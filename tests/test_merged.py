# SPDX-License-Identifier: MIT
"""Entries of many owners: the view is always what merging them anew would give, and the changes lead there."""

from __future__ import annotations

import random
from typing import Any

import pytest

from aemp_gevent.merged import Change, Merged, difference, same


def merge(sources: dict[tuple[str, str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Merge in the simplest way: the greatest first, each smaller one over it."""
    merged: dict[str, dict[str, Any]] = {}
    for _source, database in sorted(sources.items(), reverse=True):
        for family, entries in database.items():
            merged.setdefault(family, {}).update(entries)
    return {family: entries for family, entries in merged.items() if entries}


@pytest.mark.parametrize("seed", range(20))
def test_view_and_its_changes_are_those_of_a_merge_from_scratch(seed: int) -> None:
    dice = random.Random(seed)
    merged, model, replayed = Merged(), {}, {}
    for _ in range(300):
        source = (dice.choice("abc"), dice.choice(["", "x"]))
        family = dice.choice(["f", "g"])
        entries = {dice.choice("kl"): dice.choice([1, 1.0, True, [1], [True], None]) for _ in range(dice.randrange(3))}
        deleted = [dice.choice("klm") for _ in range(dice.randrange(3))]
        seen = merged.apply(source, family, merged.news(source, family, entries, deleted))
        mine = model.setdefault(source, {}).setdefault(family, {})
        for key in deleted:
            mine.pop(key, None)
        mine.update(entries)
        whole = replayed.setdefault(family, {})
        assert all(key not in whole or not same(whole[key], value) for key, value in seen.entries.items())
        for key in seen.deleted:
            del whole[key]
        whole.update(seen.entries)
        assert repr(sorted(merge(model).items())) == repr(sorted(merged.families.items())) or all(
            same(merge(model).get(name, {}), merged.families.get(name, {})) for name in ("f", "g")
        )
        assert all(same(replayed.get(name, {}), merged.families.get(name, {})) for name in ("f", "g"))
    for source in list(merged.sources()):
        for family, its in list(merged.of(source).items()):
            merged.apply(source, family, Change({}, list(its)))
    assert not merged.families
    assert not merged._holders
    assert not list(merged.sources())


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        ([1, [2]], [1, [2]], True),
        ([1], [True], False),
        ([1], [1, 2], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"b": 1}, False),
        (None, False, False),
        ("1", 1, False),
        (b"1", "1", False),
    ],
)
def test_same_tells_apart_what_a_receiver_can_tell_apart(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is alike
    assert same(other, one) is alike


def test_difference_leads_from_one_state_to_the_other() -> None:
    assert difference({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": True, "d": 1}) == ({"b": True, "d": 1}, ["c"])
