# SPDX-License-Identifier: MIT
"""Sessions in a real etcd: writing, and what is left of former sessions."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from aemp_gevent.directory.etcd import session
from aemp_gevent.directory.etcd.client import EtcdClient, EtcdLostError
from aemp_gevent.settings.directory_address import EtcdAddress
from tests.directory.etcd.observers import WAIT, Make, kill, never_without
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until

pytestmark = [needs_etcd, pytest.mark.slow]


def test_entries_deleted_while_etcd_was_away_do_not_stay(server: EtcdServer, make: Make) -> None:
    leases = server.leases()
    a = make(server.address(), "a", 6, f={"gone": 1, "k": 1})
    assert sorted(a.asked("keys", "f")) == ["gone", "k"]
    server.stop()
    a.delete("f", "gone")
    wait_until(lambda: not a.engine._session._is_sure, within=WAIT)
    a.set("f", k=2)
    server.resume()
    wait_until(lambda: server.leases() == leases + 1, within=WAIT)
    wait_until(lambda: server.keys("/test/db/") == ["/test/db/f/k/a"], within=WAIT)
    assert a.asked("family", "f") == {"k": 2}


def test_a_late_request_of_a_former_session_has_no_effect(server: EtcdServer, make: Make) -> None:
    """etcd may carry out a request long after the node gave up waiting for it."""
    a = make(server.address(), "a", f={"k": 1})
    assert a.asked("keys", "f") == ["k"]
    lease = a.engine._session._lease
    late: list[Any] = []
    call = EtcdClient.call

    def lose(client: EtcdClient, path: str, body: Any, **options: Any) -> Any:
        if path == "kv/txn" and not late:
            late.append(body)
            raise EtcdLostError("no answer")
        return call(client, path, body, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EtcdClient, "call", lose)
        a.delete("f", "k")
        wait_until(lambda: late, within=WAIT)
        a.set("f", k=2)
        assert a.asked("family", "f") == {"k": 2}
    assert a.engine._session._lease != lease
    server.call("kv/txn", late[0])
    assert a.asked("family", "f") == {"k": 2}


def test_two_processes_with_one_id_are_logged(
    address: EtcdAddress, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = make(address, "same", f={"k": 1})
        assert first.asked("keys", "f") == ["k"]
        second = make(address, "same", f={"k": 2})
        assert second.asked("family", "f") == {"k": 2}
        first.set("f", k=3)
        wait_until(lambda: "must be unique" in caplog.text, within=WAIT)


def test_entries_of_a_restarted_node_stay_when_its_former_lease_expires(address: EtcdAddress, make: Make) -> None:
    watcher = make(address, "w")
    watcher.engine.watch("f")
    old = make(address, "same", 2, f={"k": 1, "old": 1})
    watcher.wait("f", {"k": 1, "old": 1})
    kill(old)
    make(address, "same", f={"k": 2})
    watcher.wait("f", {"k": 2, "old": 1})
    watcher.wait("f", {"k": 2})
    assert never_without(watcher, "f", "k")


def test_too_many_queued_changes_become_all_entries(
    address: EtcdAddress, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_MAX_QUEUED", 10)
    a, b = make(address, "a", f={"k": 0}), make(address, "b")
    b.engine.watch("f")
    b.wait("f", {"k": 0})
    for number in range(100):
        a.set("f", **{f"k{number}": number})
        a.set("f", k=number)
        assert len(a.engine._session._changes) <= 12
    a.delete("f", "k7")
    b.wait("f", {"k": 99, **{f"k{number}": number for number in range(100) if number != 7}})


def test_large_entries_are_left_out(address: EtcdAddress, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    # A busy machine may need longer than the shortest time to live for what follows.
    a, b = make(address, "a", ttl=30), make(address, "b", ttl=30)
    b.engine.watch("f")
    large = "x" * 2**20
    a.set("f", larger=large + "x" * 2048)
    a.set("f", large=large)
    a.set("f", **{f"k{number}": large[: 2**18] for number in range(30)})
    b.wait("f", {"large": large, **{f"k{number}": large[: 2**18] for number in range(30)}})
    assert "this node's entry larger of family f is left out: it has 1050630 bytes" in caplog.text
    assert a.asked("family", "f") == b.copies["f"]  # more than gRPC's 4 MiB
