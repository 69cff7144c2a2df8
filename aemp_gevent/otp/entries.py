# SPDX-License-Identifier: MIT
"""What a supervisor knows of each of its children."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from aemp_gevent.otp.budgets import Pauses
from aemp_gevent.otp.children import Child

if TYPE_CHECKING:
    from aemp_gevent import Monitor, Timer


FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Before a child whose node was lost or has ended is started again, in seconds."""


class ChildState(Enum):
    """What a child does."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """Waits for its restart, after its own pause or that of another child of its group."""
    STOPPED = "stopped"
    LOST = "lost"
    """Its node cannot be reached, and it may be alive."""


class Entry:
    """A child, and what has become of it.

    Args:
        child: What it is.
        key: Its ID in its supervisor.
        pauses: The pauses before its restarts.
    """

    __slots__ = (
        "avoid",
        "child",
        "guard",
        "key",
        "last_reason",
        "pauses",
        "pauses_of_node",
        "port",
        "restarts",
        "started_at",
        "state",
        "timer",
    )

    def __init__(self, child: Child, key: str, pauses: Pauses) -> None:
        self.child = child
        self.key = key
        self.pauses = pauses
        self.pauses_of_node = None if child.placement is None else Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        """The pauses before it is started after the end of its node, which do not count."""
        self.state = ChildState.STOPPED
        self.port: str | None = None
        """Its port, while it is running or lost."""
        self.guard: Monitor | None = None
        self.timer: Timer | None = None
        """The pause before it, and those of its group that wait, are started again; or before a lost one is asked."""
        self.started_at = 0.0
        self.restarts = 0
        self.avoid = ""
        """The ID of a node that was lost or has ended."""
        self.last_reason: tuple[Any, ...] | None = None

    def wait(self, state: ChildState) -> None:
        """End the pause and the monitor."""
        for guard in (self.timer, self.guard):
            if guard is not None:
                guard.cancel()
        self.timer = self.guard = None
        self.state = state

    def leave(self, state: ChildState) -> str | None:
        """End the pause and the monitor, and return the port that it had. Its new state is without one."""
        self.wait(state)
        port, self.port = self.port, None
        return port

    def describe(self) -> dict[str, Any]:
        """Return the child for ``which_children()``."""
        child = self.child
        return {
            "id": self.key,
            "state": self.state.value,
            "port": self.port,
            "kind": "supervisor" if child.is_supervisor else "server" if child.is_server else "port",
            "restart": child.restart,
            "restarts": self.restarts,
            "last_reason": None if self.last_reason is None else list(self.last_reason),
        }
