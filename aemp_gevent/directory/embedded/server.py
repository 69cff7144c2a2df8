# SPDX-License-Identifier: MIT
"""The directory as a global node keeps it, together with all other global nodes, and serves it to its clients.

The database has three sources: this node's own entries, those of its *clients* (nodes
that sent ``g_slave``: this is their master), and what the other global nodes brought, which
are their own entries and their clients'. Each goes with the link it came over. A change of
the first two is passed on to the other global nodes, one of the third is not: every global
node has a link to every other.

**Owners.** Of several owners of a key the smallest one's value counts, so all global nodes
must know who owns what, to agree. AnyEvent::MP's ``g_set`` and ``g_upd`` do not
contain it. Between nodes of this library both have one more argument, the owner, and a ``g_set`` is
about this owner only; the sender's own entries come last. A Perl node gets one ``g_set`` with
everything merged, and what it brings counts as its own.

**Perl nodes that are both.** A Perl node that was global before it found a seed has that seed for its master
all the same: it sends its own changes to nobody else, and expects to get them back from its master, like
all other global nodes. So what such a node brings is passed on as a client's is, to itself as well.

**The mesh.** A global node that meets another sends it all nodes that it has links to: their
entries in the families ``'g`` and ``'l``, repeated as its own, as Perl does. The other dials those it has no
link to (:mod:`aemp_gevent.directory.embedded.mesh`), which are sent its own links in turn. Nodes that were there
before are not sent the newcomers, as Perl would do: those dial them, and with a hundred global nodes that would be a
million messages.

This module is longer than 400 lines because all changes of the three sources are made here, so that each is whole or
made again when an interrupt strikes.

Nothing here switches. What a peer sends is checked first; if it is wrong, a TypeError ends
in the log, as with all requests. Which entries are believed: :mod:`aemp_gevent.directory.embedded.screening`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from aemp_gevent.directory.embedded import protocol as gproto
from aemp_gevent.directory.embedded.guest import Guest
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.mesh import Mesh
from aemp_gevent.directory.embedded.orphans import Orphans, orphan_of
from aemp_gevent.directory.embedded.protocol import GLOBALS, Packet, send, send_change, send_update, send_whole
from aemp_gevent.directory.embedded.screening import Screening
from aemp_gevent.directory.embedded.turns import Turns
from aemp_gevent.directory.engine import NODES, Entries, Observer, Query
from aemp_gevent.directory.merge import Change, Merged, Source
from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.peer import Peer
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.wire.vocabulary import G_CHG1, G_CHG2, G_FOUND, G_REPLY, G_SET

MAX_WATCHES = 10_000
"""Families that one node may watch."""

MAX_FOUND = 16
"""How many addresses of one node a look-up returns."""


class _Begun(NamedTuple):
    """A change that is being made."""

    source: Source
    family: str
    change: Change
    guest: Guest | None


class DirectoryServer:
    """The directory, as one global node keeps it.

    Args:
        host: The node's links.
        observer: The node itself, which may watch families, too.
        synced: Called when another global node has sent all it has.
        turns: Makes the calls of timers.
    """

    def __init__(self, host: EmbeddedHost, observer: Observer, synced: Callable[[], None], turns: Turns) -> None:
        self._host = host
        self._observer = observer
        self._synced = synced
        self._begun: _Begun | None = None  # the change that is being made
        self.warn = BoundedLog(host.scheduler.log_soon, "the directory").warn
        self._me: Source = (host.node_id, "")
        self._others: Source = (host.node_id, host.node_id)  # what is repeated from other global nodes
        self._merged = Merged()
        self._near: Merged | None = None  # without what global nodes brought; kept once a Perl node needs it
        self._guests: dict[Peer, Guest] = {}
        self._watchers: dict[str, dict[Peer | None, None]] = {}  # by family; None: this node
        self._screening = Screening(host, self.warn)
        self._orphans = Orphans(host, turns, self._drop)
        self._mesh = Mesh(host, self._missing, self.warn)

    def stop(self) -> None:
        """End the timer. Idempotent."""
        self._mesh.stop()

    # --- entries ---

    def publish(self, family: str, entries: Entries, deleted: Iterable[str] = ()) -> None:
        """Change this node's own entries."""
        self._change(self._me, family, entries, deleted)

    def _change(
        self, source: Source, family: str, entries: Entries, deleted: Iterable[str], guest: Guest | None = None
    ) -> None:
        """Change the entries of a source, and send that to everybody who needs it."""
        if self._begun is not None:
            self.mend()
        change = self._merged.news(source, family, entries, list(deleted))
        account = None
        if guest is not None:
            has = self._merged.of(source).get(family, {})
            change, account = self._screening.screen(guest, source, family, change, has)
        if change.is_empty:
            return
        # No call between these, so that an interrupt finds both made, or none.
        self._begun = _Begun(source, family, change, guest)
        if guest is not None and account is not None:
            guest.account = account
        seen = self._merged.apply(source, family, change)
        near = self._near.apply(source, family, change) if self._near and self._is_near(source) else Change({}, [])
        self._spread(self._begun, seen, near)
        self._begun = None

    def _spread(self, begun: _Begun, seen: Change, near: Change) -> None:
        """Send a change that was applied to everybody who needs it. Repeatable."""
        source, family, change, guest = begun
        if guest is not None:
            if self._merged.of(source):
                guest.sources[source] = None
            else:
                guest.sources.pop(source, None)  # or a peer could fill the memory with owners that have nothing
        if self._is_near(source):
            self._pass_on(source, family, change, near)
        if seen.is_empty:
            return
        self._notify_watchers(family, seen)
        if family == GLOBALS and seen.entries:
            self._mesh.dial()

    def mend(self) -> None:
        """Bring a change to an end that was interrupted: nobody knows how far it went. Repeatable.

        Everybody gets the entries as they are then, some for a second time.
        """
        if self._begun is not None:
            source, family, change, _guest = self._begun
            self._merged.rebuild()
            self._merged.apply(source, family, self._merged.news(source, family, *change))
            near = self._near = None if self._near is None else self._make_near()
            keys = [*change.entries, *change.deleted]
            near_state = Change({}, []) if near is None else near.state(family, keys)
            self._spread(self._begun, self._merged.state(family, keys), near_state)
            self._begun = None
        self._mesh.lost()

    def _is_near(self, source: Source) -> bool:
        """Whether entries are this node's own, a client's, or repeated on this node's account."""
        return not source[1] or source == self._others

    def _drop(self, source: Source, guest: Guest | None = None) -> None:
        for family, entries in list(self._merged.of(source).items()):
            self._change(source, family, {}, list(entries), guest)

    # --- sending ---

    def _pass_on(self, source: Source, family: str, change: Change, near: Change) -> None:
        """Send the other global nodes what this node, or a client of it, changed; Perl nodes get ``near``."""
        guests = [guest for guest in self._linked() if guest.is_global]
        for guest in guests:
            if guest.is_ours and source == self._others:
                gone = [key for key in change.deleted if (family, key) in guest.repeated]
                if gone:
                    send_update(guest.peer, family, Change({}, gone), source[0])
                guest.repeated.difference_update((family, key) for key in gone)
            elif guest.is_ours:
                send_update(guest.peer, family, change, source[0])
            elif not near.is_empty:
                send_update(guest.peer, family, near)

    def _notify_watchers(self, family: str, change: Change) -> None:
        def make(part: Change) -> Packet:
            return ["", G_CHG2, family, part.entries, part.deleted]

        for watcher in list(self._watchers.get(family, ())):
            if watcher is None:
                self._observer.changed(family, change.entries, change.deleted)
            else:
                send_change(watcher, make, change)

    def _send_database(self, peer: Peer, families: dict[str, Entries], *owner: str) -> None:
        # A Perl node takes from this message, and no other, where the sender listens.
        me = self._host.node_id
        listeners = {NODES: {me: families[NODES][me]}} if me in families.get(NODES, {}) else {}
        if not send_whole(peer, ["", G_SET, families, *owner], ["", G_SET, listeners, *owner]):
            for family, entries in families.items():
                send_update(peer, family, Change(entries, []), *owner)

    # --- watching and asking ---

    def watch(self, family: str) -> None:
        """Report a family to the observer from now on."""
        self._watchers.setdefault(family, {})[None] = None
        self._observer.replaced(family, dict(self._merged.families.get(family, {})))

    def unwatch(self, family: str) -> None:
        """Stop reporting a family."""
        self._forget_watch(family, None)

    def _forget_watch(self, family: str, watcher: Peer | None) -> None:
        watchers = self._watchers.get(family, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watchers.pop(family, None)

    def answer(self, what: Query, family: str) -> Any:
        """Return what a query asks for: a dict or a list."""
        entries = self._merged.families.get(family, {})
        if what == "keys":
            return list(entries)
        return list(entries.values()) if what == "values" else dict(entries)

    def find(self, node: str) -> list[str] | None:
        """Return where a node may listen, or None: first the addresses from itself, then those from others."""
        values = [(source, value) for source, value in self._merged.held(NODES, node) if _are_addresses(value)]
        own = [value for source, value in values if source == (node, "")]
        # By turns, so that a source with many addresses does not fill the list.
        others = itertools.zip_longest(*(value for source, value in values if source != (node, "")))
        found = dict.fromkeys(address for its in (*own, *others) for address in its if address is not None)
        return list(found)[:MAX_FOUND] or None

    # --- peers ---

    def _linked(self) -> list[Guest]:
        """Return the guests without the one whose link was just lost."""
        return [guest for guest in self._guests.values() if guest.leaving is None]

    def _guest(self, peer: Peer) -> Guest:
        guest = self._guests.get(peer)
        if guest is not None and guest.leaving is not None:
            self.lost(peer)  # which was given up for want of memory
            guest = None
        if guest is None:
            guest = self._guests[peer] = Guest(peer)
        return guest

    def families_of_others(self) -> Counter[str]:
        """Return how many entries clients of other programs have in each family: they cannot be asked themselves."""
        found: Counter[str] = Counter()
        for guest in self._guests.values():
            if not guest.is_ours and not guest.is_global:
                entries = self._merged.of((guest.peer.node, ""))
                found.update({family: len(its) for family, its in entries.items() if family not in (NODES, GLOBALS)})
        return found

    def knows(self, peer: Peer) -> bool:
        """Whether the peer has asked this node anything, or is global: its link is worth keeping."""
        return peer in self._guests

    def met_global(self, peer: Peer) -> None:
        """Send another global node, once a link, everything that this node and its clients have."""
        guest = self._guest(peer)
        if guest.is_global:
            return
        # First, so that what is repeated from it comes with the rest, as Perl expects.
        self._change(self._others, GLOBALS, {peer.node: None}, ())
        if not guest.is_ours:
            self._near = self._near or self._make_near()
            self._send_database(peer, self._near.families)
            guest.is_global = True  # not before: what is interrupted until here is done again
            return
        for source in self._merged.sources():
            if not source[1] and source != self._me:
                self._send_database(peer, dict(self._merged.of(source)), source[0])
        own = {family: dict(entries) for family, entries in self._merged.of(self._me).items()}
        for family, entries in self._merged.of(self._others).items():
            guest.repeated.update((family, key) for key in entries)
            own[family] = {**entries, **own.get(family, {})}
        self._send_database(peer, own, self._me[0])
        guest.is_global = True

    def _make_near(self) -> Merged:
        near = Merged()
        for source in self._merged.sources():
            if self._is_near(source):
                for family, entries in self._merged.of(source).items():
                    near.apply(source, family, Change(dict(entries), []))
        return near

    def lost(self, peer: Peer) -> None:
        """Delete what a peer brought: its link is down."""
        guest = self._guests.get(peer)
        if guest is None:
            return
        if self._begun is not None:
            self.mend()  # first: what it brought last leaves with it
        if guest.leaving is None:
            guest.leaving = self._leaving(guest)  # once: the orphans are owners that are known then
        for family in guest.families:
            self._forget_watch(family, peer)
        for source, orphan in guest.leaving:
            if orphan is not None:
                for family, entries in self._merged.of(source).items():
                    self._change(orphan, family, dict(entries), ())
            self._drop(source)
        orphaned = [orphan for _source, orphan in guest.leaving if orphan is not None]
        if orphaned:
            self._orphans.keep(orphaned)
        if guest.is_global:
            self._change(self._others, GLOBALS, {}, [peer.node])
            self._change(self._others, NODES, {}, [peer.node])
            self._mesh.lost()
        del self._guests[peer]

    def _leaving(self, guest: Guest) -> list[tuple[Source, Source | None]]:
        """Return what to drop with a guest, and which entries of other owners to keep for a while, as what orphans."""
        known = Counter(source[0] for source in self._merged.sources())  # owners that others know, too, need no grace

        def is_orphaned(source: Source) -> bool:
            return guest.is_global and source[0] != guest.peer.node and known[source[0]] == 1

        return [(source, orphan_of(source) if is_orphaned(source) else None) for source in guest.sources]

    def keepers(self) -> list[str]:
        """Return the other global nodes."""
        return [node for node in self._merged.families.get(GLOBALS, {}) if node != self._me[0]]

    def has_heard(self, peer: Peer) -> bool:
        """Return whether a peer is a global node that has sent what it has."""
        guest = self._guests.get(peer)
        return guest is not None and guest.is_heard

    def unheard(self) -> list[str]:
        """Return the global nodes that have not sent what they have."""
        heard = {guest.peer.node for guest in self._linked() if guest.is_heard}
        return [node for node in self.keepers() if node not in heard]

    def _missing(self) -> list[str]:
        """Return the global nodes that this one has no link to."""
        linked = {guest.peer.node for guest in self._linked() if guest.is_global}
        return [node for node in self._merged.families.get(GLOBALS, {}) if node not in linked and node != self._me[0]]

    # --- what peers ask ---

    def attach(self, peer: Peer, database: Any = None) -> None:
        """``g_slave``: become its master. Without a database it only asked this node to become global."""
        if database is None:
            return
        guest, client = self._guest(peer), (peer.node, "")
        families = gproto.database(database)
        if guest.is_global and guest.is_ours:
            return  # it brings the same with g_set
        if not guest.is_global:
            self._replace(guest, client, families)
        elif not guest.is_attached:
            # What it brought so far becomes a client's.
            brought = (peer.node, peer.node)
            self._add(guest, client, {family: dict(entries) for family, entries in self._merged.of(brought).items()})
            self._drop(brought, guest)
        guest.is_attached = not guest.is_ours
        if guest.is_global:
            self._add(guest, client, families)
        self._orphans.found_home(client)

    def update(self, peer: Peer, family: Any, entries: Any = None, deleted: Any = None, owner: Any = None) -> None:
        """``g_upd``: take a change of the entries of a client or a global node."""
        guest = self._guest(peer)
        source = self._source(guest, owner)
        name, changed = gproto.text(family), gproto.entries(entries)
        self._change(source, name, changed, gproto.texts(deleted), guest)
        self._mirror(guest, source, name)

    def replace(self, peer: Peer, database: Any, owner: Any = None) -> None:
        """``g_set``: take everything that a global node has, or what it has from one owner."""
        guest = self._guest(peer)
        if not guest.is_global:
            return  # it did not introduce itself as one
        source = self._source(guest, owner)
        whole = gproto.database(database)
        # An attached node sent the rest to this one, its master, before: this is only a part.
        (self._add if guest.is_attached else self._replace)(guest, source, whole)
        self._orphans.found_home(source)
        self._mirror(guest, source, NODES)
        if source[0] == peer.node:  # its own entries come last
            client = (peer.node, "")
            if client != source:
                self._drop(client, guest)
            guest.is_heard = True
            self._synced()

    def _source(self, guest: Guest, owner: Any) -> Source:
        node = guest.peer.node
        if not guest.is_global or guest.is_attached:
            return (node, "")
        return (node if owner is None or not guest.is_ours else gproto.text(owner), node)

    def _replace(self, guest: Guest, source: Source, database: dict[str, Entries]) -> None:
        before = self._merged.of(source)
        for family in [*database, *(family for family in list(before) if family not in database)]:
            entries = database.get(family, {})
            gone = [key for key in before.get(family, {}) if key not in entries]
            self._change(source, family, entries, gone, guest)

    def _add(self, guest: Guest, source: Source, database: dict[str, Entries]) -> None:
        for family, entries in database.items():
            self._change(source, family, entries, (), guest)

    def _mirror(self, guest: Guest, source: Source, family: str) -> None:
        """Repeat where another global node listens, so that all global nodes find each other."""
        node = guest.peer.node
        if family == NODES and guest.is_global and source[0] == node:
            addresses = self._merged.of(source).get(NODES, {}).get(node)
            if addresses is not None:
                self._change(self._others, NODES, {node: addresses}, ())

    def peer_finds(self, peer: Peer, node: Any) -> None:
        """``g_find``: answer where a node listens."""
        name = gproto.text(node)
        send(peer, G_FOUND, name, self.find(name))

    def peer_asks(self, peer: Peer, what: Query, family: Any, number: Any) -> None:
        """``g_db_…``: answer a query."""
        answer = self.answer(what, gproto.text(family))
        try:
            if peer.is_up:
                peer.send(["", G_REPLY, number, answer])
        except (MessageTooLargeError, UnencodableMessageError) as error:
            # Nothing is sent: the protocol has no answer for this case, and an empty one would be wrong.
            self.warn("the answer to node %s about the family %s cannot be sent: %s", peer.node, family, error)

    def peer_watches(self, peer: Peer, family: Any) -> None:
        """``g_mon1``: send the peer a family, first the whole and then each change."""
        name = gproto.text(family)
        guest = self._guest(peer)
        if name not in guest.families and len(guest.families) >= MAX_WATCHES:
            self._host.refusals["directory"] += 1
            raise ValueError(f"the peer watches {MAX_WATCHES} families already")
        guest.families.add(name)
        self._watchers.setdefault(name, {})[peer] = None
        entries = self._merged.families.get(name, {})

        def make(part: Change) -> Packet:
            return ["", G_CHG2, name, part.entries, part.deleted]

        if not send_whole(peer, ["", G_CHG1, name, entries or None], ["", G_CHG1, name, None]):
            send_change(peer, make, Change(dict(entries), []))

    def peer_unwatches(self, peer: Peer, family: Any) -> None:
        """``g_mon0``: stop sending the peer a family."""
        name = gproto.text(family)
        guest = self._guests.get(peer)
        if guest is not None and name in guest.families:
            guest.families.discard(name)
            self._forget_watch(name, peer)


def _are_addresses(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(address, str) for address in value)
