# SPDX-License-Identifier: MIT
"""One seed: where it may be, which places are dialled, with which pauses, and to which nodes links are kept.

A seed is written in one of three ways:

- A *noderef* of numbers is one node. There is always to be a link to it.
- A *host name* stands for whatever the name service says: all addresses of ``host:4040``;
  all that the SRV record of ``host`` names, or else port 4040 of all its addresses. A
  headless service of Kubernetes is such a name, and its addresses, the *candidates*, come
  and go. The name service is asked again and again. What it says only ever adds candidates: a link that
  works is never given up because an address is gone. And as it may name a thousand
  nodes, links are kept to few of them, chosen in an order that is the same everywhere.
- A *folder* of Unix sockets (:mod:`aemp_gevent.addresses.socket_folders`) is a name, too, but which nodes are
  behind it is known at once, and for sure. So it is looked into more often, and nodes that left it are forgotten.

After an attempt that failed, the next one waits for a pause, which grows (:func:`new_pauses`, :func:`next_attempt`).
A seed that sent ``refused``, because another node has this node's ID, is dialled no earlier
than :mod:`aemp_gevent.peers.redialling` says, which has longer pauses for that. All seeds together, and the greenlets
that dial them, are in :mod:`aemp_gevent.peers.seeds`.

A seed is dialled by its address, so which node it is is known only from its greeting; it
may be this node itself.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Protocol

from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of, parse_endpoint
from aemp_gevent.addresses.resolve import resolve_all, resolve_node
from aemp_gevent.errors import AempError
from aemp_gevent.links.link import Link
from aemp_gevent.peers.peer import Peer
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.forking import helpers
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Settings

LINKS_A_NAME = 2
"""Links that are kept to the nodes behind one host name: one to use, and one in reserve."""

LINKS_A_FOLDER = 8
"""Links that are kept to the nodes in a folder. They cost little, and a node that is among the first so many loses
nothing of what the others know when one of these dies: each is global, and has no master."""

MAX_CANDIDATES = 1000
"""Addresses of one host name that are looked at; the first of them in their order."""

_FIRST_PAUSE_SECONDS = 0.5
_LAST_PAUSE_SECONDS = 30.0
"""A candidate that does not answer is dialled again after this long, doubling, with up to half of it as jitter."""

_SOON_SECONDS = 1.0
"""How long after the last attempt to dial an address again where nobody accepted, if something waits to be sent."""

_HEDGE_SECONDS = 1.0
"""A candidate that has not answered within this time holds up the next one no longer."""

_DEAD_FAILURES = 3
"""A candidate that did not answer so often in a row counts as none when a node asks whether it is a seed itself."""

_REASONS_A_SEED = 3
"""Reasons that are given why there is no link to any node behind a name."""

_FOLDER_SECONDS = 1.0
"""How often a folder is looked into: that takes 10 microseconds for each node in it."""

_FORGET_SECONDS = 300.0
"""A candidate that is no longer in the name service, and silent for so long, is forgotten."""

_log = Log()


class AddressDialler(Protocol):
    """The part of :class:`aemp_gevent.peers.dialling.Dialling` that is used here."""

    def dial_address(self, endpoints: tuple[Endpoint, ...], timeout: float) -> Link:
        """Connect with the node at an address, whichever it is. Blocks until connected; the handshake comes later.

        Raises:
            OSError: Nothing accepts there.
        """
        ...


class SeedsHost(Protocol):
    """The network in which there are seeds."""

    @property
    def node_id(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def peers(self) -> Mapping[str, Peer]: ...
    @property
    def dialling(self) -> AddressDialler: ...
    def peer(self, node: str) -> Peer: ...

    def addresses(self) -> list[str]:
        """Return where this node listens."""
        ...

    def wait_for_change(self, timeout: float) -> None:
        """Wait until a link came or went, or the time is over."""

    def changed(self) -> None:
        """Wake all greenlets that wait for that."""

    def seeds_changed(self) -> None:
        """Take note that other seeds are up than before."""


def new_pauses() -> Backoff:
    """Return the pauses between attempts at one node."""
    return Backoff(_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS)


class SeedCandidate:
    """One place where a seed may be.

    Args:
        endpoints: Where to dial it.
        now: On the monotonic clock.
    """

    def __init__(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        self.endpoints = endpoints
        self.order = _order(endpoints)
        """What candidates are sorted by; computed once, because it parses addresses."""
        self.node = ""
        """The node that answered there last; ``""``: none did yet."""
        self.is_own = False
        self.is_tried = False
        self.is_empty = False
        """Whether nobody accepted the last connection."""
        self.failures = 0
        """How many attempts in a row led to nothing."""
        self.why = ""
        """Why the last attempt failed; ``""`` if it did not."""
        self.due = now
        """When to dial it next."""
        self.seen = now
        """When the name service last listed it, or it was up."""
        self.tried = 0.0
        """When it was dialled last."""
        self.pauses = new_pauses()


class Seed:
    """One seed of the settings, and what is known of it.

    Args:
        text: As it stands in the settings.
        host: The network.
        chosen: Called when others may be chosen than before.
        is_name: Whether it stands for whatever the name service, or a folder, says.
        node: The node that it is, if that is known.
    """

    def __init__(
        self, text: str, host: SeedsHost, chosen: Callable[[], None], *, is_name: bool, node: str = ""
    ) -> None:
        self.text = text
        self._node = node
        self.is_name = is_name
        """Whether it is a host name or a folder, and so may be many nodes."""
        self._is_folder = is_name and parse_endpoint(text).is_folder
        self.candidates: dict[tuple[Endpoint, ...], SeedCandidate] = {}
        """By where they are, and in their order, which is the same on all nodes."""
        self._dialled: dict[SeedCandidate, None] = {}  # those that are being dialled
        self.chosen: list[str] = []
        """The nodes to which links are kept, and are up."""
        self._host = host
        self._tell_chosen = chosen
        self._tries = helpers()
        self._ask_at = 0.0
        self._pauses = new_pauses()
        self._why_unknown = ""  # why its addresses cannot be found out
        self._wanted = LINKS_A_FOLDER if self._is_folder else LINKS_A_NAME if self.is_name else 1

    def run(self) -> None:
        """Keep links for as long as the node lives, unless the seed is this node. Blocks."""
        while True:
            # A node that lost one that is gone from a folder need not wait to see which has come next.
            if monotonic() >= self._ask_at or (self._is_folder and not all(map(self._is_up, self.chosen))):
                self._ask()
                self._forget()
            if not self.is_name and self.is_own:
                self._tell_chosen()
                return  # all nodes of a network may be given the same list
            self._choose()
            self._tell_chosen()
            self._host.wait_for_change(max(0.001, self._try_more() - monotonic()))

    @property
    def is_own(self) -> bool:
        """Whether this node itself is the seed, or, behind a name, one of the first that live."""
        before = 0
        for candidate in self.candidates.values():
            if candidate.is_own or before >= self._wanted:
                return before < self._wanted
            before += candidate.failures < _DEAD_FAILURES or self._is_up(candidate.node)
        return False

    @property
    def is_settled(self) -> bool:
        """Whether there are as many links as there can be, as far as has been tried."""
        if not self.candidates or len(self.chosen) >= self._wanted:
            return bool(self.candidates)
        others = (candidate for candidate in self.candidates.values() if not candidate.is_own)
        first = itertools.islice(others, self._wanted)
        return all(candidate.node in self.chosen or candidate.failures for candidate in first)

    @property
    def why_down(self) -> str:
        """Why there is no link to any of its nodes; ``""``: there is one, or it is not known yet."""
        if self.chosen:
            return ""
        found = {candidate.why: None for candidate in self.candidates.values() if candidate.why}
        return "; ".join(itertools.islice(found, _REASONS_A_SEED)) or self._why_unknown

    # --- where it may be ---

    def _ask(self) -> None:
        """Find out where the seed may be; when that fails, everything stays as it was."""
        now = monotonic()
        try:
            found: list[tuple[Endpoint, ...]]
            if self.is_name:
                found = [(endpoint,) for endpoint in resolve_all(self.text)]
            else:
                found = [endpoints_of(resolve_node(self.text))]
        except (AempError, OSError) as error:
            _log.info("cannot find out where the seed %s is: %s", self.text, error)
            self._why_unknown = str(error)
            self._ask_at = now + min(self._pauses.next(), self._interval())
            return
        self._why_unknown = ""
        self._pauses.reset()
        self._ask_at = now + self._interval()
        self._take(found, now)

    def _take(self, found: Iterable[tuple[Endpoint, ...]], now: float) -> None:
        """Keep the candidates that were found, in their order; only those that are new cost more than a look-up."""
        own = {endpoint for address in self._host.addresses() for endpoint in endpoints_of(address)}
        known = self.candidates
        every = {where: known.get(where) or SeedCandidate(where, now) for where in found}
        named = dict(sorted(every.items(), key=_order_of)[:MAX_CANDIDATES])
        for candidate in named.values():
            candidate.seen = now
            candidate.node = candidate.node or self._node
            candidate.is_own = candidate.is_own or not own.isdisjoint(candidate.endpoints)
        is_whole = not self.is_name or self._is_folder
        self.candidates = named if is_whole else dict(sorted({**known, **named}.items(), key=_order_of))

    def _interval(self) -> float:
        """Return how long to wait before asking once more; not all nodes ask in step."""
        seconds = self._host.settings.seed_poll_interval
        if self._is_folder:
            seconds = min(seconds, _FOLDER_SECONDS)
        return seconds * (1 - random.random() / 4)  # noqa: S311

    def _forget(self) -> None:
        now = monotonic()
        for endpoints, candidate in list(self.candidates.items()):
            if candidate.node in self.chosen:
                candidate.seen = now
            elif not candidate.is_tried and now - candidate.seen > _FORGET_SECONDS:
                del self.candidates[endpoints]

    # --- which nodes to link to ---

    def _choose(self) -> None:
        """Keep to the nodes that are up; take others in the order of their addresses where some are missing."""
        lost = [node for node in self.chosen if not self._is_up(node)]
        if lost:
            self.chosen = [node for node in self.chosen if node not in lost]
            for candidate in self.candidates.values():
                if candidate.node in lost:  # and all others have lost it, too: not in step
                    self._postpone(candidate)
        for candidate in self.candidates.values():
            if len(self.chosen) >= self._wanted:
                break
            if candidate.node not in self.chosen and self._is_up(candidate.node):
                self.chosen.append(candidate.node)

    def _postpone(self, candidate: SeedCandidate) -> None:
        """Set when to dial a candidate again to which there is no link."""
        candidate.due = next_attempt(self._host, candidate.node, candidate.pauses)
        peer = self._host.peers.get(candidate.node)
        if peer is not None and peer.redialling.refused_until:  # it answered, and that led to nothing all the same
            candidate.failures += 1
            candidate.why = peer.last_error

    def _is_up(self, node: str) -> bool:
        return is_up(self._host, node)

    def _try_more(self) -> float:
        """Dial as many candidates as nodes are missing; return when to look again."""
        now = monotonic()
        look_at = self._ask_at
        missing = self._wanted - len(self.chosen)
        if missing <= 0:
            return look_at
        fresh = [each.tried + _HEDGE_SECONDS for each in self._dialled if now - each.tried < _HEDGE_SECONDS]
        missing -= len(fresh)
        look_at = min([look_at, *fresh])
        for candidate in self.candidates.values():
            if missing <= 0:
                break  # there is another look when one of these has answered, or has taken too long
            if candidate.is_own or candidate.is_tried or self._is_up(candidate.node):
                continue
            if candidate.due > now:
                look_at = min(look_at, candidate.due)
                continue
            missing -= 1
            candidate.is_tried = True
            candidate.tried = now
            self._dialled[candidate] = None
            look_at = min(look_at, now + _HEDGE_SECONDS)
            self._tries.spawn(self._try, candidate)
        return look_at

    def _try(self, candidate: SeedCandidate) -> None:
        """Dial a candidate, and wait for the outcome: which node it is is known from its greeting."""
        settings = self._host.settings
        patience = settings.handshake_timeout if self.is_name else settings.monitor_timeout
        candidate.is_empty = False
        try:
            link = self._host.dialling.dial_address(candidate.endpoints, patience)
        except (AempError, OSError) as error:
            where = ",".join(map(str, candidate.endpoints))
            candidate.why = str(error)
            candidate.is_empty = True
            _log.info("seed %s cannot be reached at %s: %s", self.text, where, error)
        else:
            while not (link.is_up or link.closed):
                # With a timeout, because a link that turns out to be a second one closes in silence.
                self._host.wait_for_change(1.0)
            candidate.why = link.why
            greeting = link.greeting
            if greeting is not None:
                candidate.node = greeting.node
                # By another address than our noderef's.
                candidate.is_own = greeting.node == self._host.node_id and greeting.uniq == self._host.incarnation
        candidate.is_tried = False
        del self._dialled[candidate]
        candidate.failures += 1
        if candidate.node and self._is_up(candidate.node):
            candidate.failures = 0
            candidate.why = ""
            candidate.pauses.reset()
        self._postpone(candidate)
        if not self.is_name and not candidate.is_own and not self._is_up(candidate.node):
            self._ask_at = min(self._ask_at, candidate.due)  # its host may have another address by then
        self._host.changed()

    @property
    def tries(self) -> list[Any]:
        """The greenlets that dial."""
        return list(self._tries)

    def dial_soon(self) -> bool:
        """Shorten the pauses before candidates where nobody accepted; return whether there are any such pauses."""
        is_shorter = False
        for candidate in self.candidates.values():
            soon = candidate.tried + _SOON_SECONDS
            if candidate.is_empty and not candidate.is_tried and candidate.due > soon:
                candidate.due = soon
                is_shorter = True
        return is_shorter

    def stop(self) -> None:
        """Stop dialling. Idempotent."""
        self._tries.kill(block=False)


def is_up(host: SeedsHost, node: str) -> bool:
    """Return whether there is a link to a node, which need not be a known one."""
    peer = host.peers.get(node)
    return peer is not None and peer.is_up


def next_attempt(host: SeedsHost, node: str, pauses: Backoff) -> float:
    """Return when to dial a node again to which there is no link, on the monotonic clock."""
    due = monotonic() + pauses.next()
    peer = host.peers.get(node)
    return due if peer is None else max(due, peer.redialling.refused_until)


def _order(endpoints: tuple[Endpoint, ...]) -> tuple[Any, ...]:
    """Return what candidates are sorted by, the same on all nodes: IPv4 before IPv6, and numbers; paths by age."""
    return tuple(
        (":" in endpoint.host, ipaddress.ip_address(endpoint.host).packed, endpoint.port)
        if endpoint.host
        else (True, os.fsencode(endpoint.path), 0)
        for endpoint in endpoints
    )


def _order_of(item: tuple[tuple[Endpoint, ...], SeedCandidate]) -> tuple[Any, ...]:
    return item[1].order
