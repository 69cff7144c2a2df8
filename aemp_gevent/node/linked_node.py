# SPDX-License-Identifier: MIT
"""A node that has links once it is initialised: messages to ports of other nodes, and who is linked."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent.errors import InvalidPortError, NoPortContextError, PortDied
from aemp_gevent.node.directory_calls import DirectoryNode
from aemp_gevent.node.log_feed import LogFeed
from aemp_gevent.node.node_monitors import NodeGuard, NodeMonitors, event_jobs
from aemp_gevent.node.request_host import RequestHost
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import ON_THE_HUB
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message, tag_of
from aemp_gevent.ports.port import Job, Port
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime import gunicorn
from aemp_gevent.runtime.loop_watch import LoopWatch, watch_loop
from aemp_gevent.wire.limits import Limits, is_long
from aemp_gevent.wire.vocabulary import KIL1, MON1, SPAWN

if TYPE_CHECKING:
    from aemp_gevent.directory.embedded.engine import EmbeddedEngine
    from aemp_gevent.directory.etcd.engine import EtcdEngine
    from aemp_gevent.node.requests import Requests
    from aemp_gevent.peers.network import Network
    from aemp_gevent.peers.peer import Peer
    from aemp_gevent.settings.fields import Settings
    from aemp_gevent.transport.connector import Connector


class LinkedNode(DirectoryNode):
    """A node with links to others, or without any while it is private."""

    def __init__(self, *, carrier: Connector | None = None) -> None:
        super().__init__()
        self._carrier = carrier

    def _begin(self) -> None:
        super()._begin()
        self._network: Network | None = None
        self._embedded: EmbeddedEngine | None = None  # the directory's engine, if it depends on links
        self._etcd: EtcdEngine | None = None  # the directory's engine, if it is etcd's
        self._joining: Network | None = None  # the links of a slave that has no master yet
        self._watch: LoopWatch | None = None
        self._initialising = False
        self._ending = False
        self._former_id = self._id
        self._node_monitors = NodeMonitors(self._scheduler)
        # Not cached properties: they use __dict__, after which every attribute is slower, also in snd.
        self._request_host = RequestHost(self)
        self._made_requests: Requests | None = None
        self._log_feed = LogFeed(self._request_host)

    def _forked(self) -> None:
        """Become a fresh private node in a forked child; the parent process keeps the node and its links."""
        self._log_feed.abandon()
        if self._etcd is not None:
            self._etcd.abandon()
        for network in (self._network, self._joining):
            if network is not None:
                network.abandon()
        self._stop_watching()
        super()._forked()

    # --- what changes with the settings and the node ID ---

    def _split_port(self, port: object) -> tuple[str, str]:
        """Return the node ID and the port name of a port ID; the name is ``""`` for a node port.

        Nodes of other programs may have names that are refused elsewhere, for example with blanks. The names of nodes
        that were linked to this one are accepted.

        Raises:
            InvalidPortError: The argument is not a port ID.
        """
        try:
            return super()._split_port(port)
        except InvalidPortError:
            node, _, name = port.partition("#") if isinstance(port, str) else ("", "", "")
            peer = self._network.peers.get(node) if self._network is not None else None
            if peer is None or not peer.was_met or is_long(name, self._max_name_bytes) or not name.isprintable():
                raise
            return node, name

    def _rename(self, node_id: str) -> None:
        self._former_id = self._id
        super()._rename(node_id)

    def _is_here(self, node: str) -> bool:
        return node in (self._id, self._former_id)

    def _open_ports(self) -> None:
        super()._open_ports()
        if self._network is not None:
            gunicorn.joined()
        else:
            self._warn_without_hooks()
        if self._watch is None and not self._is_over:
            # From the first port on, and not only with links: handlers can block the loop as well.
            self._watch = watch_loop(self._scheduler.hub)
            self._end_watch = weakref.finalize(self, self._watch.release)
            self._end_watch.atexit = False

    def _check_open(self, call: str) -> None:
        super()._check_open(call)
        if self._network is None:  # the call needs other nodes, or is of no use without them
            self._warn_without_hooks()

    def _warn_without_hooks(self) -> None:
        warning = None if self._initialising else gunicorn.missing_hooks()
        if warning is not None:
            self._scheduler.log(logging.WARNING, warning)

    def _close_ports(self) -> None:
        super()._close_ports()
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._end_watch()
            self._watch = None

    def _wants_strict(self) -> bool:
        return super()._wants_strict() if self._network is None else self._network.settings.strict

    @property
    def _limits(self) -> Limits:
        return super()._limits if self._network is None else self._network.settings.limits

    @property
    def _directory_seconds(self) -> float:
        return super()._directory_seconds if self._network is None else self._network.settings.monitor_timeout

    @property
    def settings(self) -> Settings | None:
        """The settings with which this node was initialised; None before."""
        return None if self._network is None else self._network.settings

    # --- links ---

    def up_nodes(self) -> list[str]:
        """Return the IDs of all nodes to which a link is up, without this node."""
        # A list, made in one step: other native threads may call this, too.
        peers = list(self._network.peers.values()) if self._network is not None else []
        return [peer.node for peer in peers if peer.is_up]

    def node_is_up(self, node: object) -> bool:
        """Return whether a link to a node is up; True for this node. Takes a node ID or a port of the node."""
        node_id = self._split_port(node)[0]
        return self._is_here(node_id) or node_id in self.up_nodes()

    def _check_may_wait(self, call: str) -> None:
        self._scheduler.check_thread(call)
        if isinstance(getcurrent(), Hub):
            raise NoPortContextError(call, ON_THE_HUB)

    def mon_nodes(self, callback: Handler) -> NodeGuard:
        """Call ``callback(node, True)`` when a link comes up, ``callback(node, False, *reason)`` when one goes down.

        The calls come in the order in which it happens, in this port's context. Links that are up already are not
        reported: ask :meth:`up_nodes`. Returns a guard: ``.cancel()``, or a context manager.
        """
        self._scheduler.check_thread("mon_nodes()")
        check_callable("mon_nodes()", callback)
        return self._node_monitors.add(callback)

    def _unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        return next(iter(event_jobs(PortDied(port, reason))), None)

    # --- ports of other nodes ---

    def _peer(self, node: str) -> Peer | None:
        return None if self._network is None else self._network.peer(node)

    def _send_remote(self, node: str, name: str, msg: Message, *, pausing: bool = True) -> None:
        network = self._network
        if network is None:
            super()._send_remote(node, name, msg, pausing=pausing)
        elif self._scheduler.is_foreign:
            network.handover.send_message(node, [name, *msg], pausing=pausing)
        else:
            port = network.peer(node).ports.get(name)
            (port.mailbox.append if pausing else port.append_or_refuse)(msg)

    def _kill_remote(self, node: str, name: str, reason: Reason) -> None:
        packet = ["", KIL1, name, *reason]
        if self._network is None:
            return
        if self._scheduler.is_foreign:
            self._network.handover.send(node, packet)
        else:
            self._network.peer(node).send(packet)

    def _monitor_remote(self, node: str, name: str, call: Handler, context: Port | None) -> Monitor:
        peer = self._peer(node)
        if peer is None:
            return super()._monitor_remote(node, name, call, context)
        remote = peer.ports.get(name)
        monitor = Monitor(remote, call, context, self._scheduler)
        remote.monitor(monitor)
        return monitor

    def _spawn_remote(self, node: str, name: str, function: str, args: Message) -> None:
        peer = self._peer(node)
        if peer is not None:
            remote = peer.ports.get(name)
            peer.send(["", SPAWN, name, function, *args])
            # From here on nothing needs more stack than that, so that at the recursion limit no orphan is left.
            remote.spawned()
            peer.send(["", MON1, name])

    def _note_loss(self, asker: Port | None, reason: Reason) -> bool:
        """Take note that a port gets no answer; return whether the reason is the shutdown of this node.

        If so, and the port dies of an exception now, that is not a crash.
        """
        if not self._directory.is_over or tag_of(reason) not in {"shutdown", "transport_error"}:
            return False
        if asker is not None and asker.scheduler is self._scheduler:
            self._scheduler.cut_off[asker] = ("shutdown", self._id)
        return True

    # --- requests ---

    @property
    def _requests(self) -> Requests:
        if self._made_requests is None:
            from aemp_gevent.node.requests import Requests  # noqa: PLC0415  # see TYPE_CHECKING

            self._made_requests = Requests(self._request_host)
        return self._made_requests

    def _node_request(self, msg: Message) -> None:
        self._requests.handle(None, msg)
