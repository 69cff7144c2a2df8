# SPDX-License-Identifier: MIT
"""Services that are started again when they crash, each time after a longer wait."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import gevent

from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service
from aemp_gevent.runtime.logs import Log

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
"""Seconds from a crash to the restart: the first, and twice as many after each further crash, up to this."""

LONG_LIFE = 60.0
"""A service that lived for so many seconds has recovered: its next crash is a first one again."""

_log = Log()


class Supervised:
    """A service that is to run, until it ends by itself.

    Args:
        node: Where it runs.
        service: What it is.
        changed: Called when it crashed, was started again, or ended.
    """

    def __init__(self, node: Node, service: Service, changed: Callable[[], None]) -> None:
        self.service = service
        self.is_up = False
        """Whether it runs, or has ended as it should."""
        self.crashes = 0
        self._node = node
        self._changed = changed
        self._delay = FIRST_DELAY
        self._port: str | None = None
        self._started_at = 0.0
        self._restart: gevent.Greenlet[..., None] | None = None
        self._is_over = False

    def start(self) -> None:
        """Start it. Never switches."""
        self._restart = None
        self._started_at = monotonic()
        self.is_up = True
        self._port = self._node.start_service(self.service, self._ended)
        self._changed()

    def stop(self) -> None:
        """End it, and do not start it again. Never switches."""
        self.let_be()
        if self._port is not None:
            self._node.kil(self._port)

    def let_be(self) -> None:
        """Do not start it again, whatever becomes of it. Never switches."""
        self._is_over = True
        if self._restart is not None:
            self._restart.kill(block=False)
            self._restart = None

    def _ended(self, *reason: Any) -> None:
        self._port = None
        if self._is_over:
            return
        if not reason:
            _log.info("the service %s has ended", self.service.name)
            return
        self.crashes += 1
        if monotonic() - self._started_at >= LONG_LIFE:
            self._delay = FIRST_DELAY
        delay, self._delay = self._delay, min(2 * self._delay, MAX_DELAY)
        self.is_up = False
        _log.warning("the service %s is started again in %g s", self.service.name, delay)
        self._restart = gevent.spawn_later(delay, self.start)
        self._changed()


class Supervisor:
    """All services of a node.

    Args:
        node: Where they run.
        changed: Called when one crashed, was started, or ended.
    """

    def __init__(self, node: Node, changed: Callable[[], None]) -> None:
        self._node = node
        self._changed = changed
        self._running: list[Supervised] = []
        self._is_over = False

    def become(self, services: Iterable[Service]) -> None:
        """See that these run, and no others; those that do already are left alone. Never switches."""
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
            _log.info("the service %s is ended", each.service.name)
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
        """The names of the services that crashed, and were not started again yet."""
        return [each.service.name for each in self._running if not each.is_up]

    def let_be(self) -> None:
        """Start nothing again from now on: the node is about to end."""
        self._is_over = True
        for each in self._running:
            each.let_be()


def _key(service: Service) -> str:
    """Return what two services have in common only if they are the same; arguments need not be hashable."""
    return json.dumps([service.name, *service.args], sort_keys=True, default=repr)
