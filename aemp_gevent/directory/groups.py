# SPDX-License-Identifier: MIT
"""Port groups: families of the directory whose keys are port IDs.

A port is in a group while the family of the group's name has an entry with its ID as the key, from any owner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from aemp_gevent.directory.family_monitor import DirectoryMonitor
from aemp_gevent.directory.local_directory import Directory, Watching

GroupCallback: TypeAlias = Callable[[list[str], list[str], list[str]], object]
"""``cb(ports, added, deleted)``: all members, and those that are new or gone."""


class Groups:
    """The groups that a node has asked for; each is watched from the first call on.

    Args:
        directory: The node's.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[str, Watching] = {}

    def get(self, group: str) -> list[str] | None:
        """Return the known members of a group; None if there are none."""
        if group not in self._known:
            watching = Watching(self._directory, group)
            self._directory.watch(watching)
            self._known[group] = watching
        return list(self._directory.copy(group) or ()) or None

    def monitor(self, group: str, callback: GroupCallback) -> DirectoryMonitor:
        """Call back with the members of a group, and again when some came or went."""
        is_first = True

        def changed(entries: Mapping[str, Any], added: list[str], _different: list[str], deleted: list[str]) -> None:
            nonlocal is_first
            if is_first or added or deleted:  # a change of values only is not reported
                is_first = False
                callback(list(entries), added, deleted)

        monitor = DirectoryMonitor(self._directory, group, changed)
        self._directory.watch(monitor)
        return monitor
