# SPDX-License-Identifier: MIT
"""One end of a session between two nodes: a port, and a secret word without which it takes nothing.

The IDs of ports can be guessed from those of others of the same node. Only the other side of the session knows the
word, so what comes with it was sent from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hmac import compare_digest
from typing import Any, NamedTuple

from aemp_gevent.addresses import ids
from aemp_gevent.calls.serve import ServeHost, is_port
from aemp_gevent.node.node import Node
from aemp_gevent.ports.patterns import Handler

MAX_WAITING = 100_000
"""Messages that may wait at one end of a session, while the processor is busy; one more ends it."""


class Address(NamedTuple):
    """How the other side reaches an end of a session."""

    port: str
    secret: str

    def send(self, node: Node, what: str, *rest: Any) -> None:
        """Send a message there. Switches where ``snd`` does."""
        # The secret is behind the first word, which the errors of ``snd`` show.
        node.snd(self.port, what, self.secret, *rest)


class SessionPort:
    """A port of this node for a session.

    Args:
        node: This node.
        handlers: What handles the messages, by their first words.
    """

    def __init__(self, node: Node, handlers: Mapping[str, Handler]) -> None:
        self.address = Address(node.port(limit=MAX_WAITING), ids.new_uniq())
        for what, handler in handlers.items():
            node.rcv(self.id, what, partial(self._take, handler))

    @property
    def id(self) -> str:
        """The port's ID."""
        return self.address.port

    def _take(self, handler: Handler, secret: object = None, *rest: Any) -> None:
        if isinstance(secret, str) and secret.isascii() and compare_digest(secret, self.address.secret):
            handler(*rest)


def address_of(host: ServeHost, node_id: str, port: object, secret: object) -> Address | None:
    """Return an address that another node has sent; None if it is not one, or of a third node."""
    if not isinstance(port, str) or not isinstance(secret, str) or not is_port(host, port):
        return None
    return Address(port, secret) if host.split_port(port)[0] == node_id else None
