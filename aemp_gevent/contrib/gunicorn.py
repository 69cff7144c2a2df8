# SPDX-License-Identifier: MIT
"""Hooks that make each of gunicorn's gevent workers a node.

One line in ``gunicorn.conf.py`` is enough::

    from aemp_gevent.contrib.gunicorn import *

The workers of one gunicorn find each other, including those that replace others after a crash, after
``max_requests``, and after SIGHUP and SIGUSR2. gunicorn's ``proc_name`` (``-n``), if given, is
the name for :func:`~aemp_gevent.contrib.join_host`, with which other programs can
join. Everything else is a setting in the environment or the profile file, most importantly
``AEMP_SEEDS`` and ``AEMP_SECRET`` for other hosts.

If your configuration has hooks of these names already, import this module, and call its functions in your hooks.

gunicorn's master is not a node. ``post_fork`` would be too early, because gunicorn's gevent workers patch the
standard library and make a new hub after it.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import gevent

from aemp_gevent import default_node
from aemp_gevent.contrib.heirs import estate_of
from aemp_gevent.contrib.hosts import join_host
from aemp_gevent.errors import AempError
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.runtime.gunicorn import log_as_gunicorn, missing_hooks
from aemp_gevent.runtime.logs import Log

# Without on_join, on_drain and is_draining, which are for the application.
__all__ = ["on_reload", "post_worker_init", "worker_exit"]

_LOOK_SECONDS = 0.1
"""How often to check whether the worker is ending; gunicorn has no hook for that."""

_CLOSE_SECONDS = 3.0
"""How long to wait for the listening sockets to be closed; gunicorn needs a second at most."""

_SUCCESSOR_SECONDS = 15.0
"""How long a worker that is replaced waits for one that takes its totals and shared state."""

_BOOT_ERROR = 3
"""The exit code of a worker that cannot start: gunicorn ends then, instead of starting the next one."""

_replaced = mmap.mmap(-1, 8)
"""The age of the newest worker that SIGHUP replaces: gunicorn's master writes it, and all workers read it."""

_joins: list[Callable[[], object]] = []  # of the process, as the worker is
_drains: list[Callable[[], object]] = []


class _Draining:
    is_draining = False


_log = Log()


# gunicorn's objects are Any, because it has no type annotations.


def post_worker_init(worker: Any) -> None:
    """Make a worker a node; gunicorn calls this in the worker after loading the application.

    Blocks until it is linked to the other workers, and they know what the functions of :func:`on_join` did.
    The library's log lines go to gunicorn's error log, in its format, until the application configures logging.

    Raises:
        SystemExit: It is not one of gunicorn's gevent workers, or it cannot join its host's nodes, as
            :func:`~aemp_gevent.contrib.join_host` says. The reason is logged, and gunicorn ends.
    """
    log_as_gunicorn()
    if not any(base.__name__ == "GeventWorker" for base in type(worker).__mro__):
        text = (
            f"a node needs an event loop that runs beside the requests, but {type(worker).__name__} does not have one"
        )
        _give_up(worker, text + "; start gunicorn with --worker-class gevent")
    try:
        join_host(_name_of(worker.cfg))
    except AempError as error:
        _give_up(worker, error)
    if "aemp_gevent.shared" in sys.modules:  # the application shares state: a worker that is replaced hands it over
        sys.modules["aemp_gevent.shared"].host()
    for function in _joins:
        function()
    estate_of(default_node)
    default_node.wait_for_seeds()
    worker.log.info("Joined as node %s", default_node.NODE())
    gevent.spawn(_watch, worker)


def on_reload(server: Any) -> None:
    """Note which workers new ones replace; gunicorn calls this in its master at SIGHUP."""
    _replaced[:] = server.worker_age.to_bytes(len(_replaced), "little")


def worker_exit(server: object, worker: Any) -> None:  # noqa: ARG001  # gunicorn counts its hooks' arguments
    """Say goodbye to the other nodes; gunicorn calls this in an ending worker after its last request.

    What the worker has counted for :mod:`aemp_gevent.contrib.prometheus`, and the shared state that it owns, goes to
    another worker. A worker that ends because of SIGHUP or ``max_requests`` waits for one up to 15 seconds, but
    not longer than half of gunicorn's ``timeout``.
    """
    try:
        estate = estate_of(default_node)
        is_replaced = worker.age <= int.from_bytes(_replaced[:], "little")
        if estate is not None and (is_replaced or (worker.cfg.workers > 1 and worker.nr >= worker.max_requests)):
            # All other workers may be new ones at this moment, which are still starting, or end as well.
            patience = min(_SUCCESSOR_SECONDS, worker.cfg.timeout / 2 or _SUCCESSOR_SECONDS)
            calls = [estate.hand_over]
            if "aemp_gevent.shared.ownership" in sys.modules:
                calls.append(sys.modules["aemp_gevent.shared.ownership"].ownership_of(default_node).leave)
            work = [gevent.spawn(call, patience) for call in calls]
            try:
                gevent.joinall(work, timeout=patience * 1.5)  # one that has found a worker may finish
            finally:
                gevent.killall(work, block=False)
    finally:
        default_node.shutdown()


def on_join(function: Callable[[], object]) -> Callable[[], object]:
    """Register a function that is called in each worker when it became a node, before it serves. A decorator.

    Use it to create each worker's ports, and to enter them into the directory. With ``--preload`` the application is
    imported in the master, whose ports do not exist in workers; the function may be registered there. Other
    servers do not call it.
    """
    check_callable("on_join()", function)
    _warn_without_hooks()
    _joins.append(function)
    return function


def on_drain(function: Callable[[], object]) -> Callable[[], object]:
    """Register a function that is called when this worker ends and accepts no more connections. A decorator.

    Its last requests are still being served. Streams that never end by themselves should end now: gunicorn
    waits ``graceful_timeout`` seconds for them, then cuts them off. What such a client opens next is served by
    another worker; over a connection that this worker accepted before, a stream may still begin, so ask
    :func:`is_draining` there. The function runs in a greenlet of its own. Other servers do not call it.
    """
    check_callable("on_drain()", function)
    _warn_without_hooks()
    _drains.append(function)
    return function


def is_draining() -> bool:
    """Return whether this worker accepts no more connections, and only finishes the requests that it has.

    A stream that begins now should end at once, and have its client come back. True before the functions of
    :func:`on_drain` are called; always False under other servers.
    """
    return _Draining.is_draining


def _warn_without_hooks() -> None:
    warning = missing_hooks()
    if warning is not None:
        _log.warning(warning)


def _give_up(worker: Any, why: object) -> NoReturn:
    # gunicorn would show an exception as a traceback, and its text once more.
    worker.log.error("%s", why)
    sys.exit(_BOOT_ERROR)


def _watch(worker: Any) -> None:
    while worker.alive:
        gevent.sleep(_LOOK_SECONDS)
    # Clients that reconnect at once must reach another worker.
    patience = time.monotonic() + _CLOSE_SECONDS
    while time.monotonic() < patience and any(socket.fileno() != -1 for socket in worker.sockets):
        gevent.sleep(_LOOK_SECONDS)
    _Draining.is_draining = True
    for function in _drains:
        gevent.spawn(function)


def _name_of(cfg: Any) -> str:
    """Return a name that is the same exactly for workers of the same application at the same address."""
    given = cfg.settings["proc_name"].value
    if given:
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", given).lstrip(".")[:40] or "gunicorn"
    facts = "\0".join([cfg.chdir, cfg.default_proc_name, *sorted(map(str, cfg.bind))])
    return "gunicorn-" + hashlib.blake2b(facts.encode(), digest_size=5).hexdigest()
