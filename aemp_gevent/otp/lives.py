# SPDX-License-Identifier: MIT
"""The life of a server in its port: its messages, its idle times and its end.

The port has one handler, which serves all messages: 10,000 servers are 10,000 ports with a callback, and no greenlet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent import Timeout

from aemp_gevent.errors import AempError, AlreadyStartedError, PortKilled, RefusedError
from aemp_gevent.node.access import (
    call_of,
    calling_node_may_end,
    describe,
    held_name,
    may_end,
    refuse_call,
    served,
    tag_of,
)
from aemp_gevent.otp.marks import CallMark, MarkedMethod
from aemp_gevent.otp.names import claim
from aemp_gevent.otp.requests import READY, STOP, SYSTEM, Request
from aemp_gevent.otp.typed import TypedMethod, with_types
from aemp_gevent.runtime import hints
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Node, Timer

_log = Log()


class Hooks(Protocol):
    """A server, as this module sees it."""

    idle_after: Seconds | None
    terminate_timeout: Seconds | None

    def init(self, *args: Any, **kwargs: Any) -> None: ...
    def info(self, *msg: Any) -> None: ...
    def idle(self) -> None: ...
    def terminate(self, reason: tuple[Any, ...]) -> None: ...


def implements(server: Hooks, hook: str) -> bool:
    """Return whether a server's class has a hook of its own, in place of the one that does nothing."""
    return getattr(getattr(type(server), hook), "__module__", None) != "aemp_gevent.otp.server"


class Life:
    """The life of one server.

    Args:
        server: The instance.
        node: Its node.
        port: Its port, in whose context this is made.
        marks: Its marked methods.
        types_of: Returns the types of one of them, or raises; None: messages are not typed.
    """

    def __init__(
        self,
        server: Hooks,
        node: Node,
        port: str,
        marks: Mapping[str, MarkedMethod],
        types_of: Callable[[MarkedMethod], TypedMethod | None] | None,
    ) -> None:
        self.port = port
        self.node = node
        self._server = server
        self._marks = marks
        self._types_of = types_of
        own = server.terminate if implements(server, "terminate") else None
        self._terminate: Callable[[tuple[Any, ...]], None] | None = getattr(server, "_aemp_terminate", own)
        self._served: dict[str, Callable[..., None]] = {}
        self._stopping: tuple[Any, ...] | None = None
        self._has_been_named = False
        """Whether the node that spawned it has given it names."""
        self._is_over = False
        self._active_at = 0.0
        self._idle_timer: Timer | None = None

    @property
    def _title(self) -> str:
        return f"{type(self._server).__name__} {self.port}"

    @cached_property
    def _complaints(self) -> BoundedLog:
        return BoundedLog(_log.log, self._title)

    # --- messages ---

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run ``init``, and serve the port's messages from then on."""
        server = self._server
        server.init(*args, **kwargs)
        if self._terminate is not None:
            self.node.mon(self.port, self._died)
        if self._stopping is not None:
            self._leave(self._stopping)
        self.node.rcv(self.port, self.handle)
        self._arm()

    def handle(self, *message: Any) -> None:
        """Serve a message."""
        try:
            self._dispatch(message)
        except Exception as error:
            self._end(("die", describe(error)))
            raise
        if self._stopping is not None:
            self._leave(self._stopping)
        if self._idle_timer is not None and tag_of(message) != SYSTEM:
            self._active_at = monotonic()

    def _dispatch(self, message: tuple[Any, ...]) -> None:
        tag = tag_of(message) or ""
        serve = self._served.get(tag)
        if serve is None:
            mark = self._marks.get(tag)
            if mark is None:
                self._unmarked(message)
                return
            serve = self._served[tag] = self._call(mark) if isinstance(mark, CallMark) else self._cast(mark)
        serve(*message[1:])

    def _call(self, mark: CallMark[Any, Any]) -> Callable[..., None]:
        method: Callable[..., Any] = mark.function.__get__(self._server)
        types_of = self._types_of
        if types_of is not None:
            method = with_types(lambda: types_of(mark), method)
        fatal: list[Exception] = []
        is_guarded = mark.name in getattr(self._server, "_aemp_guarded", ())

        def call(*args: Any) -> Any:
            if is_guarded and not calling_node_may_end(self.node, self.port):
                raise RefusedError(f"only nodes that may kill ports here, or that have spawned it, call {mark.name}()")
            why = mark.why_not(len(args))
            if why is not None:
                raise TypeError(why)
            try:
                return method(*args)
            except mark.fatal as error:
                fatal.append(error)
                raise

        handler = served(self.node, mark.name, call)
        if not mark.fatal:
            return handler

        def serve(*rest: Any) -> None:
            handler(*rest)
            if fatal:  # the caller has been answered
                raise fatal.pop()

        return serve

    def _cast(self, mark: MarkedMethod) -> Callable[..., None]:
        method = mark.function.__get__(self._server)
        types_of = self._types_of

        def cast(*args: Any) -> None:
            why = mark.why_not(len(args))
            if why is None and types_of is not None:
                try:
                    types = types_of(mark)
                    args = args if types is None else types.decode_arguments(args)
                except TypeError as error:
                    why = str(error)
            if why is None:
                method(*args)
            else:  # the sender's mistake
                self._complaints.warn("%s discarded a message: %s", self._title, why)

        return cast

    def _unmarked(self, message: tuple[Any, ...]) -> None:
        tag = message[0] if message else None
        reply = call_of(message)
        if tag_of(message) == SYSTEM and len(message) > 1:
            self._request(*message[1:])
        elif reply is not None:
            kind = type(self._server).__name__
            text = f"{kind} has no method marked @call that is named {quoted(tag)}{hints.nearest(tag, self._marks)}"
            refuse_call(self.node, reply, text)
        elif implements(self._server, "info"):
            self._server.info(*message)
        else:
            nearest = hints.nearest(tag, self._marks)
            self._complaints.warn("%s discarded %s: it has no such @cast%s", self._title, quoted(message), nearest)

    def _request(self, request: Any, *rest: Any) -> None:
        reply = call_of(rest)
        if request is Request.STOP:
            self._stop(rest)
        elif request is Request.IDLE:
            self._idle()
        elif reply is None:
            self._complaints.warn("%s discarded %s: it is not a request to a server", self._title, quoted(request))
        else:
            try:
                self._serve_request(request, reply, rest[:-1])
            except (AempError, TypeError, ValueError) as error:
                if isinstance(error, RefusedError):
                    self._complaints.warn("%s: request %s for %s refused: %s", self._title, request, reply, error)
                refuse_call(self.node, reply, str(error))

    def _serve_request(self, request: Any, reply: str, args: tuple[Any, ...]) -> None:
        """Serve a request that any node can make."""
        if request == READY and not any(name is not None for name in args):
            self.node.snd(reply, True)
            return
        if request not in (READY, STOP):
            raise RefusedError(f"{quoted(request)} is not a request to a server")
        if not may_end(self.node, self.node.node_of(reply), self.port):
            raise RefusedError("only nodes that may kill ports here, or that have spawned it, stop or name a server")
        if request == STOP:
            self._stop(args)
        else:
            self._register(*args)
            self.node.snd(reply, True)

    def _stop(self, reason: tuple[Any, ...]) -> None:
        self._stopping = reason if self._stopping is None else self._stopping

    def _register(self, name: Any = None, network_name: Any = None, *_more: Any) -> None:
        """Take the names that the node which spawned this server gives it, once."""
        if self._has_been_named:
            raise RefusedError("a server is given its names once")
        self._has_been_named = True
        if name is not None:
            held = held_name(self.node, name)
            if held is not None:
                raise AlreadyStartedError(type(self._server).__name__, name, held)
            self.node.reg(self.port, name)
        if network_name is not None:
            claim(self.node, self.port, network_name)

    # --- idle times ---

    def _arm(self) -> None:
        seconds = to_seconds(self._server.idle_after, f"{type(self._server).__name__}.idle_after", "idle_after")
        self._active_at = monotonic()
        self._idle_timer = None
        if seconds is not None:
            self._idle_timer = self.node.after(seconds, self.port, SYSTEM, Request.IDLE)

    def _idle(self) -> None:
        seconds = to_seconds(self._server.idle_after, f"{type(self._server).__name__}.idle_after", "idle_after")
        left = 0.0 if seconds is None else self._active_at + seconds - monotonic()
        if seconds is not None and left > 0:
            self._idle_timer = self.node.after(left, self.port, SYSTEM, Request.IDLE)
            return
        if seconds is not None:
            self._server.idle()
        self._arm()

    # --- the end ---

    def stop_with(self, reason: tuple[Any, ...]) -> None:
        """Stop when the running method has returned."""
        self._stopping = reason
        self.node.snd(self.port, SYSTEM, Request.STOP)  # for code that runs in the port's context beside its messages

    def _leave(self, reason: tuple[Any, ...]) -> None:
        """Die of a reason, which is not an exception, at once: the messages that wait are discarded."""
        self._end(reason)
        self.node.kil(self.port, *reason)
        raise PortKilled(*reason)

    def _died(self, *reason: Any) -> None:
        """React to the port's death, which may be a kill."""
        if not self._is_over:
            # In a greenlet without a port, as the port is dead: there, calls that wait would raise PortKilled.
            gevent.spawn(self._end, reason)

    def _end(self, reason: tuple[Any, ...]) -> None:
        """Call ``terminate``, once."""
        if self._is_over:
            return
        self._is_over = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        server = self._server
        if self._terminate is None:
            return
        seconds = to_seconds(server.terminate_timeout, f"{type(server).__name__}.terminate_timeout", "timeout")
        limit = Timeout.start_new(seconds)
        try:
            self._terminate(reason)
        except Timeout as late:
            if late is not limit:
                raise
            _log.error("%s: terminate(%s) was interrupted after %g s", self._title, quoted(reason), seconds)
        except Exception as error:  # noqa: BLE001  # the server ends all the same
            _log.error("%s: terminate(%s) failed", self._title, quoted(reason), exc_info=error)
        finally:
            limit.close()
