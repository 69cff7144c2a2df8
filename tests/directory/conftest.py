# SPDX-License-Identifier: MIT
"""Nodes for the tests of the directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.directories import directory_nodes, etcd, private, world
from tests.networking import MakeNode, node_factory

__all__ = ["directory_nodes", "etcd", "private", "world"]


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make
