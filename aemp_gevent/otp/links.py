# SPDX-License-Identifier: MIT
"""Erlang's links: two ports that die together.

A link is two monitors, one on each port's node, so that each side acts also when the other node is lost. The node of a
linked port watches the other port, and kills the linked one, or sends it a message if it traps exits. What a node of
this process knows about its links is in its :class:`Links`.

To set the monitor on another node, an agent (:mod:`aemp_gevent.otp.agents`) is spawned there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aemp_gevent import SELF, default_node
from aemp_gevent.errors import NoPortContextError, PortDied, RefusedError
from aemp_gevent.node.access import calling_node_may_kill, kept_for, local_id, running_node, tag_of
from aemp_gevent.otp.agents import ask_agent, requests
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from gevent.event import AsyncResult

    from aemp_gevent import Monitor, Node

EXIT = "EXIT"
"""The tag of the message that a port which traps exits gets."""

_log = Log()


class _Linked:
    """A port of this node that is linked, or traps exits."""

    __slots__ = ("peers", "traps")

    def __init__(self) -> None:
        self.peers: dict[str, Monitor] = {}
        self.traps = False


class Links:
    """The links of one node's ports.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ports: dict[str, _Linked] = {}  # by their names, because a node's ID may change

    def find(self, port: str) -> _Linked | None:
        """Return what is known of a port of this node, if there is anything."""
        return self._ports.get(port.partition("#")[2])

    def of(self, port: str) -> _Linked:
        """Return what is known of a living port of this node, and forget it when the port dies."""
        linked = self.find(port)
        if linked is None:
            name = port.partition("#")[2]
            linked = self._ports[name] = _Linked()
            self._node.mon(port, self._forget, name)
        return linked

    def watch(self, port: str, peer: str) -> None:
        """Kill a port of this node when another one dies."""
        peers = self.of(port).peers
        if peer not in peers:
            peers[peer] = self._node.mon(peer, self.exit, port, peer)

    def unwatch(self, port: str, peer: str) -> None:
        """End what :meth:`watch` began."""
        linked = self.find(port)
        guard = None if linked is None else linked.peers.pop(peer, None)
        if guard is not None:
            guard.cancel()

    def exit(self, port: str, peer: str, *reason: Any) -> None:
        """Act on the death of a linked port, or the loss of the link."""
        linked = self.find(port)
        guard = None if linked is None else linked.peers.pop(peer, None)
        if linked is None or guard is None:  # the link was refused, and that was a death
            return
        guard.cancel()
        if linked.traps:
            self._node.snd(port, EXIT, peer, *reason)
        elif reason:
            self._node.kil(port, *reason)

    def _forget(self, name: str, *_reason: Any) -> None:
        linked = self._ports.pop(name, None)
        for guard in () if linked is None else linked.peers.values():
            guard.cancel()


def links_of(node: Node) -> Links:
    """Return the links of a node's ports."""
    return kept_for(node, Links)


def link(port: object) -> None:
    """Link this port (``SELF()``) with another: when one of them dies abnormally, the other dies of the same reason.

    A port that traps exits (:func:`trap_exits`) gets ``("EXIT", port, *reason)`` instead, also after a normal
    death. The loss of the connection to the other node counts as a death, with the reason ``transport_error``.
    Linked ports stay so until one dies, or :func:`unlink`. Never switches: on another node the link takes effect later,
    and a failure to make it counts as the other port's death.

    Raises:
        NoPortContextError: ``SELF()`` is None.
        InvalidPortError: It is not a port ID.
    """
    node, me = _self("link()")
    home = node.node_of(port)
    found = local_id(node, port)
    other = found or str(port)
    if other == me:
        return
    links = links_of(node)
    links.watch(me, other)
    if found is not None:
        links.watch(other, me)
    elif home != node.NODE():
        made = ask_agent(node, other, "link", other, me)
        made.rawlink(lambda result: _made(node, me, other, result))


def unlink(port: object) -> None:
    """End the link between this port and another. Never switches.

    Afterwards no death of the other has an effect here. A link with a port of another node ends there later.

    Raises:
        NoPortContextError: ``SELF()`` is None.
    """
    node, me = _self("unlink()")
    home = node.node_of(port)
    other = local_id(node, port) or str(port)
    links = links_of(node)
    links.unwatch(me, other)
    if home == node.NODE():
        links.unwatch(other, me)
    else:
        ask_agent(node, other, "unlink", other, me)


def trap_exits(on: bool = True) -> bool:
    """Choose whether this port (``SELF()``) gets a message when a linked port dies, or dies with it.

    The message is ``("EXIT", port, *reason)``.

    Returns:
        What was chosen before.

    Raises:
        NoPortContextError: ``SELF()`` is None.
    """
    node, me = _self("trap_exits()")
    linked = links_of(node).of(me)
    before, linked.traps = linked.traps, bool(on)
    return before


def _self(call: str) -> tuple[Node, str]:
    node, me = running_node() or default_node, SELF()
    if me is None:
        raise NoPortContextError(call)
    return node, me


def _made(node: Node, me: str, other: str, result: AsyncResult[Any]) -> None:
    """Report that the other node did not make its half of a link."""
    error = result.exception
    if error is None or isinstance(error, PortDied):  # the monitor of the other port fires, too, if its node is lost
        reason = () if error is None else error.reason
        if tag_of(reason) != "spawn_refused":
            return
    _log.warning("link of %s with %s failed: %s", me, other, quoted(error))
    links_of(node).exit(me, other, "link_refused", str(error))


def _link_for_peer(port: str, other: str) -> None:
    """Make the half of a link that kills a port of this node, for the node of the other port."""
    node = running_node()
    if not calling_node_may_kill(node, other):
        raise RefusedError(f"the rules do not let the node of {other} kill ports here")
    mine = local_id(node, port)
    if mine is not None:  # otherwise the monitor of the other node fires
        links_of(node).watch(mine, other)


def _unlink_for_peer(port: str, other: str) -> None:
    node = running_node()
    mine = local_id(node, port)
    if mine is not None and calling_node_may_kill(node, other):
        links_of(node).unwatch(mine, other)


requests["link"] = _link_for_peer
requests["unlink"] = _unlink_for_peer
