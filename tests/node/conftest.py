# SPDX-License-Identifier: MIT
"""Nodes that share a directory, for the tests of its calls."""

from tests.directories import directory_nodes, etcd, private, world

__all__ = ["directory_nodes", "etcd", "private", "world"]
