# SPDX-License-Identifier: MIT
"""One watched family: what etcd holds of it, and what the node has seen of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from aemp_gevent.directory.engine import Entries
from aemp_gevent.directory.etcd.keyspace import StoredValue
from aemp_gevent.directory.merge import Change


@dataclass
class EtcdFamily:
    """A family of entries in etcd.

    Attributes:
        revision: etcd's revision up to which the family is known; None: it must be read.
        held: The values by key and owner.
        fading: Entries that etcd no longer has, by key and owner, and when they are to be dropped here.
        shown: What the observer has been given; None: nothing yet.
    """

    revision: int | None = None
    held: dict[str, dict[str, StoredValue]] = field(default_factory=dict)
    fading: dict[tuple[str, str], float] = field(default_factory=dict)
    shown: dict[str, StoredValue] | None = None

    def put(self, key: str, owner: str, value: StoredValue) -> None:
        """Set the value of an owner."""
        self.held.setdefault(key, {})[owner] = value
        self.fading.pop((key, owner), None)

    def drop(self, key: str, owner: str) -> None:
        """Remove the value of an owner, if there is one."""
        owners = self.held.get(key, {})
        owners.pop(owner, None)
        if not owners:
            self.held.pop(key, None)
        self.fading.pop((key, owner), None)

    def entries(self) -> Entries:
        """Return what readers see: for each key, the value of its smallest owner."""
        return {key: owners[min(owners)].content for key, owners in self.held.items()}

    def add_fading(self, other: EtcdFamily) -> None:
        """Add the entries that are fading in another copy of this family and missing in this one."""
        for key, owner in other.fading:
            self.held.setdefault(key, {}).setdefault(owner, other.held[key][owner])

    def show_all(self) -> Entries:
        """Return what readers see, and record it as shown."""
        self.shown = {key: owners[min(owners)] for key, owners in self.held.items()}
        return self.entries()

    def show(self, keys: Collection[str]) -> Change:
        """Return how these keys differ from what was shown, and record them as shown."""
        change = Change({}, [])
        shown = self.shown
        if shown is None:
            return change
        for key in keys:
            owners = self.held.get(key)
            value = owners[min(owners)] if owners else None
            was = shown.get(key)
            if value is None:
                if was is not None:
                    del shown[key]
                    change.deleted.append(key)
            elif was is None or was.encoded != value.encoded:  # not the contents: 1 and True are equal
                shown[key] = value
                change.entries[key] = value.content
        return change
