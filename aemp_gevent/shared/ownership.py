# SPDX-License-Identifier: MIT
"""Which node owns which shared state: found in the directory, chosen when nobody owns it, and taken over.

Each node that uses shared state has a *host*, a port in a group. State that has no owner yet is opened on the host
that a hash of its name and the node's chooses, so that all nodes choose the same. Its owner enters its port into a
family of the directory, and keeps it until the node ends. If two nodes opened the same state, because they could not
see each other, all nodes see the entry of one of them, as the directory promises, and the other one hands its state
over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from gevent.event import Event

from aemp_gevent.calls import answers
from aemp_gevent.calls.serve import is_port
from aemp_gevent.directory.local_directory import DirectoryEntry
from aemp_gevent.errors import AempError, PortDied, RefusedError, RemoteError, StateMovedError, StateUnavailableError
from aemp_gevent.node.access import is_shut_down, kept_for, network_of, ports_host_of, request_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.shared.owned import Owned, check_text

GROUP = "aemp_gevent.shared"
"""The group of all hosts."""

OWNERS = "aemp_gevent.shared.owners"
"""The family in which the owners enter their ports."""

MAX_OBJECTS = 10_000
"""Objects that one node owns."""

_REOPEN_SECONDS = 1.0
_LOOK_SECONDS = 0.2
"""How often a client that waits for another owner looks for hosts."""

KINDS: dict[str, Callable[[Node], Owned]] = {}
"""The kinds of state, by their names."""


def ownership_of(node: Node) -> Ownership:
    """Return what a node knows of owners; the first call makes it a host."""
    return kept_for(node, _opened)


def _opened(node: Node) -> Ownership:
    ownership = Ownership(node)
    ownership.open()
    request_host_of(node).last_calls.append(ownership.leave)
    return ownership


def _has_moved(error: RemoteError) -> bool:
    return error.error.startswith(StateMovedError.__name__)


class Ownership:
    """What one node owns, and what it knows of other owners.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.complaints = BoundedLog(node.scheduler.complaints.log, "shared state")
        self._owned: dict[str, tuple[Owned, DirectoryEntry]] = {}
        self._owners: Mapping[str, Any] = {}
        self._hints: dict[str, str] = {}
        """Owners that are probably not in the directory's copy yet."""
        self._left: dict[str, None] = {}
        """Ports of owners that have handed over, and may be in the directory for a moment."""
        self._hosts: dict[str, None] = {}
        self._change = Event()
        self._ready_in: object = None
        self._has_left = False

    def open(self) -> None:
        """Make the host's port, and let other nodes find it."""
        node = self.node
        host = ports_host_of(node)
        self._port = port = node.port()
        node.serve(port, open=self._open)
        node.rcv(port, "adopt", self._adopt)
        host.monitor(port, self._died, None)
        node.peval(port, self._look)
        node.grp_reg(GROUP, port)

    def _look(self) -> None:
        self.node.db_mon(OWNERS, self._owners_changed)
        self.node.grp_mon(GROUP, self._hosts_changed)

    def _died(self, *_reason: Any) -> None:
        if not is_shut_down(self.node):
            self.node.after(_REOPEN_SECONDS, self.open)

    def _changed(self) -> None:
        change, self._change = self._change, Event()
        change.set()

    # --- what the directory says ---

    def _hosts_changed(self, hosts: list[str], _added: list[str], _deleted: list[str]) -> None:
        self._hosts = dict.fromkeys(port for port in hosts if is_port(ports_host_of(self.node), port))
        self._changed()

    def _owners_changed(
        self, owners: Mapping[str, Any], added: list[str], changed: list[str], _deleted: list[str]
    ) -> None:
        self._owners = owners
        for key in (*added, *changed):
            self._hints.pop(key, None)
            owned, winner = self._owned.get(key), self._owner(key)
            if owned is not None and winner is not None and winner not in (owned[0].port, self._own_id(owned[0])):
                self._hand_over(key, winner, "merge")
        self._changed()

    def _own_id(self, owned: Owned) -> str | None:
        """Return the ID by which other nodes know a port that may have been made before the node was initialised."""
        found = ports_host_of(self.node).find(owned.port)
        return None if found is None else found.id

    def _owner(self, key: str) -> str | None:
        owner = self._owners.get(key)
        host = ports_host_of(self.node)
        return owner if isinstance(owner, str) and is_port(host, owner) and owner not in self._left else None

    # --- owning ---

    def _open(self, key: object = None) -> str:
        """Return the port of some state, and own it if nobody does; other nodes call this."""
        checked = check_text("name", key)
        owner = self._owner(checked)
        if owner is not None:
            return owner
        if self._has_left:
            raise StateMovedError("this node shuts down")
        return self._own(checked).port

    def _own(self, key: str) -> Owned:
        if key in self._owned:
            return self._owned[key][0]
        make = KINDS.get(key.partition(" ")[0])
        if make is None:
            raise RefusedError(f"this node knows no such kind of shared state: {key}")
        if len(self._owned) >= MAX_OBJECTS:
            raise RefusedError(f"this node owns {MAX_OBJECTS} objects already")
        owned = make(self.node)
        own_id = self._own_id(owned) or owned.port
        self._owned[key] = owned, self.node.db_set(OWNERS, key, own_id)
        ports_host_of(self.node).monitor(owned.port, lambda *_reason: self._lost(key, owned), None)
        return owned

    def _lost(self, key: str, owned: Owned) -> None:
        if self._owned.get(key, (None,))[0] is owned:
            self._owned.pop(key)[1].cancel()

    def _adopt(self, key: object = None, state: Any = None, former: Any = None, *passed_on: Any) -> None:
        """Take state over from a node that shuts down."""
        try:
            self._left[str(former)] = None
            if len(self._left) > MAX_OBJECTS:
                del self._left[next(iter(self._left))]
            checked = check_text("name", key)
            owner = self._owner(checked)
            heir = self._heir(checked, str(former)) if self._has_left and not passed_on else None
            if heir is not None:
                self.node.snd_nowait(heir, "adopt", checked, state, former, True)
            elif owner is None or checked in self._owned:
                self._own(checked).merge(state)
            else:  # somebody was quicker
                self.node.snd(owner, "merge", state)
        except (AempError, TypeError, ValueError, KeyError, IndexError) as error:
            self.complaints.warn("state %s that another node has handed over is lost: %s", key, error)

    def _hand_over(self, key: str, heir: str, *words: Any) -> None:
        """Send the state to another node, and change it no more here."""
        owned, entry = self._owned.pop(key)
        entry.cancel()
        former, state = self._own_id(owned), owned.move()
        more = () if words == ("merge",) else (former,)
        try:
            self.node.snd_nowait(heir, *words, state, *more)
        except AempError as error:
            self.complaints.warn("state %s could not be handed over, and is lost: %s", key, error)

    def leave(self) -> None:
        """Hand over everything, because this node shuts down."""
        self._has_left = True
        for key in list(self._owned):
            heir = self._heir(key)
            if heir is not None:
                self._hand_over(key, heir, "adopt", key)

    def _heir(self, key: str, former: str = "") -> str | None:
        """Return the host that is to have some state after this node: one with a link, as others may be gone, too."""
        node = self.node
        others = [
            host
            for host in self._ranked(key)
            if ports_host_of(node).find(host) is None and node.node_of(host) != former.partition("#")[0]
        ]
        return min(others, key=lambda host: not node.node_is_up(node.node_of(host)), default=None)

    # --- using ---

    def _ranked(self, key: str) -> list[str]:
        """Return all hosts; the first one should own what nobody owns."""
        node_of = self.node.node_of

        def rank(host: str) -> bytes:
            return blake2b(f"{node_of(host)} {key}".encode(), digest_size=8).digest()

        return sorted({*self._hosts, self._port}, key=rank)

    def _make_ready(self, seconds: float | None) -> None:
        network = network_of(self.node)
        if network is None or self._ready_in is network:
            return
        host = ports_host_of(self.node)
        self._hosts.update(
            dict.fromkeys(port for port in self.node.db_keys(GROUP, timeout=seconds) if is_port(host, port))
        )
        for key, owner in self.node.db_family(OWNERS, timeout=seconds).items():
            if isinstance(owner, str) and is_port(host, owner):
                self._hints[key] = owner
        for key, (owned, _entry) in list(self._owned.items()):  # by the ID that it has in the network
            self._owned[key] = owned, self.node.db_set(OWNERS, key, self._own_id(owned))
        self._ready_in = network

    def ask(self, key: str, tag: str, args: tuple[Any, ...], seconds: float | None, patience: float = 0.0) -> Any:
        """Call the owner of some state; if it is dead, wait for the next one.

        Args:
            key: The kind and name of the state.
            tag: What to call.
            args: The arguments.
            seconds: How long to look for an owner that answers.
            patience: How long an owner may take to answer, if that is longer.

        Raises:
            StateUnavailableError: Nobody answered in time.
            RemoteError: The owner raised.
        """
        deadline = answers.deadline_of(seconds)
        self._make_ready(seconds)
        failed: dict[str, str] = {}
        while True:
            left = answers.left_until(deadline)
            port = self._find(key, failed, left)
            if port is None:
                if left is not None and left <= 0:
                    why = next(reversed(failed.values()), "no node owns it")
                    raise StateUnavailableError(key.partition(" ")[2], seconds, why)
                self._change.wait(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS))
                continue
            try:
                return self.node.call(port, tag, *args, timeout=left and max(left, patience))
            except PortDied as error:
                failed[port] = str(error)
            except RemoteError as error:
                if not _has_moved(error):
                    raise
                failed[port] = str(error)
            except TimeoutError as error:
                raise StateUnavailableError(key.partition(" ")[2], seconds, str(error)) from None
            self._hints.pop(key, None)

    def _find(self, key: str, failed: Mapping[str, str], left: float | None) -> str | None:
        """Return the owner's port; None if there is none that has not failed."""
        owner = self._owner(key)
        if owner is not None:
            return None if owner in failed else owner
        hint = self._hints.get(key)
        if hint is not None and hint not in failed:
            return hint
        for host in self._ranked(key):
            try:
                opened = self.node.call(host, "open", key, timeout=left)
            except (PortDied, TimeoutError):  # the next one, until the directory knows
                continue
            except RemoteError as error:
                if not _has_moved(error):
                    raise
                continue
            if isinstance(opened, str) and is_port(ports_host_of(self.node), opened) and opened not in failed:
                self._hints[key] = opened
                return opened
            return None
        return None
