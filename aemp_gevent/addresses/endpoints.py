# SPDX-License-Identifier: MIT
"""Endpoints: the addresses at which nodes listen, and their text in noderefs and binds.

Pure string work, like :mod:`aemp_gevent.addresses.ids`, which describes the grammar.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from aemp_gevent.errors import InvalidNoderefError
from aemp_gevent.runtime.quoting import escaped, quoted

DEFAULT_PORT = 4040
"""The port of an endpoint that names none, as in AnyEvent::MP."""

MAX_PORT = 65535

ANY_HOST = "*"
"""Stands for all interfaces in a bind."""

RESOLVE_SECONDS = 15.0
"""Seconds for all look-ups for one noderef together."""

_HOST = re.compile(r"[A-Za-z0-9_.-]+")


class Endpoint(NamedTuple):
    """One place where a node listens: a TCP address and port, or a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        # Logs show the elements of tuples, and so show an endpoint as users write it.
        return str(self)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of Unix sockets."""
        return self.path.endswith("/")

    @property
    def is_numeric(self) -> bool:
        """Whether it can be dialled without asking the name service."""
        if self.path:
            return True
        import ipaddress  # noqa: PLC0415  # not when the package is imported

        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def is_port_number(digits: str, lowest: int) -> bool:
    """Return whether a string of digits is a TCP port from ``lowest`` on."""
    # The length first: int() refuses thousands of digits with a ValueError of its own.
    return len(digits) <= len(str(MAX_PORT)) and lowest <= int(digits) <= MAX_PORT


def parse_endpoint(component: str) -> Endpoint:
    """Return the endpoint that a noderef component names; a missing port becomes :data:`DEFAULT_PORT`.

    Understands ``host:port``, ``host``, ``1.2.3.4``, ``[v6]:port``, ``[v6]`` and
    ``unix:/path``. The shorthands that mean *this host* (an empty component, a bare
    port number) have no host to return and belong to :mod:`aemp_gevent.addresses.resolve`.

    Raises:
        InvalidNoderefError: It does not have one of these forms.
    """
    if component.startswith("unix:"):
        path = component[len("unix:") :]
        if not path.startswith("/") or not path.isprintable():
            raise InvalidNoderefError(component, "a Unix socket needs an absolute path of printable characters")
        return Endpoint("", 0, path)
    if component.startswith("["):
        host, bracket, rest = component[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidNoderefError(component, "its brackets hold no IPv6 address followed by ':port'")
        import ipaddress  # noqa: PLC0415  # not when the package is imported

        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise InvalidNoderefError(component, str(error)) from None
        number = rest[1:] if rest else str(DEFAULT_PORT)
    else:
        host, colon, number = component.partition(":")
        if not colon:
            number = str(DEFAULT_PORT)
        elif ":" in number:
            raise InvalidNoderefError(component, "an IPv6 address needs brackets")
        if not _HOST.fullmatch(host):
            raise InvalidNoderefError(component, f"{quoted(host)} is not a host name")
    if not (number.isascii() and number.isdigit()):
        raise InvalidNoderefError(component, f"{quoted(number)} is not a port number (0 to {MAX_PORT})")
    if not is_port_number(number, 0):
        raise InvalidNoderefError(component, f"the port number {escaped(number, 20)} is out of range 0-{MAX_PORT}")
    return Endpoint(host, int(number))


def parse_bind(bind: str) -> Endpoint:
    """Return the endpoint of a bind: as in a noderef; ``*``, ``*:port`` or a bare port mean all interfaces.

    Raises:
        InvalidNoderefError: It does not have one of these forms.
    """
    if bind.isdigit():
        bind = f"{ANY_HOST}:{bind}"
    host, _, number = bind.partition(":")
    if host == ANY_HOST:
        return Endpoint(ANY_HOST, parse_endpoint(f"0.0.0.0:{number or 0}").port)
    return parse_endpoint(bind)


def endpoints_of(noderef: str) -> tuple[Endpoint, ...]:
    """Return the endpoints of a resolved noderef, in order; ``()`` when it is another kind of node ID."""
    try:
        found = tuple(parse_endpoint(component) for component in noderef.split(","))
    except InvalidNoderefError:
        return ()
    # "localhost" parses, with the default port: a resolved noderef names its port.
    spelled_out = all(str(endpoint) == component for endpoint, component in zip(found, noderef.split(","), strict=True))
    return found if spelled_out and all(endpoint.is_numeric for endpoint in found) else ()


def is_resolved(noderef: str) -> bool:
    """Return whether every endpoint is numeric, so that the noderef is a node ID that can be dialled."""
    return bool(endpoints_of(noderef))
