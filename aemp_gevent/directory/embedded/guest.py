# SPDX-License-Identifier: MIT
"""One peer that has asked something of a global node, and what it brought."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from aemp_gevent.directory.merge import Source
from aemp_gevent.peers.peer import Peer


class Account(NamedTuple):
    """How much a peer brought."""

    entries: int
    """How many entries."""
    bytes: int
    """How large they are."""
    globals: Counter[str]
    """The global nodes that it announced, with the number of owners it named for each."""


class Guest:
    """A peer that has asked something of this node.

    Args:
        peer: That peer, whose link is up.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.is_ours = bool(peer.greeting and peer.greeting.is_ours)
        """Whether it runs this library."""
        self.is_global = False
        """Whether it is a global node itself."""
        self.is_heard = False
        """Whether it is global, and has sent everything that it has."""
        self.is_attached = False
        """Whether it runs another program, and has this node for its master, even if it is global itself."""
        self.families: set[str] = set()
        """What it watches."""
        self.sources: dict[Source, None] = {}
        """The sources whose entries it brought, as far as they have any."""
        self.repeated: set[tuple[str, str]] = set()
        """Families and keys that this node repeated to it from other global nodes."""
        self.account = Account(0, 0, Counter())
        """How much it brought."""
        self.leaving: list[tuple[Source, Source | None]] | None = None
        """Once its link is lost: the sources to drop, each with the orphan that keeps its entries, if any."""
        self.is_over = False
        """Whether it exceeded its share, which is logged once."""
