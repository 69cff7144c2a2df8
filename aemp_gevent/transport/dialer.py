# SPDX-License-Identifier: MIT
"""Dials endpoints, and returns a connected socket. Blocks the calling greenlet."""

from __future__ import annotations

import socket as std_socket
from collections.abc import Sequence
from time import monotonic

from gevent import socket

from aemp_gevent.addresses.endpoints import Endpoint


def dial(endpoints: Sequence[Endpoint], timeout: float, under_way: set[socket.socket] | None = None) -> socket.socket:
    """Return a connection to the first endpoint that accepts one.

    Args:
        endpoints: The endpoints to try, in order.
        timeout: Seconds for all of them together; each gets an equal part of the time left.
        under_way: A set in which the socket is kept while it connects.

    Raises:
        OSError: None did; the text gives the reasons, and names several endpoints.
    """
    deadline = monotonic() + timeout
    failures: list[str] = []
    for index, endpoint in enumerate(endpoints):
        share = max(deadline - monotonic(), 0.1) / (len(endpoints) - index)
        try:
            return _connect(endpoint, share, set() if under_way is None else under_way)
        except OSError as error:
            why = error.strerror or str(error)
            failures.append(why if len(endpoints) == 1 else f"{endpoint}: {why}")
    raise OSError("; ".join(failures) or "no endpoint")


def _connect(endpoint: Endpoint, timeout: float, under_way: set[socket.socket]) -> socket.socket:
    # Not create_connection(): it asks the resolver, a thread, even for numeric addresses, and
    # a busy loop can keep that thread's answer waiting for seconds.
    if endpoint.path:
        sock = socket.socket(std_socket.AF_UNIX, std_socket.SOCK_STREAM)
        address: str | tuple[str, int] = endpoint.path
    else:
        family = std_socket.AF_INET6 if ":" in endpoint.host else std_socket.AF_INET
        sock = socket.socket(family, std_socket.SOCK_STREAM)
        address = (endpoint.host, endpoint.port)
    under_way.add(sock)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:  # also when the greenlet that waits is killed
        sock.close()
        raise
    finally:
        under_way.discard(sock)
    return sock
