# SPDX-License-Identifier: MIT
"""All links of one node: who listens, who dials, and who is which peer.

A connection is a *stranger* until it greets; then it is handed to the
:class:`~aemp_gevent.peer.Peer` it claims to be, which decides about it.
"""

from __future__ import annotations

import logging
import random
import secrets
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.pool
from gevent.event import Event

from aemp_gevent import ids
from aemp_gevent._version import __version__
from aemp_gevent.carrier import Carrier, Listening, SocketCarrier
from aemp_gevent.errors import AempError
from aemp_gevent.flow import Handover
from aemp_gevent.forking import Helper, keep
from aemp_gevent.heartbeat import Pulse
from aemp_gevent.ids import Endpoint
from aemp_gevent.link import Link
from aemp_gevent.loopwatch import LoopWatch, watch_loop
from aemp_gevent.peer import Peer
from aemp_gevent.port import Reason
from aemp_gevent.resolve import resolve_node
from aemp_gevent.scheduler import Scheduler
from aemp_gevent.settings import Settings
from aemp_gevent.transport import Transport
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake

PROVIDER = f"aemp_gevent-{__version__}"

_NONCE_BYTES = 66
"""As in Perl; 32 would do."""

IDLE_PEERS = 1000
"""Peers remembered without need, a few KiB each."""

MAX_LOST_PEERS = 10_000
"""Nodes remembered of which nothing is known but that some of their ports were reported dead."""

_FIRST_SEED_SECONDS = 0.5
_LAST_SEED_SECONDS = 30.0
"""A seed that does not answer is dialled again after this long, doubling, with up to half of it as jitter."""

_log = logging.getLogger("aemp_gevent")


class Stranger:
    """The owner of a link until it greets.

    Args:
        network: Which knows all peers.
        target: Whom we meant to dial; None when we were dialled, or dialled a mere address.
    """

    def __init__(self, network: Network, target: Peer | None) -> None:
        self._network = network
        self._target = target

    def greeted(self, link: Link) -> None:
        self._network.strangers.discard(link)
        assert link.greeting is not None  # that is what "greeted" means
        peer = self._network.peer(link.greeting.node)
        if self._target is not None and self._target is not peer:
            self._target.attempt_failed(f"the node at {link.transport.peer_address} is {peer.node}")
        peer.greeted(link)

    def failed(self, link: Link, why: str) -> None:
        self._network.strangers.discard(link)
        self._network.changed()
        self._network.scheduler.log_soon(
            logging.WARNING, "connection with %s closed: %s", link.transport.peer_address, why
        )
        if self._target is not None:
            self._target.attempt_failed(why)

    def has_room(self, link: Link) -> None:
        """Our greeting has left."""

    # A link that is up, or ends in order, has greeted, and so has another owner.

    def came_up(self, link: Link) -> None: ...

    def begins(self, link: Link) -> bool:
        return False

    def requested(self, link: Link, message: list[Any]) -> None: ...

    def ended(self, link: Link) -> None: ...


class Leaver:
    """The owner of a link that has only to be read to its end: this node shuts down.

    Args:
        network: To be told of the end.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def ended(self, link: Link) -> None:
        self._network.changed()

    def failed(self, link: Link, why: str) -> None:
        self._network.changed()

    # Nobody is to answer any more.

    def greeted(self, link: Link) -> None: ...

    def came_up(self, link: Link) -> None: ...

    def begins(self, link: Link) -> bool:
        return True

    def requested(self, link: Link, message: list[Any]) -> None: ...

    def has_room(self, link: Link) -> None: ...


class Network:
    """The links of a networked node.

    Args:
        node_id: The node's ID, which every greeting says.
        scheduler: Runs the node's ports.
        settings: Of the node.
        requested: Called with a peer and what it asked our node port.
        up: Called when a link to a node came up.
        down: Called when it went down.
        carrier: Makes the connections; None: sockets.
    """

    def __init__(
        self,
        node_id: str,
        scheduler: Scheduler,
        settings: Settings,
        requested: Callable[[Peer, list[Any]], None],
        up: Callable[[Peer], None],
        down: Callable[[Peer, Reason], None],
        carrier: Carrier | None = None,
    ) -> None:
        _ = scheduler.hub  # the node is this thread's from now on
        self.node_id = node_id
        self.scheduler = scheduler
        self.settings = settings
        self.peers: dict[str, Peer] = {}
        self._requested = requested
        self._up = up
        self._down = down
        self._incarnation = ids.new_uniq()
        self._sweep_at = IDLE_PEERS
        self._listeners: list[Listening] = []
        self.strangers: set[Link] = set()
        self._own_seeds: set[str] = set()  # seeds that turned out to be this node
        self._seed_peers: dict[str, Peer] = {}  # who answered for a seed last
        self.seeds_changed: Callable[[], None] = lambda: None
        """Called when a seed is up, or turned out to be this node."""
        self._closed = False
        patience = max(settings.heartbeat_timeout, settings.monitor_timeout)
        self.pulse = Pulse(scheduler, settings)
        self._loop_watch: LoopWatch | None = None
        self._carrier = carrier or SocketCarrier(scheduler.hub, patience)
        self._dials = _helpers()
        self._seeds = _helpers()
        self._leaving: list[Link] = []
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()  # all that are open, whoever has them
        self._changed = Event()
        self.handover = Handover(self)
        """How other native threads send."""

    # --- peers ---

    def peer(self, node: str) -> Peer:
        """Return the peer with this node ID."""
        peer = self.peers.get(node)
        if peer is None:
            if len(self.peers) >= self._sweep_at:
                self._sweep()
            peer = self.peers[node] = Peer(node, self)
        return peer

    def known_peer(self, node: str) -> Peer | None:
        return self.peers.get(node)

    def send_from_afar(self, node: str, packet: list[Any], *, pausing: bool) -> None:
        """Send a message to a port from another native thread.

        Args:
            node: Where the port is.
            packet: The port's name and the message.
            pausing: Whether to block while too much is unsent, or else to send nothing and raise.

        Raises:
            LinkBusy, UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if not pausing:
            self.handover.check_room(node)
        self.handover.send(node, packet)
        if pausing:
            self.handover.pause(node)

    def _sweep(self) -> None:
        """Forget peers that nothing is known of but their ID; anybody may claim one in a greeting."""
        quiet = [peer for peer in self.peers.values() if peer.is_quiet]
        idle = [peer for peer in quiet if peer.is_idle]
        lost = [peer for peer in quiet if not peer.is_idle]
        surplus = lost[: max(0, len(lost) - MAX_LOST_PEERS)]  # those met first
        if surplus:
            text = "%d nodes are gone; forgetting which ports of the oldest %d were reported dead"
            self.scheduler.log_soon(logging.WARNING, text, len(lost), len(surplus))
        for peer in idle + surplus:
            peer.ports.forget_all()
            del self.peers[peer.node]
        self._sweep_at = 2 * len(self.peers) + IDLE_PEERS

    def link_up(self, peer: Peer) -> None:
        self.changed()
        self._up(peer)

    def link_down(self, peer: Peer, reason: Reason) -> None:
        self.changed()
        self._down(peer, reason)

    def request(self, peer: Peer, message: list[Any]) -> None:
        self._requested(peer, message)

    def changed(self) -> None:
        """Wake whoever waits for links to come or go."""
        changed, self._changed = self._changed, Event()
        changed.set()

    # --- listening ---

    def listen(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Bind all endpoints and return them with their real ports; nothing is accepted before :meth:`start`.

        Raises:
            ListenError: One cannot be bound; none is then.
        """
        try:
            for endpoint in endpoints:
                self._listeners.append(self._carrier.listen(endpoint, self._accepted))
        except BaseException:
            self.close()
            raise
        return [listener.endpoint for listener in self._listeners]

    def start(self) -> None:
        """Accept connections, and dial the seeds."""
        self._loop_watch = watch_loop(self.scheduler.hub)
        for listener in self._listeners:
            listener.start()
        for seed in self.settings.seeds:
            self._seeds.spawn(self._keep_seed, seed)

    def _accepted(self, transport: Transport) -> None:
        self._link(transport, None, dialled=False)

    # --- dialling ---

    def dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        if self._closed:
            peer.attempt_failed("this node was shut down")
        else:
            self._dials.spawn(self._dial, peer, endpoints)

    def _dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        # What is left of monitor_timeout is for the handshake.
        patience = max(self.settings.monitor_timeout - self.settings.handshake_timeout, 1.0)
        try:
            # Both in the try: the connection may be gone again before we look at it.
            self._link(self._carrier.dial(endpoints, patience), peer, dialled=True)
        except (OSError, AempError) as error:
            peer.attempt_failed(str(error))

    def _keep_seed(self, seed: str) -> None:
        """Keep a link to a seed for as long as the node lives."""
        pause = _FIRST_SEED_SECONDS
        while True:
            node = self._try_seed(seed)
            if seed in self._own_seeds:
                self.seeds_changed()
                return  # all nodes of a network may be given the same list
            if node is not None:
                pause = _FIRST_SEED_SECONDS
                self._seed_peers[seed] = node
                self.seeds_changed()
                while node.link is not None:
                    self._changed.wait()
            gevent.sleep(pause * (1 + random.random() / 2))  # noqa: S311  # jitter, no secret
            pause = min(2 * pause, _LAST_SEED_SECONDS)

    def _try_seed(self, seed: str) -> Peer | None:
        """Dial a seed and wait for the outcome; its node ID is known only from its greeting."""
        try:
            endpoints = ids.endpoints(resolve_node(seed))
            if not set(endpoints).isdisjoint(ids.endpoints(self.node_id)):
                self._own_seeds.add(seed)
                return None
            link = self._link(self._carrier.dial(endpoints, self.settings.monitor_timeout), None, dialled=True)
        except (AempError, OSError) as error:
            _log.info("seed %s cannot be reached: %s", seed, error)
            return None
        while not (link.is_up or link.closed):
            # With a timeout, because a link that turns out to be a second one closes in silence.
            self._changed.wait(1.0)
        greeting = link.greeting
        if greeting is None:
            return None
        if greeting.node == self.node_id and greeting.uniq == self._incarnation:
            self._own_seeds.add(seed)  # by another address than our noderef's
        return self.peers.get(greeting.node)

    # --- what the directory asks ---

    @property
    def is_seed(self) -> bool:
        """Whether this node has no seeds, or is one of them."""
        return not self.settings.seeds or bool(self._own_seeds)

    def up_peers(self) -> list[Peer]:
        """Return all peers whose links are up."""
        return [peer for peer in self.peers.values() if peer.is_up]

    def up_seeds(self) -> list[Peer]:
        """Return the seeds whose links are up, in the order of the settings."""
        seeds = [self._seed_peers.get(seed) for seed in self.settings.seeds]
        return [peer for peer in dict.fromkeys(seeds) if peer is not None and peer.is_up]

    def link_to(self, node: str) -> None:
        """See that there is a link to a node, soon; nobody is told if there cannot be one."""
        if not self._closed:
            self.peer(node).connect()

    def addresses(self) -> list[str]:
        """Return where this node listens: endpoints that others can dial, as far as it knows."""
        endpoints = ids.endpoints(self.node_id) or [listener.endpoint for listener in self._listeners]
        return [str(endpoint) for endpoint in endpoints if endpoint.host != ids.ANY_HOST]

    # --- links ---

    def _link(self, transport: Transport, target: Peer | None, *, dialled: bool) -> Link:
        """Start a handshake on a connection."""
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        greeting = Greeting(
            node=self.node_id,
            auth_methods=("hmac_sha3_512",),
            framings=tuple(FRAMINGS),
            extras=(
                ("provider", PROVIDER),
                ("peeraddr", transport.peer_address),
                ("mproto", "1"),
                ("gproto", "1"),
                ("uniq", self._incarnation),
                ("heartbeat", f"{self.settings.heartbeat_timeout:g}"),
            ),
        )
        link = Link(
            transport,
            Handshake(greeting, nonce, self.settings.secret_bytes),
            Stranger(self, target),
            self.scheduler,
            prefix=self.node_id + "#",
            nonce=nonce,
            dialled=dialled,
            max_message_bytes=self.settings.max_message_bytes,
        )
        self._links.add(link)
        self.strangers.add(link)
        link.start(self.settings.handshake_timeout)
        return link

    # --- the end ---

    def shut_down(self, timeout: float) -> None:
        """Accept nobody any more, tell the peers, send what is queued, and close. Switches.

        Args:
            timeout: Seconds for all of it; what has not left by then is left to the system.
        """
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._seeds.kill(block=False)
        self.handover.take()
        patience = gevent.Timeout(timeout)
        try:
            with patience:
                self._take_leave()
        except gevent.Timeout as timed_out:
            if timed_out is not patience:
                raise
            left = sorted({link.greeting.node for link in self._leaving if link.greeting and not link.closed})
            left += sorted(peer.node for peer in self.peers.values() if peer.is_waiting)
            if left:
                _log.warning("shut down after %g s, and these had not taken everything: %s", timeout, ", ".join(left))
        finally:
            self.close()

    def _take_leave(self) -> None:
        while True:
            for peer in list(self.peers.values()):
                if not peer.is_waiting:  # for a link, which is being made
                    self._see_off(peer)
            gevent.sleep(0)  # what was written leaves at the end of the loop's iteration
            waiting = any(peer.is_waiting for peer in self.peers.values())
            if not waiting and all(link.closed for link in self._leaving):
                return
            # With a timeout, because nobody says that a queue was dropped.
            self._changed.wait(0.1)

    def _see_off(self, peer: Peer) -> None:
        for link in peer.depart():
            link.owner = Leaver(self)
            self._leaving.append(link)

    def abandon(self) -> None:
        """Let go of all links and listeners, in a forked child: the parent goes on with them, undisturbed.

        Nothing is said to anybody, shut down or unlinked; only this process's copies of the
        descriptors are closed.
        """
        self._closed = True
        workers = [*self._dials, *self._seeds]
        keep(self, workers)
        for worker in workers:
            if isinstance(worker, Helper):  # as all of them are
                worker.stopped = True
        watching = not self.scheduler.is_foreign
        if watching:
            self._stop_beating()
        for peer in self.peers.values():
            peer.room.open()  # greenlets that are not ours go on in the child, and would wait for ever
        self._carrier.abandon()
        for listener in self._listeners:
            listener.abandon()
        for link in self._links:
            link.abandon(watching=watching)

    def _stop_beating(self) -> None:
        self.pulse.stop()
        if self._loop_watch is not None:
            self._loop_watch.release()
            self._loop_watch = None

    def close(self) -> None:
        """Close all links and listeners at once, without a word. Idempotent."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._stop_beating()
        self._seeds.kill(block=False)
        self._dials.kill(block=False)
        for link in list(self.strangers):
            link.close()
        self.strangers.clear()
        for peer in list(self.peers.values()):
            self._see_off(peer)
        for link in self._leaving:
            link.close()
        self._leaving.clear()


def _helpers() -> gevent.pool.Group:
    """Return a group for greenlets of ours, which stop in a forked child."""
    group = gevent.pool.Group()
    group.greenlet_class = Helper
    return group
