# SPDX-License-Identifier: MIT
"""Fixtures of the tests of peers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aemp_gevent.testing import MemoryNetwork
from tests.peers.slave_nodes import Place


@pytest.fixture
def slave_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryNetwork]:
    monkeypatch.setattr("aemp_gevent.peers.redialling._LAST_RETRY_SECONDS", 0.3)
    monkeypatch.setattr("aemp_gevent.peers.seed._FIRST_PAUSE_SECONDS", 0.1)
    with MemoryNetwork(latency=0.001, jitter=0.002) as network:
        yield network


@pytest.fixture
def place(slave_network: MemoryNetwork) -> Place:
    return Place(slave_network)
