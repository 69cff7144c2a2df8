# SPDX-License-Identifier: MIT
"""Nodes that share a directory, whatever engine keeps it: one class for each engine."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import pytest

from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until
from tests.support.seams import ports_of

WAIT = 20.0
"""Seconds that anything may take before a test gives up."""

QUICK = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}


class World(Protocol):
    """A network whose nodes share a directory."""

    def node(self) -> Node:
        """Return a new node, not initialised."""
        ...

    def join(self, node: Node) -> Node:
        """Initialise it, connected with the directory or about to be; return it."""
        ...

    def crash(self, node: Node) -> None:
        """End a node without goodbye."""


class EmbeddedWorld:
    """Two seeds that have the directory, in one simulated network."""

    seeds = ("10.9.0.1:4040", "10.9.0.2:4040")

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        for seed in self.seeds:
            network.node(seed, *self.seeds, **QUICK)
        self._count = 0
        self._nodes: list[Node] = []
        self._ids: dict[Node, str] = {}

    def node(self) -> Node:
        self._count += 1
        name = f"10.8.{self._count // 200}.{self._count % 200 + 1}:4040"
        carrier = self.network.carrier(name)
        node = carrier.node = Node(carrier=carrier)
        self._ids[node] = name
        return node

    def join(self, node: Node) -> Node:
        # By turns, so that most tests have clients of both.
        seeds = self.seeds if self._count % 2 else self.seeds[::-1]
        node.initialise_node(self._ids[node], *seeds, secret="a secret in memory", **QUICK)
        return node

    def crash(self, node: Node) -> None:
        self.network.crash(node)


@contextmanager
def embedded_world(**options: Any) -> Iterator[EmbeddedWorld]:
    with MemoryNetwork(**options) as network:
        yield EmbeddedWorld(network)


class EtcdWorld:
    """Nodes that have nothing in common but a prefix in an etcd."""

    def __init__(self, server: EtcdServer) -> None:
        self._settings = {"directory": f"etcd://{server.endpoint}/{secrets.token_hex(8)}", "heartbeat_timeout": 10.0}
        self._nodes: list[Node] = []

    def node(self) -> Node:
        self._nodes.append(Node())
        return self._nodes[-1]

    def join(self, node: Node) -> Node:
        node.initialise_node("127.0.0.1:0", secret="a secret of the tests", **self._settings)
        return node

    def crash(self, node: Node) -> None:
        engine = node._etcd
        assert engine is not None
        engine._session._former.clear()  # so that it is not revoked
        engine._session._lease = None
        node.shutdown(0.2)

    def close(self) -> None:
        for node in self._nodes:
            node.shutdown(2.0)


@contextmanager
def etcd_world(server: EtcdServer) -> Iterator[EtcdWorld]:
    with closing(EtcdWorld(server)) as world:
        yield world


PARAMETERS = ["embedded", pytest.param("etcd", marks=[needs_etcd, pytest.mark.slow])]
"""The names of the worlds, for a fixture."""

MakeNodes = Callable[[int], list[Node]]


# --- fixtures, for the conftest.py of the folders that use them ---


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=PARAMETERS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    is_embedded = request.param == "embedded"
    with embedded_world() if is_embedded else etcd_world(request.getfixturevalue("etcd")) as world:
        yield world


@pytest.fixture
def directory_nodes(world: World) -> MakeNodes:
    """Make a number of nodes that share a directory."""
    return lambda count: [world.join(world.node()) for _ in range(count)]


@pytest.fixture
def private() -> Iterator[Node]:
    """Make a node without a network."""
    node = Node()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    wait_until(lambda: not ports_of(node))
