# SPDX-License-Identifier: MIT
"""What a global node believes and keeps of the entries that its peers bring.

**Where a node listens** is believed from the node itself, over its own link, and after
that from global nodes: for an owner that they name they may send this owner's addresses, and
on their own account, which counts least, those of any node. What a client sends about another node is refused. So
a liar never hides what a node sends about itself. As a lie about a node that has no
link to this one cannot be told from the truth, a look-up returns all that is known, the best first, and
the dialler tries one address after the other.

**How much** is bounded: entries and bytes of each peer, and the global nodes that it announces: this node dials them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from aemp_gevent.directory.embedded.guest import Account, Guest
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.protocol import GLOBALS
from aemp_gevent.directory.engine import NODES, Entries
from aemp_gevent.directory.merge import Change, Source
from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.wire.framing_msgpack import make_resting_encoder

MAX_BYTES = 64 * 2**20
"""Bytes of one client's entries that are kept, counted as they are sent."""

GLOBAL_SHARE = 20
"""A global node may bring as much as this many clients: it brings what all of its own have."""

MAX_GLOBALS = 200
"""Global nodes that one peer may announce: this node dials all of them."""


class Screening:
    """Decides which entries of a peer are believed, and counts them.

    Args:
        host: The node's links.
        warn: Logs a warning about the directory.
    """

    def __init__(self, host: EmbeddedHost, warn: Callable[..., None]) -> None:
        self._host = host
        self._warn = warn
        self._max_entries = host.settings.max_directory_entries
        self._max_bytes = MAX_BYTES
        self._encode = make_resting_encoder()

    def screen(self, guest: Guest, source: Source, family: str, change: Change, has: Entries) -> tuple[Change, Account]:
        """Return what to apply of a change, and the account of its peer after that.

        Args:
            guest: The peer that brought it.
            source: The source of the entries.
            family: The name of the family.
            change: What is new to this node.
            has: What the source has in this family so far.
        """
        if family in (NODES, GLOBALS):
            change = self._credible(guest, source, family, change)
        return self._within_bounds(guest, family, change, has)

    def _credible(self, guest: Guest, source: Source, family: str, change: Change) -> Change:
        """Return what to believe of a change in a family about nodes."""
        announced = set(guest.account.globals - Counter(change.deleted))

        def is_credible(key: str) -> bool:
            if family == NODES:
                return key == source[0] or (guest.is_global and source[0] == guest.peer.node)
            if len(announced) < MAX_GLOBALS:
                announced.add(key)
            return key in announced

        refused = {key for key in change.entries if not is_credible(key)}
        if not refused:
            return change
        self._host.refusals["directory"] += len(refused)
        if family == NODES:
            text = "node %s sent the address of another node, which is ignored: %.200r"
        else:
            text = f"node %s announced more than {MAX_GLOBALS} global nodes; this one is ignored: %.200r"
        guest.peer.complaints.warn(text, guest.peer.node, min(refused))
        return Change({key: value for key, value in change.entries.items() if key not in refused}, change.deleted)

    def _within_bounds(self, guest: Guest, family: str, change: Change, has: Entries) -> tuple[Change, Account]:
        """Return what to keep of a change, and the account then; an entry whose new value is too much is deleted."""
        count, total, announced = guest.account
        share = GLOBAL_SHARE if guest.is_global else 1
        kept, deleted = dict(change.entries), list(change.deleted)
        for key in deleted:
            count -= 1
            total -= self._weight(family, key, has[key])
        for key, value in change.entries.items():
            old = self._weight(family, key, has[key]) if key in has else 0
            new = self._weight(family, key, value)
            entries, size = count + (key not in has), total + new - old
            if new and entries <= share * self._max_entries and size <= share * self._max_bytes:
                count, total = entries, size
                continue
            del kept[key]
            if key in has:
                deleted.append(key)
                count -= 1
                total -= old
            if not new:
                continue
            self._host.refusals["directory"] += 1
            if not guest.is_over:
                guest.is_over = True
                self._warn(
                    "node %s has more directory entries than are kept for one node (%d entries, %d bytes): "
                    "the rest is left out",
                    guest.peer.node,
                    share * self._max_entries,
                    share * self._max_bytes,
                )
        if family == GLOBALS:
            announced = announced + Counter(key for key in kept if key not in has) - Counter(deleted)
        return Change(kept, deleted), Account(count, total, announced)

    def _weight(self, family: str, key: str, value: Any) -> int:
        """Return how many bytes an entry has; 0 if it cannot be sent to nodes of this library."""
        try:
            return len(self._encode([family, key, value]))
        except UnencodableMessageError as error:
            self._warn("the entry %s is left out: %s", key, error)
            return 0
