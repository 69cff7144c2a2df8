# SPDX-License-Identifier: MIT
"""The directory in etcd v3: a cluster that runs already keeps it, instead of the nodes themselves.

**In etcd**, under the prefix, with each part percent-encoded:

========================= ===================================================================
``/db/FAMILY/KEY/OWNER``  the value, as msgpack
``/node/OWNER``           nothing: whose lease that is
========================= ===================================================================

**Ownership.** All keys of a node hang on its lease, which it keeps alive; etcd deletes
them when it expires. Several owners of a key have a key each there, and readers take
the smallest owner's value.

**Writing.** A session is a lease, and all own entries under it; then each change, in
order. Whenever it is not sure what etcd has carried out (no answer, or the lease is
gone), the next session begins: all entries are put under its lease, which takes
them away from the last session's, and then that lease is revoked, which deletes what was
left over. Until then both leases are kept alive, however long the putting takes. So nothing
alive is ever deleted in between. A request of a former session that
etcd carries out late does no harm: each has the condition that ``/node/OWNER`` hangs on
the session's own lease.

**Reading.** A watched family is read as a whole, and watched from that revision on; one
stream carries the watches of all families. When the stream breaks (etcd gone, compacted,
restored from a backup) all is read again.

**Grace.** While etcd is away nothing changes here. When it is back, its leases may have
expired meanwhile although their nodes live, and these put everything again as soon as they
can. So what is missing then, or deleted within one time-to-live after, is told only if it is still
missing at the end of that time. That etcd was away shows in time: leases are refreshed three times
in their life, and requests time out in a third of it, so one of ours has failed before anybody's
lease expires.

A greenlet each writes, watches and asks, over a connection of its own. All talk to one
member of the cluster; if one of them finds it gone, all turn to the next.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote

import gevent
from gevent.event import Event

from aemp_gevent.directory.engine import NODES, Entries, Observer, Query
from aemp_gevent.directory.etcd.client import (
    NOT_FOUND,
    Cluster,
    EtcdClient,
    EtcdError,
    EtcdLostError,
    Json,
    decoded,
    encoded,
)
from aemp_gevent.errors import AempError
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.forking import Helper
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.directory_address import EtcdAddress
from aemp_gevent.wire.framing_msgpack import ERRORS, MsgpackDecoder, make_encoder
from aemp_gevent.wire.limits import Limits

_MIN_TTL = 2
"""Seconds; etcd itself grants no less, with its usual settings."""

_MAX_TIMEOUT = 5.0
_FIRST_DELAY = 0.1
_MAX_DELAY = 5.0
_LOG_SECONDS = 60.0
_LEAVE_SECONDS = 2.0
"""What revoking the lease may take at the end."""

_PAGE = 500
"""How many keys are read at a time."""

# etcd's limits of a transaction are 128 operations and 1.5 MiB.
_MAX_OPERATIONS = 100
_MAX_VALUE_BYTES = 2**20 + 1024

_MAX_QUEUED = 10_000
"""Changes that wait for etcd; if there are more, the whole is put instead, which skips what was only for a while."""

_log = Log("aemp_gevent.etcd")


_Value = tuple[bytes, Any]
"""A value as etcd has it, and as it is."""


@dataclass(frozen=True)
class _Change:
    """An own entry was set, or deleted.

    Attributes:
        key: etcd's.
        value: As etcd has it; None: it was deleted.
        number: How many changes were published until then.
    """

    key: bytes
    value: bytes | None
    number: int

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value or b"")

    def operation(self, lease: int) -> Json:
        if self.value is None:
            return {"request_delete_range": {"key": encoded(self.key)}}
        return {"request_put": {"key": encoded(self.key), "value": encoded(self.value), "lease": str(lease)}}


@dataclass
class _Family:
    """A watched family.

    Attributes:
        revision: etcd's, up to which we know it; None: it is to be read.
        held: The values by key and owner.
        fading: Entries that etcd has no more, by key and owner, and when that is to be believed.
        shown: What the observer knows; None: nothing yet.
    """

    revision: int | None = None
    held: dict[str, dict[str, _Value]] = field(default_factory=dict)
    fading: dict[tuple[str, str], float] = field(default_factory=dict)
    shown: dict[str, _Value] | None = None

    def put(self, key: str, owner: str, value: _Value) -> None:
        self.held.setdefault(key, {})[owner] = value
        self.fading.pop((key, owner), None)

    def drop(self, key: str, owner: str) -> None:
        owners = self.held.get(key, {})
        owners.pop(owner, None)
        if not owners:
            self.held.pop(key, None)
        self.fading.pop((key, owner), None)

    def entries(self) -> Entries:
        return {key: owners[min(owners)][1] for key, owners in self.held.items()}


class _Reopen(BaseException):
    """Thrown into the greenlet that watches: there is something else to watch, or somewhere else."""


class EtcdEngine:
    """An :class:`~aemp_gevent.directory.engine.Engine` that keeps the directory in etcd.

    Args:
        address: The cluster.
        node: The node's ID, the owner of its entries.
        scheduler: The node's.
        heartbeat_timeout: Seconds until the entries of a node that died are gone; etcd counts
            in whole ones, and at least two.
        listens: The node's endpoints, for others to find; empty: its entries say so themselves.
    """

    def __init__(
        self,
        address: EtcdAddress,
        node: str,
        scheduler: Scheduler,
        heartbeat_timeout: float,
        listens: Collection[str] = (),
    ) -> None:
        self._node = node
        self._scheduler = scheduler
        self._listens = list(listens)
        self._prefix = address.prefix
        self._guard = f"{address.prefix}/node/{_escaped(node)}".encode()
        self._encode = make_encoder()
        self._observer: Observer | None = None
        self._stopping = False
        self.stopped = Event()
        """Set when etcd knows that this node left, or could not be told."""

        self._ttl = max(math.ceil(heartbeat_timeout), _MIN_TTL)
        self._timeout = min(_MAX_TIMEOUT, self._ttl / 3)
        self._cluster = Cluster(address)
        self._clients: list[EtcdClient] = []
        self._greenlets: list[Helper] = []

        # The session. Not sure: etcd may have more or less than we sent. Complete: what etcd has
        # and the queue make up all of our entries.
        self._lease: int | None = None
        self._former: deque[int] = deque(maxlen=8)
        self._keep_at = 0.0
        self._to_move = 0  # changes that are to be sent before nothing is left under the former leases that lives
        self._is_sure = False
        self._is_complete = False
        self._changes: deque[_Change] = deque()
        self._changed = Event()
        self._room = _MAX_QUEUED
        # Whoever asks hears of what was published before.
        self._published = 1
        self._written = 0
        self._progress = Event()

        self._families: dict[str, _Family] = {}
        self._watcher: Helper | None = None
        self._streaming = False
        self._to_watch = Event()
        self._questions: deque[tuple[Callable[[EtcdClient], Any], Callable[[Any], None]]] = deque()
        self._asked = Event()

        self._was_away = False
        self._grace_until = 0.0
        self._burier: Helper | None = None
        self._skipped_at = -math.inf

    # --- what the node says; nothing here switches ---

    def start(self, observer: Observer) -> None:
        self._observer = observer
        if self._greenlets or self._stopping:
            return
        self._queue_everything()
        run = self._scheduler.start_greenlet
        self._watcher = run(self._run, "watching the directory", self._watch)
        self._greenlets = [
            run(self._run, "writing the node's own entries", self._write, self._leave),
            self._watcher,
            run(self._run, "asking", self._ask),
        ]
        self._greenlets[0].rawlink(lambda _ended: self.stopped.set())

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        self._published += 1
        changes = [_Change(self._key(family, key), None, self._published) for key in deleted]
        changes += self._puts(family, entries)
        if not self._is_complete:
            return  # the whole will be put
        self._changes += changes
        if len(self._changes) > self._room:
            self._end_session()
        self._changed.set()

    def watch(self, family: str) -> None:
        if family not in self._families:
            self._families[family] = _Family()
            self._to_watch.set()
            self._reopen()

    def unwatch(self, family: str) -> None:
        self._families.pop(family, None)

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        published = self._published

        def ask(client: EtcdClient) -> Any:
            copy = self._copy_if_away(family)
            if copy is None:
                self._await_written(published)
                held = _Family()
                self._read(client, family, held.put)
                watched = self._families.get(family, _Family())
                for key, owner in watched.fading:
                    held.held.setdefault(key, {}).setdefault(owner, watched.held[key][owner])
                copy = held.entries()
            return _part(what, copy)

        copy = self._copy_if_away(family)
        if copy is None:
            self._put_question(ask, answered)
        else:
            self._scheduler.start_greenlet(answered, _part(what, copy))

    def _copy_if_away(self, family: str) -> Entries | None:
        """Return what a watched family was when etcd was there last, if it is not now."""
        watched = self._families.get(family)
        is_away = watched is not None and watched.shown is not None and watched.revision is None
        return watched.entries() if watched is not None and is_away else None

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        def ask(client: EtcdClient) -> Any:
            found: Json = client.call("kv/range", {"key": encoded(self._key(NODES, node, node))})
            for kv in found.get("kvs", ()):
                value = self._value(decoded(kv.get("key")), decoded(kv.get("value")))
                if value is not None and _are_texts(value[1]):
                    return value[1]
            return None

        self._put_question(ask, answered)

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._families.clear()
        self._questions.clear()
        for greenlet in filter(None, (*self._greenlets, self._burier)):
            greenlet.kill(block=False)
        if not self._greenlets:
            self.stopped.set()

    def abandon(self) -> None:
        """Release the connections in a forked child: the parent goes on with them, and with the lease."""
        self._stopping = True
        for client in self._clients:
            client.abandon()

    # --- the greenlets ---

    def _run(
        self, what: str, work: Callable[[EtcdClient], None], at_last: Callable[[EtcdClient], None] | None = None
    ) -> None:
        """Run ``work`` forever, restarting it after failures."""
        trouble = _Trouble(what, min(_MAX_DELAY, self._ttl / 4))

        def heard() -> None:
            trouble.over()
            self._heard()

        client = EtcdClient(self._cluster, self._timeout, heard)
        self._clients.append(client)
        try:
            while True:
                try:
                    self._try(client, work, trouble)
                except _Reopen:
                    client.close()
        finally:
            client.close()
            self._clients.remove(client)
            if at_last is not None:
                at_last(client)

    def _try(self, client: EtcdClient, work: Callable[[EtcdClient], None], trouble: _Trouble) -> None:
        try:
            work(client)
            return
        except EtcdError as error:
            trouble.failed(error)
            if isinstance(error, EtcdLostError):
                self._lost()
        except Exception as error:  # noqa: BLE001  # a bug shall not end the node's part in the directory
            trouble.failed(error, is_bug=True)
        client.close()
        gevent.sleep(trouble.delay())

    def _lost(self) -> None:
        """Mark everything read as stale."""
        self._was_away = True
        for family in self._families.values():
            family.revision = None
        self._reopen()

    def _heard(self) -> None:
        if self._was_away:
            self._grace_until = monotonic() + self._ttl
            self._was_away = False

    # --- writing ---

    def _write(self, client: EtcdClient) -> None:
        if not self._is_sure:
            self._begin_session(client)
        while self._is_sure:
            if self._former and self._to_move <= 0:
                self._revoke(client, self._former[0])
                self._former.popleft()
            elif self._changes:
                self._send_changes(client)
            else:
                self._wrote_all()
                self._changed.clear()
                self._changed.wait(max(self._keep_at - monotonic(), 0))
            self._keep_alive(client)

    def _keep_alive(self, client: EtcdClient) -> None:
        """Refresh the leases that entries hang on, if it is time: this session's, and those it takes them over from."""
        if monotonic() < self._keep_at:
            return
        self._keep_at = monotonic() + self._ttl / 3
        for lease in [*self._former, *filter(None, (self._lease,))]:
            kept = client.call("lease/keepalive", {"ID": str(lease)})
            if int(kept.get("TTL", 0)) > 0:
                continue
            if lease == self._lease:
                self._end_session()
            else:
                self._former.remove(lease)

    def _end_session(self) -> None:
        """Begin another session, with everything."""
        self._is_sure = self._is_complete = False
        self._changes.clear()

    def _queue_everything(self) -> None:
        self._changes = deque(self._everything())
        self._room = _MAX_QUEUED + len(self._changes)
        self._is_complete = True

    def _begin_session(self, client: EtcdClient) -> None:
        self._keep_at = 0.0  # whatever failed may have taken long, and what follows may, too
        self._keep_alive(client)
        granted = client.call("lease/grant", {"TTL": str(self._ttl)})
        if self._lease is not None:
            self._former.append(self._lease)
        self._lease = int(granted["ID"])
        client.call("kv/put", {"key": encoded(self._guard), "lease": str(self._lease)})
        if not self._is_complete:
            self._queue_everything()
        self._to_move = len(self._changes)
        self._is_sure = True

    def _send_changes(self, client: EtcdClient) -> None:
        """Send etcd the next changes, or end the session."""
        lease = self._lease
        assert lease is not None
        guard = encoded(self._guard)
        changes = list(self._next_changes())
        transaction = {
            "compare": [{"key": guard, "target": "LEASE", "result": "EQUAL", "lease": str(lease)}],
            "success": [change.operation(lease) for change in changes],
            "failure": [{"request_range": {"key": guard}}],
        }
        try:
            answer = client.call("kv/txn", transaction)
        except BaseException:
            self._end_session()
            raise
        if answer.get("succeeded"):
            self._to_move -= len(changes)
            self._written = changes[-1].number - 1  # one publication may be several changes
            self._progress.set()
        else:
            self._end_session()
            if any("kvs" in response.get("response_range", {}) for response in answer.get("responses", ())):
                raise EtcdError(f"another process writes as the owner {quoted(self._node)}; node IDs must be unique")

    def _wrote_all(self) -> None:
        if self._is_sure and not self._changes:
            self._written = self._published
            self._progress.set()

    def _next_changes(self) -> Iterator[_Change]:
        """Take changes that may be in one transaction, which can have a key only once."""
        keys: set[bytes] = set()
        size = 0
        while self._changes and self._changes[0].key not in keys and len(keys) < _MAX_OPERATIONS:
            size += self._changes[0].size
            if keys and size > _MAX_VALUE_BYTES:
                return
            change = self._changes.popleft()
            keys.add(change.key)
            yield change

    def _leave(self, client: EtcdClient) -> None:
        """Delete all our entries from etcd, which does so by itself if it cannot be reached."""
        try:
            for lease in filter(None, (*self._former, self._lease)):
                self._revoke(client, lease, timeout=_LEAVE_SECONDS)
        except EtcdError as error:
            _log.info("etcd was not told that this node leaves, and finds out in %d s: %s", self._ttl, error)
        finally:
            client.close()

    def _revoke(self, client: EtcdClient, lease: int, timeout: float | None = None) -> None:
        try:
            client.call("lease/revoke", {"ID": str(lease)}, timeout=timeout)
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise

    def _everything(self) -> Iterator[_Change]:
        assert self._observer is not None
        own = dict(self._observer.own)
        if self._listens:
            own[NODES] = {self._node: self._listens, **own.get(NODES, {})}
        for family, entries in own.items():
            for key, value in entries.items():
                try:
                    yield from self._puts(family, {key: value})
                except AempError as error:
                    self._scheduler.log_soon(logging.ERROR, "entry %s of %s is left out: %s", key, family, error)

    def _puts(self, family: str, entries: Entries) -> Iterator[_Change]:
        for key, value in entries.items():
            text = self._encode([value])
            if len(text) > _MAX_VALUE_BYTES:
                self._scheduler.log_soon(
                    logging.ERROR,
                    "the own entry %s of %s has %d bytes, and is left out: etcd takes %d",
                    *(key, family, len(text), _MAX_VALUE_BYTES),
                )
            else:
                yield _Change(self._key(family, key), text, self._published)

    # --- watching ---

    def _reopen(self) -> None:
        if self._streaming and self._watcher is not None:
            self._streaming = False  # once is enough
            self._watcher.kill(_Reopen, block=False)

    def _watch(self, client: EtcdClient) -> None:
        self._to_watch.clear()
        for name, family in list(self._families.items()):
            if family.revision is None:
                self._read_whole(client, name, family)
        names = list(self._families)
        if not names:
            self._to_watch.wait()
            return
        if any(family.revision is None for family in self._families.values()):
            return  # it came meanwhile
        watches = [self._request_watch(number, name) for number, name in enumerate(names, 1)]
        self._streaming = True
        try:
            for answer in client.stream("watch", *watches):
                self._take(answer, names)
        finally:
            self._streaming = False

    def _request_watch(self, number: int, name: str) -> Json:
        begin, end = self._range(name)
        revision = self._families[name].revision
        assert revision is not None
        request = {"key": encoded(begin), "range_end": encoded(end), "start_revision": str(revision + 1)}
        return {"create_request": {**request, "watch_id": str(number), "progress_notify": True, "fragment": True}}

    def _take(self, answer: Json, names: list[str]) -> None:
        """Take what a watch says."""
        number = int(answer.get("watch_id", 0))
        name = names[number - 1] if 0 < number <= len(names) else ""
        family = self._families.get(name)
        if answer.get("canceled"):
            if family is not None:
                family.revision = None
            if int(answer.get("compact_revision", 0)):
                raise _Reopen  # what we would have to know is gone
            self._cluster.token = None
            raise EtcdError(
                f"watching family {quoted(name)} was refused: {answer.get('cancel_reason', 'etcd says no more')}"
            )
        if family is None or family.revision is None or answer.get("created"):
            return
        if "events" not in answer:  # a notice, of how far there is nothing
            family.revision = max(family.revision, int(answer["header"]["revision"]))
        for event in answer.get("events", ()):
            key = self._apply(name, family, event)
            if key is not None:
                self._show(name, family, (key,))
            revision = int(event["kv"]["mod_revision"])
            # The rest of this revision may be yet to come, if etcd cut its answer into parts.
            family.revision = revision - 1 if answer.get("fragment") else revision

    def _apply(self, name: str, family: _Family, event: Json) -> str | None:
        """Apply an event to a family, and return the key that it is about."""
        kv = event["kv"]
        path = decoded(kv["key"])
        place = self._place(path)
        if place is None:
            return None
        key, owner = place
        if event.get("type") == "DELETE":
            self._remove(name, family, key, owner)
        else:
            value = self._value(path, decoded(kv.get("value")))
            if value is None:
                family.drop(key, owner)
            else:
                family.put(key, owner, value)
        return key

    def _remove(self, name: str, family: _Family, key: str, owner: str) -> None:
        """Drop an entry that etcd has no more, at once or after a while."""
        until = self._grace(name, key, owner)
        if until is None:
            family.drop(key, owner)
        elif owner in family.held.get(key, {}):
            family.fading[key, owner] = until
            if self._burier is None:
                self._burier = self._scheduler.start_greenlet(self._bury)

    def _grace(self, name: str, key: str, owner: str) -> float | None:
        """Return how long an entry is believed to be there although etcd has it no more; None: it is gone."""
        now = monotonic()
        if owner == self._node:
            assert self._observer is not None
            is_ours = key in self._observer.own.get(name, ()) or (name == NODES and bool(self._listens))
            return now + self._ttl if is_ours else None
        return self._grace_until if now < self._grace_until else None

    def _bury(self) -> None:
        """Drop what etcd has no more, each when its time is over."""
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

    def _show(self, name: str, family: _Family, keys: Collection[str]) -> None:
        """Tell the observer what is different now."""
        assert self._observer is not None
        shown = family.shown
        if shown is None or self._families.get(name) is not family:
            return
        new: Entries = {}
        gone: list[str] = []
        for key in keys:
            owners = family.held.get(key)
            value = owners[min(owners)] if owners else None
            was = shown.get(key)
            if value is None:
                if was is not None:
                    del shown[key]
                    gone.append(key)
            elif was is None or was[0] != value[0]:  # the bytes: 1 and True are equal
                shown[key] = value
                new[key] = value[1]
        if new or gone:
            self._observer.changed(name, new, gone)

    def _read_whole(self, client: EtcdClient, name: str, family: _Family) -> None:
        found: dict[tuple[str, str], _Value] = {}
        revision = self._read(client, name, lambda key, owner, value: found.__setitem__((key, owner), value))
        if self._families.get(name) is not family:
            return
        assert self._observer is not None
        for key, owners in list(family.held.items()):
            for owner in [owner for owner in owners if (key, owner) not in found]:
                self._remove(name, family, key, owner)
        for (key, owner), value in found.items():
            family.put(key, owner, value)
        family.revision = revision
        family.shown = {key: owners[min(owners)] for key, owners in family.held.items()}
        self._observer.replaced(name, family.entries())

    def _read(self, client: EtcdClient, name: str, take: Callable[[str, str, _Value], object]) -> int:
        """Read a family at one revision, page by page, and return the revision."""
        begin, end = self._range(name)
        revision = 0
        while True:
            page: Json = {"key": encoded(begin), "range_end": encoded(end), "limit": str(_PAGE)}
            answer = client.call("kv/range", {**page, **({"revision": str(revision)} if revision else {})})
            revision = revision or int(answer["header"]["revision"])
            path = b""
            for kv in answer.get("kvs", ()):
                path = decoded(kv["key"])
                place = self._place(path)
                value = None if place is None else self._value(path, decoded(kv.get("value")))
                if place is not None and value is not None:
                    take(*place, value)
            if not answer.get("more") or not path:
                return revision
            begin = path + b"\0"

    # --- asking ---

    def _put_question(self, ask: Callable[[EtcdClient], Any], answered: Callable[[Any], None]) -> None:
        if not self._stopping:
            self._questions.append((ask, answered))
            self._asked.set()

    def _ask(self, client: EtcdClient) -> None:
        while self._questions:
            question = self._questions[0]
            ask, answered = question
            answer = ask(client)
            self._questions.popleft()
            answered(answer)
        self._asked.clear()
        self._asked.wait()

    def _await_written(self, number: int) -> None:
        """Wait until etcd knows what was published, but not forever: it may refuse all writing."""
        deadline = monotonic() + self._timeout
        while self._written < number and monotonic() < deadline:
            self._progress.clear()
            self._progress.wait(deadline - monotonic())

    # --- what is in etcd ---

    def _range(self, family: str) -> tuple[bytes, bytes]:
        begin = f"{self._prefix}/db/{_escaped(family)}/".encode()
        return begin, begin[:-1] + b"0"  # which comes after the slash

    def _key(self, family: str, key: str, owner: str | None = None) -> bytes:
        parts = (family, key, self._node if owner is None else owner)
        return f"{self._prefix}/db/{'/'.join(map(_escaped, parts))}".encode()

    def _place(self, path: bytes) -> tuple[str, str] | None:
        """Return the key and the owner that etcd's key stands for, or None: it is not ours."""
        try:
            _, key, owner = (
                unquote(part, errors="surrogatepass")
                for part in path.decode().removeprefix(f"{self._prefix}/db/").split("/")
            )
        except ValueError:
            self._skip(path, "its name does not have this library's form")
            return None
        return key, owner

    def _value(self, path: bytes, text: bytes) -> _Value | None:
        decoder = MsgpackDecoder(Limits(max(len(text), 1)))
        decoder.feed(text)
        try:
            (packet,) = decoder
            (value,) = packet
        except ERRORS as error:  # also a value that holds more than one
            self._skip(path, f"its value cannot be read: {error}")
            return None
        return text, value

    def _skip(self, path: bytes, why: str) -> None:
        now = monotonic()
        if now - self._skipped_at > _LOG_SECONDS:
            self._skipped_at = now
            _log.warning("etcd has %s, which is skipped: %s (others like it are not told for a while)", path, why)


class _Trouble:
    """What does not work: logs it, but not each time, and says when to try again.

    Args:
        what: That.
        max_delay: The longest time between tries, in seconds.
    """

    def __init__(self, what: str, max_delay: float) -> None:
        self._what = what
        # Jitter adds up to half: 'max_delay' includes it.
        self._pauses = Backoff(_FIRST_DELAY / 1.5, max_delay / 1.5)
        self._failures = 0
        self._since = 0.0
        self._logged_at = -math.inf
        self._is_known = False

    def failed(self, error: Exception, *, is_bug: bool = False) -> None:
        now = monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            self._is_known = True
            _log.warning(
                "%s with etcd does not work, and is tried on: %s", self._what, error, exc_info=error if is_bug else None
            )

    def over(self) -> None:
        if self._failures and self._is_known:
            _log.info("%s with etcd works again, after %.1f s", self._what, monotonic() - self._since)
            self._is_known = False
        self._failures = 0
        self._pauses.reset()

    def delay(self) -> float:
        """Return how many seconds to wait: random, so that not all nodes come at once to an etcd that came back."""
        return self._pauses.next()


def _escaped(part: str) -> str:
    return quote(part, safe="", errors="surrogatepass")


def _part(what: Query, entries: Entries) -> Entries | list[Any]:
    return entries if what == "family" else list(entries if what == "keys" else entries.values())


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
