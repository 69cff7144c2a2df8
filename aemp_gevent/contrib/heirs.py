# SPDX-License-Identifier: MIT
"""The totals of processes that end, such as a web server's workers: other nodes of the host keep them.

Nothing is written to files. When a node shuts down, it hands its totals to another node of its host, the *heir*, which
reports them as its own from then on. A node that is killed cannot do that. Then the heir keeps what others saw
last of the node's totals, and counts one more node whose totals are not complete.

No total is counted twice: a node knows the processes whose totals it keeps, by the incarnations of their nodes. Who
adds up several nodes leaves out the totals of a process that another node keeps (:func:`figures_of_all`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from socket import gethostname
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.errors import AempError
from aemp_gevent.links.link import Link
from aemp_gevent.node.access import kept_for, metrics_of, network_of, request_host_of
from aemp_gevent.node.metrics import MAX_ROWS, Rows, from_afar, merged, to_travel, totals_in, without_totals
from aemp_gevent.node.node import Node
from aemp_gevent.peers.peer import Peer
from aemp_gevent.runtime.backoff import jittered
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.wire.vocabulary import INSPECT

NAME = "aemp.totals"
"""The name under which each node's port for totals is registered."""

_HAND_OVER_SECONDS = 1.0
_ASK_SECONDS = 0.5
"""How long to look for an heir, and how long to wait for one."""

_DEATH_SECONDS = 5.0
"""How long to wait until a process whose link was lost is gone, or until its node is linked again."""

_LOOK_SECONDS = 0.1

_MAX_KNOWN = 1000
"""Nodes whose last totals are remembered."""


@dataclass(frozen=True)
class Answer:
    """What a node answered about its figures.

    Attributes:
        node: Its ID.
        process: The incarnation of the node; ``""`` for a private one.
        host: The name of its host.
        pid: Its process ID there.
        heir: The node that has its totals; ``""``: none, it reports them itself.
        kept: The processes whose totals it keeps.
        rows: Its figures.
    """

    node: str
    process: str
    host: str
    pid: int
    heir: str
    kept: frozenset[str]
    rows: Rows

    @classmethod
    def read(cls, sent: object) -> Answer:
        """Return what a node sent.

        Raises:
            ValueError: It is not such an answer.
        """
        part = sent.get("metrics") if isinstance(sent, Mapping) else None
        if not isinstance(sent, Mapping) or not isinstance(part, Mapping):
            error = sent.get("error") if isinstance(sent, Mapping) else None
            raise ValueError(f"it refuses: {error}" if error else "it runs another version")  # noqa: TRY004
        texts = [sent.get("node"), part.get("process"), sent.get("host"), part.get("heir")]
        pid, kept = sent.get("pid"), part.get("kept")
        if not all(isinstance(text, str) for text in texts) or not isinstance(pid, int):
            raise ValueError("it does not say who it is")
        if not isinstance(kept, (list, tuple)) or not all(isinstance(process, str) for process in kept):
            raise ValueError("it does not say whose totals it keeps")
        node, process, host, heir = map(str, texts)
        return cls(node, process, host, pid, heir, frozenset(kept), from_afar(part.get("rows")))

    def without_gauges(self) -> Answer:
        """Return only the totals, for a node that does not answer now."""
        return replace(self, rows=totals_in(self.rows))


def asked(node: Node, others: Iterable[str], timeout: float) -> tuple[list[Answer], dict[str, str]]:
    """Ask nodes for their figures, all at the same time. Switches.

    Returns:
        The answers, and why there is none by the IDs of nodes that did not answer.
    """
    what = {"metrics": MAX_ROWS}
    results = {other: node.call_async(other, INSPECT, what, timeout=timeout) for other in dict.fromkeys(others)}
    gevent.wait(list(results.values()))
    answers: list[Answer] = []
    silent: dict[str, str] = {}
    for other, result in results.items():
        try:
            answers.append(Answer.read(result.get()))
        except (AempError, ValueError) as error:
            silent[other] = str(error)
    return answers, silent


def near_nodes(node: Node) -> list[str]:
    """Return the linked nodes that may be on this host, by the addresses of their links."""
    network = network_of(node)
    if network is None:
        return []
    own = {parse_endpoint(address).host for address in network.addresses()}
    return [peer.node for peer in network.up_peers() if _may_be_near(peer, own)]


def _may_be_near(peer: Peer, own: set[str]) -> bool:
    if peer.greeting is not None and not peer.greeting.is_ours:
        return False
    link = peer.link
    if not isinstance(link, Link):  # another node carries it
        return True
    address = link.transport.peer_address
    if address.startswith("unix:"):  # which may be all that is known of it
        return True
    endpoint = parse_endpoint(address)
    if endpoint.host in own:
        return True
    return endpoint.is_numeric and ip_address(endpoint.host).is_loopback


class Estate:
    """The totals that a node keeps for others, and those of its own that others will keep. One for each node.

    Args:
        node: The node, which others can reach.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._metrics = metrics_of(node)
        self._known: dict[str, Answer] = {}  # the last answers of nodes of this host, by their IDs
        self._looking: set[gevent.Greenlet[..., None]] = set()
        self._complaints = BoundedLog(node.scheduler.log, "totals of nodes that ended")
        port = node.port()
        node.reg(port, NAME)
        node.serve(port, keep=self._keep)
        node.mon_nodes(self._link_changed)
        request_host_of(node).last_calls.append(self.hand_over)

    def remember(self, answers: Iterable[Answer]) -> None:
        """Remember the figures of other nodes of this host, in case they are killed."""
        for answer in answers:
            if answer.host == gethostname() and answer.node != self._node.NODE() and not answer.heir:
                self._known[answer.node] = answer
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def last_of(self, node: str) -> Answer | None:
        """Return what a node of this host answered last, if it has not ended."""
        return self._known.get(node)

    def hand_over(self, patience: float = 0.0) -> None:
        """Give all totals to another node of this host, because this node ends. Switches.

        Args:
            patience: Seconds to wait for a node that takes them, if there is none now.
        """
        gevent.killall(list(self._looking), block=False)
        if self._metrics.heir or network_of(self._node) is None:
            return
        until = monotonic() + patience
        while not self._offer() and monotonic() < until:
            # Not all at the same time: a node that offers its totals takes none.
            gevent.sleep(jittered(_LOOK_SECONDS))

    def _offer(self) -> bool:
        """Return whether another node took the totals of this one. Switches."""
        self._metrics.freeze()
        try:
            (own, *_), _ = asked(self._node, [self._node.NODE()], _ASK_SECONDS)
            until = monotonic() + _HAND_OVER_SECONDS
            for other in sorted(near_nodes(self._node)):
                if self._give(other, own, lost=False):
                    self._metrics.heir = other
                    return True
                if monotonic() > until:
                    break
            return False
        finally:
            if not self._metrics.heir:
                self._metrics.thaw()

    def _give(self, heir: str, dead: Answer, *, lost: bool) -> bool:
        try:
            totals = to_travel(totals_in(dead.rows))
            if heir == self._node.NODE():
                self._keep(dead.process, totals, lost)
            else:
                self._node.call(f"{heir}#{NAME}", "keep", dead.process, totals, lost, timeout=_ASK_SECONDS)
        except AempError:  # it has no such port, or ends as well
            return False
        return True

    def _keep(self, process: object, totals: object, lost: object) -> None:
        if not isinstance(process, str) or not process:
            raise ValueError("the process has no name")
        self._metrics.keep(process, from_afar(totals), lost=bool(lost))

    def _link_changed(self, node: str, is_up: bool, *reason: Any) -> None:
        if is_up:
            near = near_nodes(self._node)
            if node in near and self._node.NODE() < min(near):
                self._spawn(self._meet, node)
        elif reason[:1] == ("shutdown",):
            self._known.pop(node, None)
        elif node in self._known:
            self._spawn(self._look_after, self._known[node])

    def _spawn(self, function: Callable[..., None], *args: Any) -> None:
        greenlet = gevent.spawn(function, *args)
        self._looking.add(greenlet)
        greenlet.rawlink(self._looking.discard)

    def _meet(self, node: str) -> None:
        """Learn which process a new node is, in case it is killed before anybody asks for its figures."""
        answers, _ = asked(self._node, [node], _HAND_OVER_SECONDS)
        self.remember(answers)

    def _look_after(self, dead: Answer) -> None:
        """See that somebody keeps the totals of a process, if it is gone."""
        until = monotonic() + _DEATH_SECONDS
        while _is_alive(dead.pid):
            if monotonic() > until or self._node.node_is_up(dead.node):
                return
            gevent.sleep(_LOOK_SECONDS)
        network = network_of(self._node)
        if network is None or network.is_closed:
            return
        # All nodes that knew it choose the same heir, which takes the first of them at its word.
        for heir in sorted([self._node.NODE(), *near_nodes(self._node)]):
            if self._give(heir, dead, lost=True):
                break
        if self._known.get(dead.node) is dead:
            del self._known[dead.node]
        self._complaints.warn("node %s was killed: what it counted since it was last asked is missing", dead.node)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def estate_of(node: Node) -> Estate | None:
    """Return the estate of a node, which it gets with the first call; None while it is private."""
    network = network_of(node)
    if network is None or network.is_closed:
        return None
    return kept_for(node, Estate)


def figures_of_all(answers: Sequence[Answer]) -> Rows:
    """Return the figures of several nodes together, each total once."""
    kept = frozenset[str]().union(*(answer.kept for answer in answers))
    return merged(answer.rows if answer.process not in kept else without_totals(answer.rows) for answer in answers)
