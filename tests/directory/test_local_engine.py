# SPDX-License-Identifier: MIT
"""The directory of a node without a network."""

from __future__ import annotations

from aemp_gevent.node.node import Node
from tests.directory.changes import Changes


def test_private_node_has_a_directory_of_its_own(private: Node) -> None:
    changes = Changes()
    private.db_mon("family", changes)
    private.db_set("family", "key", 1)
    assert private.db_family("family") == {"key": 1}
    assert private.db_keys("family") == ["key"]
    assert private.db_values("family") == [1]
    assert private.grp_get("family") == ["key"]
    changes.wait({"key": 1})
    private.db_del("family", "key")
    changes.wait({})
    assert private.db_wait("family", lambda entries: not entries) == {}
