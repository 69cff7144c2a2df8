# SPDX-License-Identifier: MIT
"""A node that has links once it is initialised: messages to ports of other nodes, and who is linked."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent.errors import NoPortContextError, PortDied
from aemp_gevent.node.configured_node import ConfiguredNode
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
from aemp_gevent.runtime.tracing import outgoing
from aemp_gevent.wire.vocabulary import KIL1, MON1, SPAWN

if TYPE_CHECKING:
    from aemp_gevent.node.requests import Requests
    from aemp_gevent.peers.network import Network
    from aemp_gevent.peers.peer import Peer
    from aemp_gevent.transport.connector import Connector


class LinkedNode(ConfiguredNode):
    """A node with links to others, or without any while it is private."""

    def __init__(self, *, carrier: Connector | None = None) -> None:
        super().__init__()
        self._carrier = carrier

    def _begin(self) -> None:
        super()._begin()
        self._joining: Network | None = None  # the links of a slave that has no master yet
        self._watch: LoopWatch | None = None
        self._initialising = False
        self._ending = False
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

    # --- before the first port, and after the end ---

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

    # --- links ---

    def _check_may_wait(self, call: str) -> None:
        self._scheduler.check_thread(call)
        if isinstance(getcurrent(), Hub):
            raise NoPortContextError(call, ON_THE_HUB)

    def mon_nodes(self, callback: Handler, *, state: Handler | None = None) -> NodeGuard:
        """Call ``callback(node, True)`` when a link comes up, ``callback(node, False, *reason)`` when one goes down.

        The calls come in the order in which it happens, in this port's context. Links that are up already are not
        reported: ask :meth:`up_nodes`. Returns a guard: ``.cancel()``, or a context manager.

        Args:
            callback: Gets links.
            state: Called with a node's ID and its :class:`~aemp_gevent.NodeState` when it is blocked, and when it is
                up again. Not called when its link goes down meanwhile.
        """
        self._scheduler.check_thread("mon_nodes()")
        check_callable("mon_nodes()", callback)
        if state is not None:
            check_callable("mon_nodes()", state)
        return self._node_monitors.add(callback, state)

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
            ports = network.peer(node).ports
            if pausing:
                ports.send(name, msg)
            else:
                ports.get(name).append_or_refuse(msg)

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
            trace = outgoing() if peer.may_read_traces else None
            peer.send(["", SPAWN, name, function if trace is None else {function: trace}, *args])
            # From here on nothing needs more stack than that, so that at the recursion limit no orphan is left.
            remote.spawned()
            peer.send(["", MON1, name])

    def _blocked(self, port: object) -> str:
        state = self.node_state(port)
        return "" if state.since is None else str(state)

    def _own_end(self, reason: Reason) -> Reason | None:
        is_lost = self._directory.is_over and tag_of(reason) in {"shutdown", "transport_error"}
        return ("shutdown", self._id) if is_lost else None

    # --- requests ---

    @property
    def _requests(self) -> Requests:
        if self._made_requests is None:
            from aemp_gevent.node.requests import Requests  # noqa: PLC0415  # see TYPE_CHECKING

            self._made_requests = Requests(self._request_host)
        return self._made_requests

    def _node_request(self, msg: Message) -> None:
        self._requests.handle(None, msg)
