# SPDX-License-Identifier: MIT
"""Visitors of the pages for operators: what they must know, and how long they may take."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from gevent.pywsgi import WSGIHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PATIENCE_SECONDS = 30.0
"""How long a visitor may do nothing that was expected."""


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


class ImpatientHandler(WSGIHandler):
    """Closes connections over which nothing comes, or whose other end reads nothing, so that others get their turn."""

    # Not logged, as nobody here can mend such connections. The annotation of gevent allows only numbers.
    ignored_socket_errors: Any = (*WSGIHandler.ignored_socket_errors, "timed out")

    def handle(self) -> None:
        """Serve the requests of a connection."""
        self.socket.settimeout(PATIENCE_SECONDS)
        super().handle()

    def read_request(self, raw_requestline: str) -> Any:
        """Return whether the headers came."""
        try:
            return super().read_request(raw_requestline)
        except TimeoutError:
            return False
