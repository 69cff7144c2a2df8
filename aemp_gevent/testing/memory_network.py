# SPDX-License-Identifier: MIT
"""A simulated network of several nodes in one process, with faults and delays that the test chooses.

The nodes are real, and so is everything above the transport; only the transport is simulated. This module knows the
nodes and the faults, and draws how long data takes (``draw_latency``, ``draw_skew``), so that connections overtake
each other. ``memory_connection`` simulates a connection, ``memory_connector`` connects the nodes,
``memory_addresses`` knows which node listens where, and ``memory_clock`` calls functions when they are due.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import gevent
from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of
from aemp_gevent.addresses.resolve import resolve_node
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.testing.memory_addresses import MemoryAddresses
from aemp_gevent.testing.memory_clock import MemoryClock
from aemp_gevent.testing.memory_connection import MemoryEnd
from aemp_gevent.testing.memory_connector import MemoryConnector, MemoryDial, MemoryListener, end_crashed_node
from aemp_gevent.testing.virtual_time import VirtualTime
from aemp_gevent.transport.transport import Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from aemp_gevent.settings.given import InitialiseSettings

_log = Log()


class MemoryNetwork:
    """Connect several nodes of this process in memory, and simulate the faults that a test asks for.

    Faults concern *nodes*, which are identified by their IDs: a partition treats a crashed node and its
    successor with the same ID alike. Methods accept a :class:`~aemp_gevent.Node` or its ID. Faults take effect at
    once and last until :meth:`heal`, except :meth:`cut` and :meth:`crash`, which are events.

    All random decisions (jitter, where deliveries are split, how much data in transit is lost) depend on the seed,
    which is logged and shown by ``repr()``. The test can make its own random decisions with :attr:`dice`. In real
    time, the same seed gives the same faults, but only nearly the same run. In virtual time, everything happens in the
    same order, and no time is spent on waiting: see :class:`VirtualTime`.

    All nodes belong to the thread that made the first one. A context manager: leaving it
    is :meth:`close`.

    Args:
        seed: For the dice; None: draw one.
        latency: Seconds that everything is under way.
        jitter: Up to so many seconds more, uniformly, drawn for each delivery. Nothing overtakes
            within a connection.
        skew: Up to so many seconds more, drawn once for each direction of each connection, so
            that two connections of the same nodes differ as if they took different routes. Half
            of them get less than a sixteenth of it.
        split: How likely what was sent in one piece is read in two, from 0 to 1.
        time: ``"real"``, or ``"virtual"``: all timers of this thread expire as soon as nothing else can run, until
            :meth:`close`. Then this network makes all nodes of the thread, and no real socket is used.
        buffer_bytes: What the two kernels of a connection hold for each direction. When a
            reader stops reading, the rest stays with the sender.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        skew: float = 0.0,
        split: float = 0.0,
        time: Literal["real", "virtual"] = "real",
        buffer_bytes: int = 256 * 1024,
    ) -> None:
        if not all(value >= 0 for value in (latency, jitter, skew)):  # nor is NaN
            raise ValueError("latency, jitter and skew must be 0 or more seconds")
        if not 0 <= split <= 1:
            raise ValueError("split must be a probability, from 0 to 1")
        if time not in ("real", "virtual"):
            raise ValueError(f"time must be 'real' or 'virtual', not {quoted(time)}")
        if buffer_bytes < 1:
            raise ValueError("buffer_bytes must be at least 1")
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        """The seed of the dice."""
        self.dice = random.Random(self.seed)  # noqa: S311  # no secret
        """The source of randomness, also for the test's own decisions."""
        self.virtual: VirtualTime | None = None
        """The virtual time; None: time is real."""
        if time == "virtual":
            self.virtual = VirtualTime(self.seed)
            self.virtual.begin()
        self.buffer_bytes = buffer_bytes
        self.split = split
        self.clock = MemoryClock()
        self.addresses: MemoryAddresses[MemoryListener] = MemoryAddresses()
        self._skew = skew
        self._usual_delay = (latency, jitter, 0.0)
        self._delays: dict[frozenset[str], tuple[float, float, float]] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._sides: dict[str, int] = {}  # of the partition, by node
        self._down: set[str] = set()  # crashed in silence
        self._carriers: dict[str, MemoryConnector] = {}  # the latest of each node
        self._ends: dict[MemoryEnd, None] = {}  # open ones; a dict: its order is that of the runs before
        self._dials: dict[MemoryDial, None] = {}
        _log.info("%s", self)

    def __repr__(self) -> str:
        return f"<MemoryNetwork seed={self.seed}, {len(self._carriers)} nodes>"

    # --- nodes ---

    def node(self, noderef: str | None = None, *seeds: str, **settings: Unpack[InitialiseSettings]) -> Node:
        """Return a new node of this network, initialised. Blocks until bound, which is at once.

        Args:
            noderef: Where it listens, and so its ID; ``"slave/name"`` makes a slave of one of the
                seeds: by its whole ID the faults know it from then on. Any numeric address is as good as any
                other: ``"10.0.0.7:4040"``; port 0 takes a free one. None makes one up. For a
                node with a name, see :meth:`carrier`.
            seeds: As in :meth:`~aemp_gevent.Node.initialise_node`.
            settings: As there; ``secret`` has a default here.

        Raises:
            AempError: As there; ``ListenError`` when a node of this ID is alive.
        """
        settings = {"secret": "a secret in memory", **settings}
        if noderef is not None and noderef.startswith(ids.SLAVE_PREFIX):
            return self._slave(ids.slave_name(noderef), seeds, settings)
        if noderef is None:
            noderef = self._unused_noderef()
        endpoints = [
            Endpoint(endpoint.host, endpoint.port or self.addresses.free_port(), endpoint.path)
            for endpoint in endpoints_of(resolve_node(noderef))
        ]
        node_id = ",".join(map(str, endpoints))
        carrier = MemoryConnector(self, node_id)
        node = carrier.node = Node(carrier=carrier)
        node.initialise_node(node_id, *seeds, **settings)
        self._carriers[node_id] = carrier
        return node

    def _slave(self, name: str, masters: tuple[str, ...], settings: InitialiseSettings) -> Node:
        # The faults are to know it while it asks its first master.
        carrier = MemoryConnector(self, ids.slave_id(name, resolve_node(masters[0])) if masters else name)
        node = carrier.node = Node(carrier=carrier)
        node.initialise_node(ids.SLAVE_PREFIX + name, *masters, **settings)
        carrier.name = node.NODE()
        self._carriers[carrier.name] = carrier
        return node

    def _unused_noderef(self) -> str:
        for number in itertools.count():
            noderef = f"10.0.{number // 250}.{number % 250 + 1}:4040"
            if noderef not in self._carriers:
                return noderef
        raise AssertionError("unreachable")

    def carrier(self, node: str) -> MemoryConnector:
        """Return a carrier for a node that you make yourself: ``Node(carrier=…)``.

        For nodes that have a name, or are initialised by ``configure()``. Such a node is
        yours: :meth:`crash` and :meth:`close` end its connections, and you shut it down.

        Args:
            node: The ID that it will have; the faults know it by that.
        """
        carrier = self._carriers[node] = MemoryConnector(self, node)
        return carrier

    def _name(self, node: Node | str) -> str:
        return node.NODE() if isinstance(node, Node) else str(node)

    # --- faults ---

    def delay(self, one: Node | str, other: Node | str, seconds: float, jitter: float = 0.0, dial: float = 0.0) -> None:
        """Delay everything between two nodes, in both directions, but for what is under way.

        Args:
            one: A node.
            other: Another one.
            seconds: From one to the other.
            jitter: Up to so many seconds more, uniformly.
            dial: So many seconds more until a connection is made.

        Raises:
            ValueError: A number is below 0.
        """
        if not all(value >= 0 for value in (seconds, jitter, dial)):  # nor is NaN
            raise ValueError("delays must be 0 or more seconds")
        pair = frozenset((self._name(one), self._name(other)))
        self._delays[pair] = (seconds, jitter, dial)
        _log.info("%s: delay %s by %g s", self, sorted(pair), seconds)

    def cut(self, one: Node | str, other: Node | str, count: int | None = None) -> int:
        """Reset connections between two nodes; what is under way is lost, and both hear of it at once.

        They may dial each other again at any time.

        Args:
            one: A node.
            other: Another one.
            count: At most how many, chosen by the dice; None: all.

        Returns:
            How many there were to cut.
        """
        here, there = self._name(one), self._name(other)
        ends = [end for end in self._ends if {end.node, end.other.node} == {here, there}]
        connections = list({frozenset((end, end.other)): (end, end.other) for end in ends}.values())
        if count is not None and count < len(connections):
            connections = self.dice.sample(connections, count)
        for near, far in connections:
            near.cut()
            far.cut()
        _log.info("%s: cut %d connections of %s and %s", self, len(connections), here, there)
        return len(connections)

    def block(self, source: Node | str, target: Node | str) -> None:
        """Lose silently what one node sends to another; the way back stays open.

        Connections stay open, and what was sent waits, as in TCP, to be sent again
        when the line works again, unless its sender has given up. Dials need both ways.
        """
        self._blocked.add((self._name(source), self._name(target)))
        _log.info("%s: block %s to %s", self, self._name(source), self._name(target))

    def partition(self, *groups: Iterable[Node | str]) -> None:
        """Lose silently everything between nodes of different groups.

        Nodes in no group, and such as come later, are one more group: ``partition([node])`` isolates a
        node. A new partition takes the place of the one before; see :meth:`block` for
        what happens to connections.
        """
        self._sides = {self._name(node): side for side, group in enumerate(groups, 1) for node in group}
        self._wake()
        _log.info("%s: partition %s", self, [[self._name(node) for node in group] for group in groups])

    def refuse(self, source: Node | str, target: Node | str) -> None:
        """Refuse all connections that one node tries to make to another; those that exist are left alone."""
        self._refused.add((self._name(source), self._name(target)))
        _log.info("%s: refuse %s to %s", self, self._name(source), self._name(target))

    def heal(self) -> None:
        """End all delays, blocks, refusals and the partition. Lost data stays lost, and crashed nodes stay down."""
        self._delays.clear()
        self._blocked.clear()
        self._refused.clear()
        self._sides.clear()
        self._wake()
        _log.info("%s: heal", self)

    def crash(self, node: Node | str, *, silent: bool = False) -> None:
        """End a node without goodbye, as if its process had been killed. Switches, except on the hub.

        From the first moment nothing the node does reaches anybody. Then, because this
        process is to be free of it, all its ports are killed and the node is shut down. (The
        actions of monitors among its own ports may run; finally blocks do.) Start it again with
        :meth:`node` under the same ID: that will be another incarnation.

        Args:
            node: Which.
            silent: As if the plug of its machine had been pulled: nobody learns that the
                connections are gone, and dials to it are not answered, until it is started again. If
                False the system ends them in order, or with a reset where something was unread.

        Raises:
            LookupError: This network has no such node.
        """
        name = self._name(node)
        carrier = self._carriers.get(name)
        if carrier is None or carrier.is_dead:
            raise LookupError(f"{quoted(self)} has no living node {name}")
        _log.info("%s: crash %s%s", self, name, " in silence" if silent else "")
        if silent:
            self._down.add(name)
        carrier.die(silent=silent)
        if carrier.node is None:
            return
        if getcurrent() is self.clock.hub:
            gevent.spawn(end_crashed_node, carrier.node)
        else:
            end_crashed_node(carrier.node)

    def close(self) -> None:
        """Shut down the nodes that this network made, then end all connections. Idempotent. Switches."""
        self.heal()
        nodes = [carrier.node for carrier in self._carriers.values() if carrier.node and not carrier.is_dead]
        gevent.joinall([gevent.spawn(node.shutdown, 1.0) for node in nodes])
        for carrier in self._carriers.values():
            carrier.die(silent=True)
        for node in nodes:
            end_crashed_node(node)
        self.clock.close()
        if self.virtual is not None:
            self.virtual.end()

    def __enter__(self) -> MemoryNetwork:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- for connections ---

    def draw_latency(self, source: str, target: str) -> float:
        """Return how many seconds data takes from one node to another now."""
        seconds, jitter, _dial = self._delay(source, target)
        return seconds + jitter * self.dice.random() if jitter else seconds

    def draw_skew(self) -> float:
        """Return how many seconds longer all data takes in one direction of a connection."""
        return self._skew * self.dice.random() ** 4 if self._skew else 0.0

    def _delay(self, source: str, target: str) -> tuple[float, float, float]:
        if not self._delays:
            return self._usual_delay
        return self._delays.get(frozenset((source, target)), self._usual_delay)

    def is_blocked(self, source: str, target: str) -> bool:
        """Return whether data from one node does not arrive at another."""
        sides, down = self._sides, self._down
        return (
            (source, target) in self._blocked
            or bool(sides and sides.get(source) != sides.get(target))
            or bool(down and (source in down or target in down))
        )

    def opened(self, end: MemoryEnd) -> None:
        """Register an open end."""
        self._ends[end] = None

    def closed(self, end: MemoryEnd) -> None:
        """Remove a closed end."""
        self._ends.pop(end, None)

    def _wake(self) -> None:
        """Try again to deliver everything that was blocked."""
        for end in self._ends:
            end.incoming.wake()
            end.outgoing.wake()
        for dial in self._dials:
            if dial.is_lost:
                self.clock.at(0.0, dial.arrive)

    # --- listening and dialling: the carriers' part ---

    def listen(
        self, carrier: MemoryConnector, endpoint: Endpoint, accepted: Callable[[Transport], None]
    ) -> MemoryListener:
        """Bind an endpoint for a carrier, whose node is up again if it had crashed."""
        listener = self.addresses.bind(
            endpoint, carrier.name, lambda bound: MemoryListener(self, carrier, bound, accepted)
        )
        if carrier.name in self._down:
            self._down.remove(carrier.name)
            self._wake()
        return listener

    def dial(self, carrier: MemoryConnector, endpoint: Endpoint, timeout: float) -> MemoryEnd:
        """Make a connection. Blocks the calling greenlet.

        Raises:
            OSError: It was refused, or there was no answer in time.
        """
        dial = MemoryDial(self, carrier, endpoint)
        self._dials[dial] = None
        try:
            return dial.wait(timeout)
        finally:
            del self._dials[dial]

    def is_refused(self, source: str, target: str) -> bool:
        """Return whether one node's dials to another are refused."""
        return (source, target) in self._refused

    def draw_dial_seconds(self, source: str, target: str) -> float:
        """Return how many seconds a request for a connection takes to the other node."""
        return self.draw_latency(source, target) + self._delay(source, target)[2]

    def drop(self, carrier: MemoryConnector, *, silent: bool) -> None:
        """End a carrier's listeners and connections; if ``silent``, the other ends do not notice."""
        for listener in self.addresses.listeners():
            if listener.carrier is carrier:
                listener.close()
        for end in [end for end in self._ends if end.home is carrier]:
            if silent:
                end.vanish()
            else:
                end.close()
