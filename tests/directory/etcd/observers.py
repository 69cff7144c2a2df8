# SPDX-License-Identifier: MIT
"""Observers of etcd engines that keep what they are given, and questions about it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from aemp_gevent.directory.etcd.engine import EtcdEngine
from tests.support.etcd_server import EtcdServer
from tests.support.helpers import wait_until

WAIT = 20.0


class FakeObserver:
    """Stands for a node: keeps a copy of each watched family, and every change of it."""

    def __init__(self, engine: EtcdEngine) -> None:
        self.engine = engine
        self.own: dict[str, dict[str, Any]] = {}
        self.copies: dict[str, dict[str, Any]] = {}
        self.steps: list[tuple[Any, ...]] = []

    def replaced(self, family: str, entries: dict[str, Any]) -> None:
        self.copies[family] = dict(entries)
        self.steps.append(("whole", dict(entries)))

    def changed(self, family: str, entries: dict[str, Any], deleted: Collection[str]) -> None:
        assert entries or deleted
        copy = self.copies[family]
        for key in deleted:
            del copy[key]
        copy.update(entries)
        self.steps.append((dict(entries), sorted(deleted)))

    def set(self, family: str, **entries: Any) -> None:
        self.own.setdefault(family, {}).update(entries)
        self.engine.publish(family, entries, ())

    def delete(self, family: str, *keys: str) -> None:
        for key in keys:
            del self.own[family][key]
        self.engine.publish(family, {}, keys)

    def wait(self, family: str, entries: dict[str, Any], within: float = WAIT) -> None:
        wait_until(lambda: self.copies.get(family) == entries, within=within, show=lambda: self.steps[-5:])

    def asked(self, what: Any, family: str) -> Any:
        answers: list[Any] = []
        self.engine.query(what, family, answers.append)
        wait_until(lambda: answers, within=WAIT)
        return answers[0]

    def found(self, node: str) -> Any:
        answers: list[Any] = []
        self.engine.find(node, answers.append)
        wait_until(lambda: answers, within=WAIT)
        return answers[0]


Make = Callable[..., FakeObserver]


def never_without(observer: FakeObserver, family: str, key: str) -> bool:
    """Return whether a watcher never saw an entry disappear."""
    seen = False
    for step in observer.steps:
        entries = step[1] if step[0] == "whole" else step[0]
        seen = seen or key in entries
        if seen and ((step[0] == "whole" and key not in entries) or (step[0] != "whole" and key in step[1])):
            return False
    return seen


def three(make: Make, server: EtcdServer, ttl: float = 4) -> tuple[FakeObserver, FakeObserver, FakeObserver]:
    """Return two nodes with an entry each, and one that watches them."""
    a, b = make(server.address(), "a", ttl, f={"a": 1}), make(server.address(), "b", ttl, f={"b": 1})
    watcher = make(server.address(), "w", ttl)
    watcher.engine.watch("f")
    watcher.wait("f", {"a": 1, "b": 1})
    return a, b, watcher


def kill(observer: FakeObserver) -> None:
    """Stop an engine as a crash would, without removing its entries."""
    engine = observer.engine
    engine._session._former.clear()
    engine._session._lease = None
    engine.stop()
