# SPDX-License-Identifier: MIT
"""The services of ``aemp run``: children of a supervisor of :mod:`aemp_gevent.otp`, and what is reported of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import gevent
import zope.event
from gevent.lock import RLock

from aemp_gevent.errors import PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service
from aemp_gevent.otp import Child, Supervisor
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.totals import RESTARTS

FIRST_DELAY = 1.0
MAX_DELAY = 60.0
"""The first and the longest pause before a restart, in seconds, before jitter."""

_log = Log()


class Services(Supervisor):
    """The services of a node. Each is restarted until it ends normally, however often."""

    intensity = None

    def children(self, told: Callable[[dict[str, Any], dict[str, Any]], None]) -> Iterable[Child]:
        """Begin without children.

        Args:
            told: Called with a child as it was and as it is, when it has changed by itself.
        """
        self._told = told
        return ()

    def info(self, *msg: Any) -> None:
        """Handle a death or a restart, and report what has changed."""
        before = {child["id"]: child for child in self.which_children()}
        super().info(*msg)
        for child in self.which_children():
            if child != before[child["id"]]:
                self._told(before[child["id"]], child)


class ServiceSupervisor:
    """All services of a node, and the supervisor that runs them.

    Args:
        node: The node that runs them.
        changed: Called when one crashed, was started, or ended.
    """

    def __init__(self, node: Node, changed: Callable[[], None]) -> None:
        self._node = node
        self._changed = changed
        self._tree: Services | None = None
        self._children: dict[str, tuple[Service, Child]] = {}
        """The services by the IDs of the children that they are."""
        self._down: set[str] = set()
        """The children that crashed, and wait for their restart."""
        self._ended: set[str] = set()
        """The children that ended normally."""
        self._orphans: set[str] = set()
        """The children whose supervisor died, and that wait for another one."""
        self._changing = RLock()
        self._is_over = False

    def become(self, services: Iterable[Service]) -> None:
        """Start and end services so that exactly these run. Switches; calls from several greenlets take turns."""
        with self._changing:
            wanted = list(services)
            leaving: list[str] = []
            for key, (service, _child) in self._children.items():
                same = next((each for each in wanted if _key(each) == _key(service)), None)
                if same is None:
                    leaving.append(key)
                else:
                    wanted.remove(same)
            for key in leaving:
                if not self._is_over:
                    _log.info("service %s is no longer configured, ending it", self._children[key][0].name)
                    self._remove(key)
            for service in wanted:
                if not self._is_over:  # it may have come to that meanwhile
                    self._add(service)
            self._changed()

    @property
    def down(self) -> list[str]:
        """The names of the services that crashed and wait for their restart."""
        down = self._down | self._orphans
        return [service.name for key, (service, _child) in self._children.items() if key in down]

    def let_be(self) -> None:
        """Stop restarting services, because the node is about to end. Never switches."""
        self._is_over = True
        for _service, child in self._children.values():
            child.restart = "temporary"
        if self._tree is not None:
            for key in self._down:
                self._tree.async_.terminate(key)

    def _add(self, service: Service) -> None:
        number = 1
        key = service.name
        while key in self._children:  # the same function with other arguments
            number += 1
            key = f"{service.name}-{number}"
        self._children[key] = service, Child(service.name, *service.args, id=key, restart="transient")
        self._start(key)

    def _start(self, key: str) -> None:
        if self._tree is None:
            self._tree = Services.start(self._told, node=self._node, backoff=(FIRST_DELAY, MAX_DELAY))
            self._node.mon(self._tree, self._tree_ended)
        if not self._is_over:
            with suppress(PortDied):  # then it is an orphan, and is started later
                self._tree.start_child(self._children[key][1])

    def _remove(self, key: str) -> None:
        del self._children[key]
        for keys in (self._down, self._ended, self._orphans):
            keys.discard(key)
        if self._tree is None:
            return
        with suppress(PortDied):  # which ends it
            for child in self._tree.which_children():
                if child["id"] == key:
                    if child["port"] is not None:
                        self._node.kil(child["port"])  # a normal end, for its monitors; then terminate() waits for that
                    self._tree.terminate(key)
                    self._tree.delete(key)

    def _told(self, former: dict[str, Any], child: dict[str, Any]) -> None:
        if child["id"] not in self._children:  # it is being removed
            return
        service, _child = self._children[child["id"]]
        self._down.discard(child["id"])
        if child["state"] == "restarting":
            self._down.add(child["id"])
            self._node.scheduler.totals[RESTARTS, service.name] += 1
            if former["port"] is not None and zope.event.subscribers:
                gevent.spawn(zope.event.notify, PortDied(former["port"], tuple(child["last_reason"])))
        elif child["state"] == "stopped":
            self._ended.add(child["id"])
            _log.info("service %s ended", service.name)
        self._changed()

    def _tree_ended(self, *reason: Any) -> None:
        if self._is_over or reason == ("shutdown", self._node.NODE()):
            return
        text = "the supervisor of all services died: %s; starting all services again in %g s"
        _log.error(text, quoted(reason), FIRST_DELAY)
        self._tree = None
        self._down.clear()
        self._orphans = set(self._children) - self._ended
        self._changed()
        gevent.spawn_later(FIRST_DELAY, self._start_orphans)

    def _start_orphans(self) -> None:
        with self._changing:
            while self._orphans and not self._is_over:
                self._start(self._orphans.pop())
            self._changed()


def _key(service: Service) -> str:
    """Return a key that is equal only for equal services; their arguments may be unhashable."""
    return json.dumps([service.name, *service.args], sort_keys=True, default=repr)
