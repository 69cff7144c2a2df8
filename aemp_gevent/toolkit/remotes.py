# SPDX-License-Identifier: MIT
"""What the remote forms of gevent's objects have in common: a port that is asked, and a node that asks."""

from __future__ import annotations

from aemp_gevent import default_node
from aemp_gevent.local import LocalNode

QUICK_SECONDS = 30
"""How long calls may take that never wait for anything."""


class Remote:
    """An object of another node, to be used from this one.

    Args:
        port: Of the object.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        self.port = str(port)
        self.node = node

    def __str__(self) -> str:
        return self.port
