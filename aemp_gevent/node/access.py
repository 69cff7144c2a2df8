# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""The way to a node's insides for the folders above: the toolkit, the ``aemp`` command, ``contrib`` and the tests.

None of this is meant for programs, so it is not part of :class:`~aemp_gevent.node.node.Node`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from aemp_gevent.calls import serve
from aemp_gevent.calls.later import Later
from aemp_gevent.directory.engine import NODES
from aemp_gevent.errors import NoPortContextError
from aemp_gevent.node.spawnable_functions import name_of
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.ports.reasons import describe

if TYPE_CHECKING:
    from aemp_gevent.node.calling import Calling
    from aemp_gevent.node.directory_calls import DirectoryNode
    from aemp_gevent.node.linked_node import LinkedNode
    from aemp_gevent.node.local_node import LocalNode
    from aemp_gevent.node.metrics import Metrics
    from aemp_gevent.node.ports_host import PortsHost
    from aemp_gevent.node.request_host import RequestHost
    from aemp_gevent.peers.network import Network

K = TypeVar("K")

__all__ = [
    "Later",
    "call_of",
    "calling_node_may_end",
    "calling_node_may_kill",
    "describe",
    "disown",
    "held_name",
    "is_shut_down",
    "kept_for",
    "known_nodes",
    "later_answer",
    "local_id",
    "mailbox_length",
    "may_end",
    "name_of",
    "network_of",
    "ports_host_of",
    "refuse_call",
    "report_trees",
    "request_host_of",
    "running_node",
    "seeds_down",
    "served",
    "tag_of",
    "unheard_nodes",
]


def ports_host_of(node: LocalNode) -> PortsHost:
    """Return the part of a node that makes, finds, watches and asks ports."""
    return node._ports_host


def request_host_of(node: LinkedNode) -> RequestHost:
    """Return the part of a node that serves requests."""
    return node._request_host


def network_of(node: LinkedNode) -> Network | None:
    """Return a node's links; None while it is private."""
    return node._network


def metrics_of(node: LinkedNode) -> Metrics:
    """Return what reports a node's figures to systems that monitor it."""
    return node._requests.metrics


def seeds_down(node: LinkedNode) -> dict[str, str]:
    """Return the seeds to which a node has no link, with the reason; ``""`` if it is not known yet."""
    return {} if node._network is None else node._network.seeds.why_down()


def unheard_nodes(node: LinkedNode) -> dict[str, str]:
    """Return the nodes whose part of the directory a node that keeps it does not have, with the reason, as above."""
    network, engine = node._network, node._embedded
    if network is None or engine is None:
        return {}
    peers = {name: network.known_peer(name) for name in engine.unheard()}
    return {name: "" if peer is None else peer.last_error for name, peer in peers.items()}


def dial_seeds(node: LinkedNode) -> None:
    """Dial again soon the seeds at whose address nobody answered, as something waits to be sent there."""
    if node._network is not None:
        node._network.seeds.dial_soon()


def is_shut_down(node: DirectoryNode) -> bool:
    """Return whether ``shutdown()`` was called; it may still be saying goodbye."""
    return node._directory.is_over


def known_nodes(node: DirectoryNode, timeout: float | None) -> list[str]:
    """Return the IDs of the nodes in a node's directory, which slaves are not. Switches.

    Raises:
        DirectoryUnavailableError: There was no answer in time.
    """
    found: list[str] = node._wait_for("keys", NODES, timeout)
    return found


# --- for aemp_gevent.otp ---


def running_node() -> Any:
    """Return the node whose port's code runs, a :class:`~aemp_gevent.node.node.Node`; None outside of ports."""
    port = current_port()
    return None if port is None else getattr(port.scheduler.owner, "node", None)


def held_name(node: LocalNode, name: str) -> str | None:
    """Return the ID of the living port that has a registered name on this node, or None."""
    return local_id(node, f"{node.NODE()}#{name}")


def kept_for(node: LocalNode, make: Callable[[Any], K]) -> K:
    """Return what a class or function has made for a node; it is called with the node when this is first needed.

    The node keeps it until it is reset. A forked child gets another one.
    """
    kept = node._kept.get(make)
    if kept is None:
        kept = node._kept[make] = make(node)
    return kept


def report_trees(node: LinkedNode, report: Callable[[int], list[dict[str, Any]]]) -> None:
    """Make ``inspect`` send what a function returns about at most so many supervisors and children."""
    node._request_host.trees = report


def mailbox_length(node: LocalNode, port: str) -> int | None:
    """Return how many messages wait in the mailbox of a port; None if it is not a port of this node."""
    found = node._find_local(port)
    return None if found is None else len(found.inbox or ())


def local_id(node: LocalNode, port: object) -> str | None:
    """Return the ID of a living port of this node, of which a registered name may be given; None: there is none."""
    found = node._find_local(port)
    return None if found is None else found.id


def calling_node_may_kill(node: LinkedNode, port: str) -> bool:
    """Return whether the node whose call this greenlet serves is that of a port, and may kill ports here."""
    caller = serve.caller_of_call()
    return caller is not None and caller == node.node_of(port) and _may_kill(node, caller)


def calling_node_may_end(node: LinkedNode, port: str, supervisor: str | None = None) -> bool:
    """Return whether the node whose call this greenlet serves may kill a port of here, and is that of a supervisor."""
    caller = serve.caller_of_call()
    if caller is None or (supervisor is not None and caller != node.node_of(supervisor)):
        return False
    return may_end(node, caller, port)


def may_end(node: LinkedNode, caller: str, port: str) -> bool:
    """Return whether another node may kill a port of here: any port, or this one because it has spawned it."""
    found = node._find_local(port)
    return _may_kill(node, caller) or (found is not None and bool(caller) and found.parent == caller)


def _may_kill(node: LinkedNode, caller: str) -> bool:
    if caller == node.NODE():
        return True
    peer = None if node._network is None else node._network.known_peer(caller)
    return peer is not None and peer.rights.kill


def disown(node: LinkedNode, port: str) -> None:
    """Keep a port that this node has spawned elsewhere alive when the link to its node is lost."""
    home, _, name = port.partition("#")
    peer = node._peer(home)
    if peer is not None:
        peer.ports.get(name).disown()


def served(node: Calling, tag: str, function: Callable[..., Any]) -> Callable[..., None]:
    """Return a handler that answers calls with a function, as ``serve`` does."""
    return serve.server(node._ports_host, tag, function)


def call_of(message: tuple[Any, ...]) -> str | None:
    """Return the reply port of a message that is a call; None for one that is not."""
    return serve.call_of(message)


def refuse_call(node: Calling, reply: str, text: str) -> None:
    """Fail a call with ``RemoteError``."""
    serve.fail_with(node._ports_host, reply, text)


def later_answer(node: Calling) -> Later[Any]:
    """Return what answers the call that this greenlet serves.

    Raises:
        NoPortContextError: It does not serve a call.
    """
    reply = serve.call_being_served()
    if reply is None:
        raise NoPortContextError("reply_later()", "call it in a method that answers a call, such as one marked @call")
    host = node._ports_host
    return Later(lambda value: host.snd(reply, value), lambda error: serve.fail(host, reply, error))
