# SPDX-License-Identifier: MIT
"""Watching families in etcd, and what the node sees of them while etcd is away.

**Reading.** A watched family is read as a whole, and watched from that revision on. One watch serves all families:
its range goes from the first family to the end of the last, and what lies between them is ignored. A watch for each
family would need a stream and a connection for each, because etcd's gateway may stop reading requests once it has begun
to answer the first. When the stream breaks (etcd is unreachable, compacted, or restored from a backup) all families are
read again.

**Grace.** While etcd is away nothing changes here. When it is back, its leases may have
expired meanwhile although their nodes live, and these put everything again as soon as they
can. So an entry that is missing then, or deleted within one time to live after that, is reported as deleted only if it
is still missing at the end of that time. That etcd was away is always noticed in time: leases are refreshed three times
in their life, and requests time out in a third of it, so one of ours has failed before any lease
expires.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic

import gevent
from gevent.event import Event

from aemp_gevent.directory.engine import Entries, Observer
from aemp_gevent.directory.etcd.client import Cluster, EtcdClient, EtcdError, Json, decoded, encoded
from aemp_gevent.directory.etcd.family import EtcdFamily
from aemp_gevent.directory.etcd.keyspace import Keyspace, StoredValue
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.forking import Helper


class Reopen(BaseException):
    """Thrown into the greenlet that watches: the families to watch, or the member to ask, have changed."""


class Watcher:
    """Keeps the observer's copies of watched families up to date.

    Args:
        keyspace: The keys in etcd.
        node: The node's ID.
        cluster: The cluster whose token is renewed when a watch is refused.
        scheduler: The node's.
        ttl: The time to live of a lease, in seconds: how long the time of grace is.
        owns: Returns whether the node itself has an entry, by family and key.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        node: str,
        cluster: Cluster,
        scheduler: Scheduler,
        ttl: int,
        owns: Callable[[str, str], bool],
    ) -> None:
        self._keyspace = keyspace
        self._node = node
        self._cluster = cluster
        self._scheduler = scheduler
        self._ttl = ttl
        self._owns = owns
        self._observer: Observer | None = None
        self._families: dict[str, EtcdFamily] = {}
        self._greenlet: Helper | None = None
        self._streaming = False
        self._to_watch = Event()
        self._was_away = False
        self._grace_until = 0.0
        self._burier: Helper | None = None

    def start(self, observer: Observer, greenlet: Helper) -> None:
        """Begin.

        Args:
            observer: The node, which gets the changes.
            greenlet: The one that runs :meth:`work`.
        """
        self._observer = observer
        self._greenlet = greenlet

    def stop(self) -> None:
        """Report nothing more. Idempotent."""
        self._families.clear()
        if self._burier is not None:
            self._burier.kill(block=False)

    def watch(self, family: str) -> None:
        """Begin to watch a family; what is known of it already is stale. Never switches."""
        self._families[family] = EtcdFamily()
        self._to_watch.set()
        self._reopen()

    def unwatch(self, family: str) -> None:
        """Stop watching a family. Never switches."""
        self._families.pop(family, None)

    def watched(self, family: str) -> EtcdFamily | None:
        """Return the state of a watched family; None if it is not watched. For reading only."""
        return self._families.get(family)

    def copy_if_away(self, family: str) -> Entries | None:
        """Return a watched family as it was when etcd was last available; None if etcd is available now."""
        watched = self._families.get(family)
        is_away = watched is not None and watched.shown is not None and watched.revision is None
        return watched.entries() if watched is not None and is_away else None

    def lost(self) -> None:
        """Mark everything read as stale: etcd does not answer. Never switches."""
        self._was_away = True
        self._forget_revisions()
        self._reopen()

    def heard(self) -> None:
        """Begin the time of grace if etcd was away: it answers. Never switches."""
        if self._was_away:
            self._grace_until = monotonic() + self._ttl
            self._was_away = False

    def _reopen(self) -> None:
        if self._streaming and self._greenlet is not None:
            self._greenlet.kill(Reopen, block=False)
            self._streaming = False  # once is enough; not before the call, which a signal handler may prevent

    # --- the stream ---

    def work(self, client: EtcdClient) -> None:
        """Read the families that are not known, and watch all of them until the stream ends. Switches.

        Raises:
            EtcdError: A request failed, or the stream broke.
            Reopen: There are other families to watch, or the stream must begin again.
        """
        self._to_watch.clear()
        for name, family in list(self._families.items()):
            if family.revision is None:
                self._read_whole(client, name, family)
        if not self._families:
            self._to_watch.wait()
            return
        revisions = [family.revision for family in self._families.values() if family.revision is not None]
        if len(revisions) < len(self._families):
            return  # one was added meanwhile
        ranges = {name: self._keyspace.range(name) for name in self._families}
        names = {begin: name for name, (begin, _end) in ranges.items()}
        request = {
            "key": encoded(min(names)),
            "range_end": encoded(max(end for _begin, end in ranges.values())),
            "start_revision": str(min(revisions) + 1),
            "progress_notify": True,
            "fragment": True,
        }
        self._streaming = True
        try:
            for answer in client.stream("watch", {"create_request": request}):
                self._take(answer, names)
        finally:
            self._streaming = False

    def _take(self, answer: Json, names: dict[bytes, str]) -> None:
        """Take one answer of the stream.

        Args:
            answer: As etcd sent it.
            names: The families that the stream is for, by the first key that each can have.
        """
        if answer.get("canceled"):
            self._forget_revisions()
            if int(answer.get("compact_revision", 0)):
                raise Reopen  # the changes since our revision are gone
            self._cluster.token = None
            raise EtcdError(f"etcd refused to watch: {answer.get('cancel_reason', 'it gave no reason')}")
        if answer.get("created"):
            return
        revision = int(answer["header"]["revision"])  # without events: there is nothing new up to this revision
        for event in answer.get("events", ()):
            revision = int(event["kv"]["mod_revision"])
            name = names.get(self._keyspace.range_begin(decoded(event["kv"]["key"])))
            if name is None:
                continue
            family = self._families.get(name)
            if family is None or family.revision is None or revision <= family.revision:
                continue
            family.revision = revision - 1  # what comes before has been applied, also if this is interrupted
            key = self._apply(name, family, event)
            if key is not None:
                self._show(name, family, (key,))
        if answer.get("fragment"):
            revision -= 1  # the rest of this revision may be yet to come
        for family in self._families.values():
            if family.revision is not None:
                family.revision = max(family.revision, revision)

    def _forget_revisions(self) -> None:
        """Mark all families as unknown, so that they are read again."""
        for family in self._families.values():
            family.revision = None

    def _apply(self, name: str, family: EtcdFamily, event: Json) -> str | None:
        """Apply an event to a family, and return the key that it is about."""
        kv = event["kv"]
        path = decoded(kv["key"])
        place = self._keyspace.place(path)
        if place is None:
            return None
        key, owner = place
        if event.get("type") == "DELETE":
            self._remove(name, family, key, owner)
        else:
            value = self._keyspace.value(path, decoded(kv.get("value")))
            if value is None:
                family.drop(key, owner)
            else:
                family.put(key, owner, value)
        return key

    def _show(self, name: str, family: EtcdFamily, keys: Collection[str]) -> None:
        """Report to the observer how these keys have changed."""
        assert self._observer is not None
        if self._families.get(name) is not family:
            return
        change = family.show(keys)
        if not change.is_empty:
            self._observer.changed(name, change.entries, change.deleted)

    def _read_whole(self, client: EtcdClient, name: str, family: EtcdFamily) -> None:
        found: dict[tuple[str, str], StoredValue] = {}
        revision = self._keyspace.read_family(
            client, name, lambda key, owner, value: found.__setitem__((key, owner), value)
        )
        if self._families.get(name) is not family:
            return
        assert self._observer is not None
        for key, owners in list(family.held.items()):
            for owner in [owner for owner in owners if (key, owner) not in found]:
                self._remove(name, family, key, owner)
        for (key, owner), value in found.items():
            family.put(key, owner, value)
        family.revision = revision
        self._observer.replaced(name, family.show_all())

    # --- grace ---

    def _remove(self, name: str, family: EtcdFamily, key: str, owner: str) -> None:
        """Drop an entry that etcd no longer has, at once or after the time of grace."""
        until = self._grace(name, key, owner)
        if until is None:
            family.drop(key, owner)
        elif owner in family.held.get(key, {}):
            family.fading[key, owner] = until
            if self._burier is None:
                self._burier = self._scheduler.start_greenlet(self._bury)

    def _grace(self, name: str, key: str, owner: str) -> float | None:
        """Return until when to keep an entry that etcd no longer has; None: drop it now."""
        now = monotonic()
        if owner == self._node:
            return now + self._ttl if self._owns(name, key) else None
        return self._grace_until if now < self._grace_until else None

    def _bury(self) -> None:
        """Drop fading entries, each when its time is over."""
        try:
            while dues := [due for family in self._families.values() for due in family.fading.values()]:
                gevent.sleep(max(min(dues) - monotonic(), 0.01))
                now = monotonic()
                for name, family in list(self._families.items()):
                    late = [place for place, due in family.fading.items() if due <= now]
                    if family.revision is None:  # etcd is away again
                        family.fading.update(dict.fromkeys(late, now + self._ttl))
                        continue
                    for key, owner in late:
                        family.drop(key, owner)
                    self._show(name, family, {key for key, _ in late})
        finally:
            self._burier = None
