# SPDX-License-Identifier: MIT
"""Which node owns which shared state: found in the directory, chosen when nobody owns it, and taken over.

Each node that uses shared state has a *host*, a port in a group. State that has no owner yet is opened on the host
that a hash of its name and the node's chooses, so that all nodes choose the same. Its owner enters its port into a
family of the directory, and keeps it until the node ends. If two nodes opened the same state, because they could not
see each other, all nodes see the entry of one of them, as the directory promises, and the other one adds its state to
that.

A node that shuts down hands each of its objects to another host. That one opens the object, and enters it; the former
owner adds its state, part by part, and kills its own port. Until then neither of them changes the state, and who calls
them tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.pool import Group, Pool

from aemp_gevent.addresses import ids
from aemp_gevent.calls import answers
from aemp_gevent.calls.serve import is_port
from aemp_gevent.directory.local_directory import DirectoryEntry
from aemp_gevent.errors import (
    AempError,
    InvalidSharedError,
    PortDied,
    RefusedError,
    RemoteError,
    StateMovedError,
    StateUnavailableError,
)
from aemp_gevent.node.access import kept_for, network_of, ports_host_of, request_host_of
from aemp_gevent.node.lasting_port import LastingPort
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.shared.owned import Owned, check_text

GROUP = "aemp_gevent.shared"
"""The group of all hosts."""

OWNERS = "aemp_gevent.shared.owners"
"""The family in which the owners enter their ports."""

MAX_OBJECTS = 10_000
"""Objects that one node owns."""

_LOOK_SECONDS = 0.2
"""How often a client that waits for another owner looks for hosts, and asks again the one that failed."""

_PART_SECONDS = 5.0
"""How long another host may take to answer a node that shuts down."""

_ADOPT_SECONDS = 30.0
"""How long a node that shuts down may take to hand over an object; then the new owner begins with what it has."""

_MERGE_SECONDS = 60.0
"""How long to look for the owner to whose state that of a second owner is added."""

_AT_ONCE = 16
"""How many objects a node that shuts down hands over at the same time."""

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


def _has_moved(error: BaseException) -> bool:
    return isinstance(error, RemoteError) and error.error.startswith(StateMovedError.__name__)


def _kind_of(key: object) -> Callable[[Node], Owned]:
    """Return what makes the object of a key, which is a kind and a name.

    Raises:
        InvalidSharedError, RefusedError: It is not such a key.
    """
    kind, _, name = key.partition(" ") if isinstance(key, str) else ("", "", key)
    check_text("name", name)
    make = KINDS.get(kind)
    if make is None:
        raise RefusedError(f"this node knows no such kind of shared state: {quoted(kind)}")
    return make


class _Holding(NamedTuple):
    """An object that this node owns."""

    owned: Owned
    entry: DirectoryEntry
    id: str
    """The port that it was entered with, by the ID that other nodes know."""


class Ownership:
    """What one node owns, and what it knows of other owners.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.complaints = BoundedLog(node.scheduler.complaints.log, "shared state")
        self._owned: dict[str, _Holding] = {}
        self._owners: Mapping[str, Any] = {}
        self._hints: dict[str, str] = {}
        """Owners that are probably not in the directory's copy yet."""
        self._left: dict[str, str] = {}
        """The owner of each key that hands it over, or has, and may be in the directory for a moment."""
        self._hosts: dict[str, None] = {}
        self._change = Event()
        self._ready_in: object = None
        self._is_leaving = False
        self._merging = Group()
        self._new_call = ids.port_names(ids.new_uniq())
        self._port = LastingPort(node, self._prepare)

    def open(self) -> None:
        """Make the host's port, and let other nodes find it."""
        self._port.open()

    def _prepare(self, port: str) -> None:
        node = self.node
        node.serve(port, open=self._open, adopt=self._adopt)
        node.peval(port, self._look)
        if not self._is_leaving:
            self._membership = node.grp_reg(GROUP, port)

    def _look(self) -> None:
        self.node.db_mon(OWNERS, self._owners_changed)
        self.node.grp_mon(GROUP, self._hosts_changed)

    def _changed(self) -> None:
        change, self._change = self._change, Event()
        change.set()

    # --- what the directory says ---

    def _hosts_changed(self, hosts: list[str], _added: list[str], _deleted: list[str]) -> None:
        self._hosts = dict.fromkeys(port for port in hosts if is_port(ports_host_of(self.node), port))
        self._enter_again()
        self._changed()

    def _enter_again(self) -> None:
        """Enter what this node owned before it was initialised with the IDs that other nodes know."""
        for key, (owned, _entry, entered) in list(self._owned.items()):
            own_id = self._own_id(owned)
            if own_id is not None and own_id != entered:
                self._owned[key] = _Holding(owned, self.node.db_set(OWNERS, key, own_id), own_id)

    def _owners_changed(
        self, owners: Mapping[str, Any], added: list[str], changed: list[str], _deleted: list[str]
    ) -> None:
        self._owners = owners
        for key in (*added, *changed):
            self._hints.pop(key, None)
            self._give_way(key)
        self._changed()

    def _give_way(self, key: str) -> None:
        """Give up an object that this node owns, if another node is its owner by the directory."""
        holding, winner = self._owned.get(key), self._owner(key)
        if holding is None or winner is None or self._is_leaving:
            return
        if winner not in (holding.owned.port, self._own_id(holding.owned)):
            del self._owned[key]
            holding.entry.cancel()
            holding.owned.has_moved = True
            self._merging.add(gevent.spawn(self._merge, key, holding.owned))

    def _own_id(self, owned: Owned) -> str | None:
        """Return the ID by which other nodes know a port that may have been made before the node was initialised."""
        found = ports_host_of(self.node).find(owned.port)
        return None if found is None else found.id

    def _owner(self, key: str) -> str | None:
        owner = self._owners.get(key)
        host = ports_host_of(self.node)
        return owner if isinstance(owner, str) and is_port(host, owner) and owner != self._left.get(key) else None

    # --- owning ---

    def _open(self, key: object = None) -> str:
        """Return the port of some state, and own it if nobody does; other nodes call this."""
        make = _kind_of(key)
        owner = self._owner(str(key))
        return self._own(str(key), make).id if owner is None else owner

    def _own(self, key: str, make: Callable[[Node], Owned]) -> _Holding:
        if self._is_leaving:
            raise StateMovedError("this node shuts down")
        if key in self._owned:
            return self._owned[key]
        if len(self._owned) >= MAX_OBJECTS:
            raise RefusedError(f"this node owns {MAX_OBJECTS} objects already")
        owned = make(self.node)
        own_id = self._own_id(owned) or owned.port
        holding = self._owned[key] = _Holding(owned, self.node.db_set(OWNERS, key, own_id), own_id)
        ports_host_of(self.node).monitor(owned.port, lambda *_reason: self._lost(key, owned), None)
        return holding

    def _lost(self, key: str, owned: Owned) -> None:
        holding = self._owned.get(key)
        if holding is not None and holding.owned is owned:
            del self._owned[key]
            holding.entry.cancel()

    def _merge(self, key: str, owned: Owned) -> None:
        """Add the state of a second owner to that of the first."""
        try:
            for part in owned.parts():
                self.ask(key, "merge", (part,), _MERGE_SECONDS)
        except AempError as error:
            self.complaints.warn("state %s of a second owner is lost: %s", key, error)
        finally:
            self.node.kil(owned.port)

    # --- handing over ---

    def _adopt(self, key: object = None, former: object = None) -> str:
        """Return the port that gets the state of a node that shuts down; that node calls this.

        If nobody owns the state by then, this node does, once the former owner's port is dead, or has had the time
        for it.
        """
        host, make, checked = ports_host_of(self.node), _kind_of(key), str(key)
        if not isinstance(former, str) or not is_port(host, former):
            raise InvalidSharedError("former owner", former, "it must be a port")
        if self._is_leaving:
            raise StateMovedError("this node shuts down")
        self._left[checked] = former  # only of this: a peer may name any port
        if len(self._left) > MAX_OBJECTS:
            del self._left[next(iter(self._left))]
        owner = self._owner(checked)
        if owner is not None:  # somebody was quicker
            return owner
        is_new = checked not in self._owned
        holding = self._own(checked, make)
        if is_new:
            holding.owned.is_incomplete = True
            timer = self.node.after(_ADOPT_SECONDS, lambda: self._not_handed_over(checked, former, holding.owned))

            def handed_over(*_reason: Any) -> None:
                timer.cancel()
                holding.owned.complete()

            host.monitor(former, handed_over, None)
        return holding.id

    def _not_handed_over(self, key: str, former: str, owned: Owned) -> None:
        """Use what there is of an object: its former owner lives on. Perhaps it still owns the object."""
        if self._left.get(key) == former:
            del self._left[key]
        holding = self._owned.get(key)
        if holding is not None and holding.owned is owned:
            self.complaints.warn("state %s was not handed over by %s within %s s", key, former, _ADOPT_SECONDS)
            owned.complete()
            self._give_way(key)

    def leave(self, patience: float = 0.0) -> None:
        """Hand over everything to other hosts, because this node shuts down. Switches.

        Args:
            patience: Seconds to wait for a host, if there is none now.
        """
        self._is_leaving = True
        self._membership.cancel()
        deadline = answers.deadline_of(patience)
        pool = Pool(_AT_ONCE)
        try:
            self._merging.join(patience or _PART_SECONDS)
            while self._owned:
                pool.map(self._hand_over, list(self._owned))
                left = answers.left_until(deadline) or 0.0
                if left <= 0:
                    break
                if self._owned:
                    self._change.wait(min(left, _LOOK_SECONDS))
        finally:
            if len(pool):  # the shutdown's time is over
                pool.kill(block=False)
                text = "%d objects of shared state were not handed over in time, and are lost"
                self.complaints.warn(text, len(self._owned))
        if self._owned and patience:
            text = "%d objects of shared state are lost: no other node has taken them over within %s s"
            self.complaints.warn(text, len(self._owned), patience)

    def _hand_over(self, key: str) -> None:
        """Hand an object to one of the other hosts, if one takes it."""
        holding = self._owned.get(key)
        if holding is None:
            return
        for heir in self._heirs(key):
            try:
                port = self.node.call(heir, "adopt", key, holding.id, timeout=_PART_SECONDS)
                if not is_port(ports_host_of(self.node), port):
                    continue
                left = holding.owned.freeze(self._new_call)
                while left:
                    self.node.call(port, "merge", *left[0], timeout=_PART_SECONDS)
                    left.popleft()
            except (AempError, TimeoutError) as error:
                if not isinstance(error, PortDied) and not _has_moved(error):  # it shuts down, too
                    self.complaints.warn("state %s could not be handed over to %s: %s", key, heir, error)
            else:
                self.node.kil(holding.owned.port)
                self._lost(key, holding.owned)
                return

    def _heirs(self, key: str) -> list[str]:
        """Return the other hosts: those with a link first, as the others may be gone, too."""
        node = self.node
        others = [host for host in self._ranked(key) if ports_host_of(node).find(host) is None]
        return sorted(others, key=lambda host: not node.node_is_up(node.node_of(host)))

    # --- using ---

    def _ranked(self, key: str) -> list[str]:
        """Return all hosts; the first one should own what nobody owns."""
        node_of = self.node.node_of

        def rank(host: str) -> bytes:
            return blake2b(f"{node_of(host)} {key}".encode(), digest_size=8).digest()

        own = {self._port.id} - {""}
        return sorted({*self._hosts, *own}, key=rank)

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
        self._enter_again()
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
        latest = answers.deadline_of(None if seconds is None else max(seconds, patience))
        self._make_ready(seconds)
        call = self._new_call()
        failed: set[str] = set()
        why = ""
        while True:
            left = answers.left_until(deadline)
            port = self._find(key, failed, left)
            if port is None:
                if left is not None and left <= 0:
                    raise StateUnavailableError(key.partition(" ")[2], seconds, why or "no node owns it")
                self._change.wait(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS))
                failed.clear()  # perhaps only the link to it was lost
                continue
            try:
                return self.node.call(port, tag, call, *args, timeout=left and max(left, patience))
            except PortDied as error:
                why = str(error)
            except RemoteError as error:
                if not _has_moved(error):
                    raise
                why = f"{port}: {error.error}"
            except TimeoutError as error:
                raise StateUnavailableError(key.partition(" ")[2], seconds, why or str(error)) from None
            failed.add(port)
            self._hints.pop(key, None)
            if patience and deadline is not None and latest is not None:  # it may have worked for long
                deadline = min(answers.deadline_of(seconds) or latest, latest)

    def _find(self, key: str, failed: Collection[str], left: float | None) -> str | None:
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
