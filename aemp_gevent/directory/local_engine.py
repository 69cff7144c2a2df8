# SPDX-License-Identifier: MIT
"""The engine of a node that is not networked: the directory has this node's own entries only."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from aemp_gevent.directory.engine import Entries, Observer, Query


class LocalEngine:
    """An :class:`~aemp_gevent.directory.engine.Engine` that needs no network."""

    def __init__(self) -> None:
        self._observer: Observer | None = None

    def start(self, observer: Observer) -> None:
        self._observer = observer

    def stop(self) -> None:
        """Do nothing: there is nothing to end."""

    def _entries(self, family: str) -> Entries:
        assert self._observer is not None
        return dict(self._observer.own.get(family, {}))

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        assert self._observer is not None
        self._observer.changed(family, entries, deleted)

    def watch(self, family: str) -> None:
        assert self._observer is not None
        self._observer.replaced(family, self._entries(family))

    def unwatch(self, family: str) -> None:
        """Do nothing: nothing is kept for a watched family."""

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        entries = self._entries(family)
        answered(entries if what == "family" else list(entries) if what == "keys" else list(entries.values()))

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        answered(None)
