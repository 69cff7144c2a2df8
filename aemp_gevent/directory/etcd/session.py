# SPDX-License-Identifier: MIT
"""The node's own entries in etcd, all attached to one lease: a session.

**Ownership.** All keys of a node are attached to its lease, which it keeps alive; etcd deletes
them when it expires.

**Sessions.** A session begins with a new lease: all own entries are put under it, and after that each
change, in order. Whenever it is unclear what etcd has carried out (no answer, or the lease has
expired), the next session begins. Putting all entries under its lease takes
them away from the former one, which is then revoked, so that etcd deletes what was
left over. Until then both leases are kept alive, however long the putting takes. So no entry of a living node is
ever deleted in between. If etcd carries out a request of a former session late, that
does no harm: each request has the condition that ``/node/OWNER`` is attached to the session's own lease.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from time import monotonic

from gevent.event import Event

from aemp_gevent.directory.engine import NODES, Entries, Observer
from aemp_gevent.directory.etcd.client import NOT_FOUND, EtcdClient, EtcdError, Json, encoded
from aemp_gevent.directory.etcd.keyspace import Keyspace
from aemp_gevent.errors import AempError
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted

_LEAVE_SECONDS = 2.0
"""How long revoking a lease may take when the node leaves."""

# etcd's limits of a transaction are 128 operations and 1.5 MiB.
_MAX_OPERATIONS = 100
_MAX_VALUE_BYTES = 2**20 + 1024

_MAX_QUEUED = 10_000
"""Changes that wait for etcd; with more, all entries are put instead, which skips values that were soon replaced."""

_log = Log("aemp_gevent.etcd")


@dataclass(frozen=True)
class _Write:
    """An own entry was set or deleted.

    Attributes:
        key: etcd's key.
        value: The value's bytes; None: the entry was deleted.
        number: How many publications there were up to this one.
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


class SessionWriter:
    """Writes the node's own entries to etcd, in one session after another.

    Args:
        keyspace: The node's keys in etcd.
        node: The node's ID.
        scheduler: The node's.
        ttl: The time to live of a lease, in seconds.
        listens: The node's endpoints, for others to find; empty: its entries contain them already.
    """

    def __init__(
        self, keyspace: Keyspace, node: str, scheduler: Scheduler, ttl: int, listens: Collection[str] = ()
    ) -> None:
        self._keyspace = keyspace
        self._node = node
        self._scheduler = scheduler
        self._ttl = ttl
        self._listens = list(listens)
        self._observer: Observer | None = None
        # Sure: we know what etcd has carried out. Complete: what etcd has and the queue make up all of our entries.
        self._lease: int | None = None
        self._former: deque[int] = deque(maxlen=8)
        self._keep_at = 0.0
        self._to_move = 0  # changes to send before no living entry is left under the former leases
        self._is_sure = False
        self._is_complete = False
        self._changes: deque[_Write] = deque()
        self._changed = Event()
        self._room = _MAX_QUEUED
        # Publications so far, and those that etcd has: a query waits for those before it.
        self._published = 1
        self._written = 0
        self._progress = Event()

    @property
    def published(self) -> int:
        """How many publications there were."""
        return self._published

    def start(self, observer: Observer) -> None:
        """Queue the node's own entries."""
        self._observer = observer
        self._queue_everything()

    def owns(self, family: str, key: str) -> bool:
        """Return whether the node itself has an entry with this key."""
        assert self._observer is not None
        return key in self._observer.own.get(family, ()) or (family == NODES and bool(self._listens))

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        """Queue a change of the node's own entries. Never switches."""
        self._published += 1
        changes = [_Write(self._keyspace.key(family, key), None, self._published) for key in deleted]
        changes += self._puts(family, entries)
        if not self._is_complete:
            return  # all entries will be put
        self._changes += changes
        if len(self._changes) > self._room:
            self._end_session()
        self._changed.set()

    def write(self, client: EtcdClient) -> None:
        """Write what is queued, and keep the lease alive, until the session ends. Switches.

        Raises:
            EtcdError: A request failed.
        """
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

    def leave(self, client: EtcdClient) -> None:
        """Remove all own entries from etcd by revoking their leases; if that fails, they expire. Switches."""
        try:
            for lease in filter(None, (*self._former, self._lease)):
                self._revoke(client, lease, timeout=_LEAVE_SECONDS)
        except EtcdError as error:
            text = "removing the node's own entries from etcd failed; they expire within %d s: %s"
            _log.info(text, self._ttl, error)
        finally:
            client.close()

    def await_written(self, number: int, seconds: float) -> None:
        """Wait until etcd has these publications; for a limited time, as it may refuse all writing. Switches."""
        deadline = monotonic() + seconds
        while self._written < number and monotonic() < deadline:
            self._progress.clear()
            self._progress.wait(deadline - monotonic())

    # --- the lease ---

    def _keep_alive(self, client: EtcdClient) -> None:
        """Refresh the leases that entries are attached to, if it is time: this session's, and the former ones."""
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
        """Cause another session to begin, with all entries."""
        self._is_sure = self._is_complete = False
        self._changes.clear()

    def _begin_session(self, client: EtcdClient) -> None:
        self._keep_at = 0.0  # the failure may have taken long, and so may what follows
        self._keep_alive(client)
        granted = client.call("lease/grant", {"TTL": str(self._ttl)})
        if self._lease is not None:
            self._former.append(self._lease)
        self._lease = int(granted["ID"])
        client.call("kv/put", {"key": encoded(self._keyspace.node_key), "lease": str(self._lease)})
        if not self._is_complete:
            self._queue_everything()
        self._to_move = len(self._changes)
        self._is_sure = True

    def _revoke(self, client: EtcdClient, lease: int, timeout: float | None = None) -> None:
        try:
            client.call("lease/revoke", {"ID": str(lease)}, timeout=timeout)
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise

    # --- changes ---

    def _send_changes(self, client: EtcdClient) -> None:
        """Send the next changes as one transaction; end the session if etcd did not carry it out."""
        lease = self._lease
        assert lease is not None
        guard = encoded(self._keyspace.node_key)
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

    def _next_changes(self) -> Iterator[_Write]:
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

    def _queue_everything(self) -> None:
        self._changes = deque(self._everything())
        self._room = _MAX_QUEUED + len(self._changes)
        self._is_complete = True

    def _everything(self) -> Iterator[_Write]:
        assert self._observer is not None
        own = dict(self._observer.own)
        if self._listens:
            own[NODES] = {self._node: self._listens, **own.get(NODES, {})}
        for family, entries in own.items():
            for key, value in entries.items():
                try:
                    yield from self._puts(family, {key: value})
                except AempError as error:
                    text = "this node's entry %s of family %s is left out: %s"
                    self._scheduler.log_soon(logging.ERROR, text, key, family, error)

    def _puts(self, family: str, entries: Entries) -> Iterator[_Write]:
        for key, value in entries.items():
            encoded_value = self._keyspace.encode([value])
            if len(encoded_value) > _MAX_VALUE_BYTES:
                self._scheduler.log_soon(
                    logging.ERROR,
                    "this node's entry %s of family %s is left out: it has %d bytes, and etcd takes at most %d",
                    *(key, family, len(encoded_value), _MAX_VALUE_BYTES),
                )
            else:
                yield _Write(self._keyspace.key(family, key), encoded_value, self._published)
