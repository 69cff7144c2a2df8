# SPDX-License-Identifier: MIT
"""One watched family: the smallest owner counts, and changes are reported against what was shown."""

from __future__ import annotations

from aemp_gevent.directory.etcd.family import EtcdFamily
from aemp_gevent.directory.etcd.keyspace import StoredValue
from aemp_gevent.directory.merge import Change


def stored(content: object) -> StoredValue:
    return StoredValue(repr(content).encode(), content)


def test_nothing_is_shown_before_the_whole_family() -> None:
    family = EtcdFamily()
    family.put("k", "a", stored(1))
    assert family.show(["k"]).is_empty
    assert family.show_all() == {"k": 1}
    assert family.show(["k"]).is_empty


def test_the_next_owner_is_shown_when_the_smallest_goes() -> None:
    family = EtcdFamily()
    family.show_all()
    family.put("k", "b", stored("b's"))
    family.put("k", "a", stored("a's"))
    assert family.show(["k"]) == Change({"k": "a's"}, [])
    family.drop("k", "a")
    assert family.show(["k", "other"]) == Change({"k": "b's"}, [])
    family.drop("k", "b")
    assert family.show(["k"]) == Change({}, ["k"])
    assert family.held == {}


def test_values_that_compare_equal_are_different_if_their_bytes_are() -> None:
    family = EtcdFamily()
    family.put("k", "a", stored(1))
    family.show_all()
    family.put("k", "a", stored(True))
    (value,) = family.show(["k"]).entries.values()
    assert value is True


def test_fading_entries_are_added_to_a_fresh_copy_unless_it_has_them() -> None:
    watched, fresh = EtcdFamily(), EtcdFamily()
    for key in ("kept", "gone"):
        watched.put(key, "a", stored("old"))
        watched.fading[key, "a"] = 1.0
    watched.put("only watched", "a", stored("old"))
    fresh.put("kept", "a", stored("new"))
    fresh.add_fading(watched)
    assert fresh.entries() == {"kept": "new", "gone": "old"}
