# SPDX-License-Identifier: MIT
"""Resolves noderefs: replaces host names by addresses.

This module knows what each form of a component means. The grammar is in :mod:`aemp_gevent.addresses.ids`, and the
questions to the name service are in :mod:`aemp_gevent.addresses.name_service`.
"""

from __future__ import annotations

import ipaddress
import socket as std_socket
from collections.abc import Iterable

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import DEFAULT_PORT, Endpoint, parse_endpoint
from aemp_gevent.addresses.name_service import Names, NameService
from aemp_gevent.addresses.socket_folders import sockets_in
from aemp_gevent.errors import ResolveError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

# Addresses for documentation, which no host has: the route to them is the route to the rest of the world.
_ELSEWHERE = ((std_socket.AF_INET, "192.0.2.1"), (std_socket.AF_INET6, "2001:db8::1"))

_log = Log()


def resolve_node(noderef: str, names: Names | None = None) -> str:
    """Return a noderef with every endpoint resolved; order kept, duplicates dropped. May switch greenlets.

    An empty component means port 4040 of this host, a bare number that port of this
    host. A host without a port means what its SRV record (``_aemp._tcp.host``) says, by
    priority and weight, and its port 4040 when it has none. A host with several
    addresses is its first one, IPv4 before IPv6.

    Args:
        noderef: Comma-separated components.
        names: The name service to ask; None: the system's, for at most 15 seconds in all.

    Raises:
        InvalidNoderefError: A component is malformed, or a reserved name.
        ResolveError: A host name has no address; the text names the component.
    """
    ids.check_noderef(noderef)
    asked = names or NameService()
    found: list[str] = []
    for component in noderef.split(","):
        for endpoint in _resolve_component(component.strip(), asked):
            # Port 0 is any free port: two of these are two ports.
            if (endpoint.port == 0 and not endpoint.path) or str(endpoint) not in found:
                found.append(str(endpoint))
    return ",".join(found)


def _resolve_component(component: str, names: Names) -> list[Endpoint]:
    if not component or component.isdigit():
        return [_this_host(int(component) if component else DEFAULT_PORT, names)]
    endpoint = parse_endpoint(component)
    if endpoint.is_numeric:
        return [endpoint]
    if ":" in component:
        return [Endpoint(_address(endpoint.host, component, names), endpoint.port)]
    try:
        services = names.services(endpoint.host)
    except OSError as error:
        raise ResolveError(component, error) from error
    if not services:
        return [Endpoint(_address(endpoint.host, component, names), endpoint.port)]
    return _resolve_services(component, services, names)


def _resolve_services(component: str, services: list[tuple[str, int]], names: Names) -> list[Endpoint]:
    """Return the endpoints of all services that have an address."""
    found: list[Endpoint] = []
    failures: list[str] = []
    for host, port in services:
        try:
            found.append(Endpoint(_address(host, component, names), port))
        except ResolveError as error:
            failures.append(f"{host}: {error.__cause__ or error}")
    if not found:
        raise ResolveError(component, "none of the hosts in its SRV record has an address; " + "; ".join(failures))
    return found


def resolve_all(name: str, names: Names | None = None) -> list[Endpoint]:
    """Return every endpoint that a host name stands for, with a port or without. May switch greenlets.

    Other than :func:`resolve_node`, which wants one address of each host.

    Args:
        name: ``host:port``: that port of all its addresses. ``host``: all that its SRV record
            names; if it has none, port 4040 of all its addresses. A folder: all Unix sockets in it.
        names: The name service to ask; None: the system's, for at most 15 seconds in all.

    Raises:
        InvalidNoderefError: It is malformed.
        ResolveError: There is no address.
        OSError: The folder cannot be read.
    """
    asked = names or NameService()
    endpoint = parse_endpoint(name)
    if endpoint.is_folder:
        return sockets_in(endpoint.path)
    services = [(endpoint.host, endpoint.port)]
    if ":" not in name:
        try:
            services = asked.services(endpoint.host) or services
        except OSError as error:
            raise ResolveError(name, error) from error
    found: dict[Endpoint, None] = {}  # a set that keeps its order
    failure: ResolveError | None = None
    for host, port in services:
        try:
            found.update({Endpoint(address, port): None for address in _addresses(host, name, asked)})
        except ResolveError as error:
            failure = error
    if failure is not None and not found:
        raise failure
    return list(found)


def resolve_endpoint(endpoint: Endpoint, names: Names | None = None) -> Endpoint:
    """Return the endpoint with an address instead of a host name: its first one, IPv4 before IPv6.

    Raises:
        ResolveError: The host name has no address.
    """
    if endpoint.is_numeric:
        return endpoint
    return Endpoint(_address(endpoint.host, str(endpoint), names or NameService()), endpoint.port)


def _address(host: str, component: str, names: Names) -> str:
    addresses = _addresses(host, component, names)
    # IPv4 first: a name like localhost has both, and programs that listen on one
    # address nearly always listen on this one.
    return min(addresses, key=lambda address: ":" in address)


def _addresses(host: str, component: str, names: Names) -> list[str]:
    try:
        found = names.addresses(host)
    except (OSError, UnicodeError) as error:
        raise ResolveError(component, error) from error
    addresses = [address for address in found if "%" not in address]  # one with a scope means nothing elsewhere
    if not addresses:
        raise ResolveError(component, "it has no address")
    return addresses


def _this_host(port: int, names: Names) -> Endpoint:
    """Return an endpoint of this host that others can reach, if there is one."""
    name = std_socket.gethostname()
    try:
        addresses = _addresses(name, name, names)
    except ResolveError:
        addresses = []
    routable = list(filter(_is_routable, addresses)) or own_addresses()
    if routable:
        return Endpoint(min(routable, key=lambda address: ":" in address), port)
    _log.warning(
        "this host's name %s has no routable address: only nodes on this host will reach this one", quoted(name)
    )
    loopback = [address for address in addresses if ipaddress.ip_address(address).is_loopback]
    return Endpoint(loopback[0] if loopback else "127.0.0.1", port)


def _is_routable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def own_addresses(others: Iterable[str] = ()) -> list[str]:
    """Return the addresses at which others may reach this host, IPv4 first; ``[]`` if it seems to be alone.

    They are those of the interfaces that lead to the rest of the world. Asks no name service.

    Args:
        others: Addresses of hosts that this one talks to. On a host without a way to the rest of the world the
            way to them counts.
    """
    found: list[str] = []
    for family, elsewhere in _ELSEWHERE:
        is_v6 = family == std_socket.AF_INET6
        for target in (elsewhere, *(other for other in others if (":" in other) == is_v6)):
            address = _address_towards(family, target)
            if address is not None and _is_routable(address):
                found.append(address)
                break
    return found


def _address_towards(family: int, target: str) -> str | None:
    """Return the address that this host has on the way to another, if there is a way."""
    # Many systems give the host's own name a loopback address. Connecting a datagram socket sends
    # nothing; it only has the system choose where a packet would leave.
    try:
        with std_socket.socket(family, std_socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
