# SPDX-License-Identifier: MIT
"""The totals of processes that end, such as a web server's workers: other nodes of the host keep them.

Nothing is written to files. When a node shuts down, it hands its totals to another node of its host, the *heir*, which
reports them from then on. A node that is killed cannot do that. Then those that knew it hand the totals that they saw
last to an heir, which counts one more node whose totals are not complete.

No total is counted twice, even if two nodes keep the same: the heir keeps apart whose totals it has, by the incarnation
of the process's node, and a page of several nodes takes each process once
(:mod:`aemp_gevent.contrib.reported_figures`). Then it makes all of these nodes but one forget it. No total is missing
in between either, because what a process reported last is added until another node reports that it keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.addresses.ids import COMMAND_PREFIX
from aemp_gevent.calls.call import call_async
from aemp_gevent.calls.serve import caller_of_call
from aemp_gevent.contrib.reported_figures import Answer, asked
from aemp_gevent.errors import AempError
from aemp_gevent.links.link import Link
from aemp_gevent.node.access import kept_for, metrics_of, network_of, ports_host_of, request_host_of
from aemp_gevent.node.figures import EndedProcess, both_of, ended_from_afar
from aemp_gevent.node.node import Node
from aemp_gevent.peers.network import Network
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.runtime.backoff import jittered
from aemp_gevent.runtime.bounded_log import BoundedLog

NAME = "aemp.totals"
"""The name under which each node's port for totals is registered."""

_HAND_OVER_SECONDS = 1.0
_ASK_SECONDS = 0.5
"""How long to look for an heir, and how long to wait for one."""

_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 5.0
"""How often to look for processes that are gone: first, and when one whose link was lost lives on."""

_MAX_KNOWN = 1000
"""Nodes whose last totals are remembered."""

_MAX_SETTLED = 100
"""Those of them that other nodes keep."""


def near_nodes(node: Node) -> list[str]:
    """Return the linked nodes that may be on this host, by the addresses of their links."""
    network = network_of(node)
    if network is None:
        return []
    peers = [peer for peer in network.up_peers() if not peer.node.startswith(COMMAND_PREFIX)]
    return [peer.node for peer in peers if _may_be_near(peer, network, may_be_carried=True)]


def _is_near(node: Node, other: str | None) -> bool:
    """Return whether a node may have a say in what this one keeps: by its link, it is on this host."""
    network = network_of(node)
    peer = None if network is None or other is None else network.known_peer(other)
    if network is None or peer is None:
        return other == node.NODE()
    # All links of a slave but one are carried by its master.
    return _may_be_near(peer, network, may_be_carried=network.master is not None)


def _may_be_near(peer: Peer, network: Network, *, may_be_carried: bool) -> bool:
    if peer.greeting is not None and not peer.greeting.is_ours:
        return False
    link = peer.link
    if not isinstance(link, Link):  # another node carries it
        return may_be_carried
    address = link.transport.peer_address
    if address.startswith("unix:"):  # which may be all that is known of it
        return True
    endpoint = parse_endpoint(address)
    if endpoint.host in {parse_endpoint(own).host for own in network.addresses()}:
        return True
    return endpoint.is_numeric and ip_address(endpoint.host).is_loopback


@dataclass
class _Remembered:
    """What a node of this host answered last.

    Attributes:
        answer: The answer, without gauges.
        born: When its process began, as :func:`_birth_of` said.
        is_over: Whether the node shut down.
        is_kept: Whether another node took its totals.
    """

    answer: Answer
    born: str | None
    is_over: bool = False
    is_kept: bool = False

    @property
    def is_gone(self) -> bool:
        return self.is_over or self.born is None or _birth_of(self.answer.pid) != self.born


class Estate:
    """The totals that a node keeps for others, and those of its own that others will keep. One for each node.

    Args:
        node: The node, which others can reach, now or later.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._metrics = metrics_of(node)
        self._known: dict[str, _Remembered] = {}  # by process; those that answered last are at the end
        self._port = ""
        self._looking: gevent.Greenlet[..., None] | None = None
        self._meeting: set[gevent.Greenlet[..., None]] = set()
        self._is_ending = False
        self._complaints = BoundedLog(node.scheduler.log, "totals of nodes that ended")
        node.mon_nodes(self._link_changed)
        request_host_of(node).last_calls.append(self.hand_over)
        if network_of(node) is not None:
            self._open()

    def _open(self) -> None:
        """Take the totals of others. A node that has no links needs no port for this."""
        if not self._port:
            self._port = self._node.port()
            self._node.reg(self._port, NAME)
            self._node.serve(self._port, keep=self._keep, forget=self._forget)

    # --- what others reported ---

    def remember(self, answers: Sequence[Answer]) -> None:
        """Remember the figures of other nodes of this host, in case they are killed."""
        for answer in answers:
            for process in answer.kept:
                self._known.pop(process, None)
            for each in answer.ended:
                known = self._known.get(each.process)
                if known is not None and (known.is_kept or not each.is_lost):
                    del self._known[each.process]
        for answer in answers:
            if self._is_of_here(answer) and answer.process and not answer.heir and answer.node != self._node.NODE():
                known = self._known.pop(answer.process, None)
                born = _birth_of(answer.pid) if known is None else known.born
                is_over = known is not None and known.is_over
                self._known[answer.process] = _Remembered(answer.without_gauges(), born, is_over)
        self._forget_oldest()

    @staticmethod
    def _is_of_here(answer: Answer) -> bool:
        return answer.host == gethostname()

    def _forget_oldest(self) -> None:
        settled = [process for process, each in self._known.items() if each.is_kept]
        for process in settled[: max(len(settled) - _MAX_SETTLED, 0)]:
            del self._known[process]
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    @property
    def remembered(self) -> list[Answer]:
        """What nodes of this host answered last that have not ended, or perhaps are not reported by others yet."""
        return [each.answer for each in self._known.values()]

    @property
    def unsettled(self) -> list[Answer]:
        """Those of them whose totals no other node took."""
        return [each.answer for each in self._known.values() if not each.is_kept]

    def settle(self, answers: Sequence[Answer]) -> None:
        """Make all nodes of this host but one forget a process whose totals several of them keep. Never switches."""
        near = {self._node.NODE(), *near_nodes(self._node)}
        keepers: dict[str, dict[str, EndedProcess]] = {}
        for answer in answers:
            for each in answer.ended if answer.node in near else ():
                keepers.setdefault(each.process, {})[answer.node] = each
        added = frozenset[str]().union(*(answer.kept for answer in answers if answer.node in near))
        for process, several in keepers.items():
            if process in added:
                self._make_forget(process, several)
            elif len(several) > 1:
                # All who see these choose the same one.
                keeper, *others = sorted(several, key=lambda node: (several[node].is_lost, node))
                self._spawn(self._unite, keeper, reduce(both_of, several.values()), others)

    def _unite(self, keeper: str, ended: EndedProcess, others: Sequence[str]) -> None:
        """Give a node what several know of a process, and make the others forget it. Switches."""
        if self._give(keeper, [ended]) is not None:
            self._make_forget(ended.process, others)

    def _make_forget(self, process: str, keepers: Iterable[str]) -> None:
        for keeper in keepers:
            if keeper == self._node.NODE():
                self._forget_process(process)
            else:
                self._ask(keeper, "forget", process, _HAND_OVER_SECONDS)

    # --- handing over ---

    def hand_over(self, patience: float = 0.0) -> None:
        """Give all totals to another node of this host, because this node ends. Switches.

        Args:
            patience: Seconds to wait for a node that takes them, if there is none now.
        """
        self._is_ending = True
        gevent.killall([each for each in (self._looking, *self._meeting) if each is not None], block=False)
        network = network_of(self._node)
        if self._metrics.heir or network is None or network.is_closed:
            return
        until = monotonic() + patience
        while not self._offer() and monotonic() < until:
            # Not all at the same time: a node that offers its totals takes none.
            gevent.sleep(jittered(_LOOK_SECONDS))

    def _offer(self) -> bool:
        """Return whether another node took the totals of this one. Switches."""
        totals = self._metrics.freeze()
        try:
            until = monotonic() + _HAND_OVER_SECONDS
            for other in sorted(near_nodes(self._node)):
                # One that answers too late may take them as well; settle() is for that.
                if self._give(other, totals) is not None:
                    self._metrics.heir = other
                    return True
                if monotonic() > until:
                    break
            return False
        finally:
            if not self._metrics.heir:
                self._metrics.thaw()

    def _give(self, heir: str, totals: Sequence[EndedProcess]) -> bool | None:
        """Return whether a node knew nothing of the first of these processes; None: it does not keep them. Switches."""
        try:
            if heir == self._node.NODE():
                return self._take(totals)
            sent = [each.to_travel() for each in totals]
            return bool(self._ask(heir, "keep", sent, _ASK_SECONDS).get())
        except (AempError, ValueError):  # it has no such port, or ends as well
            return None

    def _ask(self, other: str, tag: str, argument: object, timeout: float) -> AsyncResult[Any]:
        # Not with the node's call_async(), which counts and traces: those are the calls of its program.
        return call_async(ports_host_of(self._node), f"{other}#{NAME}", (tag, argument), timeout)

    def _take(self, totals: Sequence[EndedProcess]) -> bool:
        is_new = bool(totals) and not self._metrics.keeps(totals[0].process)
        self._metrics.keep(totals)
        return is_new

    # --- calls of others ---

    def _keep(self, sent: object) -> bool:
        self._check_near()
        return self._take(ended_from_afar(sent))

    def _forget(self, process: object) -> None:
        self._check_near()
        self._forget_process(process)

    def _check_near(self) -> None:
        if not _is_near(self._node, caller_of_call()):
            raise ValueError("only nodes of the same host, with a link of their own, may change which totals are kept")

    def _forget_process(self, process: object) -> None:
        ended = self._metrics.forget(process) if isinstance(process, str) else None
        if ended is not None:
            # This node may not be linked to the one that keeps them, and its page still shows them.
            answer = Answer("", "", gethostname(), ended.pid, "", frozenset(), {}, (ended,))
            self._known[ended.process] = _Remembered(answer, None, is_over=True, is_kept=True)
            self._forget_oldest()

    # --- nodes that come and go ---

    def _link_changed(self, node: str, is_up: bool, *reason: Any) -> None:
        if self._is_ending:
            return
        if is_up:
            self._open()
            near = near_nodes(self._node)
            if node in near and self._node.NODE() < min(near):
                self._spawn(self._meet, node)
            return
        found = [each for each in self._known.values() if each.answer.node == node]
        for each in found:
            each.is_over |= tag_of(reason) == "shutdown"
        if found and not self._looking:
            self._looking = gevent.spawn(self._look_after)

    def _spawn(self, function: Callable[..., None], *args: Any) -> None:
        greenlet = gevent.spawn(function, *args)
        self._meeting.add(greenlet)
        greenlet.rawlink(self._meeting.discard)

    def _meet(self, node: str) -> None:
        """Learn which process a new node is, in case it is killed before anybody asks for its figures."""
        answers, _ = asked(self._node, [node], _HAND_OVER_SECONDS)
        self.remember(answers)

    def _look_after(self) -> None:
        """See that somebody keeps the totals of processes, as soon as they are gone."""
        pause = _LOOK_SECONDS
        while True:
            gevent.sleep(jittered(pause))
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
            for each in list(self._known.values()):
                if not each.is_kept and each.is_gone:
                    each.is_kept = self._give_to_others(each)
            self._forget_oldest()
            missed = (each for each in self._known.values() if not each.is_kept)
            if all(self._node.node_is_up(each.answer.node) for each in missed):
                return

    def _give_to_others(self, dead: _Remembered) -> bool:
        # All nodes that knew it choose the same heir, which takes each process once.
        for heir in sorted([self._node.NODE(), *near_nodes(self._node)]):
            is_new = self._give(heir, dead.answer.as_lost())
            if is_new is not None:
                if is_new and not dead.is_over:
                    text = "node %s was killed: what it counted since it was last asked is missing"
                    self._complaints.warn(text, dead.answer.node)
                return True
        return False


def _birth_of(pid: int) -> str | None:
    """Return when a living process began; ``""`` where the system does not say this; None: there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # another user's
    return ""


def estate_of(node: Node) -> Estate | None:
    """Return the estate of a node, which it gets with the first call; None after it has shut down."""
    network = network_of(node)
    return None if network is not None and network.is_closed else kept_for(node, Estate)
