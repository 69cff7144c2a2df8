# SPDX-License-Identifier: MIT
"""The addresses of a simulated network: which node listens where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from aemp_gevent.addresses.endpoints import ANY_HOST, Endpoint, endpoints_of
from aemp_gevent.errors import ListenError

_FIRST_FREE_PORT = 40000


class BoundAt(Protocol):
    """Anything that listens on an endpoint."""

    endpoint: Endpoint


ListenerT = TypeVar("ListenerT", bound=BoundAt)


class MemoryAddresses(Generic[ListenerT]):
    """The listeners of all nodes by their endpoints."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, int, str], ListenerT] = {}
        self._owners: dict[tuple[str, int, str], str] = {}  # the node that listens, or last listened, there
        self._free_ports = itertools.count(_FIRST_FREE_PORT)

    def bind(self, endpoint: Endpoint, node: str, listen: Callable[[Endpoint], ListenerT]) -> ListenerT:
        """Bind an endpoint for a node; ``listen`` returns the listener at the resulting endpoint.

        Raises:
            ListenError: The endpoint is in use.
        """
        host, port = endpoint.host, endpoint.port
        if host == ANY_HOST:
            # The interfaces of a simulated host are unknown; the node's own address is one of them.
            host = next((own.host for own in endpoints_of(node)), host)
        bound = Endpoint(host, port or (0 if endpoint.path else self.free_port()), endpoint.path)
        key = _key(bound)
        if key in self._listeners:
            raise ListenError(str(endpoint), "Address already in use")
        listener = self._listeners[key] = listen(bound)
        self._owners[key] = node
        return listener

    def unbind(self, listener: ListenerT) -> None:
        """Release the endpoint of a listener. Idempotent."""
        key = _key(listener.endpoint)
        if self._listeners.get(key) is listener:
            del self._listeners[key]

    def find(self, endpoint: Endpoint) -> tuple[str, ListenerT | None]:
        """Return the node that listens, or last listened, at an endpoint (``""``: none), and its listener, if any."""
        key = _key(endpoint)
        return self._owners.get(key, ""), self._listeners.get(key)

    def listeners(self) -> list[ListenerT]:
        """Return all listeners."""
        return list(self._listeners.values())

    def free_port(self) -> int:
        """Return a port number that was never used."""
        return next(self._free_ports)


def _key(endpoint: Endpoint) -> tuple[str, int, str]:
    return endpoint.host, endpoint.port, endpoint.path
