# SPDX-License-Identifier: MIT
"""The directory in etcd v3: a cluster that is already running keeps it, instead of the nodes themselves.

Several owners of a key have a key of their own each in etcd (:mod:`aemp_gevent.directory.etcd.keyspace`); readers
take the value of the smallest owner.

Three greenlets write (:mod:`aemp_gevent.directory.etcd.session`), watch (:mod:`aemp_gevent.directory.etcd.watcher`)
and query (:mod:`aemp_gevent.directory.etcd.queries`), each over a connection of its own. All talk to the same
member of the cluster; if one of them finds it unreachable, all turn to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import gevent
from gevent.event import Event

from aemp_gevent.directory.engine import Entries, Observer, Query
from aemp_gevent.directory.etcd.client import Cluster, EtcdClient, EtcdError, EtcdLostError
from aemp_gevent.directory.etcd.keyspace import Keyspace
from aemp_gevent.directory.etcd.queries import Queries
from aemp_gevent.directory.etcd.session import SessionWriter
from aemp_gevent.directory.etcd.trouble import Trouble
from aemp_gevent.directory.etcd.watcher import Reopen, Watcher
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.forking import Helper
from aemp_gevent.settings.directory_address import EtcdAddress

_MIN_TTL = 2
"""Seconds; etcd itself grants no less, with its usual settings."""

_MAX_TIMEOUT = 5.0
_MAX_DELAY = 5.0


class EtcdEngine:
    """An :class:`~aemp_gevent.directory.engine.Engine` that keeps the directory in etcd.

    Args:
        address: The cluster.
        node: The node's ID, the owner of its entries.
        scheduler: The node's.
        heartbeat_timeout: Seconds until the entries of a node that died are deleted; etcd counts
            in whole seconds, and at least two.
        listens: The node's endpoints, for others to find; empty: its entries contain them already.
    """

    def __init__(
        self,
        address: EtcdAddress,
        node: str,
        scheduler: Scheduler,
        heartbeat_timeout: float,
        listens: Collection[str] = (),
    ) -> None:
        self._scheduler = scheduler
        self._stopping = False
        self.stopped = Event()
        """Set when etcd has deleted this node's entries, or cannot be reached for it."""

        self._ttl = max(math.ceil(heartbeat_timeout), _MIN_TTL)
        self._timeout = min(_MAX_TIMEOUT, self._ttl / 3)
        self._cluster = Cluster(address)
        self._clients: list[EtcdClient] = []
        self._greenlets: list[Helper] = []

        keyspace = Keyspace(address.prefix, node)
        self._session = SessionWriter(keyspace, node, scheduler, self._ttl, listens)
        self._watcher = Watcher(keyspace, node, self._cluster, scheduler, self._ttl, self._session.owns)
        self._queries = Queries(keyspace, self._session, self._watcher, scheduler, self._timeout)

    # --- what the node calls; nothing here switches ---

    def start(self, observer: Observer) -> None:
        if self._greenlets or self._stopping:
            return
        self._session.start(observer)
        run = self._scheduler.start_greenlet
        writing = run(self._run, "writing to etcd", self._session.write, self._session.leave)
        watching = run(self._run, "watching etcd", self._watcher.work)
        asking = run(self._run, "querying etcd", self._queries.work)
        self._watcher.start(observer, watching)
        self._greenlets = [writing, watching, asking]
        writing.rawlink(lambda _ended: self.stopped.set())

    def publish(self, family: str, entries: Entries, deleted: Collection[str]) -> None:
        self._session.publish(family, entries, deleted)

    def watch(self, family: str) -> None:
        self._watcher.watch(family)

    def unwatch(self, family: str) -> None:
        self._watcher.unwatch(family)

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        self._queries.query(what, family, answered)

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        self._queries.find(node, answered)

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._queries.stop()
        self._watcher.stop()
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        if not self._greenlets:
            self.stopped.set()

    def abandon(self) -> None:
        """Close this process's copies of the connections, in a forked child: the parent keeps using them."""
        self._stopping = True
        for client in self._clients:
            client.abandon()

    # --- the greenlets ---

    def _run(
        self, what: str, work: Callable[[EtcdClient], None], at_last: Callable[[EtcdClient], None] | None = None
    ) -> None:
        """Run ``work`` forever, restarting it after failures.

        Args:
            what: The task, as log lines begin with it.
            work: Does the task over a connection.
            at_last: Called when the greenlet is killed.
        """
        trouble = Trouble(what, min(_MAX_DELAY, self._ttl / 4))

        def heard() -> None:
            trouble.over()
            self._watcher.heard()

        client = EtcdClient(self._cluster, self._timeout, heard)
        self._clients.append(client)
        try:
            while True:
                try:
                    self._try(client, work, trouble)
                except Reopen:
                    client.close()
        finally:
            client.close()
            self._clients.remove(client)
            if at_last is not None:
                at_last(client)

    def _try(self, client: EtcdClient, work: Callable[[EtcdClient], None], trouble: Trouble) -> None:
        try:
            work(client)
            return
        except EtcdError as error:
            trouble.failed(error)
            if isinstance(error, EtcdLostError):
                self._watcher.lost()
        except Exception as error:  # noqa: BLE001  # a bug must not end the node's part in the directory
            trouble.failed(error, is_bug=True)
        client.close()
        gevent.sleep(trouble.delay())
