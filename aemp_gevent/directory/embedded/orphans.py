# SPDX-License-Identifier: MIT
"""Entries that only a lost global node knew: kept until their owners had the time to attach to another one."""

from __future__ import annotations

from collections.abc import Callable

from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.turns import Turns
from aemp_gevent.directory.merge import Source

_LOST = "\uffff"
"""Before the teller in a source whose teller was lost: it sorts after all others of its owner, whose news count."""


def orphan_of(source: Source) -> Source:
    """Return the source that keeps the entries of one whose teller was lost."""
    owner, teller = source
    return owner, _LOST + teller


class Orphans:
    """The sources whose tellers were lost, each until its owner attaches elsewhere or its time is over.

    Args:
        host: The node's links.
        turns: Makes the calls of timers.
        drop: Deletes all entries of a source.
    """

    def __init__(self, host: EmbeddedHost, turns: Turns, drop: Callable[[Source], None]) -> None:
        self._host = host
        self._turns = turns
        self._drop = drop
        self._terms: dict[Source, object] = {}

    def keep(self, sources: list[Source]) -> None:
        """Keep orphaned sources for the ``heartbeat_timeout``."""
        term = object()
        self._terms.update(dict.fromkeys(sources, term))
        grace = self._host.settings.heartbeat_timeout
        self._host.scheduler.start_timer(grace, self._turns.take, self._end_term, sources, term)

    def _end_term(self, sources: list[Source], term: object) -> None:
        for source in sources:
            if self._terms.get(source) is term:
                self._forget(source)

    def _forget(self, source: Source) -> None:
        self._drop(source)
        self._terms.pop(source, None)  # not before: what is interrupted until here is done again

    def found_home(self, source: Source) -> None:
        """Drop what lost global nodes knew of an owner that has sent all it has elsewhere.

        What a global node sends about others only replaces what it had sent itself: a lie must not take away the truth.
        """
        owner, teller = source
        for orphan in [orphan for orphan in self._terms if orphan[0] == owner and orphan != source]:
            if not teller or orphan == orphan_of(source) or teller == owner:
                self._forget(orphan)
