# SPDX-License-Identifier: MIT
"""Nodes in a simulated network, which publish and are subscribed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import aemp_gevent.topics.destination
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.topics import subscribe
from aemp_gevent.topics.broker import broker_of
from aemp_gevent.topics.destination import Destination
from tests.support.helpers import wait_until
from tests.support.networking import Inbox

WAIT = 20.0
QUICK: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}
SEED = "10.7.0.1:4040"


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(time="virtual") as memory:
        yield memory


@pytest.fixture(autouse=True)
def pauses_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.topics.destination, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(aemp_gevent.topics.destination, "_CONFIRM_SECONDS", 0.01)


def nodes_of(network: MemoryNetwork, count: int) -> list[Node]:
    """Return nodes of which the first is the seed of all."""
    return [network.node(SEED if not number else None, SEED, **QUICK) for number in range(count)]


def subscribed(node: Node, *patterns: str) -> Inbox:
    """Return a port that is subscribed, when all nodes know it."""
    inbox = Inbox(node)
    for pattern in patterns:
        assert subscribe(pattern, inbox, node=node).wait_until_known(WAIT)
    return inbox


def begun(node: Node, *others: Node) -> None:
    """Wait until a node publishes, and others are known to it."""
    broker = broker_of(node)
    broker._make_ready("a test", WAIT)
    wait_until(
        lambda: (
            {known.node_id for known in broker._destinations.values() if known._inlet} >= {o.NODE() for o in others}
        ),
        within=WAIT,
        show=lambda: broker._destinations,
    )


def destination_of(node: Node, other: Node) -> Destination:
    """Return another node as one sees it that publishes."""
    return next(known for known in broker_of(node)._destinations.values() if known.node_id == other.NODE())
