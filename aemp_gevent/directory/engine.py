# SPDX-License-Identifier: MIT
"""What a directory engine does for a node, and what it tells it.

A *directory* maps families to entries, and these are key, value and owner: the node
that set them. An engine keeps them for a whole network; the node's own side, with its
entries, monitors and local copies, is the same for all engines. The embedded one
speaks AnyEvent::MP's ``gproto``; others keep the entries in a store that runs already.

Everything here is called in the node's thread, and nothing called here may switch: an
engine that waits does so in greenlets of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol

NODES = "'l"
"""The family of nodes: their IDs, and the endpoints they listen on."""

Entries = dict[str, Any]
"""The values of a family, by key: of several owners of a key, the smallest living one's."""

Query = Literal["family", "keys", "values"]


class Observer(Protocol):
    """The node, as an engine sees it."""

    @property
    def own(self) -> Mapping[str, Entries]:
        """The node's own entries, by family: what the engine is to make known, also after it was cut off."""
        ...

    def replaced(self, family: str, entries: Entries) -> None:
        """Here is the whole of a watched family: first of all, and whenever changes may have been missed."""

    def changed(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """These entries of a watched family are new or different, and those are gone."""


class Engine(Protocol):
    """Keeps a directory for the node, and all others of its network."""

    def start(self, observer: Observer) -> None:
        """Begin: make the node's own entries known. The node is bound, and has its ID."""

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Own entries were set, and deleted; ``observer.own`` says the same already."""

    def watch(self, family: str) -> None:
        """Tell the observer of a family from now on."""

    def unwatch(self, family: str) -> None:
        """Tell it no more."""

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once: its entries, its keys or its values, a dict or a list.

        The answer may take until the engine is connected; it never comes when the engine is stopped.
        """

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens: its endpoints, or None when nobody knows."""

    def stop(self) -> None:
        """End: the node shuts down, and its own entries with it. Idempotent."""
