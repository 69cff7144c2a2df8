# SPDX-License-Identifier: MIT
"""Ports that are replaced when they die: peers may kill them, and so does an exception in a handler.

For what a node offers as long as it lives, through a group of the directory. What is sent to a former port is lost; the
new one is in the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aemp_gevent.node.access import is_shut_down, ports_host_of
from aemp_gevent.node.node import Node

REOPEN_SECONDS = 1.0
"""How long after a port's death the next one is made: what kills it may kill that one as well."""


class LastingPort:
    """A port that is replaced when it dies, until its node ends.

    Args:
        node: The node.
        prepare: Called with the ID of each new port; gives it handlers, and enters it into a group.
    """

    def __init__(self, node: Node, prepare: Callable[[str], object]) -> None:
        self._node = node
        self._prepare = prepare
        self.id = ""
        """The ID of the port; "" before the first one, and between two."""

    def open(self) -> None:
        """Make the port, unless there is one. Never switches."""
        if not self.id:
            self.id = self._node.port()
            ports_host_of(self._node).monitor(self.id, self._died, None)
            self._prepare(self.id)

    def _died(self, *_reason: Any) -> None:
        self.id = ""
        if not is_shut_down(self._node):  # peers that kill it may give any reason
            self._node.after(REOPEN_SECONDS, self.open)
