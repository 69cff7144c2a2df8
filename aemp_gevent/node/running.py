# SPDX-License-Identifier: MIT
"""Running code in ports: contexts, timers, greenlets of their own, and spawned functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gevent import Greenlet
from greenlet import getcurrent

from aemp_gevent.errors import (
    NoPortContextError,
    ReceiverBusyError,
    SpawnRefusedError,
)
from aemp_gevent.node import spawnable_functions
from aemp_gevent.node.sending import Sending
from aemp_gevent.ports.attachment import Attachment
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import ON_THE_HUB, current_port, run_in
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import IDLE, AttachedPort, SpawnedPort, activate
from aemp_gevent.ports.timers import Timer
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import carried

P = ParamSpec("P")

T = TypeVar("T")

_log = Log()


class Running(Sending):
    """A node that runs code in ports."""

    # --- contexts and timers ---

    def peval(self, port: object, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a function in a local port's context now and return its result.

        An exception kills the port, and None is returned.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
        """
        check_callable("peval()", function)
        return run_in(self._local("peval()", port), function, *args, **kwargs)

    def peval_async(self, port: object, function: Callable[..., Any], *args: Any) -> Greenlet[..., Any]:
        """Start another greenlet in a local port's context and return it. It cannot ``receive`` for the port.

        An exception in it kills the port.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
        """
        check_callable("peval_async()", function)
        target = self._local("peval_async()", port)
        return self._scheduler.start_greenlet(run_in, target, carried(function), *args)

    def after(self, seconds: Seconds | None, what: Any, *msg: Any) -> Timer:
        """Call ``what()``, or send ``msg`` to the port ``what``, after some seconds, in this port's context.

        Args:
            seconds: The delay; 0 or less: as soon as possible; None: never.
            what: A function, which is called with ``*msg``, or a port.
            msg: The arguments or the message.

        Returns:
            A timer: ``.cancel()``, after which nothing happens, or a context manager.

        Raises:
            InvalidPortError: ``what`` is neither a function nor a port ID.
        """
        self._scheduler.check_thread("after()")
        seconds = to_seconds(seconds, "after()", "seconds")
        if callable(what):
            check_callable("after()", what)
            return Timer(self._scheduler, seconds, current_port(), carried(what), msg)
        self._split_or_drop("after()", what, wanted="a time, and a function or a port to send to")
        return Timer(self._scheduler, seconds, current_port(), carried(self.snd), (what, *msg))

    # --- greenlets ---

    def port_async(self, function: Handler, *args: Any) -> str:
        """Create a port with a greenlet of its own, which runs ``function(*args)``; return its ID at once.

        ``receive``, ``get`` and ``syncal`` work in the function, and ``SELF()`` is the port.
        When the function returns, the port dies normally; an exception kills it with ``("die", text)``. The
        function starts in a later turn, never before this call returned.
        """
        self._scheduler.check_thread("port_async()")
        check_callable("port_async()", function)
        port = self._make()
        self._start_port(port, (carried(function), args, True))
        return port.id

    def rcv_async(self, port: object, function: Handler, *args: Any) -> object:
        """Give an existing local port a greenlet of its own, as :meth:`port_async` does; return the port.

        Its messages so far wait for ``receive``. In one of the port's own
        handlers, the call takes effect when that handler returns.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
            ReceiverBusyError: It has a greenlet of its own already.
        """
        check_callable("rcv_async()", function)
        target = self._local("rcv_async()", port)
        if target.cell.main is not None:
            raise ReceiverBusyError(target.id, "it has a greenlet of its own already")
        activate(target).main = (carried(function), args, True)
        if target.state == IDLE and target.cell.waiter is None:
            self._scheduler.enqueue(target)
        else:  # a handler runs, or waits in receive; harmless if the port is queued
            target.divert_inbox()
        return port

    def actor(self, function: Callable[P, Any]) -> Callable[P, str]:
        """Make a function that starts a port with a greenlet of its own when called, and returns the port ID.

        As a decorator: with ``@actor`` above ``def f(…)``, ``f(…)`` means
        ``port_async(f, …)``. Spawning it runs its body in the spawned port.
        """
        check_callable("actor()", function)

        @functools.wraps(function)
        def start(*args: P.args, **kwargs: P.kwargs) -> str:
            return self.port_async(functools.partial(function, *args, **kwargs))

        start.aemp_body = function  # type: ignore[attr-defined]
        return start

    def attach(self) -> Attachment:
        """Give the running greenlet a port, so that it can ``receive``. Also a context manager.

        For greenlets that the library did not start: a script's main greenlet, a WSGI handler, a pool's
        worker. ``with attach() as port:`` gives the port's ID. Leaving the block is a
        normal death, also when another greenlet closes the generator that contains it; an
        exception that leaves the block is an abnormal death. Without ``with`` the
        port lives until ``detach()`` or the greenlet's end. When the port is killed, nothing is thrown into the
        greenlet; its next blocking call of the library raises
        ``PortKilled``. Initialise the node first: a port ID from before that
        is valid only inside this process.

        Raises:
            NoPortContextError: On the hub, which must never wait.
        """
        self._scheduler.check_thread("attach()")
        if getcurrent() is self._scheduler.hub:
            raise NoPortContextError("attach()", ON_THE_HUB)
        port = self._make(AttachedPort)
        return Attachment(port)

    # --- spawning ---

    def spawn(self, node: object, function: str, *args: Any) -> str:
        """Create a port on a node and run ``function(*args)`` in it; return the port's ID at once.

        ``SELF()`` is the new port in the function. Messages sent to it while the function runs wait. If anything
        fails on that node (no such function, not allowed, an exception), the port dies, and its monitors get the
        reason. The function has no visible effect before this call returned. Never switches.

        Args:
            node: A node ID, or a port of that node.
            function: The function's full name, ``"package.module.function"``.
            args: Its arguments.

        Raises:
            InvalidPortError: It is not a node ID.
            TypeError: ``function`` is not a name.
            UnencodableMessageError: An argument cannot travel to another node.
        """
        self._scheduler.check_thread("spawn()")
        if not isinstance(function, str):
            raise TypeError(f"spawn() takes a function's full name, 'package.module.function', not {quoted(function)}")
        target = self._split_port(node)[0]
        name = self._new_name()
        if self._is_here(target):
            self._spawn_here(name, function, self._as_sent((function, *args))[1:], spawnable_functions.find_for_us)
            return self._prefix + name
        self._spawn_remote(target, name, function, args)
        return f"{target}#{name}"

    def _spawn_remote(self, node: str, name: str, function: str, args: Message) -> None:
        """Spawn on another node."""

    def _spawn_here(
        self,
        name: str,
        function: Any,
        args: Message,
        find: Callable[[Any], Handler],
        warn: Callable[..., None] = _log.warning,
    ) -> None:
        """Create a port of this name; it runs its init function in a later turn."""
        port = self._create(name, kind=SpawnedPort, is_entered=False)

        def init() -> None:
            try:
                found = find(function)
            except SpawnRefusedError as error:
                warn("spawn of port %s refused: %s", port.id, error)
                self._scheduler.kill(port, ("spawn_refused", function, str(error)))
                return
            check_callable("spawn()", found)
            body = getattr(found, "aemp_body", None)
            if body is None:
                found(*args)
            else:
                self.rcv_async(port.id, body, *args)

        self._start_port(port, (carried(init), (), False))
