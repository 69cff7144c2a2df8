# SPDX-License-Identifier: MIT
"""The network as one node sees it: its peers, and the parts that make, find, accept and close links with them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from time import monotonic
from typing import Any

from gevent.event import Event

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.links.heartbeat import Pulse
from aemp_gevent.links.link import Link
from aemp_gevent.links.second_path import SecondPaths
from aemp_gevent.peers.dialling import Dialling
from aemp_gevent.peers.direct_peer import DirectPeer
from aemp_gevent.peers.finding import Finding
from aemp_gevent.peers.goodbyes import Goodbyes
from aemp_gevent.peers.link_maker import LinkMaker
from aemp_gevent.peers.listeners import Listeners
from aemp_gevent.peers.master_search import join
from aemp_gevent.peers.network_listener import NetworkListener
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.relaying import Routes
from aemp_gevent.peers.seeds import Seeds
from aemp_gevent.peers.strangers import Strangers
from aemp_gevent.peers.thread_handover import Handover
from aemp_gevent.peers.virtual_peer import VirtualPeer
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import ALL_PEERS, BoundedLog
from aemp_gevent.runtime.forking import Helper, keep, stop_watchers_of
from aemp_gevent.runtime.loop_watch import LoopWatch, watch_loop
from aemp_gevent.runtime.quantities import FOREVER_SECONDS
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.connector import Connector, SocketConnector

UNNEEDED_PEERS = 1000
"""Peers remembered without need, a few KiB each."""

MAX_LOST_PEERS = 10_000
"""Nodes remembered only because some of their ports were reported dead."""

RELOADABLE = frozenset(
    {"secret", "require_tls", "allow_spawn", "allow_eval", "allow_relay", "secure", "rules", "services"}
)
"""Settings that are looked at each time they are needed. Services are started and ended by the caller of ``reload``."""


class Network:
    """The links of a networked node.

    Args:
        node_id: The node's ID, which every greeting says.
        scheduler: Runs the node's ports.
        settings: Of the node.
        listener: The node, which gets what happens.
        connector: Makes the connections; None: sockets.
    """

    def __init__(
        self,
        node_id: str,
        scheduler: Scheduler,
        settings: Settings,
        listener: NetworkListener,
        connector: Connector | None = None,
    ) -> None:
        _ = scheduler.hub  # the node is this thread's from now on
        self.node_id = node_id
        self.master: str | None = None
        """The ID of this node's master, if it is a slave."""
        self.scheduler = scheduler
        self.settings = settings
        self.peers: dict[str, Peer] = {}
        self.listener = listener
        self.call_came = listener.call_came
        self.incarnation = ids.new_uniq()
        """Which process of its node this is."""
        self._sweep_at = UNNEEDED_PEERS
        self.about_peers = BoundedLog(scheduler.log_soon, "all peers together", ALL_PEERS)
        """Logs what peers cause, which have greeted."""
        self.refusals: Counter[str] = Counter()
        """How often others were refused something; see ``Node.refusals``."""
        self._closed = False
        self.started = monotonic()
        # Data for a blocked peer may wait in the system for that long.
        believed = FOREVER_SECONDS if settings.blocked_timeout is None else settings.blocked_timeout
        patience = max(settings.heartbeat_timeout, settings.monitor_timeout, believed)
        self.second_paths = SecondPaths(scheduler, settings.udp_port)
        """How blocked peers show that they live, and this node when it is blocked."""
        self.pulse = Pulse(scheduler, settings)
        self._loop_watch: LoopWatch | None = None
        self.connector = connector or SocketConnector(scheduler.hub, patience, settings.accept_rate)
        self._changed = Event()
        self.link_maker = LinkMaker(self)
        self.routes = Routes(self)
        """Ways to slaves, and from this node if it is one."""
        self.strangers = Strangers(self)
        self.listeners = Listeners(self)
        self.finding = Finding(self)
        self.dialling = Dialling(self)
        self.seeds = Seeds(self, settings.seeds)
        self._leaving = Goodbyes(self)
        self.handover = Handover(self)
        """How other native threads send."""

    # --- peers ---

    def peer(self, node: str) -> Peer:
        """Return the peer with this node ID."""
        peer = self.peers.get(node)
        if peer is None:
            if len(self.peers) >= self._sweep_at:
                self._sweep()
            hop = self.routes.hop_to(node)
            peer = DirectPeer(node, self) if hop is None else VirtualPeer(node, self, hop)
            self.peers[node] = peer
        return peer

    def known_peer(self, node: str) -> Peer | None:
        return self.peers.get(node)

    def _sweep(self) -> None:
        """Forget peers that nothing is known of but their ID; anybody may claim one in a greeting."""
        quiet = [peer for peer in self.peers.values() if peer.is_quiet]
        unneeded = [peer for peer in quiet if peer.can_be_forgotten]
        lost = [peer for peer in quiet if not peer.can_be_forgotten]
        surplus = lost[: max(0, len(lost) - MAX_LOST_PEERS)]  # those met first
        if surplus:
            text = "%d nodes are gone; forgetting which ports of the oldest %d were reported dead"
            self.scheduler.log_soon(logging.WARNING, text, len(lost), len(surplus))
        for peer in unneeded + surplus:
            peer.ports.forget_all()
            del self.peers[peer.node]
        self._sweep_at = 2 * len(self.peers) + UNNEEDED_PEERS

    def forget_if_unneeded(self, peer: Peer) -> None:
        """Forget a peer that may be a stranger's invention."""
        if peer.can_be_forgotten and self.peers.get(peer.node) is peer:
            peer.ports.forget_all()
            del self.peers[peer.node]

    def link_up(self, peer: Peer) -> None:
        self.changed()
        self.listener.link_up(peer)
        self.routes.link_up(peer)
        self.seeds.refresh()

    def state_changed(self, peer: Peer) -> None:
        self.listener.state_changed(peer)
        self.routes.state_changed(peer)

    def link_down(self, peer: Peer, reason: Reason, news: list[Job]) -> None:
        self.changed()
        self.listener.link_down(peer, reason, news)
        self.seeds.refresh()
        self.routes.link_down(peer, reason)

    def node_requested(self, peer: Peer, message: list[Any]) -> None:
        self.listener.node_requested(peer, message)

    def changed(self) -> None:
        """Wake all greenlets that wait for links to come or go."""
        changed, self._changed = self._changed, Event()
        changed.set()

    def wait_for_change(self, timeout: float) -> None:
        """Wait until a link came or went, or the time is over. Switches."""
        self._changed.wait(timeout)

    # --- other settings ---

    def reload(self, settings: Settings) -> list[str]:
        """Take over the settings that can change while the node is up; return the names of other changes.

        New connections know the new secret, and requests are judged by the new rules, at once.
        """
        changed = [
            each.name for each in fields(settings) if getattr(settings, each.name) != getattr(self.settings, each.name)
        ]
        possible = {name for name in changed if name in RELOADABLE}
        if bool(settings.secrets_bytes) != bool(self.settings.secrets_bytes):
            possible.discard("secret")  # our greetings say by which methods peers may prove themselves
        self.settings = replace(self.settings, **{name: getattr(settings, name) for name in possible})
        for peer in self.peers.values():
            peer.review_rights()
        return [name for name in changed if name not in possible]

    # --- links that are always to be there ---

    def up_seeds(self) -> list[Peer]:
        """Return the seeds whose links are up and kept, in an order that is the same on all nodes."""
        return self.seeds.up()

    def seeds_changed(self) -> None:
        """Take note that other seeds are up than before, or that this node turned out to be one."""
        self.finding.unsettle()
        self.listener.seeds_changed()

    def keep(self, node: str) -> None:
        """Keep a link to this node, until :meth:`unkeep`. Idempotent; never switches."""
        if not self._closed and node != self.node_id:
            self.seeds.keep(node)

    def unkeep(self, node: str) -> None:
        """Release the link to this node: it is closed when nothing else needs it. Idempotent; never switches."""
        self.seeds.unkeep(node)

    def is_kept(self, node: str) -> bool:
        """Return whether there must always be a link to this node."""
        peer = self.peers.get(node)
        return self.seeds.is_kept(node) or (peer is not None and (self.listener.needs(peer) or self.routes.needs(peer)))

    @property
    def is_closed(self) -> bool:
        """Whether this node shuts down."""
        return self._closed

    # --- being a slave ---

    def join(self, name: str, masters: Sequence[str], taken_in: Callable[[str], None]) -> None:
        """Become a slave of the first master that takes us in, and keep a link to it. Blocks.

        Args:
            name: The part of the node ID before the master's.
            masters: Noderefs.
            taken_in: Called on the hub with the node ID, before anything of the master's is handled.

        Raises:
            NoMasterError: None did within ``monitor_timeout``.
        """

        def adopt(link: Link, master: str) -> None:
            self.master = master
            taken_in(self.node_id)
            peer = self.peer(master)
            assert isinstance(peer, DirectPeer)  # it is our hop
            peer.adopt(link)

        seed = join(self, name, masters, adopt)
        self.seeds = Seeds(self, [seed], master=self.master or "")

    @property
    def loop_watch(self) -> LoopWatch | None:
        """What watches the event loop; None before :meth:`start`, and after the end."""
        return self._loop_watch

    # --- listening ---

    def listen(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Bind all endpoints and return them with their real ports; nothing is accepted before :meth:`start`.

        Raises:
            ListenError: One cannot be bound; none is then.
        """
        try:
            self.listeners.bind(endpoints)
        except BaseException:
            self.close()
            raise
        return self.listeners.endpoints

    def start(self) -> None:
        """Accept connections, and dial the seeds."""
        self._loop_watch = watch_loop(self.scheduler.hub)
        self._loop_watch.add(self.second_paths)
        self.finding.start()
        self.link_maker.check_own_name()
        self.listeners.start()
        self.seeds.start()

    # --- what the directory asks ---

    @property
    def is_seed(self) -> bool:
        """Whether this node is one of its seeds."""
        return self.seeds.are_own

    @property
    def has_seeds(self) -> bool:
        """Whether this node has any."""
        return bool(self.settings.seeds)

    @property
    def seeds_are_settled(self) -> bool:
        """Whether there is a link to every seed that can be linked to, as far as has been tried."""
        return self.seeds.are_settled

    def up_peers(self) -> list[Peer]:
        """Return all peers whose links are up."""
        return [peer for peer in self.peers.values() if peer.is_up]

    def link_to(self, node: str) -> None:
        """Request a link to a node; nothing is reported if there cannot be one."""
        if not self._closed:
            self.peer(node).connect()

    def addresses(self) -> list[str]:
        """Return where this node listens: endpoints that others can dial, as far as it knows."""
        return self.listeners.addresses()

    # --- the end ---

    def wait_for_names(self, timeout: float) -> float:
        """Wait until the nodes that messages wait for are found, or given up; return the seconds left. May switch.

        To be called before the directory ends, as that finds them.
        """
        self.handover.take()
        return self.finding.wait(timeout)

    def shut_down(self, timeout: float) -> None:
        """Stop accepting, say goodbye to the peers, send what is queued, and close. Switches.

        Args:
            timeout: Seconds for all of it; what has not left by then is left to the system.
        """
        self._closed = True
        self.listeners.close()
        self.seeds.stop()
        self.handover.take()
        try:
            self._leaving.take_leave(timeout)
        finally:
            self.close()

    def abandon(self) -> None:
        """Release all links and listeners in a forked child: the parent keeps using them.

        Nothing is sent, shut down or unlinked; only this process's copies of the
        descriptors are closed.
        """
        self._closed = True
        workers = [*self.dialling.workers, *self.seeds.workers]
        keep(self, workers)
        for worker in workers:
            if isinstance(worker, Helper):  # as all of them are
                worker.stopped = True
        watching = not self.scheduler.is_foreign
        if watching:
            self._stop_beating()
            stop_watchers_of(workers)  # seeds are waited for with long timers
        for peer in self.peers.values():
            if watching and isinstance(peer, VirtualPeer):
                peer.abandon()
            peer.link = None  # functions that were called over it may still return
            peer.room.open()  # greenlets of the program run on in the child, and would wait forever
        self.connector.abandon()
        self.listeners.abandon()
        self.second_paths.abandon(watching=watching)
        for link in self.link_maker.links:
            link.abandon(watching=watching)

    def _stop_beating(self) -> None:
        self.pulse.stop()
        if self._loop_watch is not None:
            self._loop_watch.remove(self.second_paths)
            self._loop_watch.release()
            self._loop_watch = None

    def close(self) -> None:
        """Close all links and listeners at once, without goodbye. Idempotent."""
        self._closed = True
        self.listeners.clear()
        self._stop_beating()
        self.second_paths.close()
        self.seeds.stop()
        self.dialling.stop()
        self.finding.sought.clear()
        self.strangers.close()
        self._leaving.close()
