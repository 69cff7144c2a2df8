# SPDX-License-Identifier: MIT
"""Questions to etcd that are answered once: a family, and where a node listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from gevent.event import Event

from aemp_gevent.directory.engine import NODES, Entries, Query
from aemp_gevent.directory.etcd.client import EtcdClient, Json, decoded, encoded
from aemp_gevent.directory.etcd.family import EtcdFamily
from aemp_gevent.directory.etcd.keyspace import Keyspace
from aemp_gevent.directory.etcd.session import SessionWriter
from aemp_gevent.directory.etcd.watcher import Watcher
from aemp_gevent.ports.scheduler import Scheduler


class Queries:
    """Asks etcd one question after the other.

    Args:
        keyspace: The keys in etcd.
        session: Writes the node's own entries, which a query must see.
        watcher: Has copies of watched families, for when etcd is away.
        scheduler: The node's.
        timeout: Seconds that a query waits for own entries to be written.
    """

    def __init__(
        self, keyspace: Keyspace, session: SessionWriter, watcher: Watcher, scheduler: Scheduler, timeout: float
    ) -> None:
        self._keyspace = keyspace
        self._session = session
        self._watcher = watcher
        self._scheduler = scheduler
        self._timeout = timeout
        self._questions: deque[tuple[Callable[[EtcdClient], Any], Callable[[Any], None]]] = deque()
        self._asked = Event()
        self._is_over = False

    def stop(self) -> None:
        """Answer nothing more. Idempotent."""
        self._is_over = True
        self._questions.clear()

    def query(self, what: Query, family: str, answered: Callable[[Any], None]) -> None:
        """Ask for a family once; see :meth:`aemp_gevent.directory.engine.Engine.query`."""
        published = self._session.published

        def ask(client: EtcdClient) -> Any:
            copy = self._watcher.copy_if_away(family)
            if copy is None:
                self._session.await_written(published, self._timeout)
                held = EtcdFamily()
                self._keyspace.read_family(client, family, held.put)
                held.add_fading(self._watcher.watched(family) or EtcdFamily())
                copy = held.entries()
            return _part(what, copy)

        copy = self._watcher.copy_if_away(family)
        if copy is None:
            self._put(ask, answered)
        else:
            self._scheduler.start_greenlet(answered, _part(what, copy))

    def find(self, node: str, answered: Callable[[Collection[str] | None], None]) -> None:
        """Ask where a node listens; see :meth:`aemp_gevent.directory.engine.Engine.find`."""

        def ask(client: EtcdClient) -> Any:
            found: Json = client.call("kv/range", {"key": encoded(self._keyspace.key(NODES, node, node))})
            for kv in found.get("kvs", ()):
                value = self._keyspace.value(decoded(kv.get("key")), decoded(kv.get("value")))
                if value is not None and _are_texts(value.content):
                    return value.content
            return None

        self._put(ask, answered)

    def _put(self, ask: Callable[[EtcdClient], Any], answered: Callable[[Any], None]) -> None:
        if not self._is_over:
            self._questions.append((ask, answered))
            self._asked.set()

    def work(self, client: EtcdClient) -> None:
        """Ask what is queued, and wait for the next question. Switches.

        Raises:
            EtcdError: A request failed; the question stays queued.
        """
        while self._questions:
            question = self._questions[0]
            ask, answered = question
            answer = ask(client)
            self._questions.popleft()
            answered(answer)
        self._asked.clear()
        self._asked.wait()


def _part(what: Query, entries: Entries) -> Entries | list[Any]:
    return entries if what == "family" else list(entries if what == "keys" else entries.values())


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
