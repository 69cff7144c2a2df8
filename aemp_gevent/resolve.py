# SPDX-License-Identifier: MIT
"""Noderefs to resolved noderefs: from host names to addresses.

The grammar is :mod:`aemp_gevent.ids`'; here are the look-ups, which block the
calling greenlet (and nobody else).
"""

from __future__ import annotations

import ipaddress
import logging
import socket as std_socket
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gevent import socket

from aemp_gevent import ids
from aemp_gevent.errors import ResolveError
from aemp_gevent.ids import Endpoint, parse_endpoint

# What socket.getaddrinfo returns; tests put another function in its place.
Lookup: TypeAlias = Callable[..., Iterable[tuple[Any, ...]]]

_log = logging.getLogger("aemp_gevent")


def resolve_node(noderef: str, *, lookup: Lookup = socket.getaddrinfo) -> str:
    """Return a noderef with every endpoint resolved; order kept, duplicates dropped. May switch greenlets.

    An empty component means port 4040 of this host, a bare number that port of this
    host, a host without a port its port 4040.

    Args:
        noderef: Comma-separated components.
        lookup: Stands in for ``socket.getaddrinfo`` in tests.

    Raises:
        InvalidNoderefError: A component is malformed, or a reserved name.
        ResolveError: A host name has no address; the text names the component.
    """
    found: list[str] = []
    ids.check_noderef(noderef)
    for component in noderef.split(","):
        word = component.strip()
        if not word or word.isdigit():
            endpoint = _this_host(int(word) if word else ids.DEFAULT_PORT, lookup)
        else:
            endpoint = resolve_endpoint(parse_endpoint(word), lookup=lookup)
        # Port 0 is any free port: two of them are two ports.
        if endpoint.port == 0 or str(endpoint) not in found:
            found.append(str(endpoint))
    return ",".join(found)


def resolve_endpoint(endpoint: Endpoint, *, lookup: Lookup = socket.getaddrinfo) -> Endpoint:
    """Return the endpoint with an address instead of a host name: its first one, IPv4 before IPv6.

    Raises:
        ResolveError: The host name has no address.
    """
    if endpoint.is_numeric:
        return endpoint
    addresses = _addresses(endpoint.host, str(endpoint), lookup)
    # IPv4 first: a name like localhost has both, and programs that listen on one
    # address nearly always listen on this one.
    addresses.sort(key=lambda address: ":" in address)
    return Endpoint(addresses[0], endpoint.port)


def _addresses(host: str, component: str, lookup: Lookup) -> list[str]:
    try:
        host.encode("idna")  # what Python's getaddrinfo does first, in a thread that prints what it thinks of it
        infos = lookup(host, None, type=std_socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ResolveError(component, error) from error
    addresses = [
        info[4][0] for info in infos if "%" not in info[4][0]
    ]  # an address with a scope means nothing elsewhere
    if not addresses:
        raise ResolveError(component, "it has no address")
    return addresses


def _this_host(port: int, lookup: Lookup) -> Endpoint:
    """Return an endpoint of this host that others can reach, if there is one."""
    name = std_socket.gethostname()
    try:
        addresses = _addresses(name, name, lookup)
    except ResolveError:
        addresses = []
    routable = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    routable = routable or _interface_addresses()
    if routable:
        return Endpoint(min(routable, key=lambda address: ":" in address), port)
    _log.warning("this host's name %r has no routable address: only nodes on this host will reach this one", name)
    return Endpoint(addresses[0] if addresses else "127.0.0.1", port)


def _interface_addresses() -> list[str]:
    """Return the address of the interface that leads to the rest of the world, if there is one."""
    # Many systems give the host's own name a loopback address. Connecting a datagram socket sends
    # nothing; it only has the system choose where a packet would leave. The address is one for documentation.
    with std_socket.socket(std_socket.AF_INET, std_socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        address: str = probe.getsockname()[0]
    return [] if ipaddress.ip_address(address).is_loopback else [address]
