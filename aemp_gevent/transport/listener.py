# SPDX-License-Identifier: MIT
"""Listens on endpoints: one socket each, and one greenlet that accepts."""

from __future__ import annotations

import errno
import logging
import os
import socket as std_socket
import sys
from collections.abc import Callable
from time import monotonic

import gevent
from gevent import socket

from aemp_gevent.addresses.endpoints import ANY_HOST, Endpoint
from aemp_gevent.addresses.socket_folders import file_of, make_folder, new_socket_in, remove_dead, remove_own
from aemp_gevent.errors import ListenError
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.forking import Helper, close_quietly, keep
from aemp_gevent.runtime.logs import Log

BACKLOG = 128

_RETRY_SECONDS = 0.2
"""The pause before accepting again after an error such as "too many open files", which would repeat at once."""

_BURST = 8
"""Connections that are accepted without a pause, for nodes that start at once, even behind one address."""

_KEEP_SECONDS = 60.0
"""How often the file of a Unix socket is touched, and created again if it was removed."""

_log = Log()


class Pace:
    """Limits how fast connections are accepted, by all listeners of a node together.

    Args:
        rate: Connections per second, on average.
    """

    def __init__(self, rate: float) -> None:
        self._seconds = 1 / rate
        self._due = 0.0  # when the next one would come at exactly this rate

    def delay(self, now: float) -> float:
        """Count one more connection, and return the seconds to wait before the next one; 0.0 is at once."""
        self._due = max(self._due, now - (_BURST - 1) * self._seconds) + self._seconds
        return max(0.0, self._due - now)


class Listener:
    """Accepts connections on one endpoint.

    Args:
        endpoint: The endpoint; port 0 takes a free port, a folder a new Unix socket in it. The host ``*`` means
            all interfaces.
        accepted: Called with each connected socket, which it then owns.
        pace: Limits the rate; None: as fast as they come.

    Raises:
        ListenError: The endpoint cannot be bound.
    """

    def __init__(self, endpoint: Endpoint, accepted: Callable[[socket.socket], None], pace: Pace | None = None) -> None:
        self._accepted = accepted
        self._pace = pace
        self._closed = False
        self._complaints = BoundedLog(_log.log, f"connections to {endpoint}")
        try:
            if endpoint.is_folder:
                endpoint = Endpoint("", 0, new_socket_in(endpoint.path))
            self._socket = _bind(endpoint)
        except OSError as error:
            raise ListenError(str(endpoint), error.strerror or error) from error
        self.endpoint = endpoint
        """The endpoint, with the real port or path."""
        if not endpoint.path:
            self.endpoint = Endpoint(endpoint.host, self._socket.getsockname()[1])
        self._file = file_of(self.endpoint.path) if self.endpoint.path else None
        self._greenlet: Helper | None = None
        self._keeper: Helper | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._greenlet = Helper.spawn(self._accept)
        if self.endpoint.path:
            self._keeper = Helper.spawn(self._keep_file)

    def _keep_file(self) -> None:
        """Touch the socket's file, so that cleaners of old files leave it, and create it again if it was removed."""
        while not self._closed:
            self._look_after_file()
            gevent.sleep(_KEEP_SECONDS, ref=False)  # must not keep the loop of a program from ending

    def _look_after_file(self) -> None:
        path = self.endpoint.path
        found = file_of(path)
        try:
            if found == self._file:
                os.utime(path)
            elif found is None:
                self._listen_again()
                _log.warning("the socket %s was removed, and has been created again", path)
        except OSError as error:
            _log.warning("the socket %s was removed, and cannot be created again: %s", path, error)

    def _listen_again(self) -> None:
        make_folder(os.path.dirname(self.endpoint.path))  # noqa: PTH120
        former, self._socket = self._socket, _bind(self.endpoint)
        self._file = file_of(self.endpoint.path)
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
        former.close()
        self._greenlet = Helper.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._socket.accept()
            except OSError as error:
                if self._closed:
                    return
                self._complaints.warn("cannot accept on %s: %s", self.endpoint, error)
                gevent.sleep(_RETRY_SECONDS)
                continue
            try:
                self._accepted(sock)
            except OSError as error:  # the stranger is gone already
                self._complaints.log(logging.DEBUG, "a connection to %s was gone at once: %s", self.endpoint, error)
                sock.close()
            delay = self._pace.delay(monotonic()) if self._pace is not None else 0.0
            if delay:
                # A real pause, in which other greenlets run: waiting connections are in the system's backlog.
                gevent.sleep(delay)

    def abandon(self) -> None:
        """Close this process's copy of the socket, in a forked child; the parent keeps accepting."""
        for helper in self._helpers:
            helper.stopped = True
            keep(helper)
        if not self._closed:
            self._closed = True
            close_quietly(self._socket)

    def close(self) -> None:
        """Stop accepting. Idempotent."""
        if self._closed:
            return  # another listener may have the path meanwhile
        self._closed = True
        for helper in self._helpers:
            helper.kill(block=False)
        if self.endpoint.path:
            remove_own(self.endpoint.path, self._file)
        self._socket.close()

    @property
    def _helpers(self) -> list[Helper]:
        return [helper for helper in (self._greenlet, self._keeper) if helper is not None]


def _bind(endpoint: Endpoint) -> socket.socket:
    if endpoint.path:
        sock = socket.socket(std_socket.AF_UNIX, std_socket.SOCK_STREAM)
        address: str | tuple[str, int] = endpoint.path
    else:
        if endpoint.host == ANY_HOST:
            return _bind_to_all(endpoint.port)
        sock = _tcp_socket(endpoint.host)
        address = (endpoint.host, endpoint.port)
    if endpoint.path:
        remove_dead(endpoint.path)
    return _listen(sock, address)


def _bind_to_all(port: int) -> socket.socket:
    """Listen on all interfaces, by one socket for IPv6 and IPv4; on a host that has no IPv6 for IPv4 alone."""
    if std_socket.has_dualstack_ipv6():
        sock = _tcp_socket("::")
        sock.setsockopt(std_socket.IPPROTO_IPV6, std_socket.IPV6_V6ONLY, 0)
        try:
            return _listen(sock, ("::", port))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 is switched off
                raise
    return _listen(_tcp_socket("0.0.0.0"), ("0.0.0.0", port))  # noqa: S104  # all interfaces were asked for


def _tcp_socket(host: str) -> socket.socket:
    sock = socket.socket(std_socket.AF_INET6 if ":" in host else std_socket.AF_INET, std_socket.SOCK_STREAM)
    if sys.platform != "win32":
        # A restarted node must get its port back although old connections linger.
        sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_REUSEADDR, 1)
    return sock


def _listen(sock: socket.socket, address: str | tuple[str, int]) -> socket.socket:
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
