# SPDX-License-Identifier: MIT
"""Sessions, merged into the people that they belong to. Pure data: nothing here knows nodes or time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

People = Mapping[str, list[Any]]
"""What is known of the sessions of each person, by the person's key."""

_SEPARATOR = ":"


def entry_key(session: str, person: str) -> str:
    """Return the key of a session's entry in the directory."""
    return f"{session}{_SEPARATOR}{person}"


class Movement(NamedTuple):
    """A change of the people: those who came, differ and left, with what is, or was, known of their sessions."""

    joined: dict[str, list[Any]]
    changed: dict[str, list[Any]]
    left: dict[str, list[Any]]

    @property
    def is_empty(self) -> bool:
        return not (self.joined or self.changed or self.left)


class Gathering:
    """The sessions that there are, and the people that they belong to."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[str, Any]] = {}
        self._people: dict[str, list[Any]] = {}
        self.people: People = MappingProxyType(self._people)
        """All people; each change replaces the lists of those concerned, and alters no list."""

    def apply(self, entries: Mapping[str, Any], deleted: Collection[str]) -> Movement:
        """Change sessions, and return how that changes the people.

        Args:
            entries: The entries of sessions that are new or different.
            deleted: The keys of entries that are gone.
        """
        concerned: dict[str, None] = {}
        for key in deleted:
            session, separator, person = key.partition(_SEPARATOR)
            sessions = self._sessions.get(person)
            if separator and sessions is not None and session in sessions:
                del sessions[session]
                concerned[person] = None
        for key, meta in entries.items():
            session, separator, person = key.partition(_SEPARATOR)
            if separator:  # peers may enter anything
                self._sessions.setdefault(person, {})[session] = meta
                concerned[person] = None
        change = Movement({}, {}, {})
        for person in concerned:
            self._review(person, change)
        return change

    def _review(self, person: str, change: Movement) -> None:
        former = self._people.get(person)
        sessions = self._sessions[person]
        if not sessions:
            del self._sessions[person]
            if former is not None:
                change.left[person] = self._people.pop(person)
            return
        metas = self._people[person] = list(sessions.values())
        (change.joined if former is None else change.changed)[person] = metas
