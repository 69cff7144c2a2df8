# SPDX-License-Identifier: MIT
"""Port groups: families of the directory whose keys are port IDs.

Nothing here but a view of :mod:`aemp_gevent.directory.local_directory`: a port is in a group while an entry
of the group's name has its ID for a key, whoever set it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from aemp_gevent.directory.local_directory import Directory, DirectoryMonitor, Watching

GroupCallback: TypeAlias = Callable[[list[str], list[str], list[str]], object]
"""``cb(ports, added, deleted)``: all members, and those that are new and gone."""


class Groups:
    """The groups that a node has asked for; each is watched from then on.

    Args:
        directory: The node's.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[str, Watching] = {}

    def get(self, group: str) -> list[str] | None:
        """Return the members of a group, as far as is known; None if there are none."""
        if group not in self._known:
            watching = Watching(self._directory, group)
            self._directory.watch(watching)
            self._known[group] = watching
        return list(self._directory.copy(group) or ()) or None

    def monitor(self, group: str, callback: GroupCallback) -> DirectoryMonitor:
        """Call back with the members of a group, and again when some came or went."""
        is_first = True

        def told(entries: Mapping[str, Any], added: list[str], _changed: list[str], deleted: list[str]) -> None:
            nonlocal is_first
            if is_first or added or deleted:  # values are nobody's business here
                is_first = False
                callback(list(entries), added, deleted)

        monitor = DirectoryMonitor(self._directory, group, told)
        self._directory.watch(monitor)
        return monitor
