# SPDX-License-Identifier: MIT
"""What a supervisor knows of its children."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aemp_gevent.otp.budgets import Pauses
from aemp_gevent.otp.children import Child
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Monitor, Node, Timer


Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]

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


class Event(Enum):
    """What happens to a child. It is in messages to its supervisor, and cannot travel: no other node can forge one."""

    DIED = "died"
    RESTART = "restart"
    FOUND = "found"


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
        "tried",
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
        self.tried: str | None = None
        """The port that its last start made, also if that failed."""

    def pause(self, node: Node, supervisor: str, seconds: float) -> None:
        """Begin a pause, after which the supervisor gets ``Event.RESTART``."""
        self.timer = node.after(seconds, supervisor, Event.RESTART, self.key, None)

    def watch(self, node: Node, supervisor: str, port: str) -> None:
        """Monitor the child's port; the supervisor gets ``Event.DIED``."""
        self.guard = node.mon(port, supervisor, Event.DIED, self.key, port)

    def wait(self, state: ChildState) -> None:
        """End the pause and the monitor."""
        for guard in (self.timer, self.guard):
            if guard is not None:
                guard.cancel()
        self.timer = self.guard = None
        self.state = state

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


class Entries:
    """The children of one supervisor, in order.

    Args:
        strategy: Which of them a death concerns.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._entries: dict[str, Entry] = {}
        self._by_port: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """Return the child with an ID, if there is one."""
        return self._entries.get(key)

    def get(self, key: str) -> Entry:
        """Return the child with an ID.

        Raises:
            ValueError: There is none.
        """
        entry = self._entries.get(key)
        if entry is None:
            raise ValueError(f"there is no child {quoted(key)}; the children are {quoted(list(self._entries))}")
        return entry

    def add(self, child: Child, pauses: Pauses) -> Entry:
        """Add a child after the others.

        Raises:
            ValueError: Another one has its ID.
        """
        key = child.id
        if key is None:
            key = self._new_key(child.title)
        elif key in self._entries:
            raise ValueError(f"two children have the ID {quoted(key)}")
        entry = self._entries[key] = Entry(child, key, pauses)
        return entry

    def remove(self, entry: Entry) -> None:
        """Forget a child that has no port, if it is still known."""
        self._entries.pop(entry.key, None)

    def started(self, entry: Entry, port: str, now: float) -> None:
        """Note that a child runs in a port."""
        entry.started_at = now
        entry.port = port
        entry.state = ChildState.RUNNING
        self._by_port[port] = entry

    def leave(self, entry: Entry, state: ChildState) -> str | None:
        """End a child's pause and its monitor, and return the port that it had. Its new state is without one."""
        entry.wait(state)
        port, entry.port = entry.port, None
        if port is not None:
            del self._by_port[port]
        return port

    def has_port(self, port: str) -> bool:
        """Return whether a port is one of the children now."""
        return port in self._by_port

    def _new_key(self, title: str) -> str:
        """Return an ID that no child has had: the title, or that and a number."""
        while True:
            number = self._numbers[title] = self._numbers.get(title, 0) + 1
            key = title if number == 1 else f"{title}-{number}"
            if key not in self._entries:
                return key

    def group_of(self, entry: Entry) -> list[Entry]:
        """Return the children that the death of one of them concerns, in order."""
        if self._strategy == "one_for_one":
            return [entry]
        every = list(self._entries.values())
        return every if self._strategy == "one_for_all" else every[every.index(entry) :]
