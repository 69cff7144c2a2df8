# SPDX-License-Identifier: MIT
"""Services that are restarted when they crash, each time after a longer wait."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service, start_service
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.totals import RESTARTS

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
"""The first and the longest pause before a restart, in seconds, before jitter."""

LONG_LIFE = 60.0
"""A service that ran for this many seconds has recovered: the next crash counts as the first."""

_log = Log()


class Supervised:
    """A service that is restarted until it ends normally.

    Args:
        node: The node that runs it.
        service: The service.
        changed: Called when it crashed, was restarted, or ended.
    """

    def __init__(self, node: Node, service: Service, changed: Callable[[], None]) -> None:
        self.service = service
        self.is_up = False
        """Whether it is running, or has ended normally."""
        self.crashes = 0
        self._node = node
        self._changed = changed
        self._delays = Backoff(FIRST_DELAY, MAX_DELAY)
        self._port: str | None = None
        self._started_at = 0.0
        self._restart: gevent.Greenlet[..., None] | None = None
        self._is_over = False

    def start(self) -> None:
        """Start the service. Never switches."""
        self._restart = None
        self._started_at = monotonic()
        self.is_up = True
        self._port = start_service(self._node, self.service, self._ended)
        self._changed()

    def stop(self) -> None:
        """End the service permanently. Never switches."""
        self.let_be()
        if self._port is not None:
            self._node.kil(self._port)

    def let_be(self) -> None:
        """Stop restarting the service. Never switches."""
        self._is_over = True
        if self._restart is not None:
            self._restart.kill(block=False)
            self._restart = None

    def _ended(self, *reason: Any) -> None:
        self._port = None
        if self._is_over:
            return
        if not reason:
            _log.info("service %s ended", self.service.name)
            return
        self.crashes += 1
        self._node.scheduler.totals[RESTARTS, self.service.name] += 1
        if monotonic() - self._started_at >= LONG_LIFE:
            self._delays.reset()
        delay = self._delays.next()
        self.is_up = False
        _log.warning("service %s crashed, restarting in %.1f s", self.service.name, delay)
        self._restart = gevent.spawn_later(delay, self.start)
        self._changed()


class ServiceSupervisor:
    """All services of a node.

    Args:
        node: The node that runs them.
        changed: Called when one crashed, was started, or ended.
    """

    def __init__(self, node: Node, changed: Callable[[], None]) -> None:
        self._node = node
        self._changed = changed
        self._running: list[Supervised] = []
        self._is_over = False

    def become(self, services: Iterable[Service]) -> None:
        """Start and end services so that exactly these run. Never switches."""
        if self._is_over:
            return
        leaving = list(self._running)
        self._running = []
        for service in services:
            known = next((each for each in leaving if _key(each.service) == _key(service)), None)
            if known is not None:
                leaving.remove(known)
                self._running.append(known)
        for each in leaving:
            _log.info("service %s is no longer configured, ending it", each.service.name)
            each.stop()
        kept = [_key(each.service) for each in self._running]
        for service in services:
            if _key(service) in kept:
                kept.remove(_key(service))
                continue
            started = Supervised(self._node, service, self._changed)
            self._running.append(started)
            started.start()
        self._changed()

    @property
    def down(self) -> list[str]:
        """The names of the services that crashed and wait for their restart."""
        return [each.service.name for each in self._running if not each.is_up]

    def let_be(self) -> None:
        """Stop restarting services, because the node is about to end."""
        self._is_over = True
        for each in self._running:
            each.let_be()


def _key(service: Service) -> str:
    """Return a key that is equal only for equal services; their arguments may be unhashable."""
    return json.dumps([service.name, *service.args], sort_keys=True, default=repr)
