# SPDX-License-Identifier: MIT
"""The embedded engine: the network's own seeds keep the directory, as in AnyEvent::MP.

A node is either *global*, with the whole directory in its own :mod:`aemp_gevent.directory.embedded.server`,
or the :mod:`aemp_gevent.directory.embedded.client` of one global node, its *master*: a seed whose link is up,
preferably one that is global already.

A node that is not a slave becomes global, for the rest of its life, when it is one of its own seeds, or when
another node has it for a seed or for a master; one without seeds has a directory to itself until then. If it was a
client, its own watches and queries stay with its master until that one has sent it everything. A global node answers
nothing until it has what the other ones have, or has waited long enough
(:mod:`aemp_gevent.directory.embedded.holding`).

Nothing here switches, and all calls take turns (:mod:`aemp_gevent.directory.embedded.turns`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from aemp_gevent.directory.embedded.client import DirectoryClient
from aemp_gevent.directory.embedded.holding import HeldAnswers
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.introductions import Introductions
from aemp_gevent.directory.embedded.protocol import GLOBALS, send, speaks
from aemp_gevent.directory.embedded.server import DirectoryServer
from aemp_gevent.directory.embedded.turns import Turns
from aemp_gevent.directory.engine import NODES, Entries, Observer, Query
from aemp_gevent.peers.peer import Peer
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


class EmbeddedEngine:
    """The directory of one node; an :class:`~aemp_gevent.directory.engine.Engine`.

    Args:
        host: The node's links.
    """

    def __init__(self, host: EmbeddedHost) -> None:
        self._host = host
        self._observer: Observer | None = None
        self._server: DirectoryServer | None = None
        self._holding: HeldAnswers | None = None  # as long as there is a server
        self._is_global = False  # whether others may use the server
        self._home: DirectoryServer | None = None  # the server, once it serves this node's own requests, too
        self._globals: set[Peer] = set()  # those whose links are up
        self._turns = Turns(host.scheduler, self._mend)
        self._client = DirectoryClient(host, self._turns)
        self._introductions = Introductions(host, self._client, self._globals)

    @property
    def role(self) -> str:
        """The node's role in the directory: ``"global"``, ``"client of …"``, or ``"alone"``."""
        if self._is_global:
            return "global"
        master = self._client.master
        return "alone" if master is None else f"client of {master.node}"

    def needs(self, peer: Peer) -> bool:
        """Whether the directory needs the link to a peer: it is the master, a client, or global like this node."""
        return peer is self._client.master or (self._server is not None and self._server.knows(peer))

    def keepers(self) -> list[str]:
        """Return the other nodes that keep the directory together with this one; none if it has a master."""
        return [] if self._server is None else self._server.keepers()

    def unheard(self) -> list[str]:
        """Return those of them that have not sent their entries, or whose link is down."""
        return [] if self._server is None else self._server.unheard()

    # --- what the node asks for ---

    def start(self, observer: Observer) -> None:
        """Begin."""
        self._observer = observer
        self._client.start(observer)
        self._turns.start()
        self._turns.take(self._seek)

    def stop(self) -> None:
        """End: all later calls are ignored. Idempotent."""
        self._observer = None
        self._turns.stop()
        self._client.stop()
        if self._server is not None:
            self._server.stop()
        if self._holding is not None:
            self._holding.stop()

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Publish a change of the node's own entries."""
        self._turns.take(self._publish, family, dict(entries), list(deleted))

    def _publish(self, family: str, entries: Entries, deleted: list[str]) -> None:
        (self._server or self._client).publish(family, entries, deleted)

    def watch(self, family: str) -> None:
        """Report a family to the observer from now on."""
        self._turns.take(self._watch, family)

    def _watch(self, family: str) -> None:
        (self._home or self._client).watch(family)

    def unwatch(self, family: str) -> None:
        """Stop reporting a family."""
        self._turns.take(self._unwatch, family)

    def _unwatch(self, family: str) -> None:
        (self._home or self._client).unwatch(family)

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once."""
        self._turns.take(self._query, what, family, answered)

    def _query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        if self._home is None:
            self._client.query(what, family, answered)
        else:
            answered(self._home.answer(what, family))

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens."""
        self._turns.take(self._find, node, answered)

    def _find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        found = None if self._server is None else self._server.find(node)
        if self._home is None and found is None:
            self._client.find(node, answered)
        else:
            answered(found)

    # --- what the links report ---

    def link_up(self, peer: Peer) -> None:
        """Begin to use a link that came up; nothing has been sent over it yet."""
        self._turns.take(self._link_up, peer)

    def _link_up(self, peer: Peer) -> None:
        if self._is_global and speaks(peer):
            send(peer, G_GLOBAL)
        self._seek()

    def link_down(self, peer: Peer) -> None:
        """Forget a link that was lost, and what came over it."""
        self._turns.take(self._link_down, peer)

    def _link_down(self, peer: Peer) -> None:
        self._globals.discard(peer)
        if self._server is not None:
            self._server.lost(peer)
        if self._holding is not None:
            self._holding.forget(peer)
        self._introductions.lost(peer)
        if peer is self._client.master:
            self._client.lost_master()
            self._seek()

    def families_of_others(self) -> Counter[str]:
        """Return how many entries clients of other programs have in each family."""
        return Counter() if self._server is None else self._server.families_of_others()

    def seeds_changed(self) -> None:
        """Look at the seeds again: one is up, or turned out to be this node."""
        self._turns.take(self._seek)
        self._turns.take(self._introductions.introduce)

    def _mend(self) -> None:
        """Bring to an end what an interrupt left half done, before and after the call is made again."""
        if self._server is not None:
            self._server.mend()
        self._seek()
        self._introductions.introduce()

    # --- finding the role ---

    def _seek(self) -> None:
        """Find a master, or become one."""
        if self._host.is_seed:
            self._become_global()
            for peer in self._host.up_seeds():
                if peer not in self._globals and speaks(peer):
                    send(peer, G_SLAVE)  # without entries: it only asks the peer to become global, too
        elif not self._host.has_seeds:
            self._make_server()  # for this node, until another one asks for it
        self._review()
        if self._client.master is not None or self._server is not None:
            return
        seeds = [peer for peer in self._host.up_seeds() if speaks(peer)]
        if seeds:
            master = next((peer for peer in seeds if peer in self._globals), seeds[0])
            self._introductions.forget()
            self._client.attach(master, self._own())
            self._introductions.introduce()

    def _own(self) -> dict[str, Entries]:
        """Return all that this node publishes: its entries, and where it listens."""
        assert self._observer is not None  # turns are over otherwise
        families = {family: dict(entries) for family, entries in self._observer.own.items()}
        addresses = self._host.addresses()
        if addresses:
            families[NODES] = {self._host.node_id: addresses}
        return families

    def _make_server(self) -> DirectoryServer:
        """Return this node's own directory, which is made if necessary."""
        if self._server is None:
            assert self._observer is not None
            server = DirectoryServer(self._host, self._observer, self._review, self._turns)
            self._introductions.end()
            for family, entries in self._own().items():
                server.publish(family, entries)
            self._holding = HeldAnswers(self._host, self._turns, self._lacking, self._review, server.warn)
            self._server = server  # not before: what is interrupted until here is done again
        return self._server

    def _become_global(self) -> DirectoryServer:
        """Serve the directory from now on."""
        server = self._make_server()
        if self._is_global:
            return server
        server.publish(GLOBALS, {self._host.node_id: None})
        for peer in filter(speaks, self._host.up_peers()):
            send(peer, G_GLOBAL)
            if peer in self._globals:
                server.met_global(peer)
        self._is_global = True
        self._review()
        return server

    def _lacking(self) -> list[str]:
        """Return the nodes whose part of the directory this one does not have, although they may send it."""
        server = self._server
        if server is None:
            return []
        seeds = [peer.node for peer in self._host.up_seeds() if speaks(peer) and not server.has_heard(peer)]
        mute = {peer.node for peer in self._host.up_peers() if not peer.rights.may_write}
        return [node for node in dict.fromkeys([*seeds, *server.unheard()]) if node not in mute]

    def _review(self) -> None:
        """Answer what was held back, if this node has what all others have."""
        server, holding = self._server, self._holding
        if server is None or holding is None:
            return
        holding.review()
        if not holding.is_over:
            return
        while (held := holding.next()) is not None:
            peer, request, args = held
            try:
                self._FOR_SERVER[request](server, peer, *args)
            except (TypeError, ValueError) as error:
                server.warn("node %s sent an invalid request %s: %s", peer.node, request, error)
            holding.answered()  # not before: what is interrupted until here is done again
        master = self._client.master
        if self._home is None and (master is None or server.has_heard(master)):
            # Serve this node's own watches and queries here, where they were sent to a master.
            self._client.hand_over(server)
            self._home = server
            self._client.leave_master()

    # --- what peers send ---

    def handle(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Handle a request or an answer of a peer.

        Raises:
            ValueError, TypeError: The arguments are wrong.
        """
        self._turns.take(self._handle, peer, request, args)

    def _handle(self, peer: Peer, request: str, args: list[Any]) -> None:
        if not peer.is_up:
            return  # its link was lost while this waited for its turn
        for_client = self._FOR_CLIENT.get(request)
        for_server = self._FOR_SERVER.get(request)
        if for_client is not None:
            for_client(self._client, peer, *args)
        elif for_server is None:
            self._TABLE[request](self, peer, *args)
        elif self._server is not None and self._holding is not None and self._is_global:
            if request in self._QUESTIONS and not self._holding.is_over:
                self._holding.hold(peer, request, args)
            else:
                for_server(self._server, peer, *args)
        # Otherwise the peer takes this node for a global one, which it never claimed to be.

    def _slave(self, peer: Peer, database: Any = None, *_more: Any) -> None:
        if self._host.master is None:  # a slave could not have links to the other global nodes
            self._become_global().attach(peer, database)

    def _global(self, peer: Peer, *_more: Any) -> None:
        self._globals.add(peer)
        if self._server is not None and self._is_global:
            self._server.met_global(peer)
        self._introductions.introduce()

    _TABLE: ClassVar[dict[str, Callable[..., None]]] = {G_SLAVE: _slave, G_GLOBAL: _global}

    _FOR_CLIENT: ClassVar[dict[str, Callable[..., None]]] = {
        G_REPLY: DirectoryClient.replied,
        G_FOUND: DirectoryClient.found,
        G_CHG1: DirectoryClient.whole,
        G_CHG2: DirectoryClient.changed,
    }

    _QUESTIONS = frozenset({G_DB_FAMILY, G_DB_KEYS, G_DB_VALUES, G_MON1, G_MON0, G_FIND})
    """What is answered, or takes back what is."""

    _FOR_SERVER: ClassVar[dict[str, Callable[..., None]]] = {
        G_UPD: DirectoryServer.update,
        G_SET: DirectoryServer.replace,
        G_FIND: DirectoryServer.peer_finds,
        G_DB_FAMILY: lambda server, peer, *args: server.peer_asks(peer, "family", *args),
        G_DB_KEYS: lambda server, peer, *args: server.peer_asks(peer, "keys", *args),
        G_DB_VALUES: lambda server, peer, *args: server.peer_asks(peer, "values", *args),
        G_MON1: DirectoryServer.peer_watches,
        G_MON0: DirectoryServer.peer_unwatches,
    }
