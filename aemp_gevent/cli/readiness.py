# SPDX-License-Identifier: MIT
"""Reporting whether a node is ready: to systemd, in a file, or over HTTP for Kubernetes.

All three report the same: a node is *ready* when others can rely on it. It is not ready while it
starts, while a crashed service waits for its restart, and after the node was asked to end.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import gevent
from gevent import socket
from gevent.server import StreamServer

from aemp_gevent.runtime.quoting import quoted

_PROBE_SECONDS = 2.0
_MAX_PROBES = 32
_MAX_HEAD_BYTES = 8 * 1024
"""Longer than the requests of kubelet, curl and load balancers."""


class ServiceManager:
    """systemd's notification protocol: datagrams of lines to the socket that ``NOTIFY_SOCKET`` names.

    Without that variable nothing is sent.

    Args:
        environ: The environment variables.

    Source:
        sd_notify(3) and sd_watchdog_enabled(3).
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog: gevent.Greenlet[..., None] | None = None
        wanted_by = environ.get("WATCHDOG_PID")
        usec = environ.get("WATCHDOG_USEC", "")
        is_ours = wanted_by is None or wanted_by == str(os.getpid())
        self.watchdog_seconds = int(usec) / 1e6 if usec.isdecimal() and is_ours else 0.0
        """How often it expects a sign of life before it kills the process, in seconds; 0: never."""

    def tell(self, *lines: str) -> None:
        """Send lines such as ``READY=1``. Delivery is not confirmed."""
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto("\n".join(lines).encode(), address)

    def reloading(self) -> None:
        """Report that the configuration is being reloaded, until ``READY=1`` is sent."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def start_watchdog(self) -> None:
        """Send signs of life in time from this event loop, so that they stop if the loop is blocked."""
        if self.watchdog_seconds:
            self._watchdog = gevent.spawn(self._live, self.watchdog_seconds / 2)

    def _live(self, seconds: float) -> None:
        while True:
            self.tell("WATCHDOG=1")
            gevent.sleep(seconds)

    def stop(self) -> None:
        """Stop the signs of life. Idempotent."""
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog = None


class ReadyFile:
    """A file that exists while the node is ready, and contains its ID.

    Args:
        path: The file's path; an existing file is removed.

    Raises:
        click.ClickException: The file cannot be created there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not os.access(path.parent, os.W_OK):
            fault = "is not writable" if path.parent.is_dir() else "does not exist; create it first"
            raise click.ClickException(f"--ready-file {path}: the folder {path.parent} {fault}")
        self.remove()

    def write(self, node_id: str) -> None:
        """Create the file atomically."""
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            new.write_text(node_id + "\n")
            new.replace(self._path)
        except OSError as error:
            raise click.ClickException(f"{self._path}: {error.strerror or error}") from error

    def remove(self) -> None:
        """Remove the file. Idempotent."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise click.ClickException(f"{self._path}: {error.strerror or error}") from error


class HealthPort:
    """HTTP for probes: ``/livez`` answers 200 while the loop runs, ``/readyz`` while the node is ready, otherwise 503.

    Anyone can connect, so each connection is limited to one short request, and is closed after two seconds.

    Args:
        address: ``port``, or ``host:port``; without a host it listens on all IPv4 interfaces.
        readiness: Whether the node is ready.
    """

    def __init__(self, address: str, readiness: Readiness) -> None:
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not port.isdecimal() or not int(port) < 2**16:
            raise click.UsageError(f"--health-port must be PORT or HOST:PORT, not {quoted(address)}")
        self._address = (host, int(port))
        self._readiness = readiness
        self._server: StreamServer | None = None

    def start(self) -> None:
        """Begin to listen.

        Raises:
            click.ClickException: The address cannot be used.
        """
        listener = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
            listener.listen()
        except OSError as error:
            listener.close()
            text = f"cannot listen on {self._address[1]} for --health-port: {error.strerror or error}"
            raise click.ClickException(text) from error
        self._server = StreamServer(listener, self._serve, spawn=_MAX_PROBES)
        self._server.start()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before it listens."""
        return (self._server.server_port or 0) if self._server is not None else 0

    def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._server is not None:
            self._server.stop(timeout=1)

    def _serve(self, connection: Any, _address: object) -> None:  # gevent's socket
        with contextlib.suppress(OSError, gevent.Timeout), gevent.Timeout(_PROBE_SECONDS):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
                received = connection.recv(_MAX_HEAD_BYTES)
                if not received:
                    return
                head += received
            connection.sendall(self._answer(head.split(b" ", 2)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(_MAX_HEAD_BYTES):  # unread data would reset the connection
                pass

    def _answer(self, words: list[bytes]) -> bytes:
        path = words[1].partition(b"?")[0] if len(words) > 1 else b""
        why = self._readiness.why_not
        if path not in {b"/livez", b"/readyz"}:
            status, text = "404 Not Found", "use /livez or /readyz"
        elif path == b"/readyz" and why:
            status, text = "503 Service Unavailable", why
        else:
            status, text = "200 OK", "ready" if path == b"/readyz" else "alive"
        body = f"{text}\n".encode()
        head = [
            f"HTTP/1.1 {status}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        return "\r\n".join([*head, "", ""]).encode() + (b"" if words[0] == b"HEAD" else body)


class Readiness:
    """Whether a node is ready, reported to systemd and in a file.

    Args:
        manager: The connection to systemd.
        file: A file that exists while the node is ready; None: none.
    """

    def __init__(self, manager: ServiceManager, file: ReadyFile | None) -> None:
        self._manager = manager
        self._file = file
        self._node_id = ""
        self.why_not = "starting"
        """Why the node is not ready; empty when it is."""

    def now(self, why_not: str, node_id: str) -> None:
        """Report the node's state, if it has changed."""
        if why_not == self.why_not:
            return
        self.why_not, self._node_id = why_not, node_id
        if self._file is not None:
            if why_not:
                self._file.remove()
            else:
                self._file.write(node_id)
        if why_not:
            self._manager.tell(f"STATUS={node_id}: {why_not}")
        else:
            self._manager.tell("READY=1", f"STATUS={node_id} is ready")

    def repeat(self) -> None:
        """Report to systemd that reloading is done."""
        self._manager.tell("READY=1", f"STATUS={self._node_id}: {self.why_not or 'ready'}")
