# SPDX-License-Identifier: MIT
"""Visitors of the pages for operators: what they must know, and how long they may take."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pywsgi import WSGIHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PATIENCE_SECONDS = 30.0
"""How long a visitor may take to send a request, or to read a piece of the answer."""

MAX_CONNECTIONS = 200
"""Connections to one page at the same time; others wait."""


def has_bearer(environ: WSGIEnvironment, token: str) -> bool:
    """Return whether a request has a token in ``Authorization: Bearer …``."""
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    # WSGI gives bytes as text in Latin-1. Clients send other characters than ASCII in UTF-8, or in Latin-1.
    return scheme.lower() == "bearer" and any(is_token(each, token) for each in _readings(given.strip()))


def _readings(given: str) -> list[str]:
    try:
        return [given, given.encode("latin-1").decode()]
    except UnicodeError:
        return [given]


def is_token(given: str, token: str) -> bool:
    """Return whether a text is the token, in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


class _TimedFile:
    """The file from which requests are read. All of each must come in time, not each byte.

    Args:
        file: The connection's.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._until = 0.0

    def begin(self) -> None:
        """Expect the next request."""
        self._until = monotonic() + PATIENCE_SECONDS

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()

    def read(self, *size: int) -> bytes:
        return self._in_time(self._file.read, *size)

    def readline(self, *size: int) -> bytes:
        return self._in_time(self._file.readline, *size)

    def _in_time(self, read: Callable[..., bytes], *size: int) -> bytes:
        with gevent.Timeout(max(self._until - monotonic(), 0.0), TimeoutError("timed out")):
            return read(*size)


class ImpatientHandler(WSGIHandler):
    """Closes connections whose request does not come, or whose other end reads nothing: others get their turn."""

    # Not logged, as nobody here can mend such connections. The annotation of gevent allows only numbers.
    ignored_socket_errors: Any = (*WSGIHandler.ignored_socket_errors, "timed out")

    def handle(self) -> None:
        """Serve the requests of a connection."""
        self.socket.settimeout(PATIENCE_SECONDS)
        self.rfile: Any = _TimedFile(self.rfile)
        super().handle()

    def handle_one_request(self) -> Any:
        """Serve one request."""
        self.rfile.begin()
        return super().handle_one_request()

    def read_request(self, raw_requestline: str) -> Any:
        """Return whether the headers came."""
        try:
            return super().read_request(raw_requestline)
        except TimeoutError:
            return False
