# SPDX-License-Identifier: MIT
"""The wire of the directory, ``gproto=1``: what may be said to whom, and what is taken from a peer.

The requests themselves are :mod:`aemp_gevent.directory.embedded.client`'s and
:mod:`aemp_gevent.directory.embedded.server`'s. Perl's strings and numbers change into each other with
their use, so a number where a text belongs is taken for its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aemp_gevent.directory.engine import Entries
from aemp_gevent.directory.merge import Change
from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.peer import Peer
from aemp_gevent.wire.framing import name_of_port

GLOBALS = "'g"
"""The family of global nodes: their IDs."""

Packet = list[Any]


def speaks(peer: Peer) -> bool:
    """Return whether a peer whose link is up knows this protocol."""
    return peer.greeting is not None and peer.greeting.extra("gproto") is not None


# --- saying ---


def send(peer: Peer, *request: Any) -> None:
    """Send a request if the link is up; what is lost with a link is sent again over the next one."""
    if peer.is_up:
        peer.send(["", *request])


def send_change(peer: Peer, make: Callable[[Change], Packet], change: Change) -> None:
    """Send a change, in parts if it is too large for one message. Never raises.

    Values that this peer's framing cannot carry are left out, with a log line.

    Args:
        peer: To whom.
        make: Makes the packet of a change, or of a part of it.
        change: What to send.
    """
    try:
        if peer.is_up:
            peer.send(make(change))
        return
    except (MessageTooLargeError, UnencodableMessageError) as error:
        if len(change.entries) + len(change.deleted) <= 1:
            key = next(iter(change.entries), "")
            peer.complaints.warn("the entry %s cannot be told to node %s: %s", key, peer.node, error)
            return
    items, keys = list(change.entries.items()), change.deleted
    half, middle = (len(items) + 1) // 2, len(keys) // 2
    send_change(peer, make, Change(dict(items[:half]), keys[:middle]))
    send_change(peer, make, Change(dict(items[half:]), keys[middle:]))


def send_whole(peer: Peer, whole: Packet, empty: Packet) -> bool:
    """Send a packet with everything in it, or, if it is too large or holds what cannot be sent, an empty one.

    Returns:
        Whether everything was sent; if not, changes are to bring it.
    """
    if not peer.is_up:
        return True
    try:
        peer.send(whole)
    except (MessageTooLargeError, UnencodableMessageError):
        if peer.is_up:
            peer.send(empty)
        return False
    return True


# --- hearing ---


def text(value: Any) -> str:
    """Return a text that a peer sent.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return name_of_port(value)
    raise TypeError(f"a text was expected, and not a {type(value).__name__}")


def entries(value: Any) -> Entries:
    """Return the entries that a peer sent; nil stands for none at all.

    Raises:
        TypeError: It is not a map.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"a map was expected, and not a {type(value).__name__}")
    return {text(key): its for key, its in value.items()}


def database(value: Any) -> dict[str, Entries]:
    """Return a database that a peer sent: entries by family.

    Raises:
        TypeError: It is not one.
    """
    return {family: entries(its) for family, its in entries(value).items()}


def texts(value: Any) -> list[str]:
    """Return the texts that a peer sent; nil stands for none at all.

    Raises:
        TypeError: It is not a list of texts.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, and not a {type(value).__name__}")
    return [text(item) for item in value]
