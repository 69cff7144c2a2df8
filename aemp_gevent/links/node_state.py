# SPDX-License-Identifier: MIT
"""The three states of a node, as another one sees it: up, blocked, gone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class NodeState:
    """What :func:`~aemp_gevent.node_state` returns."""

    state: Literal["up", "blocked", "gone"]
    """``"up"``: there is a link. ``"blocked"``: there is a link, and the node reports that its event loop is blocked.
    ``"gone"``: there is no link."""
    since: float | None = None
    """When a blocked node's loop ran last, in seconds since 1970 by this host's clock; otherwise None."""
    where: str = ""
    """Where a blocked node's code is: ``file:line in function``. Empty if it does not tell this node."""

    def __str__(self) -> str:
        """Describe it, such as ``blocked for 12.3 s in load.py:7 in read``."""
        if self.since is None:
            return self.state
        text = f"{self.state} for {max(time.time() - self.since, 0.0):.1f} s"
        return f"{text} in {self.where}" if self.where else text


UP = NodeState("up")
GONE = NodeState("gone")
