# SPDX-License-Identifier: MIT
"""Monitors of nodes: the callbacks that run when a link comes up or goes down.

Subscribers of ``zope.event`` get the same news as events; see :mod:`aemp_gevent.events`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import zope.event

from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import DEAD, Job, Port
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler

if TYPE_CHECKING:
    from aemp_gevent.links.node_state import NodeState
    from aemp_gevent.peers.peer import Peer


class _Actions(NamedTuple):
    link: Handler
    state: Handler | None
    context: Port | None


class NodeGuard:
    """What ``mon_nodes`` returns: ``cancel()`` ends the calls. Also a context manager."""

    __slots__ = ("_monitors", "_scheduler")

    def __init__(self, monitors: NodeMonitors, scheduler: Scheduler) -> None:
        self._monitors = monitors
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Make no more calls. May be called any number of times."""
        self._scheduler.check_thread("cancel() of what mon_nodes() returned")
        self._monitors.remove(self)

    def __enter__(self) -> NodeGuard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.leave(self.cancel)


class NodeMonitors:
    """The callbacks of one node's ``mon_nodes``.

    Args:
        scheduler: Runs the callbacks.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._callbacks: dict[NodeGuard, _Actions] = {}

    def add(self, callback: Handler, state: Handler | None = None) -> NodeGuard:
        """Call these from now on, in the context of the port that runs now.

        Args:
            callback: Gets links that come and go.
            state: Gets the states of nodes that are blocked, or are not any more.
        """
        guard = NodeGuard(self, self._scheduler)
        self._callbacks[guard] = _Actions(callback, state, current_port())
        return guard

    def remove(self, guard: NodeGuard) -> None:
        """Make no more calls for this guard."""
        self._callbacks.pop(guard, None)

    def link_up(self, peer: Peer, node: str) -> None:
        """Report that a link of this node came up."""
        from aemp_gevent.events import NodeUp  # noqa: PLC0415  # only nodes with links need it

        self.enqueue(self._jobs((peer.node, True), NodeUp(peer.node, node)))

    def link_down(self, peer: Peer, node: str, reason: Reason, jobs: list[Job]) -> None:
        """Report that a link of this node went down.

        Args:
            peer: The node at its other end.
            node: This node's ID.
            reason: Why it went down.
            jobs: Empty, or the jobs of an earlier report of the same loss, which was interrupted.
        """
        from aemp_gevent.events import NodeDown  # noqa: PLC0415  # only nodes with links need it

        if not jobs:
            jobs += self._jobs((peer.node, False, *reason), NodeDown(peer.node, node, reason))
        self.enqueue(jobs)

    def state_changed(self, peer: str, node: str, state: NodeState) -> None:
        """Report that a peer of this node is blocked, or is not any more."""
        from aemp_gevent.events import NodeBlocked, NodeUnblocked  # noqa: PLC0415  # only nodes with links need them

        if state.since is not None:
            event: object = NodeBlocked(peer, node, state.since, state.where)
        else:
            event = NodeUnblocked(peer, node)
        self.enqueue(self._jobs((peer, state), event, of_state=True))

    def _jobs(self, args: Message, event: object, *, of_state: bool = False) -> list[Job]:
        """Return the jobs that report something about a node to every callback and subscriber."""
        jobs: list[Job] = []
        for guard, callbacks in list(self._callbacks.items()):
            context = callbacks.context
            if context is not None and context.state == DEAD:
                self.remove(guard)
                continue
            callback = callbacks.state if of_state else callbacks.link
            if callback is not None:
                jobs.append(CallJob(context, self._call, (guard, callback, args)))
        return jobs + event_jobs(event)

    def _call(self, guard: NodeGuard, callback: Handler, args: Message) -> None:
        if guard in self._callbacks:  # not cancelled since the job was queued
            callback(*args)

    def enqueue(self, jobs: Iterable[Job]) -> None:
        """Run jobs soon, in their order."""
        for job in jobs:
            self._scheduler.enqueue_job(job)


def event_jobs(event: object) -> list[Job]:
    """Return the job that hands an event to zope.event's subscribers, if there are any."""
    return [CallJob(None, zope.event.notify, (event,))] if zope.event.subscribers else []
