# SPDX-License-Identifier: MIT
"""The interface between a node and the engine that keeps the directory of its network.

A *directory* maps families to entries; an entry is a key, a value and an owner: the node
that set it. An engine keeps them for a whole network; the node's own side, with its
entries, monitors and local copies, is the same for all engines. The embedded engine
speaks AnyEvent::MP's ``gproto``; others keep the entries in a store that is already running.

All methods are called in the node's thread, and none may switch: an
engine that waits does so in greenlets of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol

NODES = "'l"
"""The family of nodes: the keys are their IDs, the values the endpoints they listen on."""

Entries = dict[str, Any]
"""The values of a family, by key: of several owners of a key, the smallest living one's."""

Query = Literal["family", "keys", "values"]


class Observer(Protocol):
    """The node, as an engine sees it."""

    @property
    def own(self) -> Mapping[str, Entries]:
        """The node's own entries, by family: the engine publishes them at the start and after it was cut off."""
        ...

    def replaced(self, family: str, entries: Entries) -> None:
        """Take the whole of a watched family: first of all, and whenever changes may have been missed."""

    def changed(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Take a change of a watched family: entries that are new or different, and keys that are gone."""


class Engine(Protocol):
    """Keeps the directory of a network for one of its nodes."""

    def start(self, observer: Observer) -> None:
        """Begin: publish the node's own entries. The node is listening, and has its ID."""

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Publish a change of the node's own entries; ``observer.own`` contains it already."""

    def watch(self, family: str) -> None:
        """Report a family to the observer from now on."""

    def unwatch(self, family: str) -> None:
        """Stop reporting a family."""

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once: its entries, its keys or its values, a dict or a list.

        The answer may take until the engine is connected; it never comes when the engine is stopped.
        """

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens: its endpoints, or None if that is unknown."""

    def stop(self) -> None:
        """End: the node shuts down, and its own entries are removed. Idempotent."""
