# SPDX-License-Identifier: MIT
"""Callbacks of monitors that check what they get, and waiting until all nodes see the same."""

from __future__ import annotations

from typing import Any

from aemp_gevent.node.node import Node
from tests.support.directories import WAIT
from tests.support.helpers import wait_until


class Changes:
    """A callback of ``db_mon`` that keeps what it gets, and checks that the changes lead from one map to the next."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], list[str], list[str], list[str]]] = []
        self._before: dict[str, Any] = {}

    def __call__(self, entries: Any, added: list[str], changed: list[str], deleted: list[str]) -> None:
        now = dict(entries)
        assert not set(added) & set(self._before), (added, self._before)
        assert set(changed) <= set(self._before) & set(now)
        assert all(self._before[key] != now[key] for key in changed)
        replayed = {key: value for key, value in self._before.items() if key not in deleted}
        assert len(replayed) == len(self._before) - len(deleted)
        replayed |= {key: now[key] for key in added + changed}
        assert replayed == now
        assert not self.calls or added or changed or deleted
        self._before = now
        self.calls.append((now, sorted(added), sorted(changed), sorted(deleted)))

    @property
    def last(self) -> dict[str, Any] | None:
        return self.calls[-1][0] if self.calls else None

    def wait(self, entries: dict[str, Any]) -> None:
        wait_until(lambda: self.last == entries, within=WAIT, show=lambda: self.last)


def see(nodes: list[Node], family: str, entries: dict[str, Any]) -> None:
    """Wait until all nodes see this, and nothing else, in a family."""
    for node in nodes:
        wait_until(
            lambda node=node: node.db_family(family) == entries,
            within=WAIT,
            show=lambda node=node: (node, node.db_family(family)),
        )
