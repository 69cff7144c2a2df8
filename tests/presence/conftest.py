# SPDX-License-Identifier: MIT
"""Nodes whose directory any engine keeps."""

from __future__ import annotations

from tests.support.directories import directory_nodes, etcd, private, world

__all__ = ["directory_nodes", "etcd", "private", "world"]
