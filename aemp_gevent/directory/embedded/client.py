# SPDX-License-Identifier: MIT
"""The embedded engine: the directory in the network's own seeds, as AnyEvent::MP has it.

A node is a *client* of one global node, its *master*, or it is *global* itself, and then
:mod:`aemp_gevent.directory.embedded.server` has the directory right here. A client attaches to a seed
whose link is up, preferably one that is global already: it sends all its entries, and
the families it watches. When that link is lost it does all of it again with the next seed, so
nothing has to be remembered of what the former master knew; queries without an answer are
asked again.

A node that is not a slave becomes global, for the rest of its life, when it is one of its own seeds, or when
another node has it for a seed, or for a master; one without seeds has a directory to itself until then. If it was a
client, its own watches and queries stay with its master until that has told it everything.

Nothing here switches, and nothing is done inside of something else: sending may end a link, whose
end changes entries, and everybody must hear of these changes behind those that came before.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Protocol

from aemp_gevent.addresses.endpoints import is_resolved
from aemp_gevent.directory.embedded import protocol as gproto
from aemp_gevent.directory.embedded.protocol import GLOBALS, Packet, send, send_change, send_whole, speaks
from aemp_gevent.directory.embedded.server import DirectoryServer
from aemp_gevent.directory.engine import NODES, Entries, Observer, Query
from aemp_gevent.directory.merge import Change
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire.vocabulary import (
    G_CHG1,
    G_CHG2,
    G_DB_FAMILY,
    G_DB_KEYS,
    G_DB_VALUES,
    G_FIND,
    G_FOUND,
    G_GLOBAL,
    G_MON0,
    G_MON1,
    G_REPLY,
    G_SET,
    G_SLAVE,
    G_UPD,
)

_QUERIES: dict[Query, str] = {"family": G_DB_FAMILY, "keys": G_DB_KEYS, "values": G_DB_VALUES}


class Host(Protocol):
    """The links of the node whose engine this is."""

    @property
    def node_id(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...

    @property
    def master(self) -> str | None:
        """The node that this one is a slave of; None: it is not a slave."""
        ...

    @property
    def is_seed(self) -> bool:
        """Whether the node is one of its seeds."""
        ...

    @property
    def has_seeds(self) -> bool:
        """Whether it has any."""
        ...

    def addresses(self) -> list[str]:
        """Return where the node listens: endpoints that others can dial."""
        ...

    def up_peers(self) -> list[Peer]:
        """Return all peers whose links are up."""
        ...

    def up_seeds(self) -> list[Peer]:
        """Return the seeds whose links are up, the best first."""
        ...

    def link_to(self, node: str) -> None:
        """See that there is a link to a node, soon."""


class EmbeddedEngine:
    """The directory of one node; an :class:`~aemp_gevent.directory.engine.Engine`.

    Args:
        host: The node's links.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._observer: Observer | None = None
        self._server: DirectoryServer | None = None
        self._is_global = False  # whether others may use the server
        self._home: DirectoryServer | None = None  # the server, once it answers this node's own requests, too
        self._master: Peer | None = None
        self._globals: set[Peer] = set()  # those whose links are up
        self._introduced: set[str] = set()  # global nodes that the master was told of
        self._watched: dict[str, bool] = {}  # by family: whether the master has sent the whole
        self._told: set[str] = set()  # families of which the observer has had the whole, from whomever
        # While others attach to a new master, too, nothing is believed to be gone: what that master has, by family.
        self._sparing: dict[str, Entries] = {}
        self._grace_timer: Any = None  # gevent's watchers have no types
        self._queries: dict[str, tuple[Query, str, Callable[[Any], None]]] = {}
        self._finds: dict[str, list[Callable[[Collection[str] | None], None]]] = {}
        self._numbers = itertools.count(1)
        self._due: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_busy = False

    @property
    def role(self) -> str:
        """What the node is for the directory: ``"global"``, ``"client of …"``, or ``"alone"``."""
        if self._is_global:
            return "global"
        return "alone" if self._master is None else f"client of {self._master.node}"

    def needs(self, peer: Peer) -> bool:
        """Whether the directory needs the link to a peer: it is the master, a client, or global like this node."""
        return peer is self._master or (self._server is not None and self._server.knows(peer))

    def _turn(self, call: Callable[..., None], *args: Any) -> None:
        """Do something now, or behind what is being done.

        Raises:
            TypeError, ValueError: A peer sent something wrong.
        """
        if self._observer is None:
            return
        self._due.append((call, args))
        if self._is_busy:
            return
        failure: Exception | None = None
        self._is_busy = True
        try:
            while self._due and self._observer is not None:
                call, args = self._due.popleft()
                try:
                    call(*args)
                except Exception as error:  # noqa: BLE001  # what waits behind it is to be done all the same
                    failure = failure or error
        finally:
            self._is_busy = False
        if failure is not None:
            raise failure

    # --- what the node asks for ---

    def start(self, observer: Observer) -> None:
        """Begin."""
        self._observer = observer
        self._turn(self._seek)

    def stop(self) -> None:
        """End: whatever comes from now on is ignored. Idempotent."""
        self._observer = None
        self._due.clear()
        self._end_grace()
        if self._server is not None:
            self._server.stop()

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Make a change of the node's own entries known."""
        self._turn(self._publish, family, dict(entries), list(deleted))

    def _publish(self, family: str, entries: Entries, deleted: list[str]) -> None:
        if self._server is not None:
            self._server.publish(family, entries, deleted)
        elif self._master is not None:
            self._send_update(self._master, family, Change(entries, deleted))
        elif deleted and family in self._told and self._observer is not None:
            self._observer.changed(family, {}, deleted)  # what comes of the next master says of nothing that it is gone

    def watch(self, family: str) -> None:
        """Tell the observer of a family from now on."""
        self._turn(self._watch, family)

    def _watch(self, family: str) -> None:
        self._watched[family] = False
        if self._home is not None:
            self._home.watch(family)
        elif self._master is not None:
            send(self._master, G_MON1, family)

    def unwatch(self, family: str) -> None:
        """Tell it no more."""
        self._turn(self._unwatch, family)

    def _unwatch(self, family: str) -> None:
        self._watched.pop(family, None)
        self._told.discard(family)
        self._sparing.pop(family, None)
        if self._home is not None:
            self._home.unwatch(family)
        elif self._master is not None:
            send(self._master, G_MON0, family)

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once."""
        self._turn(self._query, what, family, answered)

    def _query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        if self._home is not None:
            answered(self._home.answer(what, family))
            return
        number = str(next(self._numbers))
        self._queries[number] = (what, family, answered)
        if self._master is not None:
            send(self._master, _QUERIES[what], family, number)

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens."""
        self._turn(self._find, node, answered)

    def _find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        if self._home is not None:
            answered(self._home.find(node))
            return
        asked = self._finds.setdefault(node, [])
        asked.append(answered)
        if self._master is not None and len(asked) == 1:
            send(self._master, G_FIND, node)

    # --- what the links tell ---

    def link_up(self, peer: Peer) -> None:
        """A link came up; nothing has been sent over it yet."""
        self._turn(self._link_up, peer)

    def _link_up(self, peer: Peer) -> None:
        if self._is_global and speaks(peer):
            send(peer, G_GLOBAL)
        self._seek()

    def link_down(self, peer: Peer) -> None:
        """A link was lost."""
        self._turn(self._link_down, peer)

    def _link_down(self, peer: Peer) -> None:
        self._globals.discard(peer)
        if self._server is not None:
            self._server.lost(peer)
        if peer.node in self._introduced and self._master is not None:
            self._introduced.discard(peer.node)
            self._send_update(self._master, GLOBALS, Change({}, [peer.node]))
        if peer is self._master:
            self._master = None
            self._end_grace()  # what was not told it yet may be told the next one
            self._seek()

    def families_of_others(self) -> Counter[str]:
        """Return how many entries clients of other programs have in each family."""
        return Counter() if self._server is None else self._server.families_of_others()

    def seeds_changed(self) -> None:
        """The node knows more of its seeds: one is up, or is itself."""
        self._turn(self._seek)
        self._turn(self._introduce)

    # --- being a client ---

    def _seek(self) -> None:
        """Find a master, or be one."""
        if self._host.is_seed:
            self._become_global()
            for peer in self._host.up_seeds():
                if peer not in self._globals and speaks(peer):
                    send(peer, G_SLAVE)  # not to be its client: it shall be global, too, if it is not yet
        elif not self._host.has_seeds:
            self._make_server()  # for this node, until somebody else wants it
        if self._master is not None:
            return
        if self._server is not None:
            self._move_home()
            return
        seeds = [peer for peer in self._host.up_seeds() if speaks(peer)]
        if seeds:
            self._attach(next((peer for peer in seeds if peer in self._globals), seeds[0]))

    def _attach(self, master: Peer) -> None:
        """Use a node as master, and send it everything."""
        self._master = master
        self._end_grace()
        if self._told:
            grace = self._host.settings.heartbeat_timeout
            self._grace_timer = self._host.scheduler.start_timer(grace, self._turn, self._believe)
        families = self._own()
        if not send_whole(master, ["", G_SLAVE, families], ["", G_SLAVE, {}]):
            for family, entries in families.items():
                self._send_update(master, family, Change(entries, []))
        for family in self._watched:
            self._watched[family] = False
            send(master, G_MON1, family)
        for number, (what, family, _answered) in self._queries.items():
            send(master, _QUERIES[what], family, number)
        for node in self._finds:
            send(master, G_FIND, node)
        self._introduced.clear()
        self._introduce()

    def _introduce(self) -> None:
        """See that the master hears of the other seeds that are global: they need not have been told of each other."""
        if self._other_seeds():
            self._query("keys", GLOBALS, self._heard_of_globals)

    def _other_seeds(self) -> list[str]:
        """Return the global seeds that a client's master may not know, and can dial: a name would tell it nothing."""
        if self._master is None or self._server is not None:
            return []
        others = [peer for peer in self._host.up_seeds() if peer in self._globals and peer is not self._master]
        return [peer.node for peer in others if is_resolved(peer.node)]

    def _heard_of_globals(self, known: Collection[str]) -> None:
        nodes = [node for node in self._other_seeds() if node not in known]
        if self._master is not None and nodes:
            self._introduced.update(nodes)
            self._send_update(self._master, GLOBALS, Change(dict.fromkeys(nodes), []))

    def _end_grace(self) -> None:
        timer, self._grace_timer = self._grace_timer, None
        if timer is not None:
            self._host.scheduler.end_timer(timer)
        self._sparing.clear()

    def _believe(self) -> None:
        """Whoever lives has had the time to attach to the new master: what is not there is gone."""
        spared = dict(self._sparing)
        self._end_grace()
        for family, entries in spared.items():
            assert self._observer is not None  # or else nothing is done
            self._observer.replaced(family, entries)

    def _own(self) -> dict[str, Entries]:
        """Return all that this node has to tell: its entries, and where it listens."""
        assert self._observer is not None  # or else nothing is done
        families = {family: dict(entries) for family, entries in self._observer.own.items()}
        addresses = self._host.addresses()
        if addresses:
            families[NODES] = {self._host.node_id: addresses}
        return families

    def _send_update(self, master: Peer, family: str, change: Change) -> None:
        def make(part: Change) -> Packet:
            return ["", G_UPD, family, part.entries or None, part.deleted]

        send_change(master, make, change)

    # --- being global ---

    def _make_server(self) -> DirectoryServer:
        """Make a directory of this node's own."""
        if self._server is None:
            assert self._observer is not None
            self._server = DirectoryServer(self._host, self._observer, self._synced, self._turn)
            for family, entries in self._own().items():
                self._server.publish(family, entries)
        return self._server

    def _become_global(self) -> DirectoryServer:
        """Serve the directory from now on."""
        server = self._make_server()
        if self._is_global:
            return server
        self._is_global = True
        server.publish(GLOBALS, {self._host.node_id: None})
        for peer in filter(speaks, self._host.up_peers()):
            send(peer, G_GLOBAL)
            if peer in self._globals:
                server.met_global(peer)
        if self._master is None:
            self._move_home()
        return server

    def _synced(self, peer: Peer) -> None:
        """Another global node has told this one all it has."""
        if peer is self._master:
            # A Perl node forgot what this one watched when it heard that it is global, and would take
            # it for a client again if it unwatched anything.
            if peer.greeting is not None and peer.greeting.is_ours:
                for family in self._watched:
                    send(peer, G_MON0, family)
            self._master = None
            self._move_home()

    def _move_home(self) -> None:
        """Answer this node's own watches and queries here, instead of by a master."""
        server = self._server
        if server is None or self._home is not None:
            return
        self._home = server
        self._end_grace()
        for family in self._watched:
            server.watch(family)
        queries, self._queries = self._queries, {}
        for what, family, answered in queries.values():
            answered(server.answer(what, family))
        finds, self._finds = self._finds, {}
        for node, asked in finds.items():
            for found in asked:
                found(server.find(node))

    # --- what peers ask, and answer ---

    def handle(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Do what a peer asks, or take what it answers.

        Raises:
            ValueError, TypeError: The arguments are wrong.
        """
        self._turn(self._handle, peer, request, args)

    def _handle(self, peer: Peer, request: str, args: list[Any]) -> None:
        if not peer.is_up:
            return  # it went while this waited for its turn
        for_server = self._SERVED.get(request)
        if for_server is None:
            self._TABLE[request](self, peer, *args)
        elif self._server is not None and self._is_global:
            for_server(self._server, peer, *args)
        # Else the peer takes this node for a global one, which it never said.

    def _slave(self, peer: Peer, database: Any = None, *_more: Any) -> None:
        if self._host.master is None:  # a slave could not have links to the other global nodes
            self._become_global().attach(peer, database)

    def _global(self, peer: Peer, *_more: Any) -> None:
        self._globals.add(peer)
        if self._server is not None and self._is_global:
            self._server.met_global(peer)
        self._introduce()

    def _reply(self, peer: Peer, number: Any, answer: Any, *_more: Any) -> None:
        asked = self._queries.get(gproto.text(number))
        if asked is None or peer is not self._master:
            return
        what, _family, answered = asked
        if what == "family":
            answer = gproto.entries(answer)
        elif what == "keys":
            answer = gproto.texts(answer)
        elif not isinstance(answer, list):
            raise TypeError("the values of a family are a list")
        del self._queries[gproto.text(number)]
        answered(answer)

    def _found(self, peer: Peer, node: Any, addresses: Any = None, *_more: Any) -> None:
        if peer is self._master:
            found = gproto.texts(addresses) or None
            for answered in self._finds.pop(gproto.text(node), ()):
                answered(found)

    def _whole(self, peer: Peer, family: Any, entries: Any = None, *_more: Any) -> None:
        name = gproto.text(family)
        if peer is self._master and name in self._watched and self._observer is not None:
            whole = gproto.entries(entries)
            self._watched[name] = True
            if self._grace_timer is not None and name in self._told:
                self._sparing[name] = whole
                self._observer.changed(name, dict(whole), ())
            else:
                self._told.add(name)
                self._observer.replaced(name, whole)

    def _changed(self, peer: Peer, family: Any, entries: Any = None, deleted: Any = None, *_more: Any) -> None:
        name = gproto.text(family)
        if peer is self._master and self._watched.get(name) and self._observer is not None:
            changed, gone = gproto.entries(entries), gproto.texts(deleted)
            spared = self._sparing.get(name)
            if spared is not None:
                spared.update(changed)
                for key in gone:
                    spared.pop(key, None)
            self._observer.changed(name, changed, gone)

    _TABLE: ClassVar[dict[str, Callable[..., None]]] = {
        G_SLAVE: _slave,
        G_GLOBAL: _global,
        G_REPLY: _reply,
        G_FOUND: _found,
        G_CHG1: _whole,
        G_CHG2: _changed,
    }

    _SERVED: ClassVar[dict[str, Callable[..., None]]] = {
        G_UPD: DirectoryServer.update,
        G_SET: DirectoryServer.replace,
        G_FIND: DirectoryServer.peer_finds,
        G_DB_FAMILY: lambda server, peer, *args: server.peer_asks(peer, "family", *args),
        G_DB_KEYS: lambda server, peer, *args: server.peer_asks(peer, "keys", *args),
        G_DB_VALUES: lambda server, peer, *args: server.peer_asks(peer, "values", *args),
        G_MON1: DirectoryServer.peer_watches,
        G_MON0: DirectoryServer.peer_unwatches,
    }
