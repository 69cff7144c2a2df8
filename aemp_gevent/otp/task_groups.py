# SPDX-License-Identifier: MIT
"""Task groups: ports that end together, before the block of code that started them is left.

As with ``asyncio.TaskGroup`` and trio's nurseries, but for ports: when one of them fails, the others are stopped, the
block is interrupted where it waits, and the errors are raised as one ``ExceptionGroup``.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from gevent import Timeout, get_hub
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent import SELF, default_node
from aemp_gevent.errors import PortDied, PortKilled
from aemp_gevent.node.access import describe, running_node, tag_of
from aemp_gevent.otp.children import Child
from aemp_gevent.otp.stopping import SHUTDOWN, stop_children

if TYPE_CHECKING:
    from types import TracebackType

    from greenlet import greenlet
    from typing_extensions import Self

    from aemp_gevent import Monitor, Node

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup  # pyright: ignore[reportMissingImports, reportUnknownVariableType]


class TaskGroup:
    """Ports that end together: a context manager, which is left when all of them have ended.

    ::

        with TaskGroup() as group:
            group.start(fetch, "a.example")
            group.start(fetch, "b.example")

    When a port dies abnormally, the others are stopped, and the block is interrupted where it waits. When the block
    raises, all are stopped. Nothing of a group is left after it.

    Args:
        node: The node that the ports are on. None: that of the running port, or else the default node.

    Raises:
        ExceptionGroup: When it is left: what the functions raised, or ``PortDied`` for other ports, and what the block
            raised.
    """

    def __init__(self, *, node: Node | None = None) -> None:
        self._node: Node = node or running_node() or default_node
        self._running: dict[str, tuple[Child, Monitor]] = {}
        self._errors: list[Exception] = []
        self._ended = Event()
        self._block: greenlet | None = None
        self._interrupt = Timeout(None)
        """Thrown into the block when a port has failed. Like every foreign Timeout, the library lets it pass."""

    def start(self, start: Any, *args: Any, **options: Any) -> str:
        """Start a port of the group, and return its ID. Switches if it is a server.

        Args:
            start: What to start, as for :class:`Child`.
            args: Its arguments.
            options: ``shutdown``, ``name``, ``lives_on`` and ``start_timeout`` of :class:`Child`.

        Raises:
            RuntimeError: The block has been left, or a port of the group has failed.
            TypeError, ValueError: These arguments are wrong.
            StartError: It did not start.
        """
        if self._block is None or self._errors:
            why = "a port of it has failed" if self._errors else "use it inside its 'with' block"
            raise RuntimeError(f"this TaskGroup starts nothing: {why}")
        child = Child(start, *args, restart="temporary", **options)
        if child.placement is not None:
            raise ValueError("the ports of a TaskGroup are on its own node; use a Supervisor for others")
        failures: list[Exception] = []
        if child.is_body:
            child.start = partial(_run, self._node, child.start, failures)
        deaths: list[tuple[Any, ...]] = []  # while it starts; that is what start() raises
        guards: list[Monitor] = []
        has_started = False

        def died(*reason: Any) -> None:
            if has_started:
                self._died(port, failures, reason)
            else:
                deaths.append(reason)

        try:
            port = child.run(self._node, lambda port: guards.append(self._node.mon(port, died)))
        except BaseException:
            for guard in guards:
                guard.cancel()
            raise
        self._running[port] = child, guards[0]
        has_started = True
        for reason in deaths:
            self._died(port, failures, reason)
        return port

    def _died(self, port: str, failures: list[Exception], reason: tuple[Any, ...]) -> None:
        self._running.pop(port, None)
        if reason and tag_of(reason) != SHUTDOWN:
            self._errors.append(failures[0] if failures else PortDied(port, reason))
            self._ended.set()
            if self._block is not None:
                get_hub().loop.run_callback(self._throw)
        elif not self._running:
            self._ended.set()

    def _throw(self) -> None:  # on the hub
        if self._block is not None and not self._block.dead:
            block, self._block = self._block, None
            block.throw(self._interrupt)

    def __enter__(self) -> Self:
        self._block = getcurrent()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block = None
        try:
            if error is None:
                while self._running and not self._errors:
                    self._ended.clear()
                    self._ended.wait()
        finally:
            self._stop()
        if error is not None and error is not self._interrupt:
            if not isinstance(error, Exception):
                return
            self._errors.append(error)
        if self._errors:
            raise ExceptionGroup("ports of a task group failed", self._errors) from None

    def _stop(self) -> None:
        """Stop all ports at the same time. Switches."""
        running, self._running = self._running, {}
        for _child, guard in running.values():
            guard.cancel()
        stopped = [(child, port) for port, (child, _guard) in running.items()]
        stop_children(self._node, stopped, "a TaskGroup", together=True)


def _run(node: Node, function: Any, failures: list[Exception], *args: Any) -> None:
    """Run a function in its port. What it raises is raised by the group, and not logged as well."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001
        failures.append(error)
    if failures:
        me = SELF()
        assert me is not None
        node.kil(me, "die", describe(failures[0]))
        raise PortKilled("die")
