# SPDX-License-Identifier: MIT
"""The broker of a node: which of its ports are subscribed to what, and the sessions with other nodes' brokers.

A node has one from its first subscription or publication on. The brokers find each other through a group of the
directory. Each has two sessions with every other one, one for each direction; see
:mod:`aemp_gevent.topics.destination`.
"""

from __future__ import annotations

from typing import Any

from gevent.event import Event

from aemp_gevent.addresses import ids
from aemp_gevent.calls import answers
from aemp_gevent.calls.serve import caller_of_call, is_port
from aemp_gevent.errors import RefusedError, TooManyTopicsError
from aemp_gevent.node.access import is_shut_down, kept_for, network_of, ports_host_of, request_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import DEAD, Port
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.settings.rules import rights_of
from aemp_gevent.topics.destination import MAX_PATTERNS, Destination
from aemp_gevent.topics.interests import MISSED, Interests
from aemp_gevent.topics.origin import Origin

GROUP = "aemp_gevent.topics"
"""The group of all brokers."""

MAX_NODES = 10_000
"""Nodes that a broker publishes to; peers may enter anything into the group."""

MAX_LOST = 100
"""Nodes without a session and without an entry in the directory, whose subscriptions are remembered."""

_REOPEN_SECONDS = 1.0
"""When a broker whose port was killed gets another one."""


def broker_of(node: Node) -> Broker:
    """Return the broker of a node; the first call makes it."""
    return kept_for(node, _opened)


def _opened(node: Node) -> Broker:
    broker = Broker(node)
    broker.open()
    return broker


class Broker:
    """The broker of one node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.complaints = BoundedLog(node.scheduler.complaints.log, "topics")
        self.ports_by_topic: Interests[Port] = Interests()
        """The ports of this node that are subscribed."""
        self.destinations_by_topic: Interests[Destination] = Interests()
        """The other nodes that are."""
        self._destinations: dict[str, Destination] = {}
        self._origins: dict[str, Origin] = {}  # by node ID: a peer has one session, whatever it sends
        self._change = Event()
        self._ready_in: object = None  # the network in which all other brokers are known

    def open(self) -> None:
        """Make the broker's port, and let other brokers find it."""
        node = self.node
        port = node.port()
        node.serve(port, join=self._joined)
        ports_host_of(node).monitor(port, self._died, None)
        node.peval(port, self._look)
        node.grp_reg(GROUP, port)

    def _look(self) -> None:
        """Follow which brokers and links there are, until the broker's port dies, in whose context this runs."""
        self.node.grp_mon(GROUP, self._members_changed)
        self.node.mon_nodes(self._link_changed)

    def _died(self, *_reason: Any) -> None:
        if not is_shut_down(self.node):
            self.node.after(_REOPEN_SECONDS, self.open)

    def changed(self) -> None:
        """Wake what waits for destinations and origins."""
        change, self._change = self._change, Event()
        change.set()

    def allows(self, node_id: str, right: str) -> bool:
        """Return whether the rules let another node publish or subscribe; count and log it if not."""
        network = network_of(self.node)
        if network is None:
            return True
        peer = network.known_peer(node_id)
        if peer is not None:
            rights = peer.rights
        else:
            master = ids.master_of(node_id)
            rights = rights_of(network.settings.rules, node_id, *(() if master is None else (master,)))
        if getattr(rights, right):
            return True
        request_host_of(self.node).count_refusal("topics")
        self.complaints.warn("the rules do not let %s %s", node_id, right)
        return False

    # --- other nodes that subscribe ---

    def _members_changed(self, _ports: list[str], added: list[str], deleted: list[str]) -> None:
        for port in deleted:
            destination = self._destinations.get(port)
            if destination is not None:
                destination.unlist()
        self._drop_lost()
        for port in added:
            self._add(port)

    def _add(self, port: str) -> None:
        host = ports_host_of(self.node)
        if not is_port(host, port) or host.find(port) is not None:
            return
        destination = self._destinations.get(port)
        if destination is None:
            if len(self._destinations) >= MAX_NODES:
                self.complaints.warn("%s gets nothing that is published: there are %s others", port, MAX_NODES)
                return
            destination = self._destinations[port] = Destination(self, port)
        destination.is_listed = True
        destination.join()

    def _drop_lost(self) -> None:
        lost = [known for known in self._destinations.values() if known.is_away and not known.is_listed]
        for destination in lost[: max(0, len(lost) - MAX_LOST)]:
            self.complaints.warn(
                "%s is gone for long; its subscribers may miss messages unnoticed", destination.node_id
            )
            self.forget(destination)

    def _link_changed(self, node_id: str, is_up: bool, *_reason: Any) -> None:
        if is_up:
            for destination in list(self._destinations.values()):
                if destination.node_id == node_id:
                    destination.join()

    def forget(self, destination: Destination) -> None:
        """Remove a destination."""
        destination.close()
        destination.is_settled = True
        self._destinations = {port: known for port, known in self._destinations.items() if known is not destination}
        self.changed()

    def _make_ready(self, call: str, seconds: float | None) -> None:
        """Wait until every other broker has sent what it is subscribed to, or cannot be reached."""
        network = network_of(self.node)
        if network is None or self._ready_in is network:
            return
        deadline = answers.deadline_of(seconds)
        for port in self.node.db_keys(GROUP, timeout=seconds):
            self._add(port)
        while not all(known.is_settled for known in list(self._destinations.values())):
            if not self._change.wait(answers.left_until(deadline)):
                self.complaints.warn(
                    "%s: not all nodes have sent within %s s what they are subscribed to", call, seconds
                )
                break
        self._ready_in = network

    def publish(self, topic: str, msg: Message, *, local: bool, exclude: object, seconds: float | None) -> int:
        """Send a message to all subscribers of a topic; see :func:`aemp_gevent.topics.publish`."""
        excluded = None if exclude is None else ports_host_of(self.node).local("publish(), exclude", exclude)
        nodes = 0
        if not local:
            self._make_ready("publish()", seconds)
            # Other nodes first: if the message cannot travel, nobody has got it.
            for destination in self.destinations_by_topic.match(topic):
                nodes += destination.send(topic, msg)
        return nodes + self.deliver(topic, msg, excluded)

    # --- ports of this node that subscribe ---

    def add(self, pattern: str, port: Port) -> None:
        """Subscribe a port."""
        if len(self.ports_by_topic) >= MAX_PATTERNS and pattern not in self.ports_by_topic:
            raise TooManyTopicsError(MAX_PATTERNS)
        if self.ports_by_topic.add(pattern, port):
            self._announce(pattern)

    def discard(self, pattern: str, port: Port) -> None:
        """End a subscription of a port."""
        if self.ports_by_topic.discard(pattern, port) and not is_shut_down(self.node):
            self._announce(pattern)

    def _announce(self, pattern: str) -> None:
        for origin in list(self._origins.values()):
            origin.announce(pattern)

    def deliver(self, topic: str, msg: Message, excluded: Port | None = None) -> bool:
        """Send a message to the subscribers of this node; return whether there are any."""
        found = False
        for port in self.ports_by_topic.match(topic):
            if port is not excluded and port.state != DEAD:
                self.node.snd(port.id, topic, *msg)
                found = True
        return found

    def report_missed(self, topics: list[str] | None) -> None:
        """Report to the subscribers of this node that they may have missed messages."""
        if topics is None:
            missed = [(pattern, port) for pattern in self.ports_by_topic for port in self.ports_by_topic.of(pattern)]
        else:
            missed = [(topic, port) for topic in topics for port in self.ports_by_topic.match(topic)]
        for topic, port in missed:
            if port.state != DEAD:
                self.node.snd(port.id, MISSED, topic)

    # --- other nodes that publish ---

    def _joined(self, outlet: object = None) -> None:
        """Begin a session with the broker of another node, which calls this."""
        caller = caller_of_call()
        host = ports_host_of(self.node)
        if caller is None or not isinstance(outlet, str) or not is_port(host, outlet):
            raise RefusedError("a session for topics is begun with call(), and a port")
        if host.split_port(outlet)[0] != caller:
            raise RefusedError(f"{caller} has no port {outlet}")
        if not self.allows(caller, "publish"):
            raise RefusedError(f"the rules do not let {caller} publish")
        former = self._origins.pop(caller, None)
        if former is not None:
            former.close()
        self._origins[caller] = Origin(self, caller, outlet)
        self.changed()

    def left(self, origin: Origin) -> None:
        """Remove an origin whose session has ended."""
        if self._origins.get(origin.node_id) is origin:
            del self._origins[origin.node_id]

    def wait_until_known(self, seconds: float | None) -> bool:
        """Wait until all other brokers know what this node is subscribed to."""
        if network_of(self.node) is None:
            return True
        deadline = answers.deadline_of(seconds)
        if not self.node.wait_for_seeds(seconds):
            return False
        host = ports_host_of(self.node)
        members = self.node.db_keys(GROUP, timeout=answers.left_until(deadline))
        nodes = {host.split_port(port)[0] for port in members if is_port(host, port)} - {self.node.NODE()}
        while not nodes <= self._origins.keys():
            left = answers.left_until(deadline)
            if not self._change.wait(left):
                return False
        for node_id in nodes:
            origin = self._origins.get(node_id)
            if origin is not None and not self.node.syncal(answers.left_until(deadline), origin.outlet, "sync"):
                return False
        return True
