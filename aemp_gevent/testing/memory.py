# SPDX-License-Identifier: MIT
"""A network of several nodes in one process, without sockets, and with the faults that a test asks for.

Nodes are real, and so is everything above the bytes; only what carries these is
simulated. How a single connection behaves is :mod:`aemp_gevent.testing.memory_connection`'s;
here is who listens where, who can reach whom, and what is broken at the moment.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult
from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import ANY_HOST, Endpoint, endpoints_of
from aemp_gevent.addresses.resolve import resolve_node
from aemp_gevent.errors import ListenError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.port import REMOTE
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.testing.memory_connection import End, connect
from aemp_gevent.transport.transport import Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from aemp_gevent.settings.given import InitialiseSettings

_FIRST_FREE_PORT = 40000

_log = Log()


class MemoryNetwork:
    """Connects several nodes of this process in memory, and breaks what it is told to.

    Faults are about *nodes*, named by their IDs: a node that crashed and one that is
    started again under the same ID are the same to a partition. Wherever a node is wanted,
    its :class:`~aemp_gevent.Node` or its ID will do. Faults take effect at once and last
    until :meth:`heal`, but for :meth:`cut` and :meth:`crash`, which are events.

    What chance decides (jitter, where deliveries are split, how much of what was under
    way gets lost) comes from the seed, which is logged and shown by ``repr()``; so may
    what the test itself decides, from :attr:`dice`. Time is real, so the same seed gives the same
    faults, and nearly, not exactly, the same run.

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
        buffer_bytes: int = 256 * 1024,
    ) -> None:
        if not all(value >= 0 for value in (latency, jitter, skew)):  # nor is NaN
            raise ValueError("latency, jitter and skew are seconds, 0 or more")
        if not 0 <= split <= 1:
            raise ValueError("split must be a probability, from 0 to 1")
        if buffer_bytes < 1:
            raise ValueError("buffer_bytes is at least 1: nothing would ever arrive")
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        """What the dice were made of."""
        self.dice = random.Random(self.seed)  # noqa: S311  # no secret
        """The dice, for the test's own decisions, too."""
        self.buffer_bytes = buffer_bytes
        self.split = split
        self._skew = skew
        self._usual_delay = (latency, jitter, 0.0)
        self._delays: dict[frozenset[str], tuple[float, float, float]] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._sides: dict[str, int] = {}  # of the partition, by node
        self._down: set[str] = set()  # crashed in silence
        self._carriers: dict[str, MemoryCarrier] = {}  # the latest of each node
        self._listeners: dict[tuple[str, int, str], _Listener] = {}
        self._owners: dict[tuple[str, int, str], str] = {}  # who listens, or has listened, there
        self._free_ports = itertools.count(_FIRST_FREE_PORT)
        self._ends: dict[End, None] = {}  # open ones; a dict: its order is that of the runs before
        self._dials: dict[_Dial, None] = {}
        self._hub: Hub | None = None
        self._calls: list[tuple[float, int, Callable[[], None]]] = []  # a heap
        self._serial = itertools.count()
        self._timer: Any = None  # gevent's watchers have no types
        self._timer_is_due_at = 0.0
        self._is_ticking = False
        self._closed = False
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
            Endpoint(endpoint.host, endpoint.port or next(self._free_ports), endpoint.path)
            for endpoint in endpoints_of(resolve_node(noderef))
        ]
        node_id = ",".join(map(str, endpoints))
        carrier = MemoryCarrier(self, node_id)
        node = carrier.node = Node(carrier=carrier)
        node.initialise_node(node_id, *seeds, **settings)
        self._carriers[node_id] = carrier
        return node

    def _slave(self, name: str, masters: tuple[str, ...], settings: InitialiseSettings) -> Node:
        # The faults are to know it while it asks its first master.
        carrier = MemoryCarrier(self, ids.slave_id(name, resolve_node(masters[0])) if masters else name)
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

    def carrier(self, node: str) -> MemoryCarrier:
        """Return what a node of your own making is to be connected by: ``Node(carrier=…)``.

        For nodes that have a name, or are initialised by ``configure()``. Such a node is
        yours: :meth:`crash` and :meth:`close` end its connections, and you shut it down.

        Args:
            node: The ID that it will have; the faults know it by that.
        """
        carrier = self._carriers[node] = MemoryCarrier(self, node)
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
            raise ValueError("a delay's seconds are 0 or more")
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
        what becomes of connections.
        """
        self._sides = {self._name(node): side for side, group in enumerate(groups, 1) for node in group}
        self._wake()
        _log.info("%s: partition %s", self, [[self._name(node) for node in group] for group in groups])

    def refuse(self, source: Node | str, target: Node | str) -> None:
        """Refuse all connections that one node tries to make to another; those that exist are left alone."""
        self._refused.add((self._name(source), self._name(target)))
        _log.info("%s: refuse %s to %s", self, self._name(source), self._name(target))

    def heal(self) -> None:
        """End all delays, blocks, refusals, and the partition. What is lost stays lost, and who crashed stays down."""
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
            silent: As if the plug of its machine had been pulled: nobody is told that the
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
        if getcurrent() is self.hub:
            gevent.spawn(_lay_to_rest, carrier.node)
        else:
            _lay_to_rest(carrier.node)

    def close(self) -> None:
        """Shut down the nodes that this network made, then end all connections. Idempotent. Switches."""
        self.heal()
        nodes = [carrier.node for carrier in self._carriers.values() if carrier.node and not carrier.is_dead]
        gevent.joinall([gevent.spawn(node.shutdown, 1.0) for node in nodes])
        self._closed = True
        for carrier in self._carriers.values():
            carrier.die(silent=True)
        for node in nodes:
            _lay_to_rest(node)
        self._calls.clear()
        self._disarm()

    def __enter__(self) -> MemoryNetwork:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- what connections ask ---

    @property
    def hub(self) -> Hub:
        """The hub that all nodes of this network belong to."""
        if self._hub is None:
            self._hub = gevent.get_hub()
        return self._hub

    def draw_latency(self, source: str, target: str) -> float:
        """Return how many seconds what one node sends to another now is under way."""
        seconds, jitter, _dial = self._delay(source, target)
        return seconds + jitter * self.dice.random() if jitter else seconds

    def draw_skew(self) -> float:
        """Return how many seconds longer everything takes on one direction of one connection."""
        return self._skew * self.dice.random() ** 4 if self._skew else 0.0

    def _delay(self, source: str, target: str) -> tuple[float, float, float]:
        if not self._delays:
            return self._usual_delay
        return self._delays.get(frozenset((source, target)), self._usual_delay)

    def is_blocked(self, source: str, target: str) -> bool:
        """Return whether nothing that one node sends arrives at another."""
        sides, down = self._sides, self._down
        return (
            (source, target) in self._blocked
            or bool(sides and sides.get(source) != sides.get(target))
            or bool(down and (source in down or target in down))
        )

    def opened(self, end: End) -> None:
        """Take note of an open end."""
        self._ends[end] = None

    def closed(self, end: End) -> None:
        """Take note that it is closed."""
        self._ends.pop(end, None)

    def _wake(self) -> None:
        """Look again at everything that could not move."""
        for end in self._ends:
            end.incoming.wake()
            end.outgoing.wake()
        for dial in self._dials:
            if dial.is_lost:
                self.at(0.0, dial.arrive)

    # --- time ---

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call something on the hub, when ``time.monotonic()`` is ``due``, and never inside this call."""
        if not self._closed:
            heappush(self._calls, (due, next(self._serial), call))
            self._arm()

    def _arm(self) -> None:
        if self._is_ticking or not self._calls:
            return
        due = self._calls[0][0]
        if self._timer is not None:
            if self._timer_is_due_at <= due:
                return
            self._disarm()
        # One timer for all: they would not fire in order, and each would cost a microsecond.
        self._timer_is_due_at = due
        self._timer = self.hub.loop.timer(max(due - monotonic(), 0.0))
        self._timer.start(self._tick, update=True)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _tick(self) -> None:  # on the hub
        self._disarm()
        self._is_ticking = True
        now, last = monotonic(), next(self._serial)
        try:
            # What they ask for themselves has its turn after sockets and timers.
            while self._calls and self._calls[0][0] <= now and self._calls[0][1] < last:
                heappop(self._calls)[2]()
        finally:
            self._is_ticking = False
            self._arm()

    # --- listening and dialling: the carriers' part ---

    def listen(self, carrier: MemoryCarrier, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> _Listener:
        """Bind an endpoint for a carrier."""
        host, port = endpoint.host, endpoint.port
        if host == ANY_HOST:
            # Behind which addresses nobody tells us, unless it is the node's own.
            host = next((own.host for own in endpoints_of(carrier.name)), host)
        bound = Endpoint(host, port or (0 if endpoint.path else next(self._free_ports)), endpoint.path)
        key = (bound.host, bound.port, bound.path)
        if key in self._listeners:
            raise ListenError(str(endpoint), "Address already in use")
        listener = self._listeners[key] = _Listener(self, carrier, bound, accepted)
        self._owners[key] = carrier.name
        if carrier.name in self._down:
            self._down.remove(carrier.name)
            self._wake()
        return listener

    def unbind(self, listener: _Listener) -> None:
        """Release the endpoint of a listener."""
        key = (listener.endpoint.host, listener.endpoint.port, listener.endpoint.path)
        if self._listeners.get(key) is listener:
            del self._listeners[key]

    def dial(self, carrier: MemoryCarrier, endpoint: Endpoint, timeout: float) -> End:
        """Make a connection. Blocks the calling greenlet.

        Raises:
            OSError: It was refused, or there was no answer in time.
        """
        dial = _Dial(self, carrier, endpoint)
        self._dials[dial] = None
        try:
            return dial.wait(timeout)
        finally:
            del self._dials[dial]

    def find(self, endpoint: Endpoint) -> tuple[str, _Listener | None]:
        """Return whose endpoint this is (``""``: nobody's, ever), and who listens there now."""
        key = (endpoint.host, endpoint.port, endpoint.path)
        return self._owners.get(key, ""), self._listeners.get(key)

    def is_refused(self, source: str, target: str) -> bool:
        """Return whether one node's dials to another are refused."""
        return (source, target) in self._refused

    def draw_dial_seconds(self, source: str, target: str) -> float:
        """Return how long the way there takes for one who dials."""
        return self.draw_latency(source, target) + self._delay(source, target)[2]

    def free_port(self) -> int:
        """Return a port number that nobody has had."""
        return next(self._free_ports)

    def drop(self, carrier: MemoryCarrier, *, silent: bool) -> None:
        """End a carrier's listeners and connections; its node is not told, and the others only if it is not silent."""
        for listener in list(self._listeners.values()):
            if listener.carrier is carrier:
                listener.close()
        for end in [end for end in self._ends if end.home is carrier]:
            if silent:
                end.vanish()
            else:
                end.close()


class MemoryCarrier:
    """Connects one node of a :class:`MemoryNetwork`: see :class:`~aemp_gevent.transport.connector.Connector`.

    Args:
        network: Which.
        name: The node's ID.
    """

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        """The node, if the network made it."""
        self.is_dead = False
        """Whether it crashed: nothing goes in or out any more."""
        self._network = network

    def listen(self, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> _Listener:
        self._check_alive()
        return self._network.listen(self, endpoint, accepted)

    def dial(self, endpoints: Sequence[Endpoint], timeout: float) -> End:
        self._check_alive()
        deadline = monotonic() + timeout
        failures: list[str] = []
        for index, endpoint in enumerate(endpoints):
            share = max(deadline - monotonic(), 0.0) / (len(endpoints) - index)
            try:
                return self._network.dial(self, endpoint, share)
            except OSError as error:
                why = error.strerror or str(error)
                failures.append(why if len(endpoints) == 1 else f"{endpoint}: {why}")
        raise OSError("; ".join(failures) or "no endpoint")

    def _check_alive(self) -> None:
        if self.is_dead:
            raise OSError(errno.ENETDOWN, f"node {self.name} has crashed")

    def new_address(self) -> str:
        """Return where a connection that this node dials comes from."""
        host = next((endpoint.host for endpoint in endpoints_of(self.name)), "")
        return str(Endpoint(host or self.name, self._network.free_port()))

    def abandon(self) -> None:
        """Do nothing: what a forked child has of a network in memory is its own."""

    def die(self, *, silent: bool) -> None:
        """End everything. Idempotent."""
        self.is_dead = True
        self._network.drop(self, silent=silent)


class _Listener:
    """One endpoint that is bound; a :class:`~aemp_gevent.transport.connector.Listening`."""

    def __init__(
        self,
        network: MemoryNetwork,
        carrier: MemoryCarrier,
        endpoint: Endpoint,
        accepted: Callable[[Transport], None],
    ) -> None:
        self.endpoint = endpoint
        self.carrier = carrier
        self._network = network
        self._accepted = accepted
        self._backlog: list[End] | None = []  # None: accepted at once

    def start(self) -> None:
        backlog, self._backlog = self._backlog or [], None
        for end in backlog:
            self._network.at(0.0, lambda end=end: self.take(end))  # type: ignore[misc]  # mypy knows no such lambda

    def take(self, end: End) -> None:
        """Accept a connection, on the hub."""
        if self._backlog is not None:
            self._backlog.append(end)
        elif not end.is_closed:
            self._accepted(end)

    def abandon(self) -> None:
        self._network.unbind(self)

    def close(self) -> None:
        self._network.unbind(self)
        backlog, self._backlog = self._backlog or [], []
        for end in backlog:
            end.abort()


class _Dial:
    """An attempt to make a connection."""

    def __init__(self, network: MemoryNetwork, carrier: MemoryCarrier, endpoint: Endpoint) -> None:
        self.is_lost = False
        """Whether the request was swallowed, and will be made again when the lines work."""
        self._network = network
        self._carrier = carrier
        self._endpoint = endpoint
        self._end: End | None = None
        self._answer: AsyncResult[bool] = AsyncResult()
        self._given_up = False

    def wait(self, timeout: float) -> End:
        target, _ = self._network.find(self._endpoint)
        self._network.at(monotonic() + self._network.draw_dial_seconds(self._carrier.name, target), self.arrive)
        accepted = False
        try:
            accepted = bool(self._answer.wait(timeout))
        finally:
            if not accepted:
                self._give_up()
        if not self._answer.ready():
            raise TimeoutError(errno.ETIMEDOUT, "timed out")
        if self._end is None or not accepted:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return self._end

    def _give_up(self) -> None:
        self._given_up = True
        if self._end is not None:
            self._end.abort()

    def arrive(self) -> None:
        """Arrive at the listener; on the hub."""
        if self._given_up or self._carrier.is_dead:
            return
        network, source = self._network, self._carrier.name
        target, listener = network.find(self._endpoint)
        self.is_lost = network.is_blocked(source, target) or network.is_blocked(target, source)
        if self.is_lost:
            return
        accepted = listener is not None and not network.is_refused(source, target)
        if listener is not None and accepted:
            self._end, far = connect(
                network, self._carrier, self._carrier.new_address(), listener.carrier, str(self._endpoint)
            )
            listener.take(far)
        back = network.draw_latency(target, source)
        network.at(monotonic() + back, lambda: self._answer.set(accepted))


def _lay_to_rest(node: Node) -> None:
    """End everything of a node that is cut off in this process. Switches."""
    scheduler = node.scheduler
    for port in set(scheduler.ports.values()):
        if port.state != REMOTE:
            scheduler.kill_now(port, ("crashed", node.NODE()))
    # First without a word: nobody would hear it, and waiting for answers is what shutting down does.
    network = node._network  # pyright: ignore[reportPrivateUsage]
    if network is not None:
        network.close()
    node.shutdown(1.0)
