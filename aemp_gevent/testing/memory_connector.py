# SPDX-License-Identifier: MIT
"""What a node of a simulated network listens and dials with, in place of sockets: ``Node(carrier=…)`` takes it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from gevent.event import AsyncResult

from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.port import REMOTE
from aemp_gevent.testing.memory_addresses import MemoryAddresses
from aemp_gevent.testing.memory_connection import MemoryEnd, MemoryLines, connect
from aemp_gevent.transport.transport import Transport


class ConnectorNetwork(MemoryLines, Protocol):
    """The network, as its carriers use it."""

    @property
    def addresses(self) -> MemoryAddresses[MemoryListener]: ...

    def listen(
        self, carrier: MemoryConnector, endpoint: Endpoint, accepted: Callable[[Transport], None]
    ) -> MemoryListener:
        """Bind an endpoint for a carrier."""
        ...

    def dial(self, carrier: MemoryConnector, endpoint: Endpoint, timeout: float) -> MemoryEnd:
        """Make a connection. Blocks the calling greenlet."""
        ...

    def is_refused(self, source: str, target: str) -> bool:
        """Return whether one node's dials to another are refused."""
        ...

    def draw_dial_seconds(self, source: str, target: str) -> float:
        """Return how many seconds a request for a connection takes to the other node."""
        ...

    def drop(self, carrier: MemoryConnector, *, silent: bool) -> None:
        """End a carrier's listeners and connections."""
        ...


class MemoryConnector:
    """Connects one node of a :class:`MemoryNetwork`: see :class:`~aemp_gevent.transport.connector.Connector`.

    Args:
        network: The network.
        name: The node's ID.
    """

    def __init__(self, network: ConnectorNetwork, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        """The node, if the network made it."""
        self.is_dead = False
        """Whether it crashed: no more data goes in or out."""
        self._network = network

    def listen(self, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> MemoryListener:
        self._check_alive()
        return self._network.listen(self, endpoint, accepted)

    def dial(self, endpoints: Sequence[Endpoint], timeout: float) -> MemoryEnd:
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
        """Return the local address of the next connection that this node dials."""
        host = next((endpoint.host for endpoint in endpoints_of(self.name)), "")
        return str(Endpoint(host or self.name, self._network.addresses.free_port()))

    def abandon(self) -> None:
        """Do nothing, because a forked child has its own copy of a network in memory."""

    def die(self, *, silent: bool) -> None:
        """End all listeners and connections. Idempotent."""
        self.is_dead = True
        self._network.drop(self, silent=silent)


class MemoryListener:
    """One bound endpoint; a :class:`~aemp_gevent.transport.connector.Listening`."""

    def __init__(
        self,
        network: ConnectorNetwork,
        carrier: MemoryConnector,
        endpoint: Endpoint,
        accepted: Callable[[Transport], None],
    ) -> None:
        self.endpoint = endpoint
        self.carrier = carrier
        self._network = network
        self._accepted = accepted
        self._backlog: list[MemoryEnd] | None = []  # None: connections are accepted at once

    def start(self) -> None:
        backlog, self._backlog = self._backlog or [], None
        for end in backlog:
            self._network.clock.at(0.0, lambda end=end: self.take(end))  # type: ignore[misc]  # mypy cannot infer this lambda

    def take(self, end: MemoryEnd) -> None:
        """Accept a connection, on the hub."""
        if self._backlog is not None:
            self._backlog.append(end)
        elif not end.is_closed:
            self._accepted(end)

    def abandon(self) -> None:
        self._network.addresses.unbind(self)

    def close(self) -> None:
        self._network.addresses.unbind(self)
        backlog, self._backlog = self._backlog or [], []
        for end in backlog:
            end.abort()


class MemoryDial:
    """An attempt to make a connection."""

    def __init__(self, network: ConnectorNetwork, carrier: MemoryConnector, endpoint: Endpoint) -> None:
        self.is_lost = False
        """Whether the request was lost, and will be repeated when the lines work again."""
        self._network = network
        self._carrier = carrier
        self._endpoint = endpoint
        self._end: MemoryEnd | None = None
        self._answer: AsyncResult[bool] = AsyncResult()
        self._given_up = False

    def wait(self, timeout: float) -> MemoryEnd:
        target, _ = self._network.addresses.find(self._endpoint)
        self._network.clock.at(monotonic() + self._network.draw_dial_seconds(self._carrier.name, target), self.arrive)
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
        target, listener = network.addresses.find(self._endpoint)
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
        network.clock.at(monotonic() + back, lambda: self._answer.set(accepted))


def end_crashed_node(node: Node) -> None:
    """Kill the ports of a crashed node, and shut it down, so that this process is rid of it. Switches."""
    scheduler = node.scheduler
    for port in set(scheduler.ports.values()):
        if port.state != REMOTE:
            scheduler.kill_now(port, ("crashed", node.NODE()))
    # Before shutdown(), which would wait for answers from peers that cannot be reached.
    network = node._network  # pyright: ignore[reportPrivateUsage]
    if network is not None:
        network.close()
    node.shutdown(1.0)
