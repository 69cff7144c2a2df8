# SPDX-License-Identifier: MIT
"""Monitors of ports and nodes: ``mon``, and what it is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import greenlet

from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.node.sending import Sending
from aemp_gevent.ports import monitors
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import current_port, require_port
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler
from aemp_gevent.ports.port import REMOTE, Port
from aemp_gevent.ports.reasons import in_words, no_such_port
from aemp_gevent.runtime import threads
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted, worded

# Compiled, these names stand for C functions (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
getcurrent: Callable[[], greenlet.greenlet]
globals().update(get_ident=threads.get_ident, getcurrent=greenlet.getcurrent)

_log = Log()

_ACTIONS = "a port to watch, and a function to call, a port to kill, or a port and a message to send"


class Monitoring(Sending):
    """A node that watches ports: ``mon`` and ``mon_guard``."""

    def mon(self, port: object, *action: Any) -> Monitor:
        """Run an action once when a port dies or messages to it are lost; return a guard. Never switches.

        ``mon(port, cb)`` or ``mon(port, cb, *args)``
            Calls ``cb(*args, *reason)``; an empty reason is a normal death.
        ``mon(port)``
            Kills this port (``SELF()``) with the same reason, unless the death was normal. To
            die with the port in any case, write ``mon(port, kil, SELF())``.
        ``mon(port, rcvport)``
            Kills ``rcvport`` with the same reason, unless the death was normal.
        ``mon(port, rcvport, *msg)``
            Sends ``(*msg, *reason)`` to ``rcvport``.

        ``mon`` of a node ID fires when the link to that node goes down. Either all messages
        sent after ``mon`` returned arrive, or the action runs.

        Args:
            port: The port or node to watch. If it does not exist, the action runs at once.
            action: One of the forms above.

        Returns:
            A guard: ``.cancel()``, after which the action does not run, or a context
            manager. Dropping it does nothing.

        Raises:
            NoPortContextError: ``mon(port)`` outside a port.
            InvalidPortError: One of the ports is not a port ID, and the call does not come from a port's code. In a
                port's code the action runs at once, with the reason ``no_such_port``.
        """
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("mon()")
        context: Port | None = getattr(getcurrent(), "aemp_port", None)
        if not action:
            call = _killer(self, require_port("mon(port)").id)
        elif callable(action[0]):
            check_callable("mon()", action[0])
            call = action[0] if len(action) == 1 else functools.partial(action[0], *action[1:])
        elif len(action) == 1:
            self._split_or_drop("mon()", action[0], may_be_node=False, wanted=_ACTIONS)
            call = _killer(self, action[0])
        else:
            self._split_or_drop("mon()", action[0], wanted=_ACTIONS)
            call = functools.partial(_with_reason, functools.partial(self.snd, *action))
        return self._monitor(port, call, context)

    def _monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call ``call(*reason)`` in a port's context when a port dies; the primitive below ``mon``."""
        target = self._find(port)
        if target is not None:
            monitor = Monitor(target, call, context, self._scheduler)
            if target.state == REMOTE:
                remote: Any = target  # the table has an object of peers/ for a port of another node
                remote.monitor(monitor)
            elif target.monitors is None:  # the usual case; monitors.add() would do the same
                target.monitors = monitor
            else:
                monitors.add(target, monitor)
            return monitor
        node, name = self._split_or_drop("mon()", port) or (self._id, quoted(port))
        if not self._is_here(node):
            return self._monitor_remote(node, name, call, context)
        monitor = Monitor(None, call, context, self._scheduler)
        if name and monitor.died(no_such_port(worded(port))):
            self._scheduler.enqueue_job(monitor)
        return monitor

    def _monitor_remote(self, node: str, name: str, call: Handler, context: Port | None) -> Monitor:
        monitor = Monitor(None, call, context, self._scheduler)
        if monitor.died(("transport_error", node, "this node is private: call initialise_node() first")):
            self._scheduler.enqueue_job(monitor)
        return monitor

    def mon_guard(self, port: object, *objects: Any) -> Monitor:
        """Keep objects alive until the port dies, then close those that can be closed.

        Calls an object's ``close`` method or, without one, its ``cancel`` method; other objects are
        only released. Returns a guard. Cancelling the guard releases the objects without closing them.
        """
        self._scheduler.check_thread("mon_guard()")
        return self._monitor(port, lambda *_reason: _close_all(objects), current_port())


def _killer(node: Sending, victim: object) -> Handler:
    """Return an action that passes an abnormal death on."""

    def pass_on(*reason: Any) -> None:
        if reason:
            _with_reason(functools.partial(node.kil, victim), *reason)

    return pass_on


def _with_reason(call: Handler, *reason: Any) -> None:
    """Pass a reason on; as text, if it cannot travel to another node."""
    try:
        call(*reason)
    except (UnencodableMessageError, MessageTooLargeError):
        call(*in_words(reason))


def _close_all(objects: tuple[Any, ...]) -> None:
    for thing in objects:
        close = getattr(thing, "close", None) or getattr(thing, "cancel", None)
        if callable(close):
            try:
                close()
            except Exception as error:  # noqa: BLE001  # the other objects are closed all the same
                _log.error("mon_guard: closing %s failed", quoted(thing), exc_info=error)
