# SPDX-License-Identifier: MIT
"""The directory's protocol, ``gproto=1``: sending its requests, and checking the arguments that peers send.

The requests are sent and handled in :mod:`aemp_gevent.directory.embedded.client` and
:mod:`aemp_gevent.directory.embedded.server`. Perl's strings and numbers change into each other with
their use, so a number in the place of a text is taken for its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aemp_gevent.directory.engine import Entries
from aemp_gevent.directory.merge import Change
from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.peer import Peer
from aemp_gevent.wire.framing import name_of_port
from aemp_gevent.wire.vocabulary import G_UPD

GLOBALS = "'g"
"""The family of global nodes: their IDs."""

Packet = list[Any]


def speaks(peer: Peer) -> bool:
    """Return whether a peer whose link is up speaks this protocol."""
    return peer.greeting is not None and peer.greeting.extra("gproto") is not None


# --- sending ---


def send(peer: Peer, *request: Any) -> None:
    """Send a request if the link is up; what is lost with a link is sent again over the next one.

    One that this peer's framing cannot carry is left out, with a log line, so that the requests after it are sent.
    """
    try:
        if peer.is_up:
            peer.send(["", *request])
    except (MessageTooLargeError, UnencodableMessageError) as error:
        peer.complaints.warn("the request %s cannot be sent to node %s: %s", request[0], peer.node, error)


def send_change(peer: Peer, make: Callable[[Change], Packet], change: Change) -> None:
    """Send a change, in parts if it is too large for one message. Never raises.

    Values that this peer's framing cannot carry are left out, with a log line.

    Args:
        peer: The peer to send it to.
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
            peer.complaints.warn("the entry %s cannot be sent to node %s: %s", key, peer.node, error)
            return
    items, keys = list(change.entries.items()), change.deleted
    half, middle = (len(items) + 1) // 2, len(keys) // 2
    send_change(peer, make, Change(dict(items[:half]), keys[:middle]))
    send_change(peer, make, Change(dict(items[half:]), keys[middle:]))


def send_update(peer: Peer, family: str, change: Change, *owner: str) -> None:
    """Send a change of the sender's entries, or of those of the owner that is named, to a global node."""

    def make(part: Change) -> Packet:
        return ["", G_UPD, family, part.entries or None, part.deleted, *owner]

    send_change(peer, make, change)


def send_whole(peer: Peer, whole: Packet, empty: Packet) -> bool:
    """Send a packet with everything in it, or an empty one if that is too large or contains what cannot be sent.

    Returns:
        Whether everything was sent; if not, send it as changes.
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


# --- checking ---


def text(value: Any) -> str:
    """Return a text that a peer sent; a number is taken for its digits.

    Raises:
        TypeError: The value is not a text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return name_of_port(value)
    raise TypeError(f"expected a text, got a {type(value).__name__}")


def entries(value: Any) -> Entries:
    """Return the entries that a peer sent; nil stands for no entries.

    Raises:
        TypeError: The value is not a map.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(f"expected a map, got a {type(value).__name__}")
    return {text(key): its for key, its in value.items()}


def database(value: Any) -> dict[str, Entries]:
    """Return a database that a peer sent: entries by family.

    Raises:
        TypeError: The value is not a map of maps.
    """
    return {family: entries(its) for family, its in entries(value).items()}


def texts(value: Any) -> list[str]:
    """Return the texts that a peer sent; nil stands for no texts.

    Raises:
        TypeError: The value is not a list of texts.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got a {type(value).__name__}")
    return [text(item) for item in value]
