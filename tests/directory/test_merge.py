# SPDX-License-Identifier: MIT
"""Entries of many owners: the view is always what merging them from scratch gives, and the changes lead there."""

from __future__ import annotations

import random
from typing import Any

import pytest

from aemp_gevent.directory.engine import NODES
from aemp_gevent.directory.merge import Change, Merged, difference, same


def merge(sources: dict[tuple[str, str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Merge in the simplest way: the greatest first, each smaller one over it, a node's own words about itself last."""
    merged: dict[str, dict[str, Any]] = {}
    for is_of_itself in (False, True):
        for source, database in sorted(sources.items(), reverse=True):
            for family, entries in database.items():
                for key, value in entries.items():
                    if not is_of_itself or (family == NODES and key == source[0]):
                        merged.setdefault(family, {})[key] = value
    return merged


@pytest.mark.parametrize("seed", range(20))
def test_view_and_its_changes_are_those_of_a_merge_from_scratch(seed: int) -> None:
    dice = random.Random(seed)
    merged, model, replayed = Merged(), {}, {}
    for _ in range(300):
        source = (dice.choice("abc"), dice.choice(["", "x"]))
        family = dice.choice(["f", NODES])
        entries = {dice.choice("ab"): dice.choice([1, 1.0, True, [1], [True], None]) for _ in range(dice.randrange(3))}
        deleted = [dice.choice("abm") for _ in range(dice.randrange(3))]
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
            same(merge(model).get(name, {}), merged.families.get(name, {})) for name in ("f", NODES)
        )
        assert all(same(replayed.get(name, {}), merged.families.get(name, {})) for name in ("f", NODES))
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
def test_values_are_the_same_only_if_a_receiver_sees_no_difference(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is alike
    assert same(other, one) is alike


def test_difference_leads_from_one_state_to_the_other() -> None:
    assert difference({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": True, "d": 1}) == ({"b": True, "d": 1}, ["c"])
