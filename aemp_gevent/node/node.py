# SPDX-License-Identifier: MIT
"""The node: the ports of this process, and the links to other nodes.

:class:`Node` has what one process of a network can do, in base classes for one concept each:
:class:`~aemp_gevent.node.local_node.LocalNode` what ports do among themselves,
:class:`~aemp_gevent.node.directory_calls.DirectoryNode` the calls of the directory,
:class:`~aemp_gevent.node.linked_node.LinkedNode` the ports of other nodes,
:class:`~aemp_gevent.node.becoming.Becoming` and :class:`~aemp_gevent.node.leaving.Leaving` how a node joins and leaves.

It has more than 25 public methods because the package's module functions are the bound methods of one default
``Node``, as those of :mod:`random` are of a hidden ``Random``; several nodes can live in one process. What requests of
peers need is in an object of its own, :class:`~aemp_gevent.node.request_host.RequestHost`.
"""

from __future__ import annotations

from typing import Any

import gevent

from aemp_gevent.calls import answers
from aemp_gevent.errors import SpawnRefusedError
from aemp_gevent.node.becoming import Becoming
from aemp_gevent.node.leaving import Leaving
from aemp_gevent.ports.patterns import Handler
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

        A node need not: it waits for what it wants to know, and others are told of it as soon as they can be.
        A web server's worker should, before it takes requests. Called again, it waits until the seeds know what was
        registered here before. Seeds that do not answer when they are dialled are not waited for. Switches.

        Args:
            timeout: Seconds for all of it.

        Returns:
            Whether that came about in time; False for a node that is not initialised.
        """
        self._check_may_wait("wait_for_seeds()")
        seconds = to_limited_seconds(timeout, "wait_for_seeds()")
        network = self._network
        if network is None:
            return False
        deadline = answers.deadline_of(seconds)
        if not network.seeds.wait(seconds):
            return False
        # A seed said what it is when the link came up, and its first answer is behind that: by then it has been sent
        # what is here. Its second answer is behind its hearing of it.
        seeds = [peer.node for peer in network.up_seeds()]
        return all(self.syncal(answers.left_until(deadline), seed, TIME) for _ in range(2) for seed in seeds)

    def flush(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait until everything that this node has sent so far has arrived at the other nodes. Switches.

        Each node to which there is a link, or one is being made, is asked the time: its answer comes after it has put
        all earlier messages into its ports' mailboxes. Whether handlers have run by then is not known.

        Args:
            timeout: Seconds for all nodes together; None waits until each has answered or its link is lost.

        Returns:
            Whether all answered in time; True if there was nobody to ask.

        Raises:
            WrongThreadError: Another native thread than the node's called this.
            NoPortContextError: On the hub, which must never wait.
        """
        self._check_may_wait("flush()")
        seconds = to_seconds(timeout, "flush()")
        if self._network is None:
            return True
        asked = [
            self._scheduler.start_greenlet(self.syncal, seconds, peer.node, TIME)
            for peer in list(self._network.peers.values())
            if peer.is_up or peer.is_waiting
        ]
        try:
            gevent.joinall(asked, seconds)
        finally:
            gevent.killall(asked, block=False)
        return all(greenlet.value for greenlet in asked)

    def addresses(self) -> list[str]:
        """Return where this node listens, as endpoints with the ports that the system chose.

        What was bound as ``*:0`` is an address of this host for IPv4, one for IPv6, and the real port of both:
        ``["192.0.2.7:41873", "[2001:db8::7]:41873"]``. Empty for private nodes and slaves, which listen nowhere.
        Behind NAT these are not the addresses at which others reach the node: those its node ID says.
        """
        return [] if self._network is None else self._network.listeners.bound_addresses()

    @property
    def seeds_down(self) -> dict[str, str]:
        """The seeds to which there is no link, and why; ``""`` if that is not known yet. Not for users."""
        return {} if self._network is None else self._network.seeds.why_down()

    @property
    def refusals(self) -> dict[str, int]:
        """How often peers were refused something, by what it was; what never was is not there.

        Of peers: ``spawn`` (and whatever else runs code), ``kill``, ``directory`` (by rule, about other nodes, or too
        many entries), ``relay``, ``inspect``, ``monitor`` (by number), ``message`` (one that is too large, or none,
        which ends the link). Of strangers, whoever dialled: ``handshake`` (it failed, or took too long), ``tls``
        (the same, while TLS came up or because there is none; the certificate may be ours that the
        other side refuses), ``crowd`` (dropped, because there were too many).
        """
        return dict(self._network.refusals) if self._network is not None else {}

    def info(self) -> dict[str, Any]:
        """Return what the ``info`` request answers: who this node is, and how many ports and links it has."""
        return self._request_host.info()

    def function_for(self, caller: str | None, name: object) -> Handler:
        """Return the function of this name if the node whose call is served may have it run here.

        Args:
            caller: That node's ID; None: it is not known, and may run nothing.
            name: As it came.

        Raises:
            SpawnRefusedError: It may not, or there is none.
        """
        if caller == self._id:  # and no former one, which a peer might take
            return self._request_host.find_function(None, name)
        peer = self._network.known_peer(caller) if self._network is not None and caller is not None else None
        if peer is None:
            raise SpawnRefusedError("functions are run only for calls, which say whose they are: use call()")
        return self._request_host.find_function(peer, name)
