# SPDX-License-Identifier: MIT
"""Fixtures for the tests of nodes: a log of calls, a dead port, objects as ports, and nodes with a directory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.node.local import Log
from tests.support.directories import directory_nodes, etcd, private, world
from tests.support.settling import PortLike, settle

__all__ = ["dead", "directory_nodes", "etcd", "log", "private", "world", "wrap"]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def dead(node) -> str:
    """The ID of a port that died."""
    port = node.port()
    node.kil(port)
    settle(node)
    return port  # type: ignore[no-any-return]


class StringLike(str):
    """A subclass of str."""

    __slots__ = ()


class HashableLike:
    def __init__(self, port: str) -> None:
        self.port = port

    def __str__(self) -> str:
        return self.port


@pytest.fixture(params=[str, StringLike, HashableLike, PortLike])
def wrap(request) -> Callable[[str], object]:
    return request.param  # type: ignore[no-any-return]
