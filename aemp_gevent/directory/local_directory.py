# SPDX-License-Identifier: MIT
"""The node's own side of the directory: its entries, who watches which family, and local copies.

It is the same for all engines (:mod:`aemp_gevent.directory.engine`). A node that is not networked has an
engine as well: one that knows its own entries only. When another takes its place, that is told
the entries there are, and families watched already go on with it.

A family is watched once however many monitors there are, and has one local copy. What is new
to that copy is told to each monitor in its own time, in order. Nothing here switches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from aemp_gevent.directory.engine import Engine, Entries, Observer, Query
from aemp_gevent.directory.merge import Change, difference, same
from aemp_gevent.errors import InvalidEntryError, MessageTooLargeError
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler
from aemp_gevent.ports.port import DEAD, Port
from aemp_gevent.ports.scheduler import CallJob, Scheduler
from aemp_gevent.wire.limits import Limits, is_long

MAX_ENTRY_BYTES = 2**20
"""The largest entry, encoded: thousands of nodes may keep a copy."""

MAX_CHANGES_BEHIND = 1000
"""Changes that wait for a monitor whose callback is slow; beyond, they become one."""

FamilyCallback: TypeAlias = Callable[[Mapping[str, Any], list[str], list[str], list[str]], object]
"""``cb(map, added, changed, deleted)``: everything, and the keys of what is new, different and gone."""


class Host(Protocol):
    """The node."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def max_name_bytes(self) -> int: ...

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call a function when a port dies."""
        ...


class DirectoryEntry:
    """One entry of this node, as returned by ``db_set`` and ``db_reg``: its guard.

    ``cancel()`` deletes the entry, unless it was set again meanwhile; a context manager, too. Dropping
    it does nothing.
    """

    __slots__ = ("_directory", "_family", "_key", "is_port", "monitor")

    def __init__(self, directory: Directory, family: str, key: str, *, is_port: bool) -> None:
        self._directory = directory
        self._family = family
        self._key = key
        self.is_port = is_port
        """Whether the key is a port's ID."""
        self.monitor: Monitor | None = None
        """Of that port; it ends with the entry."""

    @property
    def family(self) -> str:
        """The family of the entry."""
        return self._family

    @property
    def key(self) -> str:
        """The key of the entry; for ``db_reg`` the port's ID."""
        return self._key

    def renamed(self, key: str) -> None:
        """Change the key: the port has another ID since its node was initialised."""
        self._key = key

    def cancel(self) -> None:
        """Delete the entry. May be called any number of times."""
        self._directory.scheduler.check_thread("cancel() of a directory entry")
        self._directory.withdraw(self)

    def __enter__(self) -> DirectoryEntry:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._directory.scheduler.leave(self.cancel)


class Watching:
    """One interest in one family: told, inside of whatever changes it, of each change."""

    def __init__(self, directory: Directory, family: str) -> None:
        self._directory = directory
        self.family = family

    def heard(self, change: Change, added: list[str]) -> None:
        """Hear of a change, the first being everything. Must neither switch nor raise."""

    def cancel(self) -> None:
        """Hear no more. Idempotent."""
        self._directory.unwatch(self)


class DirectoryMonitor(Watching):
    """What ``db_mon`` and ``grp_mon`` return: ``cancel()``, after which no call is made; a context manager, too."""

    def __init__(self, directory: Directory, family: str, callback: FamilyCallback) -> None:
        super().__init__(directory, family)
        self._callback = callback
        self._context = current_port()
        self._view: Entries = {}  # as of the last call: the local copy may be ahead
        self._news: deque[tuple[Change, list[str]]] = deque()
        self._is_behind = False
        self._is_due = False
        self._is_over = False
        self._death: Monitor | None = None
        if self._context is not None:
            self._death = directory.host.monitor(self._context.id, lambda *_reason: self.cancel(), None)

    def heard(self, change: Change, added: list[str]) -> None:
        """Hear of a change. For the directory only."""
        if self._is_behind:
            return  # until it has caught up
        self._news.append((change, added))
        if len(self._news) > MAX_CHANGES_BEHIND:
            self._is_behind = True
            self._news.clear()
        self._ask()

    def _ask(self) -> None:
        """Make the next call, unless one is being made: one at a time keeps the order."""
        if not self._is_due and (self._news or self._is_behind):
            self._is_due = True
            self._directory.scheduler.enqueue_job(CallJob(self._context, self._call, ()))

    def _call(self) -> None:
        try:
            self._is_over = self._is_over or (self._context is not None and self._context.state == DEAD)
            if self._is_over:
                return
            if self._is_behind:
                self._is_behind = False
                change = difference(self._view, self._directory.copy(self.family) or {})
                added = [key for key in change.entries if key not in self._view]
            else:
                change, added = self._news.popleft()
            for key in change.deleted:
                del self._view[key]
            self._view.update(change.entries)
            fresh = set(added)
            changed = [key for key in change.entries if key not in fresh]
            self._callback(MappingProxyType(self._view), list(added), changed, list(change.deleted))
        finally:
            self._is_due = False
            if not self._is_over:
                self._ask()

    def cancel(self) -> None:
        """Make no more calls. May be called any number of times."""
        self._directory.scheduler.check_thread("cancel() of what db_mon() returned")
        self._is_over = True
        self._news.clear()
        if self._death is not None:
            self._death.cancel()
        super().cancel()

    def __enter__(self) -> DirectoryMonitor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._directory.scheduler.leave(self.cancel)


class _Family:
    """A family that is watched."""

    __slots__ = ("entries", "watchings")

    def __init__(self) -> None:
        self.entries: Entries | None = None  # None: the engine has not told yet
        self.watchings: dict[Watching, None] = {}


class Directory:
    """The directory, as one node sees it; its engine's :class:`~aemp_gevent.directory.engine.Observer`.

    Args:
        host: The node.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._own: dict[str, Entries] = {}
        self._guards: dict[tuple[str, str], DirectoryEntry] = {}
        self._families: dict[str, _Family] = {}
        self._engine: Engine = _Alone()
        self._engine.start(self)
        self.ended: dict[Callable[[], None], None] = {}
        """Whom to call when the directory ends, as no answer will come then."""
        self.is_over = False

    @property
    def scheduler(self) -> Scheduler:
        return self.host.scheduler

    @property
    def own(self) -> Mapping[str, Entries]:
        """The node's own entries, by family. For reading only."""
        return self._own

    # --- the engine ---

    def start(self, engine: Engine, former_prefix: str, prefix: str) -> None:
        """Use another engine from now on.

        Args:
            engine: Not started.
            former_prefix: What port IDs of this node began with until now.
            prefix: What they begin with.
        """
        for guard in list(self._guards.values()):
            # Its registered ports are known to the others by their new ID only.
            if guard.is_port and guard.key.startswith(former_prefix):
                del self._guards[guard.family, guard.key]
                value = self._remove(guard.family, [guard.key])[0]
                guard.renamed(prefix + guard.key.removeprefix(former_prefix))
                self._store(guard, value)
        self._engine = engine
        engine.start(self)
        for family in list(self._families):
            engine.watch(family)

    def stop(self) -> None:
        """End: the node shuts down. Nothing is answered any more."""
        self.is_over = True
        self._engine.stop()
        for call in list(self.ended):
            call()

    # --- own entries ---

    def _check_length(self, what: str, name: str) -> None:
        limit = self.host.max_name_bytes
        if is_long(name, limit):
            text = f"it has {len(name)} characters, and names have at most {limit} bytes"
            raise InvalidEntryError(what, name[:40] + "…", text)

    def check_family(self, family: object) -> None:
        """Refuse what is not a family's name, or is one of the library's own.

        Raises:
            InvalidEntryError: It is.
        """
        if not isinstance(family, str) or not family:
            raise InvalidEntryError("family", family, "a family must be a str, and not empty")
        if family.startswith("'"):
            raise InvalidEntryError("family", family, "names that begin with ' are the library's own; choose another")
        self._check_length("family", family)

    def set(self, family: str, key: str, value: Any, *, is_port: bool = False) -> DirectoryEntry:
        """Set an entry of this node, and return its guard."""
        self.check_family(family)
        if not isinstance(key, str):
            raise InvalidEntryError("key", key, "a key must be a str")
        self._check_length("key", key)
        value = _copy(family, key, value)
        guard = DirectoryEntry(self, family, key, is_port=is_port)
        self._forget(family, key)
        self._store(guard, value)
        return guard

    def _store(self, guard: DirectoryEntry, value: Any) -> None:
        self._guards[guard.family, guard.key] = guard
        entries = self._own.setdefault(guard.family, {})
        if guard.key in entries and same(entries[guard.key], value):
            return
        entries[guard.key] = value
        self._engine.publish(guard.family, {guard.key: value}, ())

    def _forget(self, family: str, key: str) -> None:
        guard = self._guards.pop((family, key), None)
        if guard is not None and guard.monitor is not None:
            guard.monitor.cancel()

    def delete(self, family: str, keys: Collection[str]) -> None:
        """Delete entries of this node; others are left alone."""
        self.check_family(family)
        gone = [key for key in dict.fromkeys(keys) if (family, key) in self._guards]
        for key in gone:
            self._forget(family, key)
        if gone:
            self._remove(family, gone)

    def _remove(self, family: str, keys: list[str]) -> list[Any]:
        """Make entries unknown, and return their values."""
        entries = self._own[family]
        values = [entries.pop(key) for key in keys]
        if not entries:
            del self._own[family]
        self._engine.publish(family, {}, keys)
        return values

    def withdraw(self, guard: DirectoryEntry) -> None:
        """Delete an entry, if this is the guard of what it is now."""
        if self._guards.get((guard.family, guard.key)) is guard:
            self.delete(guard.family, [guard.key])

    def withdraw_all(self) -> None:
        """Delete all entries of this node."""
        for family, entries in list(self._own.items()):
            self.delete(family, list(entries))

    # --- asking ---

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once; see :meth:`aemp_gevent.directory.engine.Engine.query`."""
        self._engine.query(what, family, answered)

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens; see :meth:`aemp_gevent.directory.engine.Engine.find`."""
        self._engine.find(node, answered)

    # --- watching ---

    def watch(self, watching: Watching) -> None:
        """Begin to tell of a family: at once, if there is a local copy."""
        self.check_family(watching.family)
        family = self._families.get(watching.family)
        if family is not None:
            family.watchings[watching] = None
            if family.entries is not None:
                watching.heard(Change(dict(family.entries), []), list(family.entries))
            return
        family = self._families[watching.family] = _Family()
        family.watchings[watching] = None
        try:
            self._engine.watch(watching.family)
        except BaseException:
            # Struck, or at the recursion limit: nobody may have been asked for it, and the next to watch it must ask.
            if self._families.get(watching.family) is family:
                del self._families[watching.family]
            raise

    def unwatch(self, watching: Watching) -> None:
        """Tell it no more. Idempotent."""
        family = self._families.get(watching.family)
        if family is None or watching not in family.watchings:
            return
        del family.watchings[watching]
        if not family.watchings:
            del self._families[watching.family]
            self._engine.unwatch(watching.family)

    def copy(self, family: str) -> Entries | None:
        """Return the local copy of a family that is watched; None if the engine has not told yet. For reading only."""
        known = self._families.get(family)
        return None if known is None else known.entries

    def replaced(self, family: str, entries: Entries) -> None:
        """Take the whole of a family from the engine."""
        known = self._families.get(family)
        if known is None:
            return
        if known.entries is None:
            known.entries = dict(entries)
            for watching in list(known.watchings):
                watching.heard(Change(dict(entries), []), list(entries))
        else:
            self._take(known, known.entries, difference(known.entries, entries))

    def changed(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Take a change of a family from the engine."""
        known = self._families.get(family)
        if known is None or known.entries is None:
            return
        copy = known.entries
        change = difference({key: copy[key] for key in entries if key in copy}, entries)
        gone = [key for key in dict.fromkeys(deleted) if key in copy and key not in entries]
        self._take(known, copy, Change(change.entries, gone))

    def _take(self, known: _Family, copy: Entries, change: Change) -> None:
        if change.is_empty:
            return
        added = [key for key in change.entries if key not in copy]
        for key in change.deleted:
            del copy[key]
        copy.update(change.entries)
        for watching in list(known.watchings):
            watching.heard(change, added)


class _Alone:
    """The engine of a node without a network: its own entries are all there is."""

    def __init__(self) -> None:
        self._observer: Observer | None = None

    def start(self, observer: Observer) -> None:
        self._observer = observer

    def stop(self) -> None:
        """Go on: there is nothing to end."""

    def _entries(self, family: str) -> Entries:
        assert self._observer is not None
        return dict(self._observer.own.get(family, {}))

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        assert self._observer is not None
        self._observer.changed(family, entries, deleted)

    def watch(self, family: str) -> None:
        assert self._observer is not None
        self._observer.replaced(family, self._entries(family))

    def unwatch(self, family: str) -> None:
        """Nothing was kept for it."""

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        entries = self._entries(family)
        answered(entries if what == "family" else list(entries) if what == "keys" else list(entries.values()))

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        answered(None)


def _copy(family: str, key: str, value: Any) -> Any:
    """Return a value as others will get it, tuples being lists; what the caller does to his later does no harm.

    Raises:
        UnencodableMessageError, InvalidEntryError: It cannot travel, or is too large.
    """
    try:
        copied: list[Any] = copy_as_sent(["", "db_set", family, key, value], Limits(MAX_ENTRY_BYTES))
    except MessageTooLargeError as error:
        why = f"the entry has {error.size} {error.unit}, and may have {error.limit}: thousands of nodes may keep it"
        raise InvalidEntryError("value", f"<{type(value).__name__}>", why) from None
    return copied[-1]
