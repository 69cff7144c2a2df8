# SPDX-License-Identifier: MIT
"""The node: the ports of this process, and the links to other nodes.

:class:`Node` has what one process of a network can do, in base classes for one concept each:
:class:`~aemp_gevent.node.local_node.LocalNode` what ports do among themselves,
:class:`~aemp_gevent.node.directory_calls.DirectoryNode` the calls of the directory,
:class:`~aemp_gevent.node.configured_node.ConfiguredNode` what its settings decide,
:class:`~aemp_gevent.node.linked_node.LinkedNode` the ports of other nodes,
:class:`~aemp_gevent.node.becoming.Becoming` and :class:`~aemp_gevent.node.leaving.Leaving` how a node joins and leaves.

It has more than 25 public methods because the package's module functions are the bound methods of one default
``Node``, as those of :mod:`random` are of a hidden ``Random``; several nodes can live in one process. Other public
names are for operators: ``addresses``, ``drain``, ``info``, ``refusals``, ``reload``, ``reset``, ``settings`` and
``wait_for_seeds``. ``scheduler`` is the only one for other folders: it runs the ports and has their table, so that
everything that waits, sends or looks a port up begins with it, one attribute away. What else they need is in objects of
their own, :class:`~aemp_gevent.node.ports_host.PortsHost` and :class:`~aemp_gevent.node.request_host.RequestHost`;
:mod:`aemp_gevent.node.access` hands these to the folders above.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.calls import answers
from aemp_gevent.errors import InvalidPortError
from aemp_gevent.node.becoming import Becoming
from aemp_gevent.node.leaving import Leaving
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds, to_seconds
from aemp_gevent.wire.vocabulary import TIME


class Node(Becoming, Leaving):
    """A process in a network of nodes. Private, that is local only, until it is initialised.

    Constructing one starts nothing and opens nothing.

    Args:
        carrier: How its connections are made; None: by sockets. For tests, see
            ``aemp_gevent.testing``.
    """

    def wait_for_seeds(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait for links to the seeds, and until this node and they know of each other what is in the directory.

        If this node keeps the directory itself, as seeds and the nodes of :func:`~aemp_gevent.contrib.join_host` do,
        it waits for all others that do so as well, because each of them has entries that only it can send.

        Most nodes need not call this: calls that need the directory wait for it, and other nodes learn of this one
        as soon as possible. A web server's worker should call it before it takes requests. Called again, it waits
        until the seeds know the entries that this node has registered. It does not wait for nodes to which no link can
        be made. Switches.

        Args:
            timeout: Seconds for all of it.

        Returns:
            Whether all of this happened in time; False for a node that is not initialised.
        """
        self._check_may_wait("wait_for_seeds()")
        seconds = to_limited_seconds(timeout, "wait_for_seeds()")
        network = self._network
        if network is None:
            return False
        deadline = monotonic() + seconds
        if not network.seeds.wait(seconds):
            return False
        # A seed reports its role when the link comes up, and its first answer follows that: by then this node's
        # entries have been sent to it. Its second answer comes after it has received them.
        seeds = [peer.node for peer in network.up_seeds()]
        if not all(self.syncal(answers.left_until(deadline), seed, TIME) for _ in range(2) for seed in seeds):
            return False
        # The same with the nodes that the seeds have named, and those that these have named.
        met = set(seeds)
        while self._embedded is not None and (others := set(self._embedded.keepers()) - met):
            self._ask_all(others, 2, answers.left_until(deadline))
            if monotonic() >= deadline:
                return False
            met |= others
        return True

    def _ask_all(self, nodes: Iterable[str], times: int, seconds: float | None) -> bool:
        """Ask some nodes for the time, all at once; return whether each has answered so many times. Switches."""

        def ask(node: str) -> bool:
            try:
                return all(self.syncal(seconds, node, TIME) for _ in range(times))
            except InvalidPortError:  # peers may have named anything
                return False

        asked = [self._scheduler.start_greenlet(ask, node) for node in nodes]
        try:
            gevent.joinall(asked, seconds)
        finally:
            gevent.killall(asked, block=False)
        return all(greenlet.value for greenlet in asked)

    def flush(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait until everything that this node has sent so far has arrived at the other nodes. Switches.

        Each node with a link, or whose link is being made, is asked for the time: its answer comes after it has put
        all earlier messages into its ports' mailboxes. Handlers may not have run by then.

        Args:
            timeout: Seconds for all nodes together; None waits until each has answered or its link is lost.

        Returns:
            Whether all nodes answered in time; True if there were none.

        Raises:
            WrongThreadError: The call came from another native thread than the node's.
            NoPortContextError: On the hub, which must never wait.
        """
        self._check_may_wait("flush()")
        seconds = to_seconds(timeout, "flush()")
        if self._network is None:
            return True
        peers = list(self._network.peers.values())
        return self._ask_all([peer.node for peer in peers if peer.is_up or peer.is_waiting], 1, seconds)

    def addresses(self) -> list[str]:
        """Return the endpoints at which this node listens, with the ports that the system chose.

        ``*:0`` becomes an address of this host for IPv4 and one for IPv6, each with its real port:
        ``["192.0.2.7:41873", "[2001:db8::7]:41873"]``. Empty for private nodes and slaves, which do not listen.
        Behind NAT, other nodes reach the node at the addresses in its node ID, and not at these.
        """
        return [] if self._network is None else self._network.listeners.bound_addresses()

    @property
    def refusals(self) -> dict[str, int]:
        """The number of refusals by kind, without kinds that never happened.

        Refused to peers: ``spawn`` (and everything else that runs code), ``kill``, ``directory`` (by a rule, about
        other nodes, or too many entries), ``relay``, ``inspect``, ``monitor`` (too many), ``topics`` (by a rule),
        ``message`` (too large or not a message, which ends the link). To connections that are not authenticated yet:
        ``handshake`` (it failed or took too long), ``tls`` (TLS failed, took too long or was missing; the other side
        may have refused this node's certificate), ``crowd`` (dropped, because there were too many).
        """
        return dict(self._network.refusals) if self._network is not None else {}

    def info(self) -> dict[str, Any]:
        """Return what the ``info`` request answers: who this node is, and how many ports and links it has."""
        return self._request_host.info()
