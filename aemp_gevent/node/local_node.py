# SPDX-License-Identifier: MIT
"""A node without a network: every call that needs no other process.

:class:`LocalNode` is what a program has before it initialises its node, and what
:class:`aemp_gevent.node.node.Node` builds on. Its methods are the library's public
functions; their docstrings are the reference. What they share is the table of ports
and the scheduler; the concepts themselves live on the floors below.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any, ParamSpec, TypeVar, overload

from gevent import Greenlet
from gevent.event import AsyncResult
from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.calls import cal as calls
from aemp_gevent.calls import call as calling
from aemp_gevent.calls import serve as serving
from aemp_gevent.errors import (
    DeadPortError,
    InvalidPortError,
    MessageTooLargeError,
    NodePortError,
    NodeShutDownError,
    NoPortContextError,
    NotLocalError,
    PortExistsError,
    ReceiverBusyError,
    SpawnRefusedError,
    UnencodableMessageError,
)
from aemp_gevent.node import spawning
from aemp_gevent.peers.watchers import in_words
from aemp_gevent.ports import monitors
from aemp_gevent.ports.attachment import Attachment
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import current_port, require_port, run_in
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.handlers import Handlers, parse_registrations
from aemp_gevent.ports.monitors import Monitor, no_such_port
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import (
    IDLE,
    QUEUED,
    REMOTE,
    AnyPort,
    AttachedPort,
    BoundedMailbox,
    ContextPort,
    Port,
    Reason,
)
from aemp_gevent.ports.scheduler import Job, Runner, Scheduler
from aemp_gevent.ports.timers import Timer
from aemp_gevent.runtime import forking, hints
from aemp_gevent.runtime.logs import Brief, Log
from aemp_gevent.runtime.quantities import Seconds, to_count, to_seconds
from aemp_gevent.runtime.quoting import quoted, worded
from aemp_gevent.runtime.threads import get_ident
from aemp_gevent.wire.limits import MAX_NAME_BYTES, Limits

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound=Handler)

_log = Log()

_ACTIONS = "a port to watch, and a function to call, a port to kill, or a port and a message to send"

_WHY_STRICT = (
    "this node is strict (strict=True, or AEMP_STRICT=1 in the environment, as in tests with aemp_gevent's fixtures), "
    "so messages to its own ports must be fit for other nodes, too"
)


class LocalNode:
    """The ports of one process, and everything they can do among themselves."""

    def __init__(self) -> None:
        self._begin()
        forking.register(self)

    def _begin(self) -> None:
        """Become a node that has no port yet, with an ID that no other ever had."""
        self._scheduler = Scheduler()
        self._scheduler.on_unmonitored_death = self._unmonitored_death
        self._scheduler.default = self._discard
        self._scheduler.node = self
        self._ports = self._scheduler.ports
        self._direct: dict[str, Port] = {}
        """Where :meth:`snd` looks first: the table of ports, or nothing while every message must be looked at."""
        self._is_strict = False
        self._is_over = False
        self._new_name = ids.port_names(ids.new_uniq())
        self._id = ids.ANON_PREFIX + ids.new_uniq()
        self._prefix = self._id + "#"
        self.max_name_bytes = MAX_NAME_BYTES
        """The longest name: of a node, a port, a family of the directory or a key."""
        self._dropped_aloud = False
        self.hints = hints.Hints()
        """What this node has warned of, once per place."""
        self.waiting: dict[Port, serving.Wait] = {}
        """The ports that are blocked in a call."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"

    # --- forks ---

    @property
    def is_here(self) -> bool:
        """Whether this native thread is the one the node belongs to."""
        return get_ident() == self._scheduler.thread

    def forked(self) -> None:
        """Become a fresh private node, in a forked child of the process that had this one."""
        self._scheduler.abandon()
        self._begin()

    # --- what is looked at on each call ---

    def _open_ports(self) -> None:
        """Decide how messages to the ports here are sent: this comes before the first port, and when a setting does."""
        self._is_strict = self._wants_strict()
        self._direct = {} if self._is_strict or self._is_over else self._ports

    def _wants_strict(self) -> bool:
        variable = "AEMP_STRICT"
        text = os.environ.get(variable)
        if not text:
            return False
        from aemp_gevent.settings.sources import read_setting  # noqa: PLC0415  # of nodes with links, and strict ones

        return bool(read_setting("strict", text, f"environment variable {variable}"))

    def _close_ports(self) -> None:
        """Refuse calls that need a node, from now on: it was shut down."""
        if self._is_over:
            return
        self._is_over = True
        self._direct = {}
        new_name = self._new_name

        def no_name() -> str:
            self._check_open("creating a port")
            return new_name()

        # Every port that is made takes a name first, so that nothing else need look.
        self._new_name = no_name

    def _check_open(self, call: str) -> None:
        """Refuse a call after the node was shut down, unless code of a port makes it, which may end in order.

        Raises:
            NodeShutDownError: The text names ``call``.
        """
        if self._is_over and not isinstance(getcurrent(), Runner):
            raise NodeShutDownError(call, self._id)

    def _as_sent(self, message: Message) -> Message:
        """Return a message to a port of this node as another node would get it, if this node is strict.

        Raises:
            UnencodableMessageError, MessageTooLargeError: It could not travel. The text says that the node is strict.
        """
        if not self._is_strict:
            return message
        try:
            return tuple(copy_as_sent(["port", *message], self._limits)[1:])  # not a request, whatever its tag
        except (UnencodableMessageError, MessageTooLargeError) as error:
            error.add(_WHY_STRICT)
            raise

    # --- identity ---

    def NODE(self, port: object = None) -> str:
        """Return this node's ID, or with an argument the node part of that port ID.

        Raises:
            InvalidPortError: The argument is not a port ID.
        """
        return self._id if port is None else self.split_port(port)[0]

    def node_of(self, port: object) -> str:
        """Return the node part of a port ID; a node ID is returned as it is.

        Raises:
            InvalidPortError: It is not a port ID.
        """
        return self.split_port(port)[0]

    def split_port(self, port: object) -> tuple[str, str]:
        """Return the node ID and the port name of a port ID; the name is ``""`` for a node port.

        Raises:
            InvalidPortError: It is not a port ID.
        """
        return ids.split_port(port, self.max_name_bytes)

    def _rename(self, node_id: str) -> None:
        """Take another node ID; IDs made before keep working inside the process."""
        former, self._id, self._prefix = self._prefix, node_id, node_id + "#"
        ports = self._ports
        for port_id, port in list(ports.items()):
            if not port_id.startswith(former):
                continue
            name = port_id.removeprefix(former)
            renamed = self._prefix + name
            ports[renamed] = port
            if port.id == port_id:
                port.id = renamed
                self._alias(port, port_id)
            else:
                self._alias(port, renamed)

    # --- ports ---

    def port(self, callback: Handler | None = None, *, limit: int | None = None, context: Context | None = None) -> str:
        """Create a port and return its ID. Never switches.

        Args:
            callback: Called with ``*msg`` for every message (a *miniport*); returning ``DONE``
                destroys the port, and so does True from a Python function. None: no handlers yet, messages
                without a handler are discarded and logged at debug level.
            limit: The port is killed with ``("mailbox_overflow", limit)`` when more
                messages than this wait in its mailbox; None: no limit.
            context: The ``contextvars.Context`` its handlers run in; None: an empty one.

        Raises:
            TypeError: The callback cannot be called, or calling it would not run its body: it is a generator
                function or an ``async def``. Every call that takes a function refuses these.
        """
        # Here and where else a call more would be felt the thread is looked at first.
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("port()")
        if callback is not None:
            check_callable("port()", callback)
        if context is not None and not isinstance(context, Context):
            raise TypeError(f"port(): {quoted(context)} is not a contextvars.Context")
        if limit is not None:
            limit = to_count(limit, "port()", "limit")
        return self._create(self._new_name(), callback, limit, context).id

    @property
    def scheduler(self) -> Scheduler:
        """What runs this node's ports."""
        return self._scheduler

    @overload
    def make(self) -> Port: ...
    @overload
    def make(self, kind: type[AnyPort]) -> AnyPort: ...
    def make(self, kind: type[Port] = Port) -> Port:
        """Make a port without handlers, which nobody reaches before :meth:`enter`.

        An interrupt may strike when this returns, and then nobody has the port: entered already, it would stay.
        """
        return self._create(self._new_name(), kind=kind, is_entered=False)

    def enter(self, port: Port) -> None:
        """Make a new port reachable. Called where whatever strikes ends the port again."""
        self._ports[port.id] = port

    def _create(
        self,
        name: str,
        callback: Handler | None = None,
        limit: int | None = None,
        context: Context | None = None,
        kind: type[Port] = Port,
        is_entered: bool = True,
    ) -> Port:
        port_id = self._prefix + name
        scheduler = self._scheduler
        if not self._ports:
            _ = scheduler.hub  # the node belongs to the thread that makes its first port, whoever sends first
            if self._direct is not self._ports:
                self._open_ports()
        if port_id in self._ports:
            raise PortExistsError(port_id)
        default = scheduler.default if callback is None else callback
        port = (
            kind(port_id, scheduler, default) if context is None else ContextPort(port_id, scheduler, default, context)
        )
        if limit is not None:
            port.inbox = port.mailbox = BoundedMailbox(port, limit, lambda: scheduler.overflow(port, limit))
        if is_entered:
            self._ports[port_id] = port
        return port

    def _local(self, call: str, port: object) -> Port:
        """Return the living local port of this ID, for a call that other native threads may not make.

        Raises:
            InvalidPortError, NotLocalError, NodePortError, DeadPortError: It is not one.
            WrongThreadError: One of them makes it.
        """
        self._scheduler.check_thread(call)
        found = self.find(port)
        if found is not None:
            return found
        node, name = self.split_port(port)
        if not self._is_here(node):
            raise NotLocalError(call, str(port), self._id)
        if not name:
            raise NodePortError(call, str(port))
        raise DeadPortError(call, str(port))

    def find(self, port: object) -> Port | None:
        """Return the local port of this ID, if there is one."""
        found = self._find(port)
        # Ports of other nodes stand in the same table, for the sake of snd.
        return None if found is None or found.state == REMOTE else found

    def _find(self, port: object) -> Port | None:
        """Return the port of this ID that stands in the table."""
        try:
            found = self._ports.get(port)  # type: ignore[call-overload]  # any object may miss
        except TypeError:  # it cannot be hashed, and yet its str() may be a port ID
            found = None
        return self._ports.get(str(port)) if found is None else found

    def _is_here(self, node: str) -> bool:
        return node == self._id

    @property
    def _limits(self) -> Limits:
        """How large messages may be."""
        from aemp_gevent.settings.fields import Settings  # noqa: PLC0415  # of nodes with links, and strict ones

        return Limits(Settings.max_message_bytes, Settings.max_message_elements)

    @overload
    def rcv(self, port: object, what: str, /) -> Callable[[H], H]: ...
    @overload
    def rcv(self, port: T, /, *what: Any, **tags: Handler | None) -> T: ...
    def rcv(self, port: object, /, *what: Any, **tags: Handler | None) -> Any:
        """Set handlers of a local port, and return the port.

        ``rcv(port, cb)``
            ``cb(*msg)`` gets what nothing else matched; returning ``DONE`` destroys the port.
        ``rcv(port, "tag", cb, "tag2", cb2, …)`` or ``rcv(port, tag=cb)``
            ``cb(*rest)`` gets messages with this first element. One handler a tag: a new
            one replaces it, None removes it.
        ``@rcv(port, "tag")``
            The same as a decorator, which returns the function.
        ``rcv(port, [p0, p1, …], cb)``
            ``cb(*msg)`` when the first elements match. An element is ``any_``, a type, a
            compiled regex (searched in strings), another callable (a predicate), or a
            value to be equal to. Patterns add up. What cannot be compared (an array, an
            element whose ``__eq__`` raises) is not equal; what a predicate raises kills the port.

        A handler that returns ``DONE`` is removed. True means the same if a Python function
        returns it; the return value of anything else, such as a method of gevent, is ignored.
        A message goes to its tag's handler first, then to every pattern that matches, in the
        order they were registered.

        Raises:
            NotLocalError: The port lives on another node.
            DeadPortError: It died.
            TypeError: The arguments have none of these forms.
        """
        target = self._local("rcv()", port)
        if len(what) == 1 and not tags and isinstance(what[0], str):

            def decorator(handler: Handler) -> Handler:
                self._scheduler.check_thread("rcv()")
                check_callable(f"rcv(), the handler of {quoted(what[0])}", handler)
                _handlers(target).set_tag(what[0], handler)
                return handler

            return decorator
        default, registrations = parse_registrations(what, tags)
        if default is not None:
            target.default = default
        if registrations:
            _handlers(target).register(registrations)
        return port

    def reg(self, port: object, name: str | None = None) -> None:
        """Register a local port under a well-known name: ``nodeid#name`` reaches it. Also ``reg(name)`` for ``SELF()``.

        One name a port; a name's new holder replaces the old; gone when the port dies.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
            PortExistsError: A port was created with this very name.
            NoPortContextError: ``reg(name)`` outside a port.
        """
        if name is None:
            self._scheduler.check_thread("reg()")
            name, target = str(port), require_port("reg(name)")
        else:
            target = self._local("reg()", port)
        alias = self._prefix + name
        if not self.split_port(alias)[1]:
            raise InvalidPortError(alias, "a registered name cannot be empty")
        if " " in name:
            raise InvalidPortError(alias, "it holds blanks")
        holder = self._ports.get(alias)
        if holder is not None and holder.id == alias:
            raise PortExistsError(alias)
        if holder is not None:
            self._scheduler.aliases[holder].remove(alias)
        known = self._scheduler.aliases.get(target, [])
        own_name = target.id.partition("#")[2]  # an alias with this is not a name, but the ID under a former node ID
        for old in [other for other in known if other.partition("#")[2] != own_name]:
            known.remove(old)
            del self._ports[old]
        self._alias(target, alias)
        self._ports[alias] = target

    def _alias(self, port: Port, alias: str) -> None:
        self._scheduler.aliases.setdefault(port, []).append(alias)

    def _registered(self, name: str) -> str | None:
        """Return the ID of the port registered under a name."""
        alias = self._prefix + name
        holder = self._ports.get(alias)
        return None if holder is None or holder.id == alias else holder.id

    # --- messages ---

    def snd(self, port: object, *msg: Any) -> None:
        """Send a message; queues and returns. The first argument is the port: ``snd(*msg_with_port_first)`` works.

        Locally it goes by reference and counts as read-only from now on; to another node
        it is copied now. Never fails because a node is unreachable (monitor the port to
        hear of that); never switches greenlets, except when it leaves a link's buffer
        above its high-water mark. Messages of one node to one port arrive in order.
        Any native thread may call it; where a greenlet would be paused, the whole thread blocks.

        Raises:
            InvalidPortError: It is not a port ID, and no code of a port gives it. In code of a port, which most likely
                has it from a message, the message is dropped instead, and a warning names the line.
            UnencodableMessageError: An element cannot travel to another node. A strict node looks at all messages.
            MessageTooLargeError: It is larger than ``max_message_bytes``.
            NodeShutDownError: The node was shut down, and no code of a port sends this.
        """
        # The hot path: one look-up with the whole ID, then Scheduler.deliver and
        # Scheduler.enqueue written out, as two calls more would cost a quarter. What may strike
        # where, and which steps are one for all native threads, says the scheduler's docstring.
        try:
            target = self._direct[port]  # type: ignore[index]  # any object may miss
        except (KeyError, TypeError):
            self._send_elsewhere(port, msg)
            return
        while not target.state:
            scheduler = self._scheduler
            if not scheduler.pumped:
                scheduler.ask()
                continue
            target.state = QUEUED
            try:
                scheduler.runq.append(target)
            except BaseException:
                scheduler.runq += (target,)  # no call; twice does no harm
                raise
        target.mailbox.append(msg)

    def snd_nowait(self, port: object, *msg: Any) -> None:
        """Send a message like :meth:`snd`, but never pause: raise ``LinkBusyError`` instead, having sent nothing.

        For code that must not wait, and can do without the message or send it later. To a
        port of this node it is the same as :meth:`snd`. Any native thread may call it.

        Raises:
            LinkBusyError: More bytes wait to be sent to that node than ``high_water_bytes``.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._check_open("snd_nowait()")
        target = self._find(port)
        if target is None:
            parts = self.split_or_drop("snd_nowait()", port)
            if parts is None:
                return
            node, name = parts
            if not self._is_here(node):
                self._send_remote(node, name, msg, pausing=False)
                return
        elif target.state == REMOTE:
            node, name = self.split_port(target.id)
            self._send_remote(node, name, msg, pausing=False)
            return
        self.snd(port, *msg)

    def _send_elsewhere(self, port: object, msg: Message) -> None:
        """Send to what :meth:`snd` did not find: an object whose str() is a port ID, a port that is not there, a node.

        Or to any port, while every message must be looked at.
        """
        self._check_open("snd()")
        target = self._find(port)
        if target is not None:
            self._scheduler.deliver(target, msg if target.state == REMOTE else self._as_sent(msg))
            return
        parts = self.split_or_drop("snd()", port)
        if parts is None:
            return
        node, name = parts
        if not self._is_here(node):
            self._send_remote(node, name, msg)
        elif name:
            self._no_such_port(str(port), name, self._as_sent(msg))
        elif self._scheduler.is_foreign:
            self._scheduler.call_on_hub(self._node_request, msg)
        else:
            self._node_request(msg)

    def split_or_drop(
        self, call: str, port: object, *, may_be_node: bool = True, wanted: str = ""
    ) -> tuple[str, str] | None:
        """Return the two parts of a port ID; None, having logged it, for what is not one and code of a port gives.

        There it most likely came with a message, as the port to answer to, and whoever sent that must not be able
        to kill the port that answers.

        Raises:
            InvalidPortError, NodePortError: It is not one, and no code of a port gives it.
        """
        try:
            parts = self.split_port(port)
            if parts[1] or may_be_node:
                return parts
            raise NodePortError(call, str(port))
        except (InvalidPortError, NodePortError) as error:
            current = current_port()
            if current is None:
                if wanted and isinstance(error, InvalidPortError):
                    raise InvalidPortError(port, f"{call} takes {wanted}") from None
                raise
            port_id, why = current.id, str(error)
        line = hints.calling_line()
        is_news = line is not None and self.hints.is_due("port", line)
        log = self._scheduler.log if is_news else self._scheduler.complaints.log
        text = "port %s: %s had no effect: %s; called at %s %s"
        log(logging.WARNING if is_news else logging.DEBUG, text, port_id, call, why, line, hints.ONCE)
        return None

    def _no_such_port(self, port: str, name: str, msg: Message) -> None:
        """Drop a message to a port of this node that does not exist, or not any more."""
        line = hints.calling_line()
        if line is None or not self.hints.is_due("port", line):
            self._scheduler.complaints.log(
                logging.DEBUG, "%s to port %s dropped: there is no such port", Brief(msg), port
            )
            return
        if ids.is_unique_name(name):
            why = "it is dead; monitor a port to hear of its death"
        else:
            names = (known.partition("#")[2] for known in list(self._ports))
            given = (known for known in names if known and not ids.is_unique_name(known))
            why = f"this node has no such port{hints.nearest(name, given)}"
        text = "%s to port %s dropped: %s; sent at %s %s"
        self._scheduler.log(logging.WARNING, text, Brief(msg), port, why, line, hints.ONCE)

    def _send_remote(self, node: str, name: str, msg: Message, *, pausing: bool = True) -> None:
        """Send to a port of another node, pausing afterwards if too much is unsent, or else raising before."""
        # Once aloud: it is nearly always a call of initialise_node() that was forgotten.
        level, self._dropped_aloud = logging.DEBUG if self._dropped_aloud else logging.WARNING, True
        text = "%s to %s dropped: this node is private; call initialise_node() first"
        self._scheduler.log(level, text, Brief(msg), f"{node}#{name}" if name else node)

    def _node_request(self, msg: Message) -> None:
        """Handle a message to our own node port."""

    def kil(self, port: object, *reason: Any) -> None:
        """Kill a port, with a reason, or normally without one. Queues and returns, never switches.

        The kill takes its place behind the messages sent before it. Killing what is dead
        already does nothing: the first kill wins. ``kil(SELF())`` returns, too: what the
        handler does next still happens, until it waits. Any native thread may call it.

        Raises:
            NodePortError: It is a node port, which lives as long as its node.
            InvalidPortError: It is not a port ID. In code of a port both are dropped instead, as in :meth:`snd`.
        """
        target = self.find(port)
        if target is not None:
            scheduler = self._scheduler
            if self._is_strict:
                reason = self._as_sent(reason)
            if get_ident() != scheduler.thread and scheduler.is_foreign:
                scheduler.kill_from_afar(target, reason)
            else:
                scheduler.kill(target, reason)
            return
        parts = self.split_or_drop("kil()", port, may_be_node=False)
        if parts is not None and not self._is_here(parts[0]):
            self._kill_remote(*parts, reason)

    def _kill_remote(self, node: str, name: str, reason: Reason) -> None:
        """Kill a port of another node."""

    # --- monitors ---

    def mon(self, port: object, *action: Any) -> Monitor:
        """Run an action, once, when a port dies or messages to it are lost; return a guard. Never switches.

        ``mon(port, cb)`` or ``mon(port, cb, *args)``
            Calls ``cb(*args, *reason)``; an empty reason is a normal death.
        ``mon(port)``
            Kills this port (``SELF()``) with the same reason, unless the death was normal. To
            go with the port in any case: ``mon(port, kil, SELF())``.
        ``mon(port, rcvport)``
            Kills ``rcvport`` with the same reason, unless the death was normal.
        ``mon(port, rcvport, *msg)``
            Sends ``(*msg, *reason)`` to ``rcvport``.

        ``mon`` of a node ID fires when the link to that node goes down. Of the messages
        sent after ``mon`` returned either every one arrives or the action runs.

        Args:
            port: The port, or node, to watch; one that does not exist fires at once.
            action: One of the forms above.

        Returns:
            A guard: ``.cancel()``, after which the action does not run, or a context
            manager. Dropping it does nothing.

        Raises:
            NoPortContextError: ``mon(port)`` outside a port.
            InvalidPortError: One of the ports is not a port ID, and no code of a port gives it. In code of a port the
                action runs at once, with the reason ``no_such_port``.
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
            self.split_or_drop("mon()", action[0], may_be_node=False, wanted=_ACTIONS)
            call = _killer(self, action[0])
        else:
            self.split_or_drop("mon()", action[0], wanted=_ACTIONS)
            call = functools.partial(_with_reason, functools.partial(self.snd, *action))
        return self.monitor(port, call, context)

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call ``call(*reason)`` in a port's context when a port dies; what ``mon`` is made of."""
        target = self.find(port)
        if target is not None:
            monitor = Monitor(target, call, context, self._scheduler)
            if target.monitors is None:  # the usual case; monitors.add would do the same
                target.monitors = monitor
            else:
                monitors.add(target, monitor)
            return monitor
        node, name = self.split_or_drop("mon()", port) or (self._id, quoted(port))
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

        An object with a ``close`` method is closed, else one with a ``cancel`` method is
        cancelled; others are just released. Returns a guard, which releases them
        unclosed when cancelled.
        """
        self._scheduler.check_thread("mon_guard()")
        return self.monitor(port, lambda *_reason: _close_all(objects), current_port())

    def _unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        """Return what is to be run because a port died of something and nobody monitored it."""
        return None

    # --- contexts ---

    def peval(self, port: object, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a function in a local port's context now, and return its value.

        An exception kills the port, and None is returned.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
        """
        check_callable("peval()", function)
        return run_in(self._local("peval()", port), function, *args, **kwargs)

    def peval_async(self, port: object, function: Callable[..., Any], *args: Any) -> Greenlet[..., Any]:
        """Start a second greenlet in a local port's context, and return it. It cannot ``receive`` for the port.

        An exception in it kills the port.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
        """
        check_callable("peval_async()", function)
        target = self._local("peval_async()", port)
        return self._scheduler.start_greenlet(run_in, target, function, *args)

    def after(self, seconds: Seconds | None, what: Any, *msg: Any) -> Timer:
        """Call ``what()``, or send ``msg`` to the port ``what``, in a while, in this port's context.

        Args:
            seconds: From now; 0 or less: as soon as possible; None: never.
            what: A function (called with ``*msg``, if any), or a port.
            msg: What to send.

        Returns:
            A timer: ``.cancel()``, after which nothing happens, or a context manager.

        Raises:
            InvalidPortError: ``what`` is neither a function nor a port ID.
        """
        self._scheduler.check_thread("after()")
        seconds = to_seconds(seconds, "after()", "seconds")
        if callable(what):
            check_callable("after()", what)
            return Timer(self._scheduler, seconds, current_port(), what, msg)
        self.split_or_drop("after()", what, wanted="a time, and a function or a port to send to")
        return Timer(self._scheduler, seconds, current_port(), self.snd, (what, *msg))

    # --- asking for an answer ---

    def cal(self, port: object, *msg: Any, cb: Handler, timeout: Seconds | None = None) -> None:
        """Send a message with a one-shot reply port appended; call ``cb`` once with the answer. Never switches.

        Args:
            port: Whom to ask.
            msg: The message; the reply port's ID is appended.
            cb: Called with ``*reply``, or with nothing after the timeout or the port's death.
            timeout: Seconds to wait for the answer; None waits until the port dies.

        Raises:
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("cal()")
        check_callable("cal()", cb)
        calls.call(self, port, msg, cb, to_seconds(timeout, "cal()"))

    def syncal(self, timeout: Seconds | None, port: object, *msg: Any) -> Message:
        """Send a message with a reply port appended and wait for the answer.

        The blocking form of :meth:`cal`; for any greenlet but the hub. Late answers are
        discarded.

        Args:
            timeout: Seconds to wait; None waits until the port dies.
            port: Whom to ask.
            msg: The message.

        Returns:
            The answer; ``()`` after the timeout or the port's death.

        Raises:
            PortKilled: The port that waits here was killed.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("syncal()")
        return calls.call_and_wait(self, to_seconds(timeout, "syncal()"), port, msg)

    def call(self, port: object, tag: Any, *args: Any, timeout: Seconds | None = 30) -> Any:
        """Send a request, wait for the answer, and return it: the everyday call.

        For any greenlet but the hub, with or without a port. The port gets ``(tag, *args,
        reply)``: whatever answers ``cal`` and ``syncal`` answers this, and so do functions given
        to :meth:`serve`. Calls and messages of one greenlet to one port arrive in order. An
        answer that comes late is discarded.

        Args:
            port: Whom to ask.
            tag: What for.
            args: With what.
            timeout: Seconds to wait; None waits until the port dies. It travels along: servers
                see it as :func:`time_left`.

        Returns:
            The answer: what the served function returned, or the reply's element; None for an
            empty reply, a tuple of several elements.

        Raises:
            CallTimeout: No answer came in time.
            PortDied: The port died, does not exist, or messages to it were lost; at once.
            RemoteError: The code that served the call raised, or the port has no handler for the tag.
            CallCycleError: The port waits, itself or by way of others, for an answer of the port in
                whose context this runs.
            PortKilled: The port in whose context this runs was killed.
            NoPortContextError: On the hub, which must never wait: see :meth:`call_async`.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("call()")
        return calling.call(self, port, (tag, *args), to_seconds(timeout, "call()"))

    def call_async(self, port: object, tag: Any, *args: Any, timeout: Seconds | None = 30) -> AsyncResult[Any]:
        """Send a request as :meth:`call` does, and return at once what will hold the answer.

        Args:
            port: Whom to ask.
            tag: What for.
            args: With what.
            timeout: Seconds until the result is a ``CallTimeout``; None: only the port's death ends it.

        Returns:
            A ``gevent.event.AsyncResult``: ``get()`` returns the answer, or raises what
            :meth:`call` would have; ``gevent.wait`` takes any number of them.

        Raises:
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._scheduler.check_thread("call_async()")
        return calling.call_async(self, port, (tag, *args), to_seconds(timeout, "call_async()"))

    @overload
    def serve(self, port: object, what: str, /) -> Callable[[H], H]: ...
    @overload
    def serve(self, port: T, /, *what: Any, **tags: Handler | None) -> T: ...
    def serve(self, port: object, /, *what: Any, **tags: Handler | None) -> Any:
        """Answer calls with functions of a local port, and return the port.

        ``serve(port, "tag", function, "tag2", function2, …)`` or ``serve(port, tag=function)``
            ``function(*args)`` is called for each ``call(port, tag, *args)``; its return value
            is the answer. What it raises is raised in the caller, as ``RemoteError``, and this
            port lives on. None removes it.
        ``@serve(port, "tag")``
            The same as a decorator, which returns the function.

        Like handlers of :meth:`rcv`, which these are, functions may block; those who call
        wait in line meanwhile, and a call whose caller gave up before its turn is skipped.
        ``cal`` and ``syncal`` are answered, too, also those of Perl nodes; for them an
        exception is as no answer, and it is logged here.

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
            raise TypeError("serve() takes tags (str), each with a function; for patterns and defaults there is rcv()")
        pairs = [(tag, function and serving.server(self, tag, function)) for tag, function in registrations]
        return self.rcv(port, *(element for pair in pairs for element in pair))

    def ask(self, port: object, message: Message, reply: str, left: float | None, chain: tuple[str, ...]) -> None:
        """Send a call, a message and what goes along, to a port that the caller monitors."""
        target = self._find(port)
        if target is None:
            node, name = self.split_port(port)
            if not name and self._is_here(node):
                self._node_request((*message, reply))
            # Otherwise nobody can be reached, which the monitor tells.
        elif target.state == REMOTE:
            remote: Any = target  # what stands in the table for a port of another node
            remote.call(message, reply, left, chain)
        else:
            until = None if left is None else monotonic() + left
            serving.take(self, target, self._as_sent(message), serving.ReplyPort(reply, until, chain))

    def _discard(self, *message: Any) -> None:
        """Take a message that no handler matched: tell whoever waits for an answer to it, or else the log."""
        port = current_port()
        handlers = None if port is None else port.handlers
        tag = message[0] if message else None
        is_call = bool(message) and issubclass(
            type(message[-1]), serving.ReplyPort
        )  # not isinstance: proxies may raise
        is_worth_a_hint = not (is_call or port is None or port.dying is not None or port.is_for_answer)
        if is_worth_a_hint and self.hints.is_due("tag", hints.kind_of(tag), handlers and handlers.outline):
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
        if is_call and not (port is not None and port.dying is not None):  # its death says more
            tags = [] if handlers is None else handlers.tags
            text = f"no handler for {quoted(tag)}{hints.nearest(tag, tags)}"
            self.kil(message[-1], serving.FAILED, text)

    def names_of(self, port: Port) -> tuple[str, ...]:
        """Return the IDs by which others may know a local port."""
        return (port.id, *self._scheduler.aliases.get(port, ()))

    # --- greenlets ---

    def port_async(self, function: Handler, *args: Any) -> str:
        """Create a port with a greenlet of its own, which runs ``function(*args)``; return its ID at once.

        In there ``receive``, ``get`` and ``syncal`` work, and ``SELF()`` is the port.
        Returning is a normal death, raising one with ``("die", text)``. The function
        starts in a later turn, never before this returned.
        """
        self._scheduler.check_thread("port_async()")
        check_callable("port_async()", function)
        port = self.make()
        self._start_port(port, (function, args, True))
        return port.id

    def rcv_async(self, port: object, function: Handler, *args: Any) -> object:
        """Give an existing local port a greenlet of its own, as :meth:`port_async` does; return the port.

        Its messages so far wait for ``receive``. Called from one of the port's own
        handlers, it takes effect when that handler returns.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
            ReceiverBusyError: It has a greenlet of its own already.
        """
        check_callable("rcv_async()", function)
        target = self._local("rcv_async()", port)
        if target.main is not None:
            raise ReceiverBusyError(target.id, "it has a greenlet of its own already")
        target.main = (function, args, True)
        if target.state == IDLE and target.waiter is None:
            self._scheduler.enqueue(target)
        else:  # a handler is inside, or waits in receive; queued already, it is harmless
            target.divert_inbox()
        return port

    def actor(self, function: Callable[P, Any]) -> Callable[P, str]:
        """Make a function that starts a port with a greenlet of its own when called, and returns the port ID.

        A decorator: ``@actor`` above ``def f(…)`` makes ``f(…)`` mean
        ``port_async(f, …)``. Spawning it runs its body on the spawned port.
        """
        check_callable("actor()", function)

        @functools.wraps(function)
        def start(*args: P.args, **kwargs: P.kwargs) -> str:
            return self.port_async(functools.partial(function, *args, **kwargs))

        start.aemp_body = function  # type: ignore[attr-defined]
        return start

    def attach(self) -> Attachment:
        """Give the running greenlet a port, at once, so that it can ``receive``. Also a context manager.

        For greenlets that are not ours: a script's main greenlet, a WSGI handler, a pool's
        worker. ``with attach() as port:`` gives the port's ID; leaving the block is a
        normal death, also when another greenlet closes the generator that holds it; an
        exception that leaves it is an abnormal one. Without ``with`` the
        port lives until ``detach()`` or the greenlet's end. Nothing is thrown into such a
        greenlet when its port is killed: its next blocking call of ours raises
        ``PortKilled``. Initialise the node first: the ID that this returns before that
        reaches the port only from within this process.

        Raises:
            NoPortContextError: On the hub, which must never wait.
        """
        self._scheduler.check_thread("attach()")
        if getcurrent() is self._scheduler.hub:
            raise NoPortContextError("attach()", "it was called on the hub, which must never wait: spawn a greenlet")
        port = self.make(AttachedPort)
        return Attachment(port)

    # --- spawning ---

    def spawn(self, node: object, function: str, *args: Any) -> str:
        """Create a port on a node, run ``function(*args)`` there with it as ``SELF()``; return its ID at once.

        Messages sent to it while the function runs wait. If anything fails over there
        (no such function, not allowed, an exception), the port dies and its monitors say
        why. The function has no visible effect before this returned. Never switches.

        Args:
            node: A node ID, or a port of that node.
            function: The function's full name, ``"package.module.function"``.
            args: Its arguments.

        Raises:
            InvalidPortError: It is not a node ID.
            TypeError: The function is not given by its name.
            UnencodableMessageError: An argument cannot travel to another node.
        """
        self._scheduler.check_thread("spawn()")
        if not isinstance(function, str):
            raise TypeError(f"spawn() takes a function's full name, 'package.module.function', not {quoted(function)}")
        target = self.split_port(node)[0]
        name = self._new_name()
        if self._is_here(target):
            self._spawn_here(name, function, self._as_sent((function, *args))[1:], spawning.find_for_us)
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
        """Create a port of this name and have it run its init function, in a turn of its own."""
        port = self._create(name, is_entered=False)

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

        self._start_port(port, (init, (), False))

    def _start_port(self, port: Port, main: tuple[Handler, Message, bool]) -> None:
        """Enter a port that was made, and have it run what is its ``main``: both, or neither if something strikes."""
        port.main = main
        self._ports[port.id] = port
        try:
            self._scheduler.enqueue(port)
        except BaseException:
            if port.state == IDLE:
                del self._ports[port.id]
            raise


def _killer(node: LocalNode, victim: object) -> Handler:
    """Return an action that passes an abnormal death on."""

    def pass_on(*reason: Any) -> None:
        if reason:
            _with_reason(functools.partial(node.kil, victim), *reason)

    return pass_on


def _with_reason(call: Handler, *reason: Any) -> None:
    """Hand a reason on; in words, if it cannot travel to another node."""
    try:
        call(*reason)
    except (UnencodableMessageError, MessageTooLargeError):
        call(*in_words(reason))


def _handlers(port: Port) -> Handlers:
    # Make, test, store: a finalizer may register handlers while these are made.
    made = Handlers()
    if port.handlers is None:
        port.handlers = made
    return port.handlers


def _close_all(objects: tuple[Any, ...]) -> None:
    for thing in objects:
        close = getattr(thing, "close", None) or getattr(thing, "cancel", None)
        if callable(close):
            try:
                close()
            except Exception as error:  # noqa: BLE001  # the others are to be closed all the same
                _log.error("mon_guard: closing %s failed", quoted(thing), exc_info=error)
