# SPDX-License-Identifier: MIT
"""What a node reports about itself to those that may look into it: the answers of ``info`` and ``inspect``.

The figures come from state that exists anyway; only packets and the blocked loop are counted for this. An answer is a
map of plain values, so that it can travel, and its size is bounded, however many ports and links there are. Looking at
a million ports takes a fifth of a second, so a job does it that lets others run in between.

The right to look comes from :mod:`aemp_gevent.settings.rules`; the log is sent by :mod:`aemp_gevent.node.log_feed`.
"""

from __future__ import annotations

import heapq
import itertools
import os
import platform
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socket import gethostname
from time import monotonic
from types import FrameType
from typing import Any, Protocol

import gevent
from greenlet import getcurrent

from aemp_gevent._version import PROVIDER
from aemp_gevent.addresses.endpoints import endpoints_of
from aemp_gevent.calls.serve import Wait
from aemp_gevent.calls.watching import CallWatch
from aemp_gevent.links.link import Link
from aemp_gevent.node.metrics import MAX_FULLEST, Metrics
from aemp_gevent.node.port_view import PortViews, frame_of, frames_from
from aemp_gevent.peers.network import Network
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.virtual_peer import VirtualPeer
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.port import IDLE, QUEUED, REMOTE, Port
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.loop_watch import place_of
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.rules import EVERYTHING, PeerRule

MAX_ENTRIES = 1000
"""Ports, or links, in one answer: about 300 KiB."""

MAX_AT_ONCE = 16
"""Answers that are made at the same time; another request is refused."""

PARTS = ("links", "ports", "families", "metrics", "trees")
"""The parts of an answer that are there only on request."""

_SLICE = 1000
"""Ports looked at in a row, which takes 0.3 ms."""

_MAX_TEXT = 200

Answered = Callable[[dict[str, Any]], None]  # Any: whatever can travel


class InspectedNode(Protocol):
    """The node that is looked into."""

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def network(self) -> Network | None:
        """Its links; None while it is private."""
        ...

    @property
    def waiting(self) -> Mapping[Port, Wait]:
        """The ports that are blocked in a call, and which ports they called."""
        ...

    @property
    def directory_role(self) -> str:
        """Its part in the directory."""
        ...

    @property
    def own_families(self) -> dict[str, int]:
        """The number of entries in each family of the directory that it, and clients that cannot be asked, have set."""
        ...

    def watch_calls(self, watch: CallWatch) -> None:
        """Observe the calls that the node's code makes, from now on."""
        ...

    def trees(self, limit: int, /) -> list[dict[str, Any]]:
        """Return at most so many supervisors and children."""
        ...

    def find_port(self, name: str) -> Port | None:
        """Return the living local port of this name."""
        ...

    def NODE(self) -> str: ...


class Inspection:
    """Answers questions about one node.

    Args:
        host: The node.
    """

    def __init__(self, host: InspectedNode) -> None:
        self._host = host
        self._at_once = 0
        self.metrics = Metrics(host)
        """The figures for systems that monitor the node."""
        self.views = PortViews(host)
        """Single ports, for those who look at them."""

    def ask(self, peer: Peer | None, what: object, answered: Answered) -> None:
        """Call back with the answer to a question. Never switches.

        Args:
            peer: The node that asks; None for this node itself.
            what: The parts besides the node as a whole, a list of :data:`PARTS`, or a map from each to its
                largest number of entries. Or a map with ``port``: about that port alone, with its stack and, if
                ``messages`` is true, the messages that it gets.
            answered: Called with a map; after an error it has only the key ``error`` and those that name the node.
        """
        if isinstance(what, Mapping) and "port" in what:
            self._host.scheduler.enqueue_job(CallJob(None, self._answer_about_port, (what, answered)))
            return
        try:
            limits = _limits(what)
        except ValueError as error:
            answered(self.refusal(str(error)))
            return
        if self._at_once >= MAX_AT_ONCE:
            answered(self.refusal(f"{MAX_AT_ONCE} answers are under way already; ask again later"))
            return
        self._at_once += 1
        self._host.scheduler.enqueue_job(CallJob(None, self._answer, (peer, limits, answered)))

    def _answer_about_port(self, what: Mapping[str, Any], answered: Answered) -> None:
        try:
            port, found = self.views.look(what)
        except ValueError as error:
            answered(self.refusal(str(error)))
        else:
            answered({"node": self._host.NODE(), "provider": PROVIDER, "port": self._port(port), **found})

    def refusal(self, why: str) -> dict[str, Any]:
        """Return the answer to a refused request: which node this is, and why it refuses."""
        return {"node": self._host.NODE(), "provider": PROVIDER, "error": why}

    def _answer(self, peer: Peer | None, limits: dict[str, int], answered: Answered) -> None:
        try:
            census = Census(max(limits.get("ports", 0), MAX_FULLEST if "metrics" in limits else 0))
            census.take(self._host.scheduler)
            fullest = census.foremost()
            found = self._figures(peer, census)
            if "links" in limits:
                found["links"] = self._links(limits["links"])
            if "ports" in limits:
                found["ports"] = [self._port(port) for port in fullest[: limits["ports"]]]
            if "trees" in limits:
                found["trees"] = self._host.trees(limits["trees"])
            if "families" in limits:
                may_read = peer is None or peer.rights.may_read
                families = self._host.own_families if may_read else {}
                found["families"] = dict(itertools.islice(families.items(), limits["families"]))
            if "metrics" in limits:
                found["metrics"] = self.metrics.answer(found, census, map(self._port, fullest[:MAX_FULLEST]))
        finally:
            self._at_once -= 1
        answered(found)

    # --- the node as a whole ---

    def _figures(self, peer: Peer | None, census: Census) -> dict[str, Any]:
        host, network, scheduler = self._host, self._host.network, self._host.scheduler
        watch = None if network is None else network.loop_watch
        carried = () if network is None else network.link_maker.traffic.sums().values()
        return {
            "node": host.NODE(),
            "provider": PROVIDER,
            "python": platform.python_version(),
            "host": gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
            "seconds": None if network is None else monotonic() - network.started,
            "roles": self._roles(),
            "master": None if network is None else network.master,
            "directory": host.directory_role,
            "addresses": [] if network is None else network.addresses(),
            "seeds": [] if network is None else list(network.settings.seeds),
            "link_count": 0 if network is None else len(network.up_peers()),
            "packets_in": sum(each.packets_in for each in carried),
            "packets_out": sum(each.packets_out for each in carried),
            "port_count": census.ports,
            "messages": census.messages,
            "deepest": census.deepest,
            "blocked": census.blocked,
            "discarded": scheduler.discarded,
            "queue": len(scheduler.runq),
            "lag": None if watch is None else watch.lag,
            "worst_lag": None if watch is None else watch.worst_lag,
            "memory": resident_bytes(),
            "cpu": time.process_time(),
            "refusals": {} if network is None else dict(network.refusals),
            "rights": self._rights(peer),
        }

    def _roles(self) -> list[str]:
        network = self._host.network
        if network is None:
            return ["private"]
        if network.master is not None:
            roles = ["slave"]
        else:
            roles = ["public" if endpoints_of(network.node_id) else "named"]
            if network.is_seed:
                roles.append("seed")
        if self._host.directory_role == "global":
            roles.append("global")
        return roles

    def _rights(self, peer: Peer | None) -> dict[str, Any]:
        """Return what the node that asks may do here."""
        network = self._host.network
        if peer is None or network is None:
            return {"eval": True, **_in_words(EVERYTHING)}
        settings, rights = network.settings, peer.rights
        runs = rights.spawn and not settings.secure
        return {"eval": runs and settings.allow_eval, **_in_words(rights), "spawn": runs}

    # --- links ---

    def _links(self, limit: int) -> list[dict[str, Any]]:
        network = self._host.network
        if network is None:
            return []
        # Linked peers first; peers that are only remembered are left out.
        peers = [peer for peer in network.peers.values() if peer.is_up]
        peers += [peer for peer in network.peers.values() if not peer.is_up and not peer.is_quiet]
        return [_link(network, peer) for peer in peers[:limit]]

    # --- ports ---

    def _port(self, port: Port) -> dict[str, Any]:
        scheduler = self._host.scheduler
        default = port.default
        own, here = port.id.partition("#")[2], self._host.NODE() + "#"
        aliases = [alias.removeprefix(here) for alias in scheduler.table.names_of(port)[1:] if alias.startswith(here)]
        return {
            "port": port.id,
            "names": [name for name in aliases if name != own],
            "kind": kind_of(port),
            "state": state_of(port),
            "messages": len(port.inbox or ()),
            "monitors": _count(port.monitors),
            "handler": "" if default == scheduler.default else _name_of(default),
            "tags": [] if port.cell.handlers is None else [tag[:_MAX_TEXT] for tag in port.cell.handlers.tags[:20]],
            "calls": None if (wait := self._host.waiting.get(port)) is None else wait.called,
            "at": _where(port),
        }


class Census:
    """One look at all ports.

    Args:
        limit: How many ports to remember: those with most messages, then those that are blocked, then the oldest.
    """

    def __init__(self, limit: int) -> None:
        self.ports = self.messages = self.deepest = self.blocked = 0
        self.states: Counter[str] = Counter()
        """Ports in each state."""
        self.depths: Counter[int] = Counter()
        """Mailboxes with each number of messages."""
        self._limit = limit
        self._first: list[tuple[int, bool, int, Port]] = []

    def take(self, scheduler: Scheduler) -> None:
        """Look at all ports, in slices. Switches."""
        seen = dict.fromkeys(scheduler.ports.values())  # once each, whatever names they have
        for number, port in enumerate(seen):
            if port.state == REMOTE:
                continue
            depth, state = len(port.inbox or ()), state_of(port)
            is_blocked = state == "blocked"
            self.states[state] += 1
            self.depths[depth] += 1
            self.ports += 1
            self.messages += depth
            self.deepest = max(self.deepest, depth)
            self.blocked += is_blocked
            if self._limit:
                entry = (depth, is_blocked, -number, port)
                if len(self._first) < self._limit:
                    heapq.heappush(self._first, entry)
                else:
                    heapq.heappushpop(self._first, entry)
            if number % _SLICE == _SLICE - 1:
                gevent.sleep(0)

    def foremost(self) -> list[Port]:
        """Return the ports that were remembered and are alive."""
        found = [entry[-1] for entry in sorted(self._first, reverse=True)]
        return [port for port in found if port.mailbox is not NOWHERE]


def kind_of(port: Port) -> str:
    """Return what kind of port it is: ``"callback"``, ``"greenlet"`` (of its own) or ``"attached"`` (to another's)."""
    if port.cell.main is None:
        return "callback"
    runner = port.cell.runner
    return "attached" if runner is not None and not isinstance(runner, Runner) else "greenlet"


def state_of(port: Port) -> str:
    """Return what a port does at the moment, seen from another greenlet.

    Returns:
        ``"idle"``, ``"receiving"`` (its greenlet waits in ``receive``), ``"queued"`` (it has something to
        handle), ``"blocked"`` (its code waits for something else), ``"running"`` (it asks for this itself).
    """
    if port.state == IDLE:
        return "idle" if port.cell.waiter is None else "receiving"
    if port.state == QUEUED:
        return "queued"
    return "running" if port.cell.runner is getcurrent() else "blocked"


def resident_bytes() -> int | None:
    """Return the bytes of memory that this process uses; None where there is no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limits(what: object) -> dict[str, int]:
    """Return the largest number of entries of each part that was asked for.

    Raises:
        ValueError: ``what`` has another form.
    """
    wanted: Iterable[tuple[Any, Any]]  # Any: whatever the peer sent
    if isinstance(what, Mapping):
        wanted = what.items()
    elif isinstance(what, (list, tuple)):
        wanted = zip(what, itertools.repeat(MAX_ENTRIES))
    else:
        raise ValueError(  # noqa: TRY004  # a peer gave it
            f"the request must be a list of {PARTS}, or a map from these to limits"
        )
    found: dict[str, int] = {}
    for part, limit in wanted:
        if part not in PARTS:
            raise ValueError(f"{quoted(part, 50)} is not one of {PARTS}")
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise ValueError(f"the {part} limit must be a non-negative integer, not {quoted(limit, 50)}")
        found[part] = min(limit, MAX_ENTRIES)
    return found


def _in_words(rights: PeerRule) -> dict[str, Any]:
    """Return what a peer may do, without the right to ask this."""
    return {name: getattr(rights, name) for name in ("spawn", "kill", "directory", "relay", "publish", "subscribe")}


def _link(network: Network, peer: Peer) -> dict[str, Any]:
    lane = peer.link
    greeting = peer.greeting
    found: dict[str, Any] = {
        "node": peer.node,
        "state": "up" if lane is not None else "resting" if peer.is_up else "down",
        "via": peer.hop if isinstance(peer, VirtualPeer) else None,
        "kept": network.is_kept(peer.node),
        "provider": "" if greeting is None else (greeting.extra("provider") or "")[:_MAX_TEXT],
        "unsent": peer.unsent,
        "watched": peer.peer_monitors.count,
        "error": peer.last_error[:_MAX_TEXT] if lane is None and not peer.is_up else "",
        "blocked": None if peer.state.since is None else max(time.time() - peer.state.since, 0.0),
        "blocked_in": peer.state.where,
    }
    if lane is not None:
        found |= {
            "seconds": monotonic() - lane.up_since,
            "packets_in": lane.received_packets,
            "packets_out": lane.sent_packets,
        }
    if isinstance(lane, Link):
        found |= {
            "address": lane.transport.peer_address,
            "dialled": lane.dialled,
            "auth": lane.auth_method,
            "tls": lane.protection,
            "identified": lane.is_identified,
            "framing_in": lane.receive_framing,
            "framing_out": lane.send_framing,
            "bytes_in": lane.received,
            "bytes_out": lane.transport.sent,
            "round_trip": lane.transport.round_trip,
            "second_path": None if lane.second_path is None else lane.second_path.works,
        }
    return found


def _count(monitors: object) -> int:
    if isinstance(monitors, dict):
        return len(monitors)
    return 0 if monitors is None else 1


def _name_of(function: object) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return (f"{module}.{name}" if module and name else type(function).__name__)[:_MAX_TEXT]


_OURS = (str(Path(__file__).parents[1]), str(Path(gevent.__file__).parent))
_STDLIB = sysconfig.get_path("stdlib")


def _where(port: Port) -> str:
    """Return where the code of a port waits: the innermost line that is not this library's, gevent's or Python's."""
    return next((place_of(found) for found in frames_from(frame_of(port)) if not _is_plumbing(found)), "")


def _is_plumbing(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((*_OURS, "<frozen")) or (file.startswith(_STDLIB) and "site-packages" not in file)
