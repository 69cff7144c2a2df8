# SPDX-License-Identifier: MIT
"""The requests about a link and the ports across it: to monitor, to kill, to report a death, to leave, to pass on.

What a peer sends to the node port is a request. Three places know requests, and each passes on what it does not know:

1. about one connection of several (``after``, ``refused``, ``idle``, ``stay``, ``beats``, ``unblocked``):
   :meth:`aemp_gevent.peers.link_choice.LinkChoosingPeer.requested`, which gets what came over a connection;
2. about the link (``mon1``, ``mon0``, ``kil1``, ``kil0``, ``bye``, ``via``): here, called by
   :meth:`aemp_gevent.peers.peer.Peer.take_request`, which also gets what others passed on;
3. about the node (all others): :meth:`aemp_gevent.node.requests.Requests.handle`, which also gets those of this node.

Nothing here switches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aemp_gevent.errors import RefusedError
from aemp_gevent.peers.peer_monitors import PeerMonitors
from aemp_gevent.peers.remote_ports import RemotePorts
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.reasons import MONITOR_REFUSED, describe, no_such_port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.rules import PeerRule
from aemp_gevent.wire.framing import name_of_port
from aemp_gevent.wire.limits import is_long
from aemp_gevent.wire.vocabulary import BYE, KIL0, KIL1, MON0, MON1, VIA


class LinkRequestsHost(Protocol):
    """The node that the requests are sent to."""

    @property
    def node_id(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...


class AskingPeer(Protocol):
    """The peer that sends them."""

    @property
    def node(self) -> str: ...
    @property
    def ports(self) -> RemotePorts: ...
    @property
    def peer_monitors(self) -> PeerMonitors: ...
    @property
    def rights(self) -> PeerRule: ...
    @property
    def complaints(self) -> BoundedLog: ...

    def said_goodbye(self) -> None:
        """Lose the link, as the peer shuts down."""

    def pass_on(self, origin: object, destination: object, packet: object) -> None:
        """Take a wrapped packet, or pass it on."""


def handle(peer: AskingPeer, host: LinkRequestsHost, request: str, args: Sequence[Any]) -> None:
    """Do what a peer asks. What is wrong with a request is logged, and not raised.

    Args:
        peer: The peer.
        host: This node.
        request: One of :data:`ABOUT_LINKS`.
        args: What came with it.
    """
    try:
        ABOUT_LINKS[request](peer, host, *args)
    except (MemoryError, RecursionError):
        raise  # not because of the arguments: it may have struck anywhere, and the caller cannot continue
    # Exception: the arguments are the peer's, and any use of them may raise anything.
    except Exception as error:  # noqa: BLE001
        peer.complaints.warn("request %s of %s failed: %s", quoted(request), peer.node, describe(error))


def too_long(name: str, limit: int) -> str:
    """Return the reason why a request with this name is refused."""
    return f"the name {quoted(name)} has {len(name)} characters, and names have at most {limit} bytes"


def _port_name(host: LinkRequestsHost, name: Any) -> str:
    """Return the name of a port that came in a request.

    Raises:
        RefusedError: It is too long.
        FramingError: It is not a name.
    """
    limit = host.settings.max_name_bytes
    if isinstance(name, str) and 4 * len(name) > limit and is_long(name, limit):
        host.refusals["name"] += 1
        raise RefusedError(too_long(name, limit))
    return name_of_port(name)


def _find_port(host: LinkRequestsHost, name: str) -> Port | None:
    """Return the living port of this name, registered or not."""
    return host.scheduler.table.find(f"{host.node_id}#{name}")


def _mon1(peer: AskingPeer, host: LinkRequestsHost, name: Any) -> None:
    """Monitor a port for the peer."""
    name = _port_name(host, name)
    if not name:  # a node port lives as long as its link
        return
    port = _find_port(host, name)
    if port is None:
        peer.peer_monitors.port_died(name, no_such_port(f"{host.node_id}#{name}"))
    elif peer.peer_monitors.may_add(name):
        peer.peer_monitors.add(port, name)
    else:
        text = f"{peer.node} has reached its limit of monitored ports here"
        peer.peer_monitors.port_died(name, (MONITOR_REFUSED, name, text))
        host.refusals["monitor"] += 1
        raise RefusedError(text)


def _mon0(peer: AskingPeer, host: LinkRequestsHost, name: Any) -> None:
    """Stop monitoring a port."""
    peer.peer_monitors.remove(_port_name(host, name))


def _kil0(peer: AskingPeer, host: LinkRequestsHost, name: Any, *reason: Any) -> None:
    """Report the death of a port of the peer to its monitors here."""
    peer.ports.died(_port_name(host, name), reason)


def _kil1(peer: AskingPeer, host: LinkRequestsHost, name: Any, *reason: Any) -> None:
    """Kill a port, if the rules let the peer, or it is the peer's own in some way."""
    port = _find_port(host, _port_name(host, name))
    if port is None:
        return
    if not peer.rights.kill and not (port.asked == peer.node or peer.peer_monitors.has_spawned(port)):
        host.refusals["kill"] += 1
        raise RefusedError(f"the rules do not let {peer.node} kill ports here")
    host.scheduler.kill(port, reason)


def _bye(peer: AskingPeer, _host: LinkRequestsHost, *args: Any) -> None:
    """Lose the link in order."""
    if args:
        raise TypeError("bye takes no arguments")
    peer.said_goodbye()


def _via(peer: AskingPeer, _host: LinkRequestsHost, origin: Any, destination: Any, packet: Any) -> None:
    """Take a packet that the peer passes on, or has passed on."""
    peer.pass_on(origin, destination, packet)


ABOUT_LINKS: dict[str, Callable[..., None]] = {
    MON1: _mon1,
    MON0: _mon0,
    KIL0: _kil0,
    KIL1: _kil1,
    BYE: _bye,
    VIA: _via,
}
"""The requests that are handled here."""
