# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""What a node does for requests: it finds ports, sends answers, spawns for peers and passes on to the directory.

Requests reach the node port (:mod:`aemp_gevent.node.requests`). Answers to them are made by
:mod:`aemp_gevent.node.inspection` and :mod:`aemp_gevent.node.log_feed`. None of this is meant for programs, so it is
not part of :class:`~aemp_gevent.node.node.Node`; but it is a part of the node, and reads its private attributes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from aemp_gevent._version import PROVIDER
from aemp_gevent.calls import header as header_of_call
from aemp_gevent.calls import serve as serving
from aemp_gevent.errors import RefusedError, SpawnRefusedError
from aemp_gevent.node import spawnable_functions
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import REMOTE, Port
from aemp_gevent.ports.reasons import describe
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hints import Hints
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import TRACING, trace_in
from aemp_gevent.wire.vocabulary import DEVNULL, G_SLAVE

# For annotations only: what links need is imported when a node is initialised.
if TYPE_CHECKING:
    from aemp_gevent.calls.watching import CallWatch
    from aemp_gevent.node.configured_node import ConfiguredNode
    from aemp_gevent.node.log_feed import LogFeed
    from aemp_gevent.peers.network import Network
    from aemp_gevent.peers.peer import Peer
    from aemp_gevent.settings.fields import Settings

_log = Log()


class RequestHost:
    """The node that requests are addressed to.

    Args:
        node: The node.
    """

    def __init__(self, node: ConfiguredNode) -> None:
        self._node = node
        self.trees: Callable[[int], list[dict[str, Any]]] = lambda _limit: []
        """Returns at most so many supervisors and children of the node. There are none at first."""
        self.last_calls: list[Callable[[], object]] = []
        """What is called, and may switch, when the node is about to shut down and its links are still up."""

    # --- the node as it is ---

    def NODE(self) -> str:
        """Return the node's ID."""
        return self._node._id

    @property
    def scheduler(self) -> Scheduler:
        """What runs the node's ports."""
        return self._node._scheduler

    @property
    def network(self) -> Network | None:
        """The node's links; None while it is private."""
        return self._node._network

    @property
    def settings(self) -> Settings | None:
        """The settings the node was initialised with; None while it is private."""
        return self._node.settings

    @property
    def max_name_bytes(self) -> int:
        """The longest name that a request may contain."""
        return self._node._max_name_bytes

    @property
    def hints(self) -> Hints:
        """What the node has warned of."""
        return self._node._hints

    @property
    def log_feed(self) -> LogFeed:
        """The listeners to the node's log."""
        return self._node._log_feed

    @property
    def waiting(self) -> Mapping[Port, serving.Wait]:
        """The ports that are blocked in a call, and which ports they called."""
        return self._node._ports_host.waiting

    def watch_calls(self, watch: CallWatch) -> None:
        """Observe the calls that the node's code makes, from now on."""
        self._node._ports_host.watches += (watch,)

    def unwatch_calls(self, kind: type[CallWatch]) -> None:
        """Stop what observes calls and is of this kind."""
        host = self._node._ports_host
        host.watches = tuple(watch for watch in host.watches if not isinstance(watch, kind))

    def info(self) -> dict[str, Any]:
        """Return the answer to ``info``: the node's identity, and the number of its ports and links."""
        import platform  # noqa: PLC0415  # only needed here

        return {
            "node": self.NODE(),
            "provider": PROVIDER,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "ports": sum(port.state != REMOTE for port in self._node._ports.values()),
            "up_nodes": self.up_nodes(),
            "discarded": self.scheduler.discarded,
            "refusals": {} if self.network is None else dict(self.network.refusals),
            "directory": self.directory_role,
        }

    def up_nodes(self) -> list[str]:
        """Return the nodes to which a link is up."""
        return self._node.up_nodes()

    # --- ports ---

    def find_port(self, name: str) -> Port | None:
        """Return the living local port of this name, registered or not."""
        return self._node._scheduler.table.find(self._node._prefix + name)

    def registered(self, name: str) -> str | None:
        """Return the ID of the local port registered under a name."""
        return self._node._registered(name)

    def node_of(self, port: object) -> str:
        """Return the node part of a port ID.

        Raises:
            InvalidPortError: It is not a port ID.
        """
        return self._node._split_port(port)[0]

    def is_node_port(self, port: object) -> bool:
        """Return whether this is the ID of the node's own node port."""
        return isinstance(port, str) and self._node._is_here(port.removesuffix("#"))

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call ``call(*reason)`` in a port's context when a port dies."""
        return self._node._monitor(port, call, context)

    def take_call(self, peer: Peer | None, header: Any, name: str, message: Message) -> None:
        """Put a call, or a message that carries a trace, into the mailbox of the port of this name, if there is one.

        The caller monitors the port, and so learns that it does not exist.
        """
        port = self.find_port(name)
        if isinstance(header, Mapping) and "reply" not in header and "traceparent" in header:
            self._take_traced(peer, header, name, port, message)
        elif port is not None:
            caller = None if peer is None else peer.node
            reply = header_of_call.read(header, caller, self.max_name_bytes)
            serving.take(self._node._ports_host, port, message, reply)

    def _take_traced(
        self, peer: Peer | None, header: Mapping[Any, Any], name: str, port: Port | None, message: Message
    ) -> None:
        trace, tracer = trace_in(header), TRACING.tracer
        if port is None:
            if peer is not None:
                peer.log_dropped(name, list(message))
        elif trace is None or tracer is None:
            self.scheduler.deliver(port, message)
        else:
            with tracer.arriving(trace):
                self.scheduler.deliver(port, message)

    # --- functions ---

    def spawn_for(self, peer: Peer | None, name: str, function: Any, args: Message) -> None:
        """Create a port of this name for a peer, and run a function in it that the peer may call."""
        warn = _log.warning if peer is None else peer.complaints.warn
        self._node._spawn_here(name, function, args, lambda wanted: self.find_function(peer, wanted), warn)

    def find_function(self, peer: Peer | None, name: Any) -> Handler:
        """Return the function of this name if the peer may run it here.

        Requests of the node itself (``peer`` is None) are judged in the same way: a handler that answers to whatever
        port a message named may be given the node's ID, and would then run what the peer asked for.

        Raises:
            SpawnRefusedError: It may not, or there is no such function.
        """
        settings = self.settings
        if settings is None:  # no peers, so that no handler can pass on what a peer asked for
            return spawnable_functions.find_for_us(name)
        try:
            if peer is not None and not peer.rights.spawn:
                raise SpawnRefusedError(f"the rules do not let {peer.node} run code here")
            if settings.secure:
                raise SpawnRefusedError("this node is secure: it runs no code for other nodes")
            return spawnable_functions.find_for_peer(name, settings.allow_spawn)
        except SpawnRefusedError:
            self.count_refusal("spawn")
            raise

    def function_for(self, caller: str | None, name: object) -> Handler:
        """Return the function of this name if the node that calls may run it here.

        Args:
            caller: That node's ID; None: it is not known, and may run nothing.
            name: The function's name, as it came.

        Raises:
            SpawnRefusedError: It may not, or there is no such function.
        """
        if caller == self.NODE():  # not a former ID, which a peer could take
            return self.find_function(None, name)
        peer = self.network.known_peer(caller) if self.network is not None and caller is not None else None
        if peer is None:
            raise SpawnRefusedError("functions run only for calls, whose caller is known: use call()")
        return self.find_function(peer, name)

    # --- the directory ---

    def directory_request(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Do what a peer asks of the directory, or take over what it reports."""
        if self._node._embedded is not None:
            self._node._embedded.handle(peer, request, args)
        elif self._node._etcd is not None and request == G_SLAVE:
            text = (
                "node %s wants to use the directory of this node, which is in etcd: "
                "set the same 'directory' on all nodes"
            )
            peer.complaints.warn(text, peer.node)
        else:
            text = "request %s of node %s ignored: this node does not keep the directory"
            peer.complaints.log(logging.DEBUG, text, request, peer.node)

    @property
    def directory_role(self) -> str:
        """The node's part in the directory: ``"global"``, ``"client of …"``, ``"alone"``, ``"etcd"`` or ``"none"``."""
        if self._node._etcd is not None:
            return "etcd"
        return "none" if self._node._embedded is None else self._node._embedded.role

    @property
    def own_families(self) -> dict[str, int]:
        """The number of entries in each family that the node, and clients that cannot be asked, have set."""
        embedded = self._node._embedded
        found = Counter() if embedded is None else embedded.families_of_others()
        found.update({family: len(entries) for family, entries in self._node._directory.own.items()})
        return dict(found)

    # --- answers ---

    def reply(self, peer: Peer | None, port: Any, message: Message) -> None:
        """Send a message for a peer: to ports here, and to nodes whose link is up.

        No link is made for it, unless the node itself asks or the setting ``allow_relay`` is on.

        Raises:
            RefusedError: The message would be a request to this node, or may not be relayed.
        """
        node, name = self._node._split_port(port)
        is_here = self._node._is_here(node)
        if not name and is_here:
            # It could have an answer that is a request, and so on. This holds for the node's own requests, too: a
            # handler that answers to whatever port a message named may be given the node's ID.
            self.count_refusal("relay")
            raise RefusedError("an answer cannot be a request to the node that gives it")
        if peer is not None and not is_here and node != peer.node:
            self._check_relay(peer, name, message)
        relay = peer is None or (self.settings is not None and self.settings.allow_relay)
        if is_here or relay:
            self._node.snd(port, *message)
            return
        other = self.network.peers.get(node) if self.network is not None else None
        if other is not None and not other.ports.is_closed(name):
            other.send_if_connected([name, *message])

    @contextlib.contextmanager
    def reporting(self, peer: Peer | None, request: Any) -> Generator[None, None, None]:
        """Log what a block raises. For code that answers after the request: nothing there catches exceptions."""
        try:
            yield
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001  # the port to answer to is the peer's
            self.report(peer, request, error)

    def report(self, peer: Peer | None, request: Any, error: Exception) -> None:
        """Log that a request failed."""
        if peer is None:
            self.scheduler.log(logging.WARNING, "request %s of this node failed: %s", quoted(request), describe(error))
        else:
            peer.complaints.warn("request %s of %s failed: %s", quoted(request), peer.node, describe(error))

    def _check_relay(self, peer: Peer, name: str, message: Message) -> None:
        """Refuse to pass on what a peer may not send to a third node through this one."""
        if not peer.rights.relay:
            self.count_refusal("relay")
            raise RefusedError(f"the rules do not let {peer.node} relay messages")
        # A node port judges a request by the link that it came over: whether it is about that link, and whether the
        # peer may spawn or kill. Questions are not relayed either: their answers could be such requests.
        if not name and message and message[0] not in ("", DEVNULL):
            self.count_refusal("relay")
            text = f"{quoted(message[0])} is not relayed: it would look like a request of this node itself"
            raise RefusedError(text)

    def count_refusal(self, what: str) -> None:
        """Count that a peer was refused something."""
        if self.network is not None:
            self.network.refusals[what] += 1
