# SPDX-License-Identifier: MIT
"""A private node whose ports are gone after the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aemp_gevent import Node
from tests.support.seams import ports_of
from tests.support.settling import settle


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    with node.attach():  # so that everything here uses this node
        yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)
    node.shutdown()
