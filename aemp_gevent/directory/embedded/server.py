# SPDX-License-Identifier: MIT
"""What a global node does for the others: it keeps the directory, with all other global nodes.

The database has three sources: this node's own entries, those of its *clients* (nodes
that sent ``g_slave``: this is their master), and what the other global nodes brought, which
are their own entries and their clients'. Each goes with the link it came over. A change of
the first two is passed on to the other global nodes, one of the third is not: every global
node has a link to every other.

**Owners.** Of several owners of a key the smallest one's value counts, so all global nodes
have to know who owns what, to agree. AnyEvent::MP's ``g_set`` and ``g_upd`` do not
say it. Between nodes of ours both have one argument more, the owner, and a ``g_set`` is
about this owner only; the sender's own entries come last. A Perl node gets one ``g_set`` with
everything merged, and what it brings counts as its own.

**Perl nodes that are both.** A Perl node that was global before it found a seed has that seed for its master
all the same: it tells its own changes to nobody else, and counts on hearing them from its master, like
all other global nodes. So what such a node brings is passed on as a client's is, to itself as well.

**The mesh.** A global node that meets another is told of all that this one has links to: their
entries in the families ``'g`` and ``'l``, repeated as the teller's own, as Perl does. It dials those it has
no link to, which are told of others in turn. Who was there before is not told of newcomers,
as Perl would: they dial him, and with a hundred global nodes that would be a million messages.

**Who says it.** Where a node listens is believed from the node itself, over its own link, and after
that from global nodes: for an owner that they name they may say where this owner listens, and
on their own account, which counts least, of any node. What a client says of another node is refused. So
whoever lies never hides what a node says of itself; and as a lie about a node that has no
link to this one cannot be told from the truth, a look-up returns all that is said, the best first, and
whoever dials tries one after the other.

Nothing here switches. What a peer sends is checked first, and raises TypeError, which ends
in the log, as with all requests.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from aemp_gevent.addresses import ids
from aemp_gevent.directory.embedded import protocol as gproto
from aemp_gevent.directory.embedded.protocol import GLOBALS, Packet, send, send_change, send_whole
from aemp_gevent.directory.engine import NODES, Entries, Observer, Query
from aemp_gevent.directory.merge import Change, Merged, Source
from aemp_gevent.errors import InvalidPortError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.backoff import jittered
from aemp_gevent.runtime.bounded_log import Complaints
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.vocabulary import G_CHG1, G_CHG2, G_FOUND, G_REPLY, G_SET, G_UPD

MAX_BYTES = 64 * 2**20
"""Bytes of one client's entries that are kept, counted as they are sent."""

GLOBAL_SHARE = 20
"""A global node may bring as much as so many clients: it brings what all of its own have."""

MAX_WATCHES = 10_000
"""Families that one node may watch."""

_MESH_SECONDS = 2.0
"""A global node that could not be reached is dialled again after this long, and up to half of it more."""

_AGAIN_SECONDS = 0.2
"""One whose link was lost is dialled again within this long."""

MAX_GLOBALS = 200
"""Global nodes that one peer may tell of: this node dials all of them."""

MAX_FOUND = 16
"""Addresses that are told of one node."""

_LOST = "\uffff"
"""Before the node in a source that was lost: so it comes after all others of the same owner, whose news count."""


class Host(Protocol):
    """The links of the node that serves."""

    @property
    def node_id(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...

    def link_to(self, node: str) -> None:
        """See that there is a link to a node, soon."""


class _Guest:
    """A peer that asked something of this node."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.is_ours = bool(peer.greeting and peer.greeting.is_ours)
        self.is_global = False
        self.is_attached = False
        """Whether it is another program's, and took this node for its master, be it global or not."""
        self.families: set[str] = set()
        """What it watches."""
        self.sources: dict[Source, None] = {}
        """Whose entries came from it: those that have any."""
        self.repeated: set[tuple[str, str]] = set()
        """Families and keys that it was told of other global nodes."""
        self.entries = 0
        self.bytes = 0
        self.globals: Counter[str] = Counter()
        """The global nodes that it told of, and how many owners it told of each."""
        self.is_over = False


class DirectoryServer:
    """The directory, as one global node keeps it.

    Args:
        host: The node's links.
        observer: The node itself, which may watch families, too.
        synced: Called when another global node has told all it has.
        turn: Calls a function behind whatever is being done: telling somebody may end his link, whose end is a change.
        max_bytes: Of one client's entries.
    """

    def __init__(
        self,
        host: Host,
        observer: Observer,
        synced: Callable[[Peer], None],
        turn: Callable[..., None],
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._host = host
        self._observer = observer
        self._synced = synced
        self._turn = turn
        self._max_entries = host.settings.max_directory_entries
        self._max_bytes = max_bytes
        self._log = Complaints(host.scheduler.log_soon, "the directory").warn
        self._me: Source = (host.node_id, "")
        self._others: Source = (host.node_id, host.node_id)  # what is repeated of other global nodes
        self._merged = Merged()
        self._near: Merged | None = None  # without what global nodes brought; kept once Perl wants to know
        self._guests: dict[Peer, _Guest] = {}
        self._watchers: dict[str, dict[Peer | None, None]] = {}  # by family; None: this node
        self._encode = FRAMINGS["msgpack"].encoder()
        self._mesh_timer: Any = None  # gevent's watchers have no types
        # What a lost global node told of others, who may be alive, and about to attach to another one; and until when.
        self._orphaned: dict[Source, object] = {}

    # --- entries ---

    def publish(self, family: str, entries: Entries, deleted: Iterable[str] = ()) -> None:
        """Change this node's own entries."""
        self._change(self._me, family, entries, deleted)

    def _change(
        self, source: Source, family: str, entries: Entries, deleted: Iterable[str], guest: _Guest | None = None
    ) -> None:
        """Change the entries of a source, and tell whoever is to know."""
        change = self._merged.news(source, family, entries, list(deleted))
        if guest is not None:
            if family in (NODES, GLOBALS):
                change = self._credible(guest, source, family, change)
            change = self._within_bounds(guest, source, family, change)
        if change.is_empty:
            return
        seen = self._merged.apply(source, family, change)
        if guest is not None:
            if self._merged.of(source):
                guest.sources[source] = None
            else:
                guest.sources.pop(source, None)  # a peer names as many owners as it likes
        if self._is_near(source):
            self._pass_on(source, family, change)
        if seen.is_empty:
            return
        self._tell_watchers(family, seen)
        if family == GLOBALS and seen.entries:
            self._mesh_soon(0.0)

    def _is_near(self, source: Source) -> bool:
        """Whether entries are this node's, or its clients', or told on its own account."""
        return not source[1] or source == self._others

    def _drop(self, source: Source, guest: _Guest | None = None) -> None:
        for family, entries in list(self._merged.of(source).items()):
            self._change(source, family, {}, list(entries), guest)

    def _credible(self, guest: _Guest, source: Source, family: str, change: Change) -> Change:
        """Return what of a change in a family about nodes its source may say."""
        told = set(guest.globals - Counter(change.deleted))

        def may_say(key: str) -> bool:
            if family == NODES:
                return key == source[0] or (guest.is_global and source[0] == guest.peer.node)
            if len(told) < MAX_GLOBALS:
                told.add(key)
            return key in told

        refused = {key for key in change.entries if not may_say(key)}
        if not refused:
            return change
        self._host.refusals["directory"] += len(refused)
        if family == NODES:
            text = "node %s said where another node listens, which is ignored: %.200r"
        else:
            text = f"node %s told of more than {MAX_GLOBALS} global nodes, and this one is ignored: %.200r"
        guest.peer.complaints.warn(text, guest.peer.node, min(refused))
        return Change({key: value for key, value in change.entries.items() if key not in refused}, change.deleted)

    def _within_bounds(self, guest: _Guest, source: Source, family: str, change: Change) -> Change:
        """Return what of a change may be kept; an entry whose new value may not is deleted."""
        share = GLOBAL_SHARE if guest.is_global else 1
        has = self._merged.of(source).get(family, {})
        kept, deleted = dict(change.entries), list(change.deleted)
        for key in deleted:
            guest.entries -= 1
            guest.bytes -= self._weight(family, key, has[key])
        for key, value in change.entries.items():
            old = self._weight(family, key, has[key]) if key in has else 0
            new = self._weight(family, key, value)
            entries, size = guest.entries + (key not in has), guest.bytes + new - old
            if new and entries <= share * self._max_entries and size <= share * self._max_bytes:
                guest.entries, guest.bytes = entries, size
                continue
            del kept[key]
            if key in has:
                deleted.append(key)
                guest.entries -= 1
                guest.bytes -= old
            if not new:
                continue
            self._host.refusals["directory"] += 1
            if not guest.is_over:
                guest.is_over = True
                self._log(
                    "node %s has more directory entries than are kept for one node (%d entries, %d bytes): "
                    "the rest is left out",
                    guest.peer.node,
                    share * self._max_entries,
                    share * self._max_bytes,
                )
        if family == GLOBALS:
            guest.globals.update(key for key in kept if key not in has)
            guest.globals.subtract(deleted)
            guest.globals += Counter()  # without those that are gone
        return Change(kept, deleted)

    def _weight(self, family: str, key: str, value: Any) -> int:
        """Return how many bytes an entry has; 0 if it cannot be sent to nodes of ours."""
        try:
            return len(self._encode([family, key, value]))
        except UnencodableMessageError as error:
            self._log("the entry %s is left out: %s", key, error)
            return 0

    # --- telling ---

    def _pass_on(self, source: Source, family: str, change: Change) -> None:
        """Tell the other global nodes what this node, or a client of it, changed."""
        guests = [guest for guest in self._guests.values() if guest.is_global]
        seen = self._near.apply(source, family, change) if self._near is not None else Change({}, [])
        for guest in guests:
            if guest.is_ours and source == self._others:
                gone = [key for key in change.deleted if (family, key) in guest.repeated]
                guest.repeated.difference_update((family, key) for key in gone)
                if gone:
                    self._send_update(guest.peer, family, Change({}, gone), source[0])
            elif guest.is_ours:
                self._send_update(guest.peer, family, change, source[0])
            elif not seen.is_empty:
                self._send_update(guest.peer, family, seen)

    def _send_update(self, peer: Peer, family: str, change: Change, *owner: str) -> None:
        def make(part: Change) -> Packet:
            return ["", G_UPD, family, part.entries or None, part.deleted, *owner]

        send_change(peer, make, change)

    def _tell_watchers(self, family: str, change: Change) -> None:
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
                self._send_update(peer, family, Change(entries, []), *owner)

    # --- watching and asking ---

    def watch(self, family: str) -> None:
        """Tell the observer of a family from now on."""
        self._watchers.setdefault(family, {})[None] = None
        self._observer.replaced(family, dict(self._merged.families.get(family, {})))

    def unwatch(self, family: str) -> None:
        """Tell it no more."""
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
        """Return where a node may listen, or None: first all that it says itself, then what others say."""
        told = [(source, value) for source, value in self._merged.told(NODES, node) if _are_addresses(value)]
        own = [value for source, value in told if source == (node, "")]
        # By turns, so that nobody fills the list who says much.
        others = itertools.zip_longest(*(value for source, value in told if source != (node, "")))
        found = dict.fromkeys(address for its in (*own, *others) for address in its if address is not None)
        return list(found)[:MAX_FOUND] or None

    # --- peers ---

    def _guest(self, peer: Peer) -> _Guest:
        guest = self._guests.get(peer)
        if guest is None:
            guest = self._guests[peer] = _Guest(peer)
        return guest

    @property
    def clients(self) -> int:
        """How many nodes this one is the master of."""
        return sum(not guest.is_global and bool(guest.sources) for guest in self._guests.values())

    def families_of_others(self) -> Counter[str]:
        """Return how many entries clients of other programs have in each family: they cannot be asked themselves."""
        found: Counter[str] = Counter()
        for guest in self._guests.values():
            if not guest.is_ours and not guest.is_global:
                entries = self._merged.of((guest.peer.node, ""))
                found.update({family: len(its) for family, its in entries.items() if family not in (NODES, GLOBALS)})
        return found

    def knows(self, peer: Peer) -> bool:
        """Whether the peer asked this node anything, or is global: the link is worth keeping."""
        return peer in self._guests

    def met_global(self, peer: Peer) -> None:
        """Tell another global node, once a link, everything that this node and its clients have."""
        guest = self._guest(peer)
        if guest.is_global:
            return
        # First, so that what is repeated of it comes with the rest, as Perl expects.
        self._change(self._others, GLOBALS, {peer.node: None}, ())
        guest.is_global = True
        if not guest.is_ours:
            self._near = self._near or self._make_near()
            self._send_database(peer, self._near.families)
            return
        for source in self._merged.sources():
            if not source[1] and source != self._me:
                self._send_database(peer, dict(self._merged.of(source)), source[0])
        own = {family: dict(entries) for family, entries in self._merged.of(self._me).items()}
        for family, entries in self._merged.of(self._others).items():
            guest.repeated.update((family, key) for key in entries)
            own[family] = {**entries, **own.get(family, {})}
        self._send_database(peer, own, self._me[0])

    def _make_near(self) -> Merged:
        near = Merged()
        for source in self._merged.sources():
            if self._is_near(source):
                for family, entries in self._merged.of(source).items():
                    near.apply(source, family, Change(dict(entries), []))
        return near

    def lost(self, peer: Peer) -> None:
        """The link to a peer is down: what came over it is gone."""
        guest = self._guests.pop(peer, None)
        if guest is None:
            return
        for family in guest.families:
            self._forget_watch(family, peer)
        known = Counter(source[0] for source in self._merged.sources())  # those that others know, too, need no grace
        orphaned: list[Source] = []
        for source in guest.sources:
            if guest.is_global and source[0] != peer.node and known[source[0]] == 1:
                orphan = (source[0], _LOST + source[1])
                for family, entries in self._merged.of(source).items():
                    self._change(orphan, family, dict(entries), ())
                orphaned.append(orphan)
            self._drop(source)
        if orphaned:
            term = object()
            self._orphaned.update(dict.fromkeys(orphaned, term))
            grace = self._host.settings.heartbeat_timeout
            self._host.scheduler.start_timer(grace, self._turn, self._end_term, orphaned, term)
        if guest.is_global:
            self._change(self._others, GLOBALS, {}, [peer.node])
            self._change(self._others, NODES, {}, [peer.node])
            self._mesh_soon(_AGAIN_SECONDS * random.random())  # noqa: S311  # others may still have a link to it

    def _end_term(self, sources: list[Source], term: object) -> None:
        for source in sources:
            if self._orphaned.get(source) is term:
                self._forget_orphan(source)

    def _forget_orphan(self, source: Source) -> None:
        del self._orphaned[source]
        self._drop(source)

    def _found_home(self, source: Source) -> None:
        """An owner has told somebody all it has: what others knew of it is out of date.

        What a global node says of others ends only what it had said itself: a lie must take away nothing that is true.
        """
        owner, teller = source
        for orphan in [orphan for orphan in self._orphaned if orphan[0] == owner and orphan != source]:
            if not teller or orphan[1] == _LOST + teller or teller == owner:
                self._forget_orphan(orphan)

    # --- what peers ask ---

    def attach(self, peer: Peer, database: Any = None) -> None:
        """``g_slave``: be its master. Without a database it only wanted this node to be global."""
        if database is None:
            return
        guest, client = self._guest(peer), (peer.node, "")
        families = gproto.database(database)
        if guest.is_global and guest.is_ours:
            return  # such a one brings the same with g_set
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
        self._found_home(client)

    def update(self, peer: Peer, family: Any, entries: Any = None, deleted: Any = None, owner: Any = None) -> None:
        """``g_upd``: a client's entries changed, or a global node's."""
        guest = self._guest(peer)
        source = self._source(guest, owner)
        name, changed = gproto.text(family), gproto.entries(entries)
        self._change(source, name, changed, gproto.texts(deleted), guest)
        self._mirror(guest, source, name)

    def replace(self, peer: Peer, database: Any, owner: Any = None) -> None:
        """``g_set``: here is everything that a global node has, or what it has of one owner."""
        guest = self._guest(peer)
        if not guest.is_global:
            return  # it has not said so
        source = self._source(guest, owner)
        whole = gproto.database(database)
        # What an attached one said before it was for its master only, so this is no more than a part.
        (self._add if guest.is_attached else self._replace)(guest, source, whole)
        self._found_home(source)
        self._mirror(guest, source, NODES)
        if source[0] == peer.node:  # the last one
            client = (peer.node, "")
            if client != source:
                self._drop(client, guest)
            self._synced(peer)

    def _source(self, guest: _Guest, owner: Any) -> Source:
        node = guest.peer.node
        if not guest.is_global or guest.is_attached:
            return (node, "")
        return (node if owner is None or not guest.is_ours else gproto.text(owner), node)

    def _replace(self, guest: _Guest, source: Source, database: dict[str, Entries]) -> None:
        before = self._merged.of(source)
        for family in [*database, *(family for family in list(before) if family not in database)]:
            entries = database.get(family, {})
            gone = [key for key in before.get(family, {}) if key not in entries]
            self._change(source, family, entries, gone, guest)

    def _add(self, guest: _Guest, source: Source, database: dict[str, Entries]) -> None:
        for family, entries in database.items():
            self._change(source, family, entries, (), guest)

    def _mirror(self, guest: _Guest, source: Source, family: str) -> None:
        """Repeat where another global node listens, so that all of them find each other."""
        node = guest.peer.node
        if family == NODES and guest.is_global and source[0] == node:
            addresses = self._merged.of(source).get(NODES, {}).get(node)
            if addresses is not None:
                self._change(self._others, NODES, {node: addresses}, ())

    def peer_finds(self, peer: Peer, node: Any) -> None:
        """``g_find``: where does a node listen."""
        name = gproto.text(node)
        send(peer, G_FOUND, name, self.find(name))

    def peer_asks(self, peer: Peer, what: Query, family: Any, number: Any) -> None:
        """``g_db_…``: a query."""
        answer = self.answer(what, gproto.text(family))

        try:
            send(peer, G_REPLY, number, answer)
        except (MessageTooLargeError, UnencodableMessageError) as error:
            # No answer: the protocol has none for this, and an empty one would be a lie.
            self._log("what node %s asked of the family %s cannot be sent: %s", peer.node, family, error)

    def peer_watches(self, peer: Peer, family: Any) -> None:
        """``g_mon1``: tell the peer of a family, first the whole."""
        name = gproto.text(family)
        guest = self._guest(peer)
        if name not in guest.families and len(guest.families) >= MAX_WATCHES:
            self._host.refusals["directory"] += 1
            raise ValueError(f"it watches {MAX_WATCHES} families already")
        guest.families.add(name)
        self._watchers.setdefault(name, {})[peer] = None
        entries = self._merged.families.get(name, {})

        def make(part: Change) -> Packet:
            return ["", G_CHG2, name, part.entries, part.deleted]

        if not send_whole(peer, ["", G_CHG1, name, entries or None], ["", G_CHG1, name, None]):
            send_change(peer, make, Change(dict(entries), []))

    def peer_unwatches(self, peer: Peer, family: Any) -> None:
        """``g_mon0``: tell it no more."""
        name = gproto.text(family)
        guest = self._guests.get(peer)
        if guest is not None and name in guest.families:
            guest.families.discard(name)
            self._forget_watch(name, peer)

    # --- the mesh ---

    def _missing(self) -> list[str]:
        """Return the global nodes that this one has no link to."""
        linked = {guest.peer.node for guest in self._guests.values() if guest.is_global}
        return [node for node in self._merged.families.get(GLOBALS, {}) if node not in linked and node != self._me[0]]

    def _mesh_soon(self, seconds: float) -> None:
        if self._mesh_timer is None and self._missing():
            self._mesh_timer = self._host.scheduler.start_timer(seconds, self._mesh)

    def _mesh(self) -> None:  # on the hub
        self.stop()
        for node in self._missing():
            try:
                ids.node_of(node)
            except InvalidPortError as error:
                self._log("a global node cannot be dialled: %s", error)
            else:
                self._host.link_to(node)
        self._mesh_soon(jittered(_MESH_SECONDS))

    def stop(self) -> None:
        """End the timer. Idempotent."""
        timer, self._mesh_timer = self._mesh_timer, None
        if timer is not None:
            self._host.scheduler.end_timer(timer)


def _are_addresses(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(address, str) for address in value)
