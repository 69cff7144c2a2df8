# SPDX-License-Identifier: MIT
"""Nodes for the tests of the directory."""

from __future__ import annotations

from tests.support.directories import directory_nodes, etcd, private, world

__all__ = ["directory_nodes", "etcd", "private", "world"]
