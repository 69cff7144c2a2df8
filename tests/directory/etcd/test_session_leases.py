# SPDX-License-Identifier: MIT
"""Leases: the entries of a node stay in etcd for as long as it lives, however slow etcd is.

etcd is simulated, and so is the clock: a session that takes a minute takes no time here.
"""

from __future__ import annotations

import random
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import pytest

from aemp_gevent.directory.etcd import session
from aemp_gevent.directory.etcd.client import EtcdLostError
from aemp_gevent.directory.etcd.keyspace import Keyspace
from aemp_gevent.directory.etcd.session import SessionWriter
from aemp_gevent.node.node import Node

TTL = 3


class SlowEtcd:
    """As much of etcd as a writer needs; also stands for a :class:`~aemp_gevent.directory.etcd.client.EtcdClient`.

    Args:
        dice: Decides how long each request takes, and which one fails.
        seconds: The longest that a request takes.
    """

    def __init__(self, dice: random.Random, seconds: float) -> None:
        self.now = 1000.0
        self.keys: dict[str, int] = {}
        """The lease that each key is attached to."""
        self.expired: list[str] = []
        """Keys that were deleted because their lease had run out."""
        self.failing = 0.0
        """How likely a request fails; never two of them within the time to live of a lease."""
        self._dice = dice
        self._seconds = seconds
        self._until: dict[int, float] = {}
        self._failed_at = 0.0

    def call(self, path: str, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        failed = self.now > self._failed_at + TTL and self._dice.random() < self.failing
        is_lost = failed and self._dice.random() < 0.5
        self.pass_time(self._dice.uniform(0, self._seconds))
        answer = {} if is_lost else getattr(self, "_" + path.replace("/", "_"))(body)
        if failed:
            self._failed_at = self.now
            self.pass_time(TTL / 3)  # until the request has timed out
            raise EtcdLostError("no answer")
        return answer

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 3000.0, "the session never ends"
        for lease in [lease for lease, until in self._until.items() if until < self.now]:
            self.expired += [key for key, its in self.keys.items() if its == lease and "/db/" in key]
            self._end(lease)

    def _end(self, lease: int) -> None:
        self._until.pop(lease, None)
        self.keys = {key: its for key, its in self.keys.items() if its != lease}

    def _lease_grant(self, body: Any) -> Any:
        lease = self._dice.getrandbits(60)
        self._until[lease] = self.now + TTL
        return {"ID": str(lease)}

    def _lease_keepalive(self, body: Any) -> Any:
        lease = int(body["ID"])
        if lease not in self._until:
            return {}
        self._until[lease] = self.now + TTL
        return {"TTL": str(TTL)}

    def _lease_revoke(self, body: Any) -> Any:
        self._end(int(body["ID"]))
        return {}

    def _kv_put(self, body: Any) -> Any:
        self.keys[b64decode(body["key"]).decode()] = int(body["lease"])
        return {}

    def _kv_txn(self, body: Any) -> Any:
        (compare,) = body["compare"]
        if self.keys.get(b64decode(compare["key"]).decode()) != int(compare["lease"]):
            return {"responses": [{"response_range": {}}]}
        for operation in body["success"]:
            put = operation.get("request_put")
            if put is None:
                self.keys.pop(b64decode(operation["request_delete_range"]["key"]).decode(), None)
            else:
                self._kv_put(put)
        return {"succeeded": True}


class Writer:
    """A session writer, and the changes that its node makes while it waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dice: random.Random, seconds: float) -> None:
        self.server: Any = SlowEtcd(dice, seconds)
        monkeypatch.setattr(session, "monotonic", lambda: self.server.now)
        monkeypatch.setattr(session, "_MAX_OPERATIONS", 1)  # as if each entry filled a transaction
        self.session = SessionWriter(Keyspace("/leases", "a"), "a", Node()._scheduler, TTL)
        self.own: dict[str, dict[str, Any]] = {"f": {}}
        self.session._observer = self  # type: ignore[assignment]
        self.session._changed = SimpleNamespace(  # type: ignore[assignment]
            wait=self._wait, clear=lambda: None, set=lambda: None
        )
        self.changes = 0

    def run(self, changes: int) -> None:
        """Write until a number of changes were made and written, each when nothing else was queued."""
        self.changes = changes
        while True:
            try:
                self.session.write(self.server)
            except EtcdLostError:
                self.server.pass_time(TTL / 20)  # a first pause
            except _Done:
                return

    def _wait(self, seconds: float) -> None:
        if not self.changes:
            raise _Done
        self.changes -= 1
        self.server.pass_time(seconds / 2)
        key = f"k{self.changes % 7}"
        self.own["f"][key] = self.changes
        self.session.publish("f", {key: self.changes}, ())


class _Done(Exception):
    """All changes were made."""


def test_leases_are_refreshed_while_many_entries_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of many entries takes longer than the time to live of its lease, and of the former one."""
    writer = Writer(monkeypatch, random.Random(1), TTL / 4)
    writer.own["f"] = {f"own{number}": 0 for number in range(40)}
    began = writer.server.now
    writer.run(1)
    assert writer.server.now - began > 2 * TTL, "nothing was tried"
    writer.session._end_session()  # as after a request without an answer
    writer.run(1)
    assert len(writer.server.keys) == 42
    assert not writer.session._former
    assert writer.server.expired == []
    assert len(set(writer.server.keys.values())) == 1


@pytest.mark.parametrize("seed", range(20))
def test_entries_stay_when_any_request_fails(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    writer = Writer(monkeypatch, random.Random(seed), TTL / 50)
    writer.own["f"] = {f"own{number}": 0 for number in range(30)}
    writer.run(1)
    writer.server.failing = 0.2
    writer.run(60)
    writer.server.failing = 0.0
    writer.run(1)
    assert {key.split("/")[-2] for key in writer.server.keys if "/db/" in key} == set(writer.own["f"])
    assert writer.server.expired == []
    assert not writer.session._former
