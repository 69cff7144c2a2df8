# SPDX-License-Identifier: MIT
"""All links of one node: who listens, who dials, and who is which peer.

A connection is a *stranger* until it greets; then it is handed to the
:class:`~aemp_gevent.peers.peer.Peer` it claims to be, which decides about it.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import secrets
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event

from aemp_gevent._version import PROVIDER
from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import ANY_HOST, Endpoint, endpoints_of, parse_endpoint
from aemp_gevent.addresses.resolve import own_addresses
from aemp_gevent.errors import AempError, InvalidNoderefError, InvalidSettingError
from aemp_gevent.links.admission import Gate
from aemp_gevent.links.flow_control import Handover
from aemp_gevent.links.heartbeat import Pulse
from aemp_gevent.links.link import Link, LinkOwner
from aemp_gevent.peers.attempts import Attempt
from aemp_gevent.peers.direct_peer import DirectPeer
from aemp_gevent.peers.master_search import join
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.relaying import Routes
from aemp_gevent.peers.seeds import Seeds
from aemp_gevent.peers.virtual_peer import VirtualPeer
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import ALL_PEERS, BoundedLog
from aemp_gevent.runtime.forking import Helper, helpers, keep, stop_watchers_of
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.loop_watch import LoopWatch, watch_loop
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.connector import Connector, Listening, SocketConnector
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire import auth
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake, is_name_of
from aemp_gevent.wire.limits import Announced, is_long

if TYPE_CHECKING:
    from aemp_gevent.transport.certificates import Certificate
    from aemp_gevent.wire.credentials import Credentials
    from aemp_gevent.wire.tls import Tls

Answered = Callable[[Collection[str] | None], None]
"""Who is told where a node listens; None: nobody knows."""

_NONCE_BYTES = 66
"""As in Perl; 32 would do."""

IDLE_PEERS = 1000
"""Peers remembered without need, a few KiB each."""

MAX_LOST_PEERS = 10_000
"""Nodes remembered of which nothing is known but that some of their ports were reported dead."""

MAX_ADDRESSES = 16
"""Addresses of a node that are tried, of those that others say it has."""

RELOADABLE = frozenset(
    {"secret", "require_tls", "allow_spawn", "allow_eval", "allow_relay", "secure", "rules", "services"}
)
"""Settings that are looked at each time they are needed. Services are started and ended by whoever reloads."""

SETTLE_SECONDS = 5.0
"""After a node begins, and after other seeds are up than before, names that nobody knows are asked for once more until
so much time has passed: others that start at the same time, or lost the same seed, are on their way to one."""

_ASK_AGAIN_SECONDS = 0.3

_log = Log()


class Stranger:
    """The owner of a link until it greets.

    Args:
        network: Which knows all peers.
        attempt: Whom we meant to dial; None when we were dialled, or dialled a mere address.
    """

    def __init__(self, network: Network, attempt: Attempt | None) -> None:
        self._network = network
        self._attempt = attempt

    def greeted(self, link: Link) -> None:
        assert link.greeting is not None  # that is what "greeted" means
        limit = self._network.settings.max_name_bytes
        why = f"its node ID is longer than {limit} bytes" if is_long(link.greeting.node, limit) else ""
        why = why or self._network.routes.check_greeting(link.greeting.node)
        if why and self._network.routes.may_mean_us(link.greeting.node):
            # Whoever dials a named node knows its address and not its name, which it has by now, and comes again.
            text = "connection with %s closed: %s; it learns this node's name, and comes again"
            self._network.complaints.log(logging.DEBUG, text, link.transport.peer_address, why)
            self._network.forget(link)
            link.close()
            return
        if why:
            link.refuse("handshake", why)
            return
        self._network.strangers.discard(link)
        peer = self._network.peer(link.greeting.node)
        if self._network.is_closed and not peer.is_waiting:
            link.close()  # we said goodbye, and it would take this for a link that is lost
            return
        if self._attempt is not None:
            self._network.attempt_greeted(self._attempt, link, peer)
        assert isinstance(peer, DirectPeer)  # as all are
        peer.greeted(link)

    def failed(self, link: Link, why: str) -> None:
        self._network.strangers.discard(link)
        self._network.changed()
        text, address = "connection with %s closed: %s", link.transport.peer_address
        if self._is_spare(link):
            self._network.complaints.log(logging.DEBUG, text, address, why)
        elif self._attempt is not None and not link.is_refused:
            # As one that could not be made: the attempt has failed, which is logged, and whoever waits for it is told.
            self._network.complaints.log(logging.INFO, text, address, why)
        else:
            self._network.stranger_failed(text, address, why)
        if self._attempt is not None:
            self._network.attempt_failed(self._attempt, why)

    def _is_spare(self, link: Link) -> bool:
        """Return whether a peer that reports another link closed this one while TLS came up, without a fault here.

        As when two nodes dial each other, and the other one had seen both connections.
        """
        peer = self._network.known_peer(link.greeting.node) if link.greeting is not None else None
        return link.was_cut and isinstance(peer, DirectPeer) and peer.has_links

    def has_room(self, link: Link) -> None:
        """Our greeting has left."""

    # A link that is up, or ends in order, has greeted, and so has another owner.

    def came_up(self, link: Link) -> None: ...

    def begins(self, link: Link, packet: list[Any]) -> bool:
        return False

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def dropped(self, link: Link, name: str, message: list[Any]) -> None: ...

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

    def begins(self, link: Link, packet: list[Any]) -> bool:
        return True

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def dropped(self, link: Link, name: str, message: list[Any]) -> None: ...

    def has_room(self, link: Link) -> None:
        self._network.changed()  # whatever was the last to leave: the link may be closed now


class Network:
    """The links of a networked node.

    Args:
        node_id: The node's ID, which every greeting says.
        scheduler: Runs the node's ports.
        settings: Of the node.
        requested: Called with a peer and what it asked our node port.
        up: Called when a link to a node came up.
        down: Called when it went down; see ``peer.Host.link_down``.
        connector: Makes the connections; None: sockets.
    """

    def __init__(
        self,
        node_id: str,
        scheduler: Scheduler,
        settings: Settings,
        requested: Callable[[Peer, list[Any]], None],
        up: Callable[[Peer], None],
        down: Callable[[Peer, Reason, list[Job]], None],
        connector: Connector | None = None,
    ) -> None:
        _ = scheduler.hub  # the node is this thread's from now on
        self.node_id = node_id
        self.master: str | None = None
        """The ID of this node's master, if it is a slave."""
        self.scheduler = scheduler
        self.settings = settings
        self.peers: dict[str, Peer] = {}
        self._requested = requested
        self._up = up
        self._down = down
        self.incarnation = ids.new_uniq()
        """Which process of its node this is."""
        self.find: Callable[[str, Answered], None] | None = None
        """Asks where a named node listens; never switches. None: there is nobody to ask."""
        self.tell_seeds_changed: Callable[[], None] = _ignore
        """Called when :meth:`up_seeds` is another list than before, or this node turned out to be a seed. Must
        neither switch nor raise."""
        self._settled_at = 0.0
        self._sought: set[Peer] = set()  # peers of which somebody is asked where they listen
        self.needs: Callable[[Peer], bool] = lambda _peer: False
        """Whether the directory needs the link to a peer."""
        self._sweep_at = IDLE_PEERS
        self._listeners: list[Listening] = []
        self.strangers: set[Link] = set()
        self._gate = Gate(settings.max_strangers, settings.max_strangers_per_address)
        self.complaints = BoundedLog(scheduler.log_soon, "strangers")
        """What is logged about those who have not greeted."""
        self.about_peers = BoundedLog(scheduler.log_soon, "all peers together", ALL_PEERS)
        """What is logged about those who have."""
        self.refusals: Counter[str] = Counter()
        """How often others were refused something; see ``Node.refusals``."""
        self._closed = False
        self.started = monotonic()
        patience = max(settings.heartbeat_timeout, settings.monitor_timeout)
        self.pulse = Pulse(scheduler, settings)
        self._loop_watch: LoopWatch | None = None
        self.connector = connector or SocketConnector(scheduler.hub, patience, settings.accept_rate)
        self._certificate = _read_certificate(settings)
        self._checked: Credentials | None = None  # of which it is known whether they are this node's; None: not yet
        self._auth_methods = (
            *((auth.TLS_METHOD,) if self._certificate is not None else ()),
            *((auth.HMAC_METHOD,) if settings.secrets_bytes else ()),
        )
        self._dials = helpers()
        self._attempts: weakref.WeakKeyDictionary[Link, Attempt] = weakref.WeakKeyDictionary()  # in the handshake
        self.seeds = Seeds(self, settings.seeds)
        self._leaving: list[Link] = []
        self._announced = Announced(clock=monotonic)  # by all peers together
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()  # all that are open, whoever has them
        self._changed = Event()
        self.handover = Handover(self)
        """How other native threads send."""
        self.routes = Routes(self)
        """Ways to slaves, and from this node if it is one."""
        self._seeds_to_keep = settings.seeds

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

    def send_from_afar(self, node: str, packet: list[Any], *, pausing: bool) -> None:
        """Send a message to a port from another native thread.

        Args:
            node: Where the port is.
            packet: The port's name and the message.
            pausing: Whether to block while too much is unsent, or else to send nothing and raise.

        Raises:
            LinkBusyError, UnencodableMessageError, MessageTooLargeError: Nothing was sent.
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
        self.routes.link_up(peer)
        self.seeds.refresh()

    def link_stays(self, peer: Peer) -> None:
        self.routes.link_up(peer)

    def link_down(self, peer: Peer, reason: Reason, news: list[Job]) -> None:
        self.changed()
        self._down(peer, reason, news)
        self.seeds.refresh()
        self.routes.link_down(peer, reason)

    def unreachable(self, peer: Peer, why: str) -> None:
        self.routes.unreachable(peer, why)

    def request(self, peer: Peer, message: list[Any]) -> None:
        self._requested(peer, message)

    def changed(self) -> None:
        """Wake whoever waits for links to come or go."""
        changed, self._changed = self._changed, Event()
        changed.set()

    def wait_for_change(self, timeout: float) -> None:
        """Wait until a link came or went, or the time is over. Switches."""
        self._changed.wait(timeout)

    # --- other settings ---

    def reload(self, settings: Settings) -> list[str]:
        """Take over what may be another while the node is up; return the names of the settings that may not.

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
        """Other seeds are up than before, or this node turned out to be one."""
        self._settled_at = monotonic() + SETTLE_SECONDS
        self.tell_seeds_changed()

    def wait_for_seeds(self, timeout: float) -> bool:
        """Wait until each seed is linked to, or did not answer; return whether that came in time. Switches."""
        deadline = monotonic() + timeout
        while not self.seeds.are_settled:
            left = deadline - monotonic()
            if left <= 0:
                return False
            self.wait_for_change(left)
        return True

    def keep(self, node: str) -> None:
        """See that there is a link to this node, until told otherwise. Idempotent; never switches."""
        if not self._closed and node != self.node_id:
            self.seeds.keep(node)

    def unkeep(self, node: str) -> None:
        """Release the link to this node: it is closed when nobody else needs it. Idempotent; never switches."""
        self.seeds.unkeep(node)

    def is_kept(self, node: str) -> bool:
        """Return whether there must always be a link to this node."""
        peer = self.peers.get(node)
        return self.seeds.is_kept(node) or (peer is not None and (self.needs(peer) or self.routes.needs(peer)))

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
            for endpoint in endpoints:
                self._listeners.append(self.connector.listen(endpoint, self._accepted))
        except BaseException:
            self.close()
            raise
        return [listener.endpoint for listener in self._listeners]

    def start(self) -> None:
        """Accept connections, and dial the seeds."""
        self._loop_watch = watch_loop(self.scheduler.hub)
        self._settled_at = monotonic() + SETTLE_SECONDS
        self._check_own_name()
        self._check_addresses()
        for listener in self._listeners:
            listener.start()
        self.seeds.start()

    def _check_addresses(self) -> None:
        """Say so if others are told to look for this node on their own host, and nobody has chosen that."""
        listened = [listener.endpoint for listener in self._listeners]
        if endpoints_of(self.node_id) or not any(map(is_any, listened)):
            return
        told = self.addresses()
        if all(endpoint.host in ("127.0.0.1", "::1") for address in told for endpoint in endpoints_of(address)):
            text = (
                "node %s listens on all interfaces, but no address was found at which other hosts can reach this one: "
                "they are told %s; give the setting 'binds' an address"
            )
            _log.warning(text, self.node_id, ", ".join(told))

    def _check_own_name(self) -> None:
        if self._certificate is not None:
            self._check_names(self._certificate.current())

    def _check_names(self, mine: Credentials) -> None:
        self._checked = mine
        if not mine.is_shared and not any(is_name_of(name, self.node_id) for name in mine.names):
            text = "this node is %s, and its certificate is for %s: no peer that has one will talk to it"
            _log.error(text, self.node_id, ", ".join(mine.names) or "no node at all")

    def _accepted(self, transport: Transport) -> None:
        oldest = self._gate.admit(self.link(transport, Stranger(self, None), dialled=False))
        if oldest is not None:
            self.refusals["crowd"] += 1
            oldest.fail("too many connections are in their handshakes, and it was the oldest")

    def stranger_failed(self, text: str, *args: object) -> None:
        """A connection is closed on which the other side had not proved itself: log that."""
        self.complaints.warn(text, *args)

    def forget_if_idle(self, peer: Peer) -> None:
        """Forget a peer that may be a stranger's invention."""
        if peer.is_idle and self.peers.get(peer.node) is peer:
            peer.ports.forget_all()
            del self.peers[peer.node]

    # --- dialling ---

    def dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        if self._closed:
            peer.attempt_failed("this node was shut down")
        else:
            if not endpoints:
                self._sought.add(peer)
            self._dials.spawn(self._dial, peer, endpoints)

    def _dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        # What is left of monitor_timeout is for the handshake.
        deadline = monotonic() + self.settings.monitor_timeout
        if not endpoints:
            try:
                endpoints = self._find(peer, max(self.settings.monitor_timeout - self.settings.handshake_timeout, 1.0))
            except (OSError, AempError) as error:
                peer.attempt_failed(str(error))
                return
            finally:
                self._sought.discard(peer)
                self.changed()
        self._dial_next(Attempt(peer, endpoints, deadline))

    def _dial_next(self, attempt: Attempt) -> None:
        """Connect with the first endpoint that accepts; who is there shows later."""
        while not attempt.is_over:
            endpoint, connecting, proving = attempt.next(self.settings.handshake_timeout)
            try:
                # Both in the try: the connection may be gone again before we look at it.
                transport = self.connector.dial((endpoint,), connecting)
                self.link(transport, Stranger(self, attempt), dialled=True, timeout=proving)
            except (OSError, AempError) as error:
                attempt.failed(str(error))
            else:
                return
        attempt.peer.attempt_failed(attempt.why)

    def attempt_greeted(self, attempt: Attempt, link: Link, peer: Peer) -> None:
        """Somebody greets where a node was dialled."""
        if peer is attempt.peer:
            self._attempts[link] = attempt  # it is still to prove itself
        else:
            self.attempt_failed(attempt, f"the node at {link.transport.peer_address} is {peer.node}")

    def dial_failed(self, peer: Peer, link: Link, why: str) -> None:
        attempt = self._attempts.pop(link, None)
        if attempt is None:
            peer.attempt_failed(why)  # a mere address was dialled
        else:
            self.attempt_failed(attempt, why)

    def attempt_failed(self, attempt: Attempt, why: str) -> None:
        """An endpoint did not lead to the node that was dialled: try the next one."""
        attempt.failed(why)
        if attempt.is_over or self._closed or attempt.peer.is_up:
            attempt.peer.attempt_failed(attempt.why)
        else:
            self._dials.spawn(self._dial_next, attempt)

    def dial_address(self, endpoints: tuple[Endpoint, ...], timeout: float) -> Link:
        """Connect with whoever is there. Blocks until connected; the handshake is still to come.

        Raises:
            OSError: Nobody is.
        """
        return self.link(self.connector.dial(endpoints, timeout), Stranger(self, None), dialled=True)

    # --- where nodes listen whose IDs do not say it ---

    def can_find(self, node: str) -> bool:
        """Return whether there is anybody to ask where this node listens."""
        return self.find is not None and not node.startswith((ids.ANON_PREFIX, ids.SLAVE_PREFIX))

    def locate(self, node: str, answered: Callable[[tuple[Endpoint, ...]], None]) -> None:
        """Ask where a node listens; ``()`` when that is not known. Never switches."""
        if self.find is None:
            answered(())
        else:
            self.find(node, lambda addresses: answered(_checked(addresses)))

    def _find(self, peer: Peer, timeout: float) -> tuple[Endpoint, ...]:
        """Return where a node listens. Waits, as whoever knows may yet be connected with.

        Raises:
            OSError: Nobody knows, or nobody answers.
        """
        deadline = monotonic() + timeout
        is_answered = False
        while True:
            answer: AsyncResult[tuple[Endpoint, ...]] = AsyncResult()
            self.locate(peer.node, answer.set)
            try:
                endpoints = answer.get(timeout=max(deadline - monotonic(), 0.0))
            except gevent.Timeout:
                if is_answered:
                    endpoints = ()
                    break
                text = f"no known address: nobody could be asked for it within {timeout:g} s; is any seed up?"
                raise OSError(text) from None
            is_answered = True
            left = min(self._settled_at, deadline) - monotonic()
            if endpoints or left <= 0 or peer.is_up:
                break
            gevent.sleep(min(_ASK_AGAIN_SECONDS, left))
        peer.can_be_found = bool(endpoints)
        if not endpoints:
            raise OSError("no known address: is it running, with the same seeds?")
        return endpoints

    # --- what the directory asks ---

    @property
    def is_seed(self) -> bool:
        """Whether this node is one of its seeds."""
        return self.seeds.are_own

    @property
    def has_seeds(self) -> bool:
        """Whether this node has any."""
        return bool(self.settings.seeds)

    def up_peers(self) -> list[Peer]:
        """Return all peers whose links are up."""
        return [peer for peer in self.peers.values() if peer.is_up]

    def link_to(self, node: str) -> None:
        """See that there is a link to a node, soon; nobody is told if there cannot be one."""
        if not self._closed:
            self.peer(node).connect()

    def addresses(self) -> list[str]:
        """Return where this node listens: endpoints that others can dial, as far as it knows."""
        endpoints = endpoints_of(self.node_id)
        return list(map(str, self.reachable(endpoints))) if endpoints else self.bound_addresses()

    def bound_addresses(self) -> list[str]:
        """Return the endpoints that are bound, with real ports and addresses."""
        return list(map(str, self.reachable(listener.endpoint for listener in self._listeners)))

    def reachable(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Return endpoints that others can dial instead of those that stand for all interfaces: nobody's address."""
        found: dict[Endpoint, None] = {}  # a set that keeps its order
        for endpoint in endpoints:
            if is_any(endpoint):
                hosts = self._hosts(endpoint.host)
                found |= dict.fromkeys(Endpoint(host, endpoint.port) for host in hosts)
            else:
                found[endpoint] = None
        return list(found)

    def _hosts(self, wildcard: str) -> list[str]:
        """Return this host's addresses that a wildcard stands for: loopback if there is no other."""
        others = [endpoint.host for seed in self.settings.seeds for endpoint in endpoints_of(seed) if endpoint.host]
        hosts = own_addresses(others)
        if wildcard != ANY_HOST:
            is_v6 = ":" in wildcard
            return [host for host in hosts if (":" in host) == is_v6] or ["::1" if is_v6 else "127.0.0.1"]
        return hosts or ["127.0.0.1"]

    # --- links ---

    def link(self, transport: Transport, owner: LinkOwner, *, dialled: bool, timeout: float | None = None) -> Link:
        """Start a handshake on a connection, which may take ``handshake_timeout`` unless another time is given."""
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        greeting = Greeting(
            node=self.node_id,
            auth_methods=self._auth_methods,
            framings=tuple(FRAMINGS),
            extras=(
                ("provider", PROVIDER),
                ("peeraddr", transport.peer_address),
                ("mproto", "1"),
                ("gproto", "1"),
                ("uniq", self.incarnation),
                ("heartbeat", f"{self.settings.heartbeat_timeout:g}"),
                *((("tls", "1.0"),) if self._certificate is not None else ()),
            ),
        )
        shared = self.settings.secrets_bytes
        link = Link(
            transport,
            Handshake(
                greeting,
                nonce,
                shared[0] if shared else None,
                also_accepted=shared[1:],
                require_tls=self.settings.require_tls,
            ),
            owner,
            self.scheduler,
            prefix=self.node_id + "#",
            nonce=nonce,
            dialled=dialled,
            limits=self.settings.limits._replace(announced=self._announced),
            make_tls=self._make_tls,
            refusals=self.refusals,
        )
        self._links.add(link)
        self.strangers.add(link)
        link.start(self.settings.handshake_timeout if timeout is None else timeout)
        return link

    def _make_tls(self, is_client: bool) -> Tls:
        assert self._certificate is not None  # or we would not have offered it
        mine = self._certificate.current()
        if self._checked not in (None, mine):
            self._check_names(mine)
        return mine.connect(is_client=is_client)

    def forget(self, link: Link) -> None:
        """Stop counting a connection as a stranger's."""
        self.strangers.discard(link)
        self.changed()

    # --- the end ---

    def wait_for_names(self, timeout: float) -> float:
        """Wait until it is known, or given up, where the nodes listen that something waits for; return the time left.

        That is to be asked before the directory ends. Switches, if it has to wait.
        """
        self.handover.take()
        deadline = monotonic() + timeout
        while (left := deadline - monotonic()) > 0 and any(peer.is_waiting for peer in self._sought):
            self.wait_for_change(left)
        return max(left, 0.0)

    def shut_down(self, timeout: float) -> None:
        """Accept nobody any more, tell the peers, send what is queued, and close. Switches.

        Args:
            timeout: Seconds for all of it; what has not left by then is left to the system.
        """
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self.seeds.stop()
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
        """Release all links and listeners in a forked child: the parent goes on with them, undisturbed.

        Nothing is said to anybody, shut down or unlinked; only this process's copies of the
        descriptors are closed.
        """
        self._closed = True
        workers = [*self._dials, *self.seeds.workers]
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
            peer.room.open()  # greenlets that are not ours go on in the child, and would wait for ever
        self.connector.abandon()
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
        self.seeds.stop()
        self._dials.kill(block=False)
        self._sought.clear()
        for link in list(self.strangers):
            link.close()
        self.strangers.clear()
        for peer in list(self.peers.values()):
            self._see_off(peer)
        for link in self._leaving:
            link.close()
        self._leaving.clear()


def _read_certificate(settings: Settings) -> Certificate | None:
    """Return the node's certificate, if it has one.

    Raises:
        CertificateError: It cannot be used.
        InvalidSettingError: There is none, and other settings make sense only with one.
    """
    if not settings.cert:
        for name in ("require_tls", "ca"):
            value = getattr(settings, name)
            if value:
                raise InvalidSettingError(name, value, "it needs a certificate: set 'cert'", "the settings")
        return None
    # Imported only by those who want it: OpenSSL takes longer than all the rest.
    from aemp_gevent.transport.certificates import Certificate  # noqa: PLC0415

    return Certificate(settings.cert, settings.ca)


def _ignore() -> None: ...


def is_any(endpoint: Endpoint) -> bool:
    """Whether an endpoint stands for all interfaces: ``*``, ``0.0.0.0`` or ``::``."""
    if endpoint.path:
        return False
    return endpoint.host == ANY_HOST or ipaddress.ip_address(endpoint.host).is_unspecified


def _checked(addresses: object) -> tuple[Endpoint, ...]:
    """Return those of the addresses that somebody says a node has which can be dialled."""
    if not isinstance(addresses, Collection) or isinstance(addresses, (str, bytes)):
        return ()
    found: list[Endpoint] = []
    for address in itertools.islice(addresses, MAX_ADDRESSES):
        if isinstance(address, str) and len(address) <= ids.MAX_NAME:
            found += filter(None, map(_endpoint, address.split(",")))
    return tuple(found[:MAX_ADDRESSES])


def _endpoint(address: str) -> Endpoint | None:
    """Return an endpoint that can be dialled as it stands; however it is spelled, as Perl shortens IPv6 differently."""
    try:
        endpoint = parse_endpoint(address)
    except InvalidNoderefError:
        return None
    names_port = endpoint.port and address.endswith(f":{endpoint.port}")
    can_be_dialled = endpoint.is_numeric and (endpoint.path or names_port) and not is_any(endpoint)
    return endpoint if can_be_dialled else None
