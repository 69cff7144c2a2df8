# SPDX-License-Identifier: MIT
"""The supervisors of a node, and what ``inspect`` reports about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aemp_gevent.node.access import kept_for, mailbox_length, report_trees
from aemp_gevent.otp.entries import ChildState, Entry
from aemp_gevent.runtime.quoting import worded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemp_gevent import Node

MAX_REASON = 500
"""Characters of a reason."""


class ShownSupervisor(Protocol):
    """A supervisor, as this module sees it."""

    @property
    def strategy(self) -> str: ...

    @property
    def aemp_entries(self) -> Iterable[Entry]: ...


class Trees:
    """The supervisors of one node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._supervisors: dict[str, ShownSupervisor] = {}
        report_trees(node, self.report)

    def add(self, port: str, supervisor: ShownSupervisor) -> None:
        """Report a supervisor until its port dies."""
        self._supervisors[port] = supervisor
        self._node.mon(port, lambda *_reason: self._supervisors.pop(port, None))

    def report(self, limit: int) -> list[dict[str, Any]]:
        """Return the supervisors with their children, together at most so many, as ``inspect`` sends them."""
        found: list[dict[str, Any]] = []
        for port, supervisor in self._supervisors.items():
            if limit <= 0:
                break
            entries = list(supervisor.aemp_entries)
            count, active = len(entries), sum(entry.state is ChildState.RUNNING for entry in entries)
            if count >= limit:  # those first that are not running
                entries.sort(key=lambda entry: entry.state is ChildState.RUNNING)
            children = [self._child(entry) for entry in entries[: limit - 1]]
            limit -= 1 + len(children)
            found.append(
                {
                    "port": port,
                    "name": type(supervisor).__name__,
                    "strategy": supervisor.strategy,
                    "child_count": count,
                    "active": active,
                    "children": children,
                }
            )
        return found

    def _child(self, entry: Entry) -> dict[str, Any]:
        found = entry.describe()
        reason = found.pop("last_reason")
        found["reason"] = None if reason is None else worded(" ".join(map(str, reason)) or "normal", MAX_REASON)
        found["messages"] = None if entry.port is None else mailbox_length(self._node, entry.port)
        return found


def trees_of(node: Node) -> Trees:
    """Return the supervisors of a node."""
    return kept_for(node, Trees)
