# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""What calls, the directory and the toolkit need of a node's ports beyond its public functions.

Like :mod:`aemp_gevent.node.request_host`, which does this for requests of peers, it is a part of the node, and reads
its private attributes.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from aemp_gevent.calls import serve
from aemp_gevent.calls.call import CallHost
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import REMOTE, Port
from aemp_gevent.runtime.tracing import TRACING, outgoing

if TYPE_CHECKING:
    from aemp_gevent.node.monitoring import Monitoring


class PortsHost(CallHost):
    """The node whose ports are made, found, watched and asked.

    A node has one from its start until it is reset, and another one after that.

    Args:
        node: The node.
    """

    __slots__ = ("_node", "kil", "local")

    def __init__(self, node: Monitoring) -> None:
        self._node = node
        self.scheduler = node._scheduler
        self.waiting = {}
        self.watches = ()
        self.make = node._make
        self.find = node._find_local
        self.reach = node._find
        self.local = node._local
        self.split_port = node._split_port
        self.split_or_drop = node._split_or_drop
        self.monitor = node._monitor
        self.own_end = node._own_end
        self.blocked = node._blocked
        self.snd = node.snd
        self.kil = node.kil

    @property
    def max_name_bytes(self) -> int:
        """The longest name of a family of the directory, or of a key."""
        return self._node._max_name_bytes

    def ask(
        self,
        port: object,
        target: Port | None,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
    ) -> None:
        """Send a call to a port that the caller monitors: the message, the timeout and the chain of callers."""
        node = self._node
        target = target or node._find(port)  # to monitor it may have entered it into the table
        if target is None:
            node_id, name = self.split_port(port)
            if not name and node._is_here(node_id):
                node._node_request((*message, reply))
            # Otherwise the port cannot be reached, and the caller's monitor fires.
        elif target.state == REMOTE:
            remote: Any = target  # a MonitoredRemote, which stands in the table of ports
            remote.call(message, reply, left, chain, None if TRACING.tracer is None else outgoing())
        else:
            until = None if left is None else monotonic() + left
            trace = None if TRACING.tracer is None else outgoing()
            serve.take(self, target, node._as_sent(message), serve.ReplyPortID(reply, until, chain, trace))
