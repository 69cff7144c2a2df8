# SPDX-License-Identifier: MIT
"""Where a node listens: the endpoints that it binds, and the addresses at which others can dial it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Protocol

from aemp_gevent.addresses.endpoints import ANY_HOST, Endpoint, endpoints_of
from aemp_gevent.addresses.resolve import own_addresses
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.connector import Connector, Listening
from aemp_gevent.transport.transport import Transport

_log = Log()


class Accepting(Protocol):
    """What takes the connections that others make."""

    def accepted(self, transport: Transport) -> None:
        """Start a handshake on a connection that another node made."""


class ListenersHost(Protocol):
    """The network that listens."""

    @property
    def node_id(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def connector(self) -> Connector: ...
    @property
    def strangers(self) -> Accepting: ...


class Listeners:
    """The listening sockets of one node.

    Args:
        host: The network.
    """

    def __init__(self, host: ListenersHost) -> None:
        self._host = host
        self._listeners: list[Listening] = []

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints that are bound, with real ports."""
        return [listener.endpoint for listener in self._listeners]

    def bind(self, endpoints: Sequence[Endpoint]) -> None:
        """Bind endpoints. Nothing is accepted before :meth:`start`.

        Raises:
            ListenError: One cannot be bound; those before it are.
        """
        for endpoint in endpoints:
            self._listeners.append(self._host.connector.listen(endpoint, self._host.strangers.accepted))

    def start(self) -> None:
        """Begin to accept connections."""
        self._check_addresses()
        for listener in self._listeners:
            listener.start()

    def close(self) -> None:
        """Stop accepting. Idempotent."""
        for listener in self._listeners:
            listener.close()

    def clear(self) -> None:
        """Stop accepting, and forget the endpoints. Idempotent."""
        self.close()
        self._listeners.clear()

    def abandon(self) -> None:
        """Release the sockets in a forked child: the parent keeps accepting."""
        for listener in self._listeners:
            listener.abandon()

    def _check_addresses(self) -> None:
        """Log a warning if others can look for this node only on their own host, and no setting says so."""
        if endpoints_of(self._host.node_id) or not any(map(is_any, self.endpoints)):
            return
        told = self.addresses()
        if all(endpoint.host in ("127.0.0.1", "::1") for address in told for endpoint in endpoints_of(address)):
            text = (
                "node %s listens on all interfaces, but no address was found at which other hosts can reach this one: "
                "they get %s; set 'binds' to an address"
            )
            _log.warning(text, self._host.node_id, ", ".join(told))

    def addresses(self) -> list[str]:
        """Return where this node listens: endpoints that others can dial, as far as it knows."""
        endpoints = endpoints_of(self._host.node_id)
        return list(map(str, self.reachable(endpoints))) if endpoints else self.bound_addresses()

    def bound_addresses(self) -> list[str]:
        """Return the endpoints that are bound, with real ports and addresses."""
        return list(map(str, self.reachable(self.endpoints)))

    def reachable(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Return endpoints that others can dial instead of those that stand for all interfaces."""
        found: dict[Endpoint, None] = {}  # a set that keeps its order
        for endpoint in endpoints:
            if is_any(endpoint):
                hosts = self._hosts(endpoint.host)
                found |= dict.fromkeys(Endpoint(host, endpoint.port) for host in hosts)
            else:
                found[endpoint] = None
        return list(found)

    def _hosts(self, wildcard: str) -> list[str]:
        """Return this host's addresses that a wildcard stands for: loopback if there is no other."""
        seeds = self._host.settings.seeds
        hosts = own_addresses([endpoint.host for seed in seeds for endpoint in endpoints_of(seed) if endpoint.host])
        if wildcard != ANY_HOST:
            is_v6 = ":" in wildcard
            return [host for host in hosts if (":" in host) == is_v6] or ["::1" if is_v6 else "127.0.0.1"]
        return hosts or ["127.0.0.1"]


def is_any(endpoint: Endpoint) -> bool:
    """Return whether an endpoint stands for all interfaces: ``*``, ``0.0.0.0`` or ``::``."""
    if endpoint.path:
        return False
    return endpoint.host == ANY_HOST or ipaddress.ip_address(endpoint.host).is_unspecified
