# SPDX-License-Identifier: MIT
"""Requests to etcd v3: calls and streams, as JSON over HTTP (its *gRPC gateway*).

The HTTP is the standard library's, over gevent's sockets: its connections take any socket,
so that this needs neither monkey-patching nor another library. geventhttpclient was
considered: recent versions need Python 3.11 and gevent 25.9, and they offer neither a deadline for a
whole request nor a way to close only this process's copies of the sockets in a forked child.

etcd's gRPC itself is not used: grpcio has threads and an event loop of its own.

Everything here switches greenlets. For what is sent to etcd see :mod:`aemp_gevent.directory.etcd.engine`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket as std_socket
import ssl as std_ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Iterator
from typing import Any

import gevent
from gevent import socket, ssl

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import AempError
from aemp_gevent.runtime.forking import close_quietly
from aemp_gevent.settings.directory_address import EtcdAddress

Json = dict[str, Any]
"""A JSON object, with values of any type that etcd takes or sends."""

NOT_FOUND = 5
"""The code of an error about something that does not exist, such as a lease. Codes are gRPC's."""

# etcd is asked to cut the answers of a watch into parts of its limit for requests, 1.5 MiB, which base64 makes longer.
_MAX_LINE_BYTES = 64 * 2**20

# A watch may be silent for hours, just like a host that is gone: only keepalives tell them apart.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

# What an HTTP connection may fail with. ValueError: an answer that is not JSON.
_FAILURES = (OSError, http.client.HTTPException, ValueError, EOFError)


class EtcdError(AempError):
    """A request failed: etcd refused it, or cannot be reached.

    Attributes:
        code: Why it refused, as a code of gRPC; None: unknown.
    """

    def __init__(self, why: object, code: int | None = None) -> None:
        super().__init__(str(why))
        self.code = code


class EtcdLostError(EtcdError):
    """The member does not answer, or cannot serve anybody; the request may have been carried out or not."""


class Cluster:
    """What all connections of an engine share: the members of a cluster, and which one to talk to.

    Args:
        address: The cluster.
    """

    def __init__(self, address: EtcdAddress) -> None:
        self.address = address
        self.token: str | None = None
        """Proves which user we are, if authentication is on; None: not requested yet."""
        self._tls: ssl.SSLContext | None = None
        # So that not all nodes talk to the first member.
        self._endpoints = list(address.endpoints)
        random.shuffle(self._endpoints)

    @property
    def endpoint(self) -> Endpoint:
        """The member to talk to: the same for all connections, so that all avoid a member that one found to fail."""
        return self._endpoints[0]

    def failed(self, endpoint: Endpoint) -> None:
        """Turn to the next member, unless another connection has done so already."""
        if endpoint == self._endpoints[0]:
            self._endpoints.append(self._endpoints.pop(0))

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context; None if the cluster is used without TLS.

        Raises:
            EtcdError: A certificate cannot be read.
        """
        address = self.address
        if address.tls and self._tls is None:
            try:
                # Not create_default_context(), even gevent's: that makes contexts whose sockets block the whole thread.
                context = ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)  # which verifies, names too
                if address.ca is None:
                    context.load_default_certs()
                else:
                    context.load_verify_locations(address.ca)
                if address.cert is not None:
                    context.load_cert_chain(address.cert, address.key)
            except (OSError, std_ssl.SSLError) as error:
                files = ", ".join(filter(None, (address.ca, address.cert, address.key)))
                raise EtcdError(f"the certificates ({files}) cannot be used: {error}") from error
            self._tls = context
        return self._tls


class _EtcdConnection(http.client.HTTPConnection):
    """An HTTP connection over gevent's sockets."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self._seconds = timeout
        self._is_numeric = endpoint.is_numeric
        self._context = tls
        self.raw: socket.socket | None = None
        """The socket, also when the base class has handed it to a response."""

    def connect(self) -> None:
        sock = self._dial()
        sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
        sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(std_socket, name):
                sock.setsockopt(std_socket.IPPROTO_TCP, getattr(std_socket, name), value)
        if self._context is not None:
            secured = self._context.wrap_socket(sock, server_hostname=self.host, do_handshake_on_connect=False)
            sock = self.raw = secured  # before it can fail, so that it is closed then
            secured.do_handshake()
        sock.settimeout(None)  # the whole request has a timeout
        self.sock = sock

    def _dial(self) -> socket.socket:
        # Not create_connection(), which leaves a socket open when it is interrupted, and asks the resolver
        # even about numeric addresses.
        family = std_socket.AF_INET6 if ":" in self.host else std_socket.AF_INET
        targets: list[tuple[int, Any]] = [(family, (self.host, self.port))]
        if not self._is_numeric:
            found = socket.getaddrinfo(self.host, self.port, type=std_socket.SOCK_STREAM)
            targets = [(int(kind), address) for kind, _, _, _, address in found]
        for number, (kind, address) in enumerate(targets, 1):
            self.raw = sock = socket.socket(kind, std_socket.SOCK_STREAM)
            sock.settimeout(self._seconds / len(targets))
            try:
                sock.connect(address)
                return sock
            except OSError:
                sock.close()
                if number == len(targets):
                    raise
        raise OSError("the host has no address")

    def close(self) -> None:
        super().close()
        if self.raw is not None:
            self.raw.close()
            self.raw = None


class EtcdClient:
    """One connection to a cluster, for one greenlet: made when needed, kept for the next request.

    Args:
        cluster: The cluster.
        timeout: Seconds that a call may take, and a stream until its first answer.
        heard: Called at each answer that is not a refusal.
    """

    def __init__(self, cluster: Cluster, timeout: float, heard: Callable[[], None]) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._heard = heard
        self._connection: _EtcdConnection | None = None
        self._endpoint = cluster.endpoint

    def call(self, path: str, body: Json, *, timeout: float | None = None) -> Json:
        """Return the answer to one request; of a stream the first one.

        Args:
            path: Below ``/v3/``.
            body: The request.
            timeout: Seconds; None: as given to the class.

        Raises:
            EtcdLostError: etcd did not answer in time, or the connection broke; the request may have been carried out.
            EtcdError: etcd refused.
        """
        with self._attempt(self._timeout if timeout is None else timeout):
            answer = _unwrap(self._request(path, body).read().split(b"\n", 1)[0])
        self._heard()
        return answer

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """Yield the answers of a stream until it breaks. Close the client afterwards, in any case.

        There is only one request: etcd's gateway may stop reading requests once it has begun to answer.

        Raises:
            EtcdLostError, EtcdError: As in :meth:`call`; the first also when the stream breaks.
        """
        with self._attempt(self._timeout):
            response = self._request(path, body)
            line = response.readline(_MAX_LINE_BYTES)
        while True:
            with self._attempt(None):
                if not line.endswith(b"\n"):
                    raise EOFError("the stream broke off")
                answer = _unwrap(line)
            self._heard()
            yield answer
            with self._attempt(None):
                line = response.readline(_MAX_LINE_BYTES)

    @contextlib.contextmanager
    def _attempt(self, seconds: float | None) -> Generator[None, None, None]:
        """Turn failures into EtcdErrors, and close the connection then."""
        patience = gevent.Timeout(seconds)
        patience.start()
        try:
            yield
        except BaseException as error:
            self.close()
            if error is patience:
                raise self._lost(f"no answer within {seconds:g} s") from None
            if isinstance(error, _FAILURES):
                raise self._lost(str(error) or type(error).__name__) from error
            if isinstance(error, EtcdLostError):
                self._cluster.failed(self._endpoint)
            raise
        finally:
            patience.close()

    def _request(self, path: str, body: Json) -> http.client.HTTPResponse:
        """Send a request and return the response, whose status is OK."""
        response = self._post(path, body)
        if response.status == http.client.UNAUTHORIZED and self._cluster.token is not None:
            self._cluster.token = None  # it has expired
            response.read()
            response = self._post(path, body)
        if response.status != http.client.OK:
            raise self._refusal(response)
        return response

    def _lost(self, why: str) -> EtcdLostError:
        self._cluster.failed(self._endpoint)
        return EtcdLostError(f"{self._endpoint}: {why}")

    def _post(self, path: str, body: Json) -> http.client.HTTPResponse:
        cluster = self._cluster
        if self._endpoint != cluster.endpoint:
            self.close()
        if self._connection is None:
            self._endpoint = cluster.endpoint
            self._connection = _EtcdConnection(self._endpoint, cluster.tls(), self._timeout)
        connection, address = self._connection, cluster.address
        headers = {"Content-Type": "application/json"}
        if address.user is not None:
            if cluster.token is None:
                user = {"name": address.user, "password": address.password}
                connection.request("POST", "/v3/auth/authenticate", json.dumps(user).encode(), headers)
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise self._refusal(response)
                cluster.token = str(_unwrap(response.read()).get("token", ""))
            headers["Authorization"] = cluster.token
        connection.request("POST", "/v3/" + path, json.dumps(body).encode(), headers)
        return connection.getresponse()

    def _refusal(self, response: http.client.HTTPResponse) -> EtcdError:
        text = response.read()
        why, code = f"HTTP status {response.status} {response.reason}", None
        with contextlib.suppress(ValueError, AttributeError):
            answer = json.loads(text)
            code = answer.get("code")
            why = answer.get("message") or answer.get("error") or why
        return _error(f"{self._endpoint}: {why}", code, is_ours=response.status < http.client.INTERNAL_SERVER_ERROR)

    def close(self) -> None:
        """Close the connection; the next request makes another. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """Close this process's copy of the connection, in a forked child: the parent keeps using it."""
        if self._connection is not None and self._connection.raw is not None:
            close_quietly(self._connection.raw)


def _unwrap(line: bytes) -> Json:
    """Return one answer; answers of a stream are wrapped in another object."""
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise EtcdLostError("the answer is not a JSON object")
    error = answer.get("error")
    if isinstance(error, dict):
        raise _error(error.get("message"), error.get("grpc_code"), is_ours=error.get("http_code", 500) < 500)
    result: Json = answer.get("result", answer)
    return result


def _error(why: object, code: object, *, is_ours: bool) -> EtcdError:
    number = code if isinstance(code, int) else None
    return EtcdError(why, number) if is_ours else EtcdLostError(why, number)


def encoded(key: bytes) -> str:
    """Return bytes as etcd's JSON represents them."""
    return b64encode(key).decode()


def decoded(text: object) -> bytes:
    """Return bytes from etcd's JSON, which leaves empty ones out."""
    return b64decode(text) if isinstance(text, str) else b""
