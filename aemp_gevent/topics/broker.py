# SPDX-License-Identifier: MIT
"""The broker of a node: which of its ports are subscribed to what, and the sessions with other nodes' brokers.

A node has one from its first subscription or publication on. The brokers find each other through a group of the
directory. Each has two sessions with every other one, one for each direction; see
:mod:`aemp_gevent.topics.destination`.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from gevent.event import Event

from aemp_gevent.addresses import ids
from aemp_gevent.calls import answers
from aemp_gevent.calls.serve import caller_of_call, is_port
from aemp_gevent.errors import RefusedError, TooManyTopicsError, UnencodableMessageError
from aemp_gevent.node.access import is_shut_down, kept_for, network_of, ports_host_of, request_host_of
from aemp_gevent.node.lasting_port import LastingPort
from aemp_gevent.node.node import Node
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import DEAD, Port
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.settings.rules import rights_of
from aemp_gevent.topics.destination import MAX_PATTERNS, Destination
from aemp_gevent.topics.interests import MISSED, Interests
from aemp_gevent.topics.origin import Origin
from aemp_gevent.topics.session_port import address_of
from aemp_gevent.wire.limits import Limits

GROUP = "aemp_gevent.topics"
"""The group of all brokers."""

MAX_NODES = 1000
"""Nodes that a broker publishes to; peers may enter anything into the group, and others give way to real brokers."""

MAX_LOST = 100
"""Nodes without a session and without an entry in the directory, whose subscriptions are remembered."""


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
        self.name = ids.new_uniq()
        """Other brokers know it again by this name when it has another port."""
        self._port = LastingPort(node, self._prepare)
        self.complaints = BoundedLog(node.scheduler.complaints.log, "topics")
        self.ports_by_topic: Interests[Port] = Interests()
        """The ports of this node that are subscribed."""
        self.destinations_by_topic: Interests[Destination] = Interests()
        """The other nodes that are."""
        self._destinations: dict[str, Destination] = {}
        self._lost: dict[Destination, None] = {}  # the first one was lost first
        self._origins: dict[str, Origin] = {}  # by node ID: a peer has one session, whatever it sends
        self._change = Event()
        self._ready_in: object = None  # the network in which all other brokers are known

    def open(self) -> None:
        """Make the broker's port, and let other brokers find it."""
        self._port.open()

    def _prepare(self, port: str) -> None:
        self.node.serve(port, join=self._joined)
        self.node.peval(port, self._look)
        self.node.grp_reg(GROUP, port)

    def _look(self) -> None:
        """Follow which brokers and links there are, until the broker's port dies, in whose context this runs."""
        self.node.grp_mon(GROUP, self._members_changed)
        self.node.mon_nodes(self._link_changed)

    def changed(self) -> None:
        """Wake what waits for destinations and origins."""
        change, self._change = self._change, Event()
        change.set()

    def allows(self, node_id: str, right: str) -> bool:
        """Return whether the rules let another node publish or subscribe; count and log it if not."""
        if self._may(node_id, right):
            return True
        request_host_of(self.node).count_refusal("topics")
        self.complaints.warn("the rules do not let %s %s", node_id, right)
        return False

    def _may(self, node_id: str, right: str) -> bool:
        network = network_of(self.node)
        if network is None:
            return True
        peer = network.known_peer(node_id)
        if peer is not None:
            rights = peer.rights
        else:
            master = ids.master_of(node_id)
            rights = rights_of(network.settings.rules, node_id, *(() if master is None else (master,)))
        return bool(getattr(rights, right))

    # --- other nodes that subscribe ---

    def _members_changed(self, _ports: list[str], added: list[str], deleted: list[str]) -> None:
        for port in deleted:
            destination = self._destinations.get(port)
            if destination is not None:
                destination.unlist()
        for port in added:
            self._add(port)

    def _add(self, port: str) -> None:
        host = ports_host_of(self.node)
        if not is_port(host, port) or host.find(port) is not None:
            return
        destination = self._destinations.get(port)
        if destination is None:
            if len(self._destinations) >= MAX_NODES and not self._make_room():
                self.complaints.warn("%s gets nothing that is published: there are %s others", port, MAX_NODES)
                return
            destination = self._destinations[port] = Destination(self, port)
        self._lost.pop(destination, None)
        destination.is_listed = True
        destination.join()

    def _make_room(self) -> bool:
        """Forget something in the group with which there was never a session, if possible what was tried already."""
        strange = [known for known in self._destinations.values() if not known.name]
        if strange:
            self.forget(next((known for known in strange if known.is_away), strange[0]))
        return bool(strange)

    def lost(self, destination: Destination) -> None:
        """Remember a destination that is neither reached nor in the directory any more: it may come back."""
        if not destination.name:
            self.forget(destination)
            return
        self._lost.pop(destination, None)
        self._lost[destination] = None
        for oldest in list(self._lost)[:-MAX_LOST]:
            text = "%s is gone for long; its subscribers may miss messages unnoticed"
            self.complaints.warn(text, oldest.node_id)
            self.forget(oldest)

    def former_of(self, destination: Destination) -> Destination | None:
        """Forget other destinations of the same node; return the one that is the same broker, with another port."""
        found = None
        for other in list(self._destinations.values()):
            if other is not destination and other.node_id == destination.node_id and other.name:
                self.forget(other)
                if other.name == destination.name:
                    found = other
        return found

    def _link_changed(self, node_id: str, is_up: bool, *_reason: Any) -> None:
        if is_up:
            for destination in list(self._destinations.values()):
                if destination.node_id == node_id:
                    destination.join()

    def forget(self, destination: Destination) -> None:
        """Remove a destination."""
        destination.close()
        destination.is_settled = True
        self._lost.pop(destination, None)
        if self._destinations.get(destination.broker) is destination:
            del self._destinations[destination.broker]
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
            try:
                for destination in self.destinations_by_topic.match(topic):
                    nodes += destination.send(topic, msg)
            except UnencodableMessageError:
                # The error of this one counts the arguments as the caller does.
                copy_as_sent(["port", topic, *msg], Limits(sys.maxsize))
                raise
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
        origins = deque(self._origins.values())
        try:
            while origins:
                origins[0].announce(pattern)
                origins.popleft()
        except BaseException:  # such as a Timeout, while the link to one is full: all learn of it nevertheless
            for origin in origins:
                self.node.scheduler.start_greenlet(origin.announce, pattern)
            raise

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

    def _joined(self, port: object = None, secret: object = None) -> None:
        """Begin a session with the broker of another node, which calls this."""
        caller = caller_of_call()
        host = ports_host_of(self.node)
        outlet = None if caller is None else address_of(host, caller, port, secret)
        if caller is None or outlet is None:
            raise RefusedError("a session for topics is begun with call(), and with a port of the caller and a secret")
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
        others = {host.split_port(port)[0] for port in members if is_port(host, port)} - {self.node.NODE()}
        nodes = {node_id for node_id in others if self._may(node_id, "publish")}
        while not nodes <= self._origins.keys():
            left = answers.left_until(deadline)
            if not self._change.wait(left):
                return False
        for node_id in nodes:
            origin = self._origins.get(node_id)
            if origin is not None and not origin.sync(answers.left_until(deadline)):
                return False
        return True
