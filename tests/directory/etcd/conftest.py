# SPDX-License-Identifier: MIT
"""An etcd for all tests of this folder, one for a single test, and engines that are stopped afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from aemp_gevent.directory.etcd.engine import EtcdEngine
from aemp_gevent.node.node import Node
from aemp_gevent.settings.directory_address import EtcdAddress
from tests.directory.etcd.observers import WAIT, FakeObserver, Make
from tests.support.etcd_server import EtcdServer


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def address(lasting: EtcdServer) -> EtcdAddress:
    """A prefix in an etcd for this test alone."""
    return lasting.address(f"/{secrets.token_hex(8)}")


@pytest.fixture
def server(tmp_path: Any) -> Iterator[EtcdServer]:
    """An etcd for this test alone."""
    with EtcdServer(tmp_path) as server:
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Yield a function that makes engines with observers; all are stopped afterwards."""
    made: list[FakeObserver] = []

    def make(address: EtcdAddress, name: str = "a", ttl: float = 10, listens: Collection[str] = (), **own: Any) -> Any:
        engine = EtcdEngine(address, name, Node()._scheduler, ttl, listens)
        observer = FakeObserver(engine)
        observer.own.update(own)
        made.append(observer)
        engine.start(observer)
        return observer

    yield make
    for observer in made:
        observer.engine.stop()
        observer.engine.stop()
    for observer in made:
        assert observer.engine.stopped.wait(WAIT)
