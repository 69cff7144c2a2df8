# SPDX-License-Identifier: MIT
"""Questions to a real etcd."""

from __future__ import annotations

import pytest

from aemp_gevent.settings.directory_address import EtcdAddress
from tests.directory.etcd.observers import WAIT, Make
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until

pytestmark = [needs_etcd, pytest.mark.slow]


def test_queries_see_what_was_published_before(address: EtcdAddress, make: Make) -> None:
    a = make(address)
    for number in range(20):
        a.set("f", k=number, other=1)
        assert a.asked("family", "f") == {"k": number, "other": 1}
    assert sorted(a.asked("keys", "f")) == ["k", "other"]
    assert sorted(a.asked("values", "f")) == [1, 19]
    assert a.asked("family", "none") == {}
    assert a.asked("keys", "none") == a.asked("values", "none") == []


def test_nodes_are_found(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    make(address, "a/1", listens=["127.0.0.1:1", "127.0.0.1:2"])
    b = make(address, "b", listens=["127.0.0.1:3"])
    wait_until(lambda: b.found("a/1") is not None, within=WAIT)
    assert b.found("a/1") == ["127.0.0.1:1", "127.0.0.1:2"]
    wait_until(lambda: b.found("b") == ["127.0.0.1:3"], within=WAIT)
    assert b.found("nobody") is None
    lasting.put(f"{address.prefix}/db/%27l/liar/liar", b"\x91\x91\x07")
    assert b.found("liar") is None
