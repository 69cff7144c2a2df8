# SPDX-License-Identifier: MIT
"""A gevent pool whose functions run on other nodes.

:class:`RemotePool` is a subclass of ``gevent.pool.Pool``. Each of its greenlets waits for a *worker*, a port on one
of the nodes that runs the function. A worker runs one function at a time and is reused; a worker that died is
replaced when it is needed.
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
from aemp_gevent.node import spawnable_functions
from aemp_gevent.node.access import request_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.runtime.quantities import Seconds, to_count, to_seconds
from aemp_gevent.runtime.quoting import escaped
from aemp_gevent.toolkit.lifetimes import port_of
from aemp_gevent.toolkit.times import checks_times

WORKER = "aemp_gevent.toolkit.pool_worker"

SHUN_SECONDS = 1.0
"""How long other nodes are preferred after a worker died on a node."""


class _WorkerSlot:
    """A slot for one worker on a node, which runs one function at a time."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.port: str | None = None
        """The worker's port, if it was spawned and is not known to be dead."""


class _Task:
    """One run of a function. gevent reports failed greenlets with its ``repr``, which contains no arguments."""

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


@checks_times
class RemotePool(Pool):
    """A ``gevent.pool.Pool`` whose ``spawn``, ``apply``, ``map``, ``imap`` and so on run functions on other nodes.

    Give the function itself or its name, ``"package.module.function"``. On the other node it must be
    ``@spawnable`` or covered by ``allow_spawn``; a node knows a marked function only if it has imported
    it. Arguments and results must be serialisable.

    An exception of the function is raised here as ``RemoteError``. When a worker dies or its node
    is lost, the function may have run completely, partly or not at all. It is then run again, up to ``retries``
    times, on another node if possible; after that ``PortDied`` is raised. If a greenlet of the pool is killed
    or its timeout expires, its worker is killed, which interrupts the function if it blocks.

    Args:
        nodes: The nodes' IDs.
        workers: How many functions run at once on each node.
        retries: How often a function is run again when its worker died; 0 if it must not run twice.
        timeout: Seconds that one run may take before ``CallTimeout`` is raised; None: no limit.
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
        # The nodes alternate, so that the first few functions run on different nodes.
        names = list(nodes)
        count = to_count(workers, "RemotePool()", "workers")
        self._workers = [_WorkerSlot(ids.node_of(name)) for _ in range(count) for name in names]
        if not self._workers:
            raise ValueError("RemotePool() needs nodes, and workers on them")
        self._retries = to_count(retries, "RemotePool()", "retries", least=0)
        self._timeout = to_seconds(timeout, "RemotePool()")
        super().__init__(len(self._workers))
        self.node = node
        self.port: str = port_of(self, node)
        """The pool's port; its workers die with it."""
        self._idle = list(self._workers)
        self._shunned: dict[str, float] = {}
        self._waiting: list[Event] = []

    def spawn(  # type: ignore[override]  # accepts names, too
        self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a function on one of the nodes, and return the greenlet that waits for it. Waits for an idle worker."""
        name = function if isinstance(function, str) else spawnable_functions.name_of(function)
        return super().spawn(_Task(self._run, name, args, kwargs))

    def _apply_immediately(self) -> bool:
        return False  # a function may be given by name, and so cannot be called directly even in a pool's greenlet

    def close(self) -> None:
        """Kill all running functions and all workers."""
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
                    continue  # it had died before the call arrived
                if tag_of(error.reason) == "spawn_refused" or len(tried) >= self._retries:
                    raise
                tried.append(worker.node)
                self._shunned[worker.node] = monotonic() + SHUN_SECONDS
            finally:
                if not is_well and worker.port is not None:
                    self.node.kil(worker.port)  # it may still be running the function
                    worker.port = None
                self._give_back(worker)

    def _take(self, tried: Collection[str]) -> _WorkerSlot:
        """Wait for an idle worker, on a node that does not seem to be down unless all seem so."""
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

    def _give_back(self, worker: _WorkerSlot) -> None:
        self._idle.append(worker)
        for freed in self._waiting:
            freed.set()


# --- on the other node ------------------------------------------------------------------


@spawnable(WORKER)
def pool_worker(pool: str) -> None:
    """Run functions for a pool, one after the other, until its port dies."""
    port = require_port("a pool's worker")
    node: Any = port.scheduler.owner.node  # which may not be the default one
    me = port.id
    node.mon_guard(me, node.mon(pool, lambda *_reason: node.kil(me)))

    def apply(name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        # Permission depends on the calling node, not on the pool's ID: the peer that spawned the worker chose that
        # ID, and any node that knows a worker's ID can call it.
        return request_host_of(node).function_for(caller_of_call(), name)(*args, **kwargs)

    node.serve(me, apply=apply)
