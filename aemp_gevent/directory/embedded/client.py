# SPDX-License-Identifier: MIT
"""A node as the client of its master: what it sends to that global node, and what it takes from it.

When it attaches to a master, it sends all its entries and the families it watches. When that link is lost, it sends
all of it again to the next master, so nothing has to be remembered of what the former one knew; queries without an
answer are sent again. Until other clients, too, had the time to attach to the new master, what that one does not
have is not taken for deleted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any

from aemp_gevent.directory.embedded import protocol as gproto
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.protocol import send, send_update, send_whole
from aemp_gevent.directory.embedded.server import DirectoryServer
from aemp_gevent.directory.embedded.turns import Turns
from aemp_gevent.directory.engine import Entries, Observer, Query
from aemp_gevent.directory.merge import Change
from aemp_gevent.peers.peer import Peer
from aemp_gevent.wire.vocabulary import G_DB_FAMILY, G_DB_KEYS, G_DB_VALUES, G_FIND, G_MON0, G_MON1, G_SLAVE

_QUERIES: dict[Query, str] = {"family": G_DB_FAMILY, "keys": G_DB_KEYS, "values": G_DB_VALUES}


class DirectoryClient:
    """The node's watches, queries and look-ups, and the master that answers them, if there is one.

    Args:
        host: The node's links.
        turns: Makes the calls of timers.
    """

    def __init__(self, host: EmbeddedHost, turns: Turns) -> None:
        self._host = host
        self._turns = turns
        self._observer: Observer | None = None
        self._master: Peer | None = None
        self._watched: dict[str, bool] = {}  # by family: whether the master has sent the whole
        self._told: set[str] = set()  # families of which the observer has had the whole, from any master
        self._sparing: dict[str, Entries] = {}  # what a new master has, by family, until its deletions are believed
        self._grace_timer: int | None = None
        self._queries: dict[str, tuple[Query, str, Callable[[Any], None]]] = {}
        self._finds: dict[str, list[Callable[[Collection[str] | None], None]]] = {}
        self._numbers = itertools.count(1)

    @property
    def master(self) -> Peer | None:
        """The global node that this one is a client of; None: there is none now."""
        return self._master

    def start(self, observer: Observer) -> None:
        """Begin: the observer gets what the master sends."""
        self._observer = observer

    def stop(self) -> None:
        """End the timer. Idempotent."""
        self._end_grace()

    # --- the master ---

    def attach(self, master: Peer, families: dict[str, Entries]) -> None:
        """Become the client of a global node: send it everything.

        Args:
            master: That node, whose link is up.
            families: The node's own entries.
        """
        self._end_grace()
        if self._told:
            grace = self._host.settings.heartbeat_timeout
            self._grace_timer = self._host.scheduler.start_timer(grace, self._turns.take, self._believe)
        if not send_whole(master, ["", G_SLAVE, families], ["", G_SLAVE, {}]):
            for family, entries in families.items():
                send_update(master, family, Change(entries, []))
        for family in self._watched:
            self._watched[family] = False
            send(master, G_MON1, family)
        for number, (what, family, _answered) in self._queries.items():
            send(master, _QUERIES[what], family, number)
        for node in self._finds:
            send(master, G_FIND, node)
        self._master = master  # not before: what is interrupted until here is done again

    def lost_master(self) -> None:
        """Forget the master: its link is down."""
        self._master = None
        self._end_grace()  # what this master did not report yet, the next one may

    def leave_master(self) -> None:
        """Leave the master, as this node has all that it has."""
        master = self._master
        # A Perl node dropped this one's watches when it heard that it is global, and would take
        # it for a client again if it unwatched anything.
        if master is not None and master.greeting is not None and master.greeting.is_ours:
            for family in self._watched:
                send(master, G_MON0, family)
        self._master = None

    def hand_over(self, server: DirectoryServer) -> None:
        """Serve the node's own watches and queries from its own directory from now on."""
        self._end_grace()
        for family in self._watched:
            server.watch(family)
        for what, family, answered in list(self._queries.values()):
            answered(server.answer(what, family))
        self._queries.clear()
        for node, asked in list(self._finds.items()):
            for found in asked:
                found(server.find(node))
        self._finds.clear()

    def _end_grace(self) -> None:
        timer, self._grace_timer = self._grace_timer, None
        if timer is not None:
            self._host.scheduler.end_timer(timer)
        self._sparing.clear()

    def _believe(self) -> None:
        """Take what the new master does not have for deleted: its other clients have had the time to attach."""
        assert self._observer is not None
        for family, entries in list(self._sparing.items()):
            self._observer.replaced(family, entries)
        self._end_grace()

    # --- what the node asks for ---

    def publish(self, family: str, entries: Entries, deleted: list[str]) -> None:
        """Send a change of the node's own entries."""
        assert self._observer is not None
        if self._master is not None:
            send_update(self._master, family, Change(entries, deleted))
        elif deleted and family in self._told:
            self._observer.changed(family, {}, deleted)  # the next master will not report it

    def watch(self, family: str) -> None:
        """Watch a family."""
        self._watched[family] = False
        if self._master is not None:
            send(self._master, G_MON1, family)

    def unwatch(self, family: str) -> None:
        """Stop watching a family."""
        self._watched.pop(family, None)
        self._told.discard(family)
        self._sparing.pop(family, None)
        if self._master is not None:
            send(self._master, G_MON0, family)

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once."""
        number = str(next(self._numbers))
        self._queries[number] = (what, family, answered)
        if self._master is not None:
            send(self._master, _QUERIES[what], family, number)

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens."""
        if self._master is not None and node not in self._finds:
            send(self._master, G_FIND, node)
        self._finds.setdefault(node, []).append(answered)  # not before: what is interrupted until here is done again

    # --- what the master sends; from other peers it is ignored ---

    def replied(self, peer: Peer, number: Any, answer: Any, *_more: Any) -> None:
        """``g_reply``: take the answer to a query."""
        asked = self._queries.get(gproto.text(number))
        if asked is None or peer is not self._master:
            return
        what, _family, answered = asked
        if what == "family":
            answer = gproto.entries(answer)
        elif what == "keys":
            answer = gproto.texts(answer)
        elif not isinstance(answer, list):
            raise TypeError(f"expected a list of values, got a {type(answer).__name__}")
        answered(answer)
        self._queries.pop(gproto.text(number), None)  # not before: what is interrupted until here is done again

    def found(self, peer: Peer, node: Any, addresses: Any = None, *_more: Any) -> None:
        """``g_found``: take the addresses of a node."""
        if peer is self._master:
            found = gproto.texts(addresses) or None
            name = gproto.text(node)
            for answered in self._finds.get(name, ()):
                answered(found)
            self._finds.pop(name, None)

    def whole(self, peer: Peer, family: Any, entries: Any = None, *_more: Any) -> None:
        """``g_chg1``: take the whole of a watched family."""
        assert self._observer is not None
        name = gproto.text(family)
        if peer is self._master and name in self._watched:
            whole = gproto.entries(entries)
            self._watched[name] = True
            if self._grace_timer is not None and name in self._told:
                self._sparing[name] = whole
                self._observer.changed(name, dict(whole), ())
            else:
                self._observer.replaced(name, whole)
                self._told.add(name)

    def changed(self, peer: Peer, family: Any, entries: Any = None, deleted: Any = None, *_more: Any) -> None:
        """``g_chg2``: take a change of a watched family."""
        assert self._observer is not None
        name = gproto.text(family)
        if peer is self._master and self._watched.get(name):
            changed, gone = gproto.entries(entries), gproto.texts(deleted)
            spared = self._sparing.get(name)
            if spared is not None:
                spared.update(changed)
                for key in gone:
                    spared.pop(key, None)
            self._observer.changed(name, changed, gone)
