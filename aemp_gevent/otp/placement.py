# SPDX-License-Identifier: MIT
"""Children on other nodes: where they run, and what happens when their node is lost.

The supervisor's node spawns such a child, and asks an agent (:mod:`aemp_gevent.otp.agents`) at once for a
:class:`ChildKeeper` on the child's node. The keeper ends the child when the supervisor has ended. The loss of the
connection is not a death; ``on_lost`` says to both sides what it means.

- ``"restart"``: the supervisor starts another child, and the keeper ends this one. If both nodes live on without seeing
  each other, there are two for as long as one of them has not noticed the loss.
- ``"wait"``: the child lives on, and is the supervisor's child again when the connection is back. There are never two.
  The keeper then asks whether the supervisor still wants it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aemp_gevent import SELF, default_node
from aemp_gevent.errors import (
    AempError,
    CallTimeout,
    DirectoryTimeout,
    PortDied,
    RefusedError,
    RemoteError,
    StartError,
)
from aemp_gevent.node.access import calling_node_may_end, disown, kept_for, local_id, running_node, tag_of
from aemp_gevent.otp.agents import ask_agent, requests
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.toolkit import death_of

if TYPE_CHECKING:
    from gevent.event import AsyncResult

    from aemp_gevent import Monitor, Node

OnLost: TypeAlias = Literal["restart", "wait"]

LOST = "transport_error"
"""First element of the reason of a child whose node cannot be reached; it may be alive."""

NO_NODE = "no_node"
"""First element of the reason of a child for which there is no node, because its group has no ports."""

KEEP = "keep"
"""What agents are asked for."""

KEEPS = "keeps"
"""The method of supervisors that keepers call."""

ANSWER_SECONDS = 30.0
"""How long a keeper, or a supervisor that looks for a lost child, waits for an answer."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""How often a keeper asks."""


class Placement:
    """Where a child runs.

    Args:
        what: The child, for error texts.
        node: A node's ID, or one of its ports; None: a node of ``group``.
        group: The group of whose ports' nodes one is chosen; None: ``node``.
        on_lost: What the loss of the connection means.

    Raises:
        TypeError, ValueError: They contradict each other.
    """

    def __init__(self, what: str, node: object, group: str | None, on_lost: OnLost | None) -> None:
        if node is not None and group is not None:
            raise ValueError(f"{what}: give either node= or on=, not both")
        if group is not None and not isinstance(group, str):
            raise TypeError(f"{what}: on= must be the name of a group, not {quoted(group)}")
        if on_lost not in ("restart", "wait"):
            raise ValueError(
                f"{what}: on another node, on_lost must say what happens while that cannot be reached: 'restart' or "
                f"'wait', not {quoted(on_lost)}"
            )
        self.group = group
        self.on_lost: OnLost = on_lost
        self._what = what
        self._node = node

    def choose(self, node: Node, avoid: str, seconds: float | None) -> str:
        """Return the ID of the node to start on. Switches if a group is not known yet.

        Args:
            node: The supervisor's node.
            avoid: The ID of a node that was lost, and is taken only if there is no other.
            seconds: How long a group that has no ports is waited for.

        Raises:
            StartError: There is none.
        """
        if self.group is None:
            where: Any = self._node
            return node.node_of(where.NODE() if hasattr(where, "NODE") else where)
        ports: Any = node.grp_get(self.group)
        if not ports and seconds != 0:
            try:
                ports = node.db_wait(self.group, len, seconds)
            except DirectoryTimeout:
                ports = ()
        nodes = sorted({node.node_of(port) for port in ports or ()})
        if not nodes:
            why = f"the group {quoted(self.group)} has no ports; register one on each node that is to run it: grp_reg()"
            raise StartError(self._what, why, (NO_NODE, self.group))
        return random.choice([each for each in nodes if each != avoid] or nodes)  # noqa: S311  # not a secret

    def keep(self, node: Node, port: str, asked: AsyncResult[bool], seconds: float | None) -> None:
        """Make sure that a child which has started on another node has a keeper there. Switches.

        Args:
            node: The supervisor's node.
            port: The child.
            asked: From :meth:`ask`, when it was spawned.
            seconds: How long its death is waited for.

        Raises:
            StartError: It is not there.
        """
        kept: Any = False  # what the agent answered
        reason: Any = ()
        with death_of(port, node=node) as death:
            try:
                kept = asked.get()
                if not kept:  # it is dead, and its monitor is about to report why
                    death.wait(timeout=seconds)  # get() would mistake a Timeout of somebody else for its own
                    if not death.ready():
                        raise CallTimeout(port, KEEP, seconds)
                    reason = death.value
            except CallTimeout:
                why = f"its node did not answer within {seconds} s; give it more time with start_timeout"
                raise StartError(self._what, why, ("start_timeout",)) from None
            except PortDied as error:
                reason = death.value if death.ready() else error.reason
            except RemoteError as error:
                raise StartError(self._what, error.error, ("start_refused", error.error)) from None
        if reason:  # otherwise it has ended already, which is not a failure
            raise StartError(self._what, " ".join(map(str, reason)), reason)
        if kept and self.on_lost == "wait":
            disown(node, port)

    def ask(self, node: Node, port: str, seconds: float | None = ANSWER_SECONDS) -> AsyncResult[bool]:
        """Ask for a keeper of a child on another node; the answer is whether the child is alive. Never switches."""
        return ask_agent(node, port, KEEP, port, SELF(), self.on_lost, timeout=seconds)


def is_end_of_node(node: Node, port: str | None, reason: tuple[Any, ...]) -> bool:
    """Return whether a child did not die by itself: its node is lost, was shut down, or does not exist."""
    if tag_of(reason) in {LOST, NO_NODE}:
        return True
    return port is not None and reason == ("shutdown", node.node_of(port))


class ChildKeeper:
    """Ends a port of this node when the supervisor on another node has ended.

    Args:
        node: This node.
        port: The port.
        supervisor: The supervisor's port.
        on_lost: What the loss of the connection means.
    """

    def __init__(self, node: Node, port: str, supervisor: str, on_lost: str) -> None:
        self._node = node
        self._port = port
        self._supervisor = supervisor
        self._waits = on_lost == "wait"
        self._pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._timer: Any = None
        self._guard: Monitor = node.mon(supervisor, self._ended)

    def end(self) -> None:
        """Do nothing more."""
        self._guard.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _ended(self, *reason: Any) -> None:
        if self._waits and tag_of(reason) == LOST:
            self._ask_later()
        else:
            self._node.kil(self._port, "shutdown", "its supervisor has ended")

    def _ask_later(self) -> None:
        if local_id(self._node, self._port) is not None:
            self._timer = self._node.after(self._pauses.next(), self._ask)

    def _ask(self) -> None:
        try:
            asked = self._node.call_async(self._supervisor, KEEPS, self._port, timeout=ANSWER_SECONDS)
        except AempError:  # the node has been shut down
            return
        asked.rawlink(self._answered)

    def _answered(self, result: AsyncResult[bool]) -> None:  # on the hub
        error = result.exception
        if isinstance(error, CallTimeout) or (isinstance(error, PortDied) and tag_of(error.reason) == LOST):
            self._ask_later()
        elif error is None and result.value:
            self._pauses.reset()
            self._guard = self._node.mon(self._supervisor, self._ended)
        else:
            self._ended()


class ChildKeepers:
    """The keepers of one node's ports.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._keepers: dict[str, ChildKeeper] = {}

    def keep(self, port: str, supervisor: str, on_lost: str) -> None:
        """Make a keeper for a port, in place of the one that it has."""
        former = self._keepers.pop(port, None)
        if former is None:
            self._node.mon(port, self._forget, port)
        else:
            former.end()
        self._keepers[port] = ChildKeeper(self._node, port, supervisor, on_lost)

    def _forget(self, port: str, *_reason: Any) -> None:
        self._keepers.pop(port).end()


def _keep_for_peer(port: str, supervisor: str, on_lost: str) -> bool:
    """Make a keeper for a port, for the node that spawned it; return whether the port is alive."""
    node: Node = running_node() or default_node
    mine = local_id(node, port)
    if mine is None:
        return False
    if not calling_node_may_end(node, mine, supervisor):
        raise RefusedError(f"the node of {supervisor} has not spawned {port}, and may not kill ports here")
    kept_for(node, ChildKeepers).keep(mine, supervisor, on_lost)
    return True


requests[KEEP] = _keep_for_peer
