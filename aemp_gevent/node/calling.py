# SPDX-License-Identifier: MIT
"""Calls: requests to ports, their answers, and functions that answer them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, overload

from gevent.event import AsyncResult

from aemp_gevent.calls import cal, call, serve
from aemp_gevent.node.monitoring import Monitoring
from aemp_gevent.node.ports_host import PortsHost
from aemp_gevent.node.registering import Registering
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.handlers import parse_registrations
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.runtime import hints, threads
from aemp_gevent.runtime.logs import Brief
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)

T = TypeVar("T")

H = TypeVar("H", bound=Handler)


class Calling(Monitoring, Registering):
    """A node whose code can ask ports and answer: ``call``, ``cal``, ``syncal`` and ``serve``."""

    def _begin(self) -> None:
        super()._begin()
        self._scheduler.default = self._discard
        self._ports_host = PortsHost(self)

    def cal(self, port: object, *msg: Any, cb: Handler, timeout: Seconds | None = None) -> None:
        """Send a message with a one-shot reply port appended; call ``cb`` once with the answer. Never switches.

        Args:
            port: The port to ask.
            msg: The message; the reply port's ID is appended.
            cb: Called with ``*reply``, or without arguments after the timeout or the port's death.
            timeout: Seconds to wait for the answer; None waits until the port dies.

        Raises:
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("cal()")
        check_callable("cal()", cb)
        cal.cal(self._ports_host, port, msg, cb, to_seconds(timeout, "cal()"))

    def syncal(self, timeout: Seconds | None, port: object, *msg: Any) -> Message:
        """Send a message with a reply port appended and wait for the answer.

        The blocking form of :meth:`cal`, for any greenlet except the hub. Late answers are
        discarded.

        Args:
            timeout: Seconds to wait; None waits until the port dies.
            port: The port to ask.
            msg: The message.

        Returns:
            The answer; ``()`` after the timeout or the port's death.

        Raises:
            PortKilled: The port whose code waits was killed.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("syncal()")
        return cal.syncal(self._ports_host, to_seconds(timeout, "syncal()"), port, msg)

    def call(self, port: object, tag: Any, *args: Any, timeout: Seconds | None = 30) -> Any:
        """Send a request, wait for the answer, and return it.

        For any greenlet except the hub, with or without a port. The port gets ``(tag, *args,
        reply)``: handlers that answer ``cal`` and ``syncal`` answer this as well, and so do functions given
        to :meth:`serve`. Calls and messages from one greenlet to one port arrive in order. A
        late answer is discarded.

        Args:
            port: The port to ask.
            tag: The request's name.
            args: Its arguments.
            timeout: Seconds to wait; None waits until the port dies. The timeout travels with the request: servers
                see it as :func:`time_left`.

        Returns:
            The answer: the served function's result, or the reply's element. None for an
            empty reply; a tuple for several elements.

        Raises:
            CallTimeout: No answer came in time.
            PortDied: The port died or does not exist, or messages to it were lost.
            RemoteError: The code that served the call raised, or the port has no handler for the tag.
            CallCycleError: The port waits, directly or through others, for an answer of the port in
                whose context this runs.
            PortKilled: The port in whose context this runs was killed.
            NoPortContextError: On the hub, which must never wait; use :meth:`call_async` there.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("call()")
        host = self._ports_host
        ask = watched().call if host.watches else call.call
        # Not (tag, *args), which makes a list first.
        return ask(host, port, (tag,) + args, to_seconds(timeout, "call()"))  # noqa: RUF005

    def call_async(self, port: object, tag: Any, *args: Any, timeout: Seconds | None = 30) -> AsyncResult[Any]:
        """Send a request as :meth:`call` does, and return a result object at once.

        Args:
            port: The port to ask.
            tag: The request's name.
            args: Its arguments.
            timeout: Seconds until the result is a ``CallTimeout``; None: it waits until the port dies.

        Returns:
            A ``gevent.event.AsyncResult``: ``get()`` returns the answer, or raises the errors of
            :meth:`call`; ``gevent.wait`` takes any number of them.

        Raises:
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("call_async()")
        host = self._ports_host
        ask = watched().call_async if host.watches else call.call_async
        return ask(host, port, (tag, *args), to_seconds(timeout, "call_async()"))

    @overload
    def serve(self, port: object, what: str, /) -> Callable[[H], H]: ...
    @overload
    def serve(self, port: T, /, *what: Any, **tags: Handler | None) -> T: ...
    def serve(self, port: object, /, *what: Any, **tags: Handler | None) -> Any:
        """Answer calls with functions of a local port, and return the port.

        ``serve(port, "tag", function, "tag2", function2, …)`` or ``serve(port, tag=function)``
            ``function(*args)`` is called for each ``call(port, tag, *args)``; its return value
            is the answer. An exception is raised in the caller, as ``RemoteError``, and this
            port lives on. None instead of a function removes it.
        ``@serve(port, "tag")``
            The same as a decorator; it returns the function.

        The functions are handlers, as those of :meth:`rcv`, and may block. Other calls
        wait meanwhile, and a call is skipped if its caller gave up before its turn.
        ``cal`` and ``syncal`` are answered, too, also those of Perl nodes. They get no answer
        after an exception, which is logged here.

        Raises:
            NotLocalError: The port lives on another node.
            DeadPortError: It died.
            TypeError: The arguments have none of these forms.
        """
        self._scheduler.check_thread("serve()")
        if len(what) == 1 and not tags and isinstance(what[0], str):

            def decorator(function: Handler) -> Handler:
                self.serve(port, what[0], function)
                return function

            return decorator
        default, registrations = parse_registrations(what, tags, "serve()")
        if default is not None or not all(isinstance(tag, str) for tag, _ in registrations):
            raise TypeError("serve() takes tags (str), each with a function; use rcv() for patterns and defaults")
        pairs = [(tag, function and serve.server(self._ports_host, tag, function)) for tag, function in registrations]
        return self.rcv(port, *(element for pair in pairs for element in pair))

    def _discard(self, *message: Any) -> None:
        """Discard a message that no handler matched: log it, and let a call that waits for an answer fail."""
        port = current_port()
        handlers = None if port is None else port.cell.handlers
        tag = message[0] if message else None
        is_call = serve.call_of(message) is not None
        is_worth_a_hint = not (is_call or port is None or port.dying is not None or port.is_for_answer)
        if is_worth_a_hint and self._hints.is_due("tag", hints.kind_of(tag), handlers and handlers.outline):
            tags = [] if handlers is None else handlers.tags
            none = "no handlers; give it some with rcv()"
            if handlers is not None:
                none = "no handlers left; one that returns DONE or True is removed"
            has = f"handlers for {quoted(tags)}" if tags else none
            if handlers is not None and handlers.has_patterns:
                has = f"handlers for {quoted(tags)} and patterns, which do not match"
            text = "port %s discarded %s: it has %s%s %s"
            where = (port.id if port else None, Brief(message), has, hints.nearest(tag, tags), hints.ONCE)
            self._scheduler.log(logging.WARNING, text, *where)
        self._scheduler.discard(*message)
        if is_call and not (port is not None and port.dying is not None):  # otherwise its death gives the better reason
            tags = [] if handlers is None else handlers.tags
            text = f"no handler for {quoted(tag)}{hints.nearest(tag, tags)}"
            self.kil(message[-1], serve.FAILED, text)


def watched() -> Any:
    """Return the module for calls that are watched, which few programs need."""
    from aemp_gevent.calls import watching  # noqa: PLC0415

    return watching
