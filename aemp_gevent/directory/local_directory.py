# SPDX-License-Identifier: MIT
"""The node's own side of the directory: its entries, the families that it watches, and local copies of these.

It is the same for all engines (:mod:`aemp_gevent.directory.engine`). A node that is not networked has an
engine as well (:mod:`aemp_gevent.directory.local_engine`). When another engine takes its place, it publishes
the entries there are, and the families that are watched already continue with it.

The engine watches a family once, however many monitors there are, and there is one local copy of it. Nothing here
switches; monitors call back later, each in its own time (:mod:`aemp_gevent.directory.family_monitor`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from aemp_gevent.directory.engine import Engine, Entries, Query
from aemp_gevent.directory.local_engine import LocalEngine
from aemp_gevent.directory.merge import Change, difference, same
from aemp_gevent.errors import InvalidEntryError, MessageTooLargeError
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.wire.limits import Limits, is_long

MAX_ENTRY_BYTES = 2**20
"""The largest entry, encoded; thousands of nodes may keep a copy of it."""


class DirectoryHost(Protocol):
    """The node whose directory this is."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def max_name_bytes(self) -> int: ...

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call a function when a port dies."""
        ...


class DirectoryEntry:
    """One entry of this node, as returned by ``db_set`` and ``db_reg``: its guard.

    ``cancel()`` deletes the entry, unless it was set again meanwhile. It is also a context manager. Dropping
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
        """The monitor of that port; it ends with the entry."""

    @property
    def family(self) -> str:
        """The family of the entry."""
        return self._family

    @property
    def key(self) -> str:
        """The key of the entry; for ``db_reg`` the port's ID."""
        return self._key

    def renamed(self, key: str) -> None:
        """Change the key: the port got another ID when its node was initialised."""
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
    """One interest in one family: it hears of each change at once, inside the call that makes it."""

    def __init__(self, directory: Directory, family: str) -> None:
        self._directory = directory
        self.family = family

    def heard(self, change: Change, added: list[str]) -> None:
        """Take a change; the first one is the whole family. Must neither switch nor raise."""

    def lost_track(self) -> None:
        """Compare with the local copy: a change of it was interrupted, and may have been heard or not."""

    def cancel(self) -> None:
        """Take no more changes. Idempotent."""
        self._directory.unwatch(self)


class _LocalCopy:
    """The local copy of a family that is watched, and all interests in it."""

    __slots__ = ("entries", "watchings")

    def __init__(self) -> None:
        self.entries: Entries | None = None  # None: the engine has not sent them yet
        self.watchings: dict[Watching, None] = {}


class Directory:
    """The directory, as one node sees it; its engine's :class:`~aemp_gevent.directory.engine.Observer`.

    Args:
        host: The node.
    """

    def __init__(self, host: DirectoryHost) -> None:
        self.host = host
        self._own: dict[str, Entries] = {}
        self._guards: dict[tuple[str, str], DirectoryEntry] = {}
        self._copies: dict[str, _LocalCopy] = {}
        self._engine: Engine = LocalEngine()
        self._engine.start(self)
        self.ended: dict[Callable[[], None], None] = {}
        """Called when the directory ends, as no answers come after that."""
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
            engine: The engine, not started.
            former_prefix: The first part of the IDs of this node's ports until now.
            prefix: The first part of these IDs from now on.
        """
        for guard in list(self._guards.values()):
            # Other nodes know the registered ports by their new IDs only.
            if guard.is_port and guard.key.startswith(former_prefix):
                del self._guards[guard.family, guard.key]  # first: its monitor stays, for the new ID
                value = self._own[guard.family].pop(guard.key)
                self._publish(guard.family, [guard.key])
                guard.renamed(prefix + guard.key.removeprefix(former_prefix))
                self._store(guard, value)
        self._engine = engine
        engine.start(self)
        for family in list(self._copies):
            engine.watch(family)

    def stop(self) -> None:
        """End: the node shuts down, and no more queries are answered."""
        self.is_over = True
        self._engine.stop()
        for call in list(self.ended):
            call()

    # --- own entries ---

    def _check_name(self, what: str, name: str) -> None:
        """Refuse what could be kept here, and never be sent to another node."""
        limit = self.host.max_name_bytes
        if is_long(name, limit):
            text = f"it has {len(name)} characters; names have at most {limit} bytes"
            raise InvalidEntryError(what, name[:40] + "…", text)
        if not name.isascii():
            from aemp_gevent.wire.values import lone_surrogate  # noqa: PLC0415  # loads much

            objection = lone_surrogate(name)
            if objection is not None:
                raise InvalidEntryError(what, name, f"it {objection}")

    def check_family(self, family: object) -> None:
        """Check the name of a family.

        Raises:
            InvalidEntryError: It is not a name, or is one of the library's own.
        """
        if not isinstance(family, str) or not family:
            raise InvalidEntryError("family", family, "it must be a str that is not empty")
        if family.startswith("'"):
            raise InvalidEntryError("family", family, "names that begin with ' are reserved; choose another")
        self._check_name("family", family)

    def set(self, family: str, key: str, value: Any) -> DirectoryEntry:
        """Set an entry of this node, and return its guard."""
        guard = DirectoryEntry(self, family, key, is_port=False)
        self.put(guard, value)
        return guard

    def put(self, guard: DirectoryEntry, value: Any) -> None:
        """Set the entry that a new guard is for."""
        family, key = guard.family, guard.key
        self.check_family(family)
        if not isinstance(key, str):
            raise InvalidEntryError("key", key, "it must be a str")
        self._check_name("key", key)
        former = self._guards.get((family, key))
        self._store(guard, _copy(family, key, value))
        if former is not None and former.monitor is not None:
            see_through(former.monitor.cancel)

    def holds(self, guard: DirectoryEntry) -> bool:
        """Return whether the entry of a guard is set, and was not set again."""
        return self._guards.get((guard.family, guard.key)) is guard

    def _store(self, guard: DirectoryEntry, value: Any) -> None:
        family, key = guard.family, guard.key
        entries = self._own.get(family)
        is_news = entries is None or key not in entries or not same(entries[key], value)
        publish = self._on_hub(self._publish, family, [key]) if is_news else None
        # No call from here to the end of the stores, so that an interrupt finds all of them made, or none.
        if entries is None:
            self._own[family] = {key: value}
        elif is_news:
            entries[key] = value
        self._guards[family, key] = guard
        if publish is not None:
            see_through(publish)

    def _on_hub(self, call: Callable[..., object], *args: Any) -> Callable[[], None]:
        """Return a form of a call that can be repeated, which the hub makes soon if nobody else does.

        At the recursion limit only the hub can. So it is asked first, and when that raises nothing was begun.
        """
        is_done = False

        def make() -> None:
            nonlocal is_done
            if not is_done:
                call(*args)
                is_done = True

        self.scheduler.call_on_hub(make)
        return make

    def _publish(self, family: str, keys: list[str]) -> None:
        """Publish what there is of some entries now, be they set or deleted. Idempotent."""
        entries = self._own.get(family, {})
        present = {key: entries[key] for key in keys if key in entries}
        self._engine.publish(family, present, [key for key in keys if key not in present])

    def delete(self, family: str, keys: Collection[str]) -> None:
        """Delete entries of this node; those of others stay."""
        self.check_family(family)
        gone = [self._guards[family, key] for key in dict.fromkeys(keys) if (family, key) in self._guards]
        if gone:
            see_through(self._on_hub(self._remove, family, gone))

    def _remove(self, family: str, guards: list[DirectoryEntry]) -> None:
        """Remove the own entries of these guards, unless they were set again and have others. Idempotent."""
        entries = self._own.get(family, {})
        for guard in guards:
            if self._guards.get((family, guard.key), guard) is guard:
                entries.pop(guard.key, None)
                self._guards.pop((family, guard.key), None)
            if guard.monitor is not None:
                guard.monitor.cancel()
        if not entries:
            self._own.pop(family, None)
        self._publish(family, [guard.key for guard in guards])

    def withdraw(self, guard: DirectoryEntry) -> None:
        """Delete an entry, unless it was set again and has another guard."""
        if self.holds(guard):
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
        """Begin to report a family: at once, if there is a local copy."""
        self.check_family(watching.family)
        family = self._copies.get(watching.family)
        if family is not None:
            family.watchings[watching] = None
            if family.entries is not None:
                watching.heard(Change(dict(family.entries), []), list(family.entries))
            return
        family = self._copies[watching.family] = _LocalCopy()
        family.watchings[watching] = None
        try:
            self._engine.watch(watching.family)
        except BaseException:
            # Interrupted, or at the recursion limit: the engine may not watch it, and the next call must try again.
            if self._copies.get(watching.family) is family:
                del self._copies[watching.family]
            raise

    def unwatch(self, watching: Watching) -> None:
        """Stop reporting to this interest. Idempotent."""
        family = self._copies.get(watching.family)
        if family is None:
            return
        family.watchings.pop(watching, None)
        if not family.watchings:
            del self._copies[watching.family]
            self._engine.unwatch(watching.family)

    def copy(self, family: str) -> Entries | None:
        """Return the local copy of a watched family; None if the engine has not sent it yet. For reading only."""
        known = self._copies.get(family)
        return None if known is None else known.entries

    def _reported(self, family: str) -> _LocalCopy | None:
        """Return the local copy of a family that the engine reports; end that if nobody is interested."""
        known = self._copies.get(family)
        if known is None:
            self._engine.unwatch(family)  # the call that began or ended the last interest was struck
        return known

    def replaced(self, family: str, entries: Entries) -> None:
        """Take the whole of a family from the engine."""
        known = self._reported(family)
        if known is None:
            return
        if known.entries is None:
            copy, watchings = dict(entries), list(known.watchings)
            try:
                known.entries = copy
                for watching in watchings:
                    watching.heard(Change(dict(entries), []), list(entries))
            except BaseException:
                for watching in watchings:
                    watching.lost_track()
                raise
        else:
            self._take(known, known.entries, difference(known.entries, entries))

    def changed(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Take a change of a family from the engine."""
        known = self._reported(family)
        if known is None or known.entries is None:
            return
        copy = known.entries
        change = difference({key: copy[key] for key in entries if key in copy}, entries)
        gone = [key for key in dict.fromkeys(deleted) if key in copy and key not in entries]
        self._take(known, copy, Change(change.entries, gone))

    def _take(self, known: _LocalCopy, copy: Entries, change: Change) -> None:
        if change.is_empty:
            return
        added = [key for key in change.entries if key not in copy]
        watchings = list(known.watchings)
        try:
            for key in change.deleted:
                del copy[key]
            copy.update(change.entries)
            for watching in watchings:
                watching.heard(change, added)
        except BaseException:
            for key in change.deleted:
                copy.pop(key, None)
            copy.update(change.entries)
            for watching in watchings:
                watching.lost_track()
            raise


def _copy(family: str, key: str, value: Any) -> Any:
    """Return a copy of a value as other nodes will get it, with lists for tuples.

    Raises:
        UnencodableMessageError, InvalidEntryError: It cannot travel, or is too large.
    """
    try:
        copied: list[Any] = copy_as_sent(["", "db_set", family, key, value], Limits(MAX_ENTRY_BYTES))
    except MessageTooLargeError as error:
        why = f"the entry has {error.size} {error.unit}, and {error.limit} are allowed: thousands of nodes may keep it"
        raise InvalidEntryError("value", f"<{type(value).__name__}>", why) from None
    return copied[-1]
