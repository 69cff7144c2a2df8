# SPDX-License-Identifier: MIT
"""Children whose node cannot be reached, and that may be alive: their supervisor waits for them, and asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemp_gevent.node.access import is_shut_down
from aemp_gevent.otp.entries import ChildState, Entry, Event
from aemp_gevent.runtime.backoff import jittered
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from gevent.event import AsyncResult

    from aemp_gevent import Node

LOOK_SECONDS = 5.0
"""Before a lost child's node is asked about it, and after each time that this failed; plus up to half of it."""

_log = Log()


class LostChildren:
    """The lost children of one supervisor.

    Args:
        node: Its node.
        supervisor: Its port.
        title: Its name, for the log.
        complaints: Its log.
    """

    def __init__(self, node: Node, supervisor: str, title: str, complaints: BoundedLog) -> None:
        self._node = node
        self._supervisor = supervisor
        self._title = title
        self._complaints = complaints

    def wait_for(self, entry: Entry) -> None:
        """Wait for a child whose node was lost."""
        if entry.state is not ChildState.LOST:
            text = "%s: the child %s is lost, and may be alive: %s; waiting for its node"
            self._complaints.warn(text, self._title, entry.key, quoted(entry.last_reason))
        entry.wait(ChildState.LOST)
        entry.pause(self._node, self._supervisor, jittered(LOOK_SECONDS))

    def look_for(self, entry: Entry) -> None:
        """Ask a child's node about it; the supervisor gets ``Event.FOUND`` with the answer. Never switches."""
        node, supervisor, port, key = self._node, self._supervisor, str(entry.port), entry.key
        entry.wait(ChildState.LOST)
        entry.watch(node, supervisor, port)
        assert entry.child.placement is not None
        asked = entry.child.placement.ask(node, port)

        def tell(answer: AsyncResult[bool]) -> None:
            if not is_shut_down(node):
                node.snd(supervisor, Event.FOUND, key, port, answer.exception is None and answer.value)

        asked.rawlink(tell)

    def answered(self, entry: Entry, *, is_alive: bool) -> None:
        """Take up a child that is alive, or ask again later."""
        if is_alive:
            entry.state, entry.avoid = ChildState.RUNNING, ""
            _log.info("%s: the child %s is found again", self._title, entry.key)
        elif entry.timer is None:  # otherwise its monitor reports why
            entry.pause(self._node, self._supervisor, jittered(LOOK_SECONDS))
