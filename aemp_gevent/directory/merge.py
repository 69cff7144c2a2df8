# SPDX-License-Identifier: MIT
"""Entries of many owners, merged into what readers see.

Several nodes may set the same key of a family; readers see the value of the smallest
owner. Only in the family of nodes, where a key is a node, the node itself comes before
all others with an entry about it. :class:`Merged` keeps every owner's entries and the view of them all, and returns for
each change how it changes that view: no change costs more than its own entries.

Pure data: nothing here knows nodes, links or time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from aemp_gevent.directory.engine import NODES, Entries

Source: TypeAlias = "tuple[str, str]"
"""An owner, and the node that sent its entries (``""``: itself). For a while, two nodes may send those of one owner."""


class Change(NamedTuple):
    """A change of one family: entries that are new or different, and keys that are gone."""

    entries: Entries
    deleted: list[str]

    @property
    def is_empty(self) -> bool:
        return not self.entries and not self.deleted


def same(one: Any, other: Any) -> bool:
    """Return whether a receiver sees the same value; 1, 1.0 and True are different."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(key in other and same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """Return the change that leads from one state of a family to another."""
    entries = {key: value for key, value in new.items() if key not in old or not same(value, old[key])}
    return Change(entries, [key for key in old if key not in new])


class Merged:
    """The entries of many sources, and the view of them all."""

    def __init__(self) -> None:
        self.families: dict[str, Entries] = {}
        """What readers see; no family is empty. For reading only."""
        self._sources: dict[Source, dict[str, Entries]] = {}
        self._holders: dict[str, dict[str, list[Source]]] = {}  # who has an entry, the one that counts first

    def of(self, source: Source) -> Mapping[str, Entries]:
        """Return the entries of one source, by family. For reading only."""
        return self._sources.get(source, {})

    def sources(self) -> Iterator[Source]:
        """Return the sources that have any entries."""
        return iter(list(self._sources))

    def held(self, family: str, key: str) -> list[tuple[Source, Any]]:
        """Return the sources that have an entry, and its values there; readers see the first one."""
        holders = self._holders.get(family, {}).get(key, ())
        return [(source, self._sources[source][family][key]) for source in holders]

    def news(self, source: Source, family: str, entries: Entries, deleted: Collection[str]) -> Change:
        """Return the part of a change that differs from what the source has already."""
        has = self.of(source).get(family, {})
        return Change(
            {key: value for key, value in entries.items() if key not in has or not same(value, has[key])},
            [key for key in dict.fromkeys(deleted) if key in has and key not in entries],
        )

    def state(self, family: str, keys: Collection[str]) -> Change:
        """Return what readers see of some keys, as a change: it leads from any earlier state to this one."""
        view = self.families.get(family, {})
        return Change({key: view[key] for key in keys if key in view}, [key for key in keys if key not in view])

    def rebuild(self) -> None:
        """Make the view from the entries of all sources: a change of it was interrupted."""
        whole = Merged()
        for source, database in self._sources.items():
            for family, entries in database.items():
                if entries:
                    whole.apply(source, family, Change(entries, []))
        self.families, self._sources, self._holders = whole.families, whole._sources, whole._holders

    def apply(self, source: Source, family: str, change: Change) -> Change:
        """Change the entries of a source, and return how that changes the view.

        Args:
            source: The source of the entries.
            family: The name of the family.
            change: As :meth:`news` returned it.
        """
        seen = Change({}, [])
        database = self._sources.setdefault(source, {})
        has = database.setdefault(family, {})
        holders = self._holders.setdefault(family, {})
        view = self.families.setdefault(family, {})
        for key in change.deleted:
            del has[key]
            rest = holders[key]
            del rest[_place(rest, family, key, source)]
            if not rest:
                del holders[key], view[key]
                seen.deleted.append(key)
                continue
            self._show(seen, view, family, key, rest[0])
        for key, value in change.entries.items():
            has[key] = value
            held = holders.setdefault(key, [])
            place = _place(held, family, key, source)
            if held[place : place + 1] != [source]:
                held.insert(place, source)
            self._show(seen, view, family, key, held[0])
        if not has:
            del database[family]
        if not database:
            del self._sources[source]
        if not view:
            del self._holders[family], self.families[family]
        return seen

    def _show(self, seen: Change, view: Entries, family: str, key: str, winner: Source) -> None:
        value = self._sources[winner][family][key]
        if key not in view or not same(value, view[key]):
            view[key] = seen.entries[key] = value


def _place(holders: list[Source], family: str, key: str, source: Source) -> int:
    """Return the place of a source among those that have an entry."""
    if family != NODES:
        return bisect_left(holders, source)
    return bisect_left(holders, (source[0] != key, source), key=lambda holder: (holder[0] != key, holder))
