# SPDX-License-Identifier: MIT
"""A gevent pool whose functions run on other nodes.

:class:`RemotePool` *is* a ``gevent.pool.Pool``: its greenlets only wait, each for a *worker*,
a port on one of the nodes, that runs the function. A worker runs one at a time, and is
used again; one that died is replaced when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from time import monotonic
from typing import Any

from gevent.event import Event
from gevent.pool import Pool

from aemp_gevent import PortDied, RemoteError, default_node, spawnable
from aemp_gevent.addresses import ids
from aemp_gevent.calls.serve import caller_of_call
from aemp_gevent.node import spawning
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.runtime.quantities import Seconds, to_count, to_seconds
from aemp_gevent.runtime.quoting import escaped
from aemp_gevent.toolkit.lifetimes import port_of

WORKER = "aemp_gevent.toolkit.pool_worker"

SHUN_SECONDS = 1.0
"""How long a node gets no work, if others can do it, after a worker died there."""


class _Worker:
    """A place on a node where one function runs at a time."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.port: str | None = None
        """The port, if it has one already, and that is alive as far as is known."""


class _Task:
    """One run of a function. Its ``repr`` stands in gevent's report of a failed greenlet: it has no argument in it."""

    __slots__ = ("_args", "_kwargs", "_name", "_run")

    def __init__(self, run: Callable[..., Any], name: str, args: Collection[Any], kwargs: Mapping[str, Any]) -> None:
        self._run = run
        self._name = name
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        return self._run(self._name, self._args, self._kwargs)

    def __repr__(self) -> str:
        return f"a RemotePool's run of {escaped(self._name)}"


class RemotePool(Pool):
    """A ``gevent.pool.Pool`` whose ``spawn``, ``apply``, ``map``, ``imap`` and so on run functions on other nodes.

    Functions are given as themselves or by name, ``"package.module.function"``; they must be
    ``@spawnable`` over there, or covered by ``allow_spawn``; a node that has not imported a marked function does
    not know it. Arguments and results must be able to travel.

    What a function raises is raised here as ``RemoteError``. When a worker dies, or its node
    is lost, the function may have been done, half or not at all: it is run once more,
    on another node if there is one, as often as ``retries`` says, and then ``PortDied`` is
    raised. A greenlet of the pool that is killed, or whose time is over, takes its worker
    along: what that does is interrupted, if it blocks.

    Args:
        nodes: The nodes' IDs.
        workers: How many functions run at once on each.
        retries: How often a function is run again when its worker died; 0 for those that must not run twice.
        timeout: Seconds that one run may take, ``CallTimeout`` afterwards; None: any time.
        node: This node.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        *,
        workers: int = 1,
        retries: int = 1,
        timeout: Seconds | None = None,
        node: LocalNode = default_node,
    ) -> None:
        # Turn and turn about, so that the first few functions run on as many nodes.
        names = list(nodes)
        count = to_count(workers, "RemotePool()", "workers")
        self._workers = [_Worker(ids.node_of(name)) for _ in range(count) for name in names]
        if not self._workers:
            raise ValueError("RemotePool() needs nodes, and workers on them")
        self._retries = to_count(retries, "RemotePool()", "retries", least=0)
        self._timeout = to_seconds(timeout, "RemotePool()")
        super().__init__(len(self._workers))
        self.node = node
        self.port: str = port_of(self, node)
        """The workers live as long as this port does."""
        self._idle = list(self._workers)
        self._shunned: dict[str, float] = {}
        self._waiting: list[Event] = []

    def spawn(  # type: ignore[override]  # and names
        self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a function on one of the nodes; return the greenlet that waits for it. Waits while all workers run."""
        name = function if isinstance(function, str) else spawning.name_of(function)
        return super().spawn(_Task(self._run, name, args, kwargs))

    def _apply_immediately(self) -> bool:
        return False  # in one of our greenlets, too, a name is nothing to be called

    def close(self) -> None:
        """Kill what runs, and all workers."""
        self.kill(block=False)
        self.node.kil(self.port)

    def __repr__(self) -> str:
        nodes = dict.fromkeys(worker.node for worker in self._workers)
        return f"<RemotePool {self.port}: {len(self)} of {len(self._workers)} workers busy on {len(nodes)} nodes>"

    def __enter__(self) -> RemotePool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.node.scheduler.leave(self.close)

    # --- in the pool's greenlets ---

    def _run(self, name: str, args: Collection[Any], kwargs: Mapping[str, Any]) -> Any:
        tried: list[str] = []
        while True:
            worker = self._take(tried)
            is_well = False
            is_used = worker.port is not None
            try:
                if worker.port is None:
                    worker.port = self.node.spawn(worker.node, WORKER, self.port)
                result = self.node.call(worker.port, "apply", name, list(args), dict(kwargs), timeout=self._timeout)
                is_well = True
                return result
            except RemoteError:
                is_well = True
                raise
            except PortDied as error:
                if is_used and tag_of(error.reason) == "no_such_port":
                    continue  # it had died before it got this
                if tag_of(error.reason) == "spawn_refused" or len(tried) >= self._retries:
                    raise
                tried.append(worker.node)
                self._shunned[worker.node] = monotonic() + SHUN_SECONDS
            finally:
                if not is_well and worker.port is not None:
                    self.node.kil(worker.port)  # it may be running the function still
                    worker.port = None
                self._give_back(worker)

    def _take(self, tried: Collection[str]) -> _Worker:
        """Wait for an idle worker, of a node that does not seem to be down, unless all do."""
        while True:
            avoid = {*tried, *(node for node, until in self._shunned.items() if until > monotonic())}
            good = {worker.node for worker in self._workers} - avoid
            for worker in self._idle:
                if worker.node in good or not good:
                    self._idle.remove(worker)
                    return worker
            freed = Event()
            self._waiting.append(freed)
            try:
                freed.wait(SHUN_SECONDS)
            finally:
                self._waiting.remove(freed)

    def _give_back(self, worker: _Worker) -> None:
        self._idle.append(worker)
        for freed in self._waiting:
            freed.set()


# --- over there -----------------------------------------------------------------------


@spawnable(WORKER)
def pool_worker(pool: str) -> None:
    """Run functions for a pool, one after the other, as long as it lives."""
    port = require_port("a pool's worker")
    node: Any = port.scheduler.node  # which may not be the default one
    me = port.id
    node.mon_guard(me, node.mon(pool, lambda *_reason: node.kil(me)))

    def apply(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        # By who calls, and not by whose pool it is: that is what the peer says who spawned the worker, and whoever
        # knows a worker's ID can call it.
        return node.function_for(caller_of_call(), name)(*args, **kwargs)

    node.serve(me, apply=apply)
