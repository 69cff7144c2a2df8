# SPDX-License-Identifier: MIT
"""A global node with raw peers, and a listener for nodes to dial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import Dial
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode, RawListener, free_address


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """A node that is its own seed, and so is global."""
    address = free_address()
    node = make_node(address, address)
    wait_until(lambda: node.info()["directory"] == "global")
    return node


@pytest.fixture
def dial(node: Node) -> Iterator[Dial]:
    with ExitStack() as stack:
        yield Dial(node, stack)


@pytest.fixture
def listener() -> Iterator[RawListener]:
    with RawListener() as listener:
        yield listener
