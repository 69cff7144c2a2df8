# SPDX-License-Identifier: MIT
"""The ports of one node: its ID, and how its ports are named, created and found.

:class:`NodePorts` is what the other parts of a node build on: :mod:`~aemp_gevent.node.sending`,
:mod:`~aemp_gevent.node.monitoring`, :mod:`~aemp_gevent.node.registering`, :mod:`~aemp_gevent.node.running`
and :mod:`~aemp_gevent.node.calling`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, overload

from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.errors import (
    DeadPortError,
    MessageTooLargeError,
    NodePortError,
    NodeShutDownError,
    NotLocalError,
    PortExistsError,
    UnencodableMessageError,
)
from aemp_gevent.node.direct_sending import DirectSending
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.inboxes import BoundedMailbox
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import IDLE, REMOTE, AnyPort, ContextPort, Job, Port, PortsOwner, activate
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime import forking, hints, threads
from aemp_gevent.runtime.quantities import to_count
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import TRACING
from aemp_gevent.wire.limits import MAX_NAME_BYTES, Limits

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)

_WHY_STRICT = (
    "this node is strict (strict=True, or AEMP_STRICT=1 in the environment, as in tests with aemp_gevent's fixtures), "
    "so messages to its own ports must be fit for other nodes, too"
)


class NodePorts(DirectSending):
    """The node ID of a process, and the ports that live in it."""

    def __init__(self) -> None:
        self._begin()
        forking.register(self, NodePorts._is_of_this_thread, type(self)._forked)

    def _begin(self) -> None:
        """Become a node without ports, with an ID that no other node ever had."""
        DirectSending.__init__(self, Scheduler(_Owner(self)), {})
        self._ports = self._scheduler.ports
        self._is_strict = False
        self._is_over = False
        self._new_name = ids.port_names(ids.new_uniq())
        self._id = ids.ANON_PREFIX + ids.new_uniq()
        self._prefix = self._id + "#"
        self._max_name_bytes = MAX_NAME_BYTES
        """The longest name of a node, a port, a family of the directory or a key."""
        self._hints = hints.Hints()
        """The warnings that this node has given, one per place."""
        self._kept: dict[Callable[[Any], Any], Any] = {}
        """What folders above keep for this node, by what made it. A forked child, without ports, has nothing of it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"

    # --- forks ---

    def _is_of_this_thread(self) -> bool:
        """Whether the node belongs to this native thread."""
        return get_ident() == self._scheduler.thread

    def _forked(self) -> None:
        """Become a fresh private node in a forked child; the parent process keeps the former node."""
        self._scheduler.abandon()
        self._begin()

    # --- settings that each call depends on ---

    def _open_ports(self) -> None:
        """Choose how messages to local ports are sent: before the first port, and again with the settings."""
        self._is_strict = self._wants_strict()
        self._direct = {} if self._is_strict or self._is_over else self._ports

    def _wants_strict(self) -> bool:
        variable = "AEMP_STRICT"
        text = os.environ.get(variable)
        if not text:
            return False
        from aemp_gevent.settings.sources import read_setting  # noqa: PLC0415  # only nodes with links and strict ones need it

        return bool(read_setting("strict", text, f"environment variable {variable}"))

    def _close_ports(self) -> None:
        """Refuse calls that need a node from now on, because it was shut down."""
        if self._is_over:
            return
        self._is_over = True
        self._direct = {}
        new_name = self._new_name

        def no_name() -> str:
            self._check_open("creating a port")
            return new_name()

        # Every new port takes a name first, so that nothing else needs to check.
        self._new_name = no_name

    def _check_open(self, call: str) -> None:
        """Refuse a call after the node was shut down, unless it comes from a port's code, which may finish its work.

        Raises:
            NodeShutDownError: The node was shut down; the text names ``call``.
        """
        if self._is_over and not isinstance(getcurrent(), Runner):
            raise NodeShutDownError(call, self._id)

    def _as_sent(self, message: Message) -> Message:
        """Return a message as another node would get it if this node is strict; otherwise return it unchanged.

        Raises:
            UnencodableMessageError, MessageTooLargeError: It cannot travel. The text says that the node is strict.
        """
        if not self._is_strict:
            return message
        try:
            # Behind a port's name, so that its tag does not make it a request.
            return tuple(copy_as_sent(["port", *message], self._limits)[1:])
        except (UnencodableMessageError, MessageTooLargeError) as error:
            error.add(_WHY_STRICT)
            raise

    @property
    def _limits(self) -> Limits:
        """The limits on the size of messages."""
        from aemp_gevent.settings.fields import Settings  # noqa: PLC0415  # only nodes with links and strict ones need it

        return Limits(Settings.max_message_bytes, Settings.max_message_elements)

    # --- identity ---

    def NODE(self, port: object = None) -> str:
        """Return this node's ID or, with an argument, the node part of that port ID.

        Raises:
            InvalidPortError: The argument is not a port ID.
        """
        return self._id if port is None else self._split_port(port)[0]

    def node_of(self, port: object) -> str:
        """Return the node part of a port ID; a node ID is returned unchanged.

        Raises:
            InvalidPortError: The argument is not a port ID.
        """
        return self._split_port(port)[0]

    def _split_port(self, port: object) -> tuple[str, str]:
        """Return the node ID and the port name of a port ID; the name is ``""`` for a node port.

        Raises:
            InvalidPortError: The argument is not a port ID.
        """
        if isinstance(port, str):
            # Nearly all IDs, and nothing can be wrong with them. A character takes at most four bytes.
            node, _, name = port.partition("#")
            if name.isalnum() and 4 * len(name) <= self._max_name_bytes and self._was_met(node):
                return node, name
        return self._split_any_port(port)

    def _split_any_port(self, port: object) -> tuple[str, str]:
        return ids.split_port(port, self._max_name_bytes)

    def _was_met(self, node: str) -> bool:
        """Return whether this is the ID of a node that this one has been linked with, or its own."""
        return node == self._id

    def _is_here(self, node: str) -> bool:
        return node == self._id

    def _rename(self, node_id: str) -> None:
        """Change the node ID; port IDs made before keep working inside the process."""
        former, self._id, self._prefix = self._prefix, node_id, node_id + "#"
        self._scheduler.table.rename(former, self._prefix)

    # --- ports ---

    def port(self, callback: Handler | None = None, *, limit: int | None = None, context: Context | None = None) -> str:
        """Create a port and return its ID. Never switches.

        Args:
            callback: Called with ``*msg`` for every message (a *miniport*). Returning ``DONE``
                destroys the port, and so does True from a Python function. None: no handlers yet; messages
                without a handler are discarded and logged at debug level.
            limit: The most messages that may wait in the mailbox. One more kills the port with
                ``("mailbox_overflow", limit)``. None: no limit.
            context: The ``contextvars.Context`` in which its handlers run; None: an empty one.

        Raises:
            TypeError: The callback cannot be called, or calling it would not run its body: it is a generator
                function or an ``async def``. Every call that takes a function refuses these.
        """
        # Written out here, and wherever one more call would be noticed.
        if get_ident() != self._scheduler.thread:
            self._scheduler.check_thread("port()")
        if callback is not None:
            check_callable("port()", callback)
            if TRACING.tracer is not None:
                callback = TRACING.tracer.handled(callback)
        if context is not None and not isinstance(context, Context):
            raise TypeError(f"port(): {quoted(context)} is not a contextvars.Context")
        if limit is not None:
            limit = to_count(limit, "port()", "limit")
        return self._create(self._new_name(), callback, limit, context).id

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, which runs this node's ports."""
        return self._scheduler

    @overload
    def _make(self) -> Port: ...
    @overload
    def _make(self, kind: type[AnyPort]) -> AnyPort: ...
    def _make(self, kind: type[Port] = Port) -> Port:
        """Make a port without handlers, which cannot be reached before it is added to the scheduler's table.

        An interrupt may strike when this returns, so that the caller never gets the port. If it were in the table
        already, it would stay forever.
        """
        return self._create(self._new_name(), kind=kind, is_entered=False)

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
            _ = scheduler.hub  # the node belongs to the thread that makes its first port, not to the first sender's
            if self._direct is not self._ports:
                self._open_ports()
        if port_id in self._ports:
            raise PortExistsError(port_id)
        default = scheduler.default if callback is None else callback
        blank = scheduler.blank
        port = kind(port_id, blank, default) if context is None else ContextPort(port_id, blank, default, context)
        if limit is not None:
            activate(port).inbox = port.mailbox = BoundedMailbox(port, limit, partial(scheduler.overflow, port, limit))
        if is_entered:
            scheduler.table.add(port)
        return port

    def _start_port(self, port: Port, main: tuple[Handler, Message, bool]) -> None:
        """Enter a new port and start its ``main``: both, or neither if an interrupt strikes."""
        activate(port).main = main
        try:
            self._scheduler.table.add(port)
            self._scheduler.enqueue(port)
        except BaseException:
            if port.state == IDLE:
                self._scheduler.table.remove(port)
            raise

    def _local(self, call: str, port: object) -> Port:
        """Return the living local port of this ID, for a call that other native threads may not make.

        Raises:
            InvalidPortError, NotLocalError, NodePortError, DeadPortError: It is not a living local port.
            WrongThreadError: Another native thread makes the call.
        """
        self._scheduler.check_thread(call)
        found = self._find_local(port)
        if found is not None:
            return found
        node, name = self._split_port(port)
        if not self._is_here(node):
            raise NotLocalError(call, str(port), self._id)
        if not name:
            raise NodePortError(call, str(port))
        raise DeadPortError(call, str(port))

    def _find_local(self, port: object) -> Port | None:
        """Return the living local port of this ID, if there is one."""
        found = self._find(port)
        # Ports of other nodes are in the same table, so that snd needs one look-up.
        return None if found is None or found.state == REMOTE else found

    def _find(self, port: object) -> Port | None:
        """Return the port of this ID, local or remote, that is in the table."""
        try:
            found = self._ports.get(port)  # type: ignore[call-overload]  # any object may miss
        except TypeError:  # it cannot be hashed, but its str() may be a port ID
            found = None
        return self._ports.get(str(port)) if found is None else found

    def _registered(self, name: str) -> str | None:
        """Return the ID of the port that is registered under a name."""
        return self._scheduler.table.registered(self._prefix + name)

    def _own_end(self, reason: Reason) -> Reason | None:
        """Return the shutdown of this node as a reason, if an answer is lost for this reason because of it."""
        return None

    def _blocked(self, port: object) -> str:
        """Return for how long the node of a port has been blocked, and where; ``""`` if it is not, or is unknown."""
        return ""

    def _unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        """Return the job for an abnormal death that no monitor saw, if there is one."""
        return None


class _Owner(PortsOwner):
    """A node, as its scheduler knows it."""

    node: NodePorts

    def __init__(self, node: NodePorts) -> None:
        self.node = node

    def unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        return self.node._unmonitored_death(port, reason)  # pyright: ignore[reportPrivateUsage]  # a part of it
