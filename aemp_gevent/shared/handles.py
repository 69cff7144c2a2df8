# SPDX-License-Identifier: MIT
"""The base of what programs use: shared state by its name, wherever it is."""

from __future__ import annotations

from typing import Any

from aemp_gevent import Node, default_node
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.shared.owned import check_text
from aemp_gevent.shared.ownership import ownership_of


def host(*, node: Node = default_node) -> None:
    """Make this node one of those that own shared state, even if it has not used any yet. Never switches.

    A node becomes one when it uses shared state for the first time. Call this when it is initialised, if it should
    take over from nodes that shut down before that. gunicorn's workers need not.
    """
    ownership_of(node)


class SharedState:
    """State that all nodes share by its name. An object of this class holds nothing: make one wherever you need it.

    Args:
        name: Its name, up to 200 characters.
        timeout: Seconds that a call may take, while another node takes over for example; None waits forever.
        node: This node.

    Raises:
        InvalidSharedError: It is not such a name.
    """

    _kind = ""

    def __init__(self, name: str, *, timeout: Seconds | None = 5.0, node: Node = default_node) -> None:
        self.name = check_text("name", name)
        """Its name."""
        self.node = node
        """This node."""
        self._seconds = to_seconds(timeout, f"{type(self).__name__}()")
        self._state_key = f"{self._kind} {name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _ask(self, tag: str, *args: Any, patience: float = 0.0) -> Any:
        return ownership_of(self.node).ask(self._state_key, tag, args, self._seconds, patience)
