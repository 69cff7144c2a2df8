# SPDX-License-Identifier: MIT
"""Messages and kills to the ports of a node, and what happens to those that reach no port."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aemp_gevent.addresses import ids
from aemp_gevent.errors import (
    InvalidPortError,
    NodePortError,
)
from aemp_gevent.node.direct_sending import DirectSending
from aemp_gevent.node.node_ports import NodePorts
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import REMOTE
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime import hints, threads
from aemp_gevent.runtime.logs import Brief

# Compiled, this name stands for a C function (c_calls.pxd), to which nothing can be assigned.
get_ident: Callable[[], int]
globals().update(get_ident=threads.get_ident)

SENDING = (__name__, DirectSending.__module__)
"""The modules whose lines are not those of the code that sends."""


class Sending(NodePorts):
    """A node that sends messages: ``snd``, ``snd_nowait`` and ``kil``."""

    def _begin(self) -> None:
        super()._begin()
        self._dropped_aloud = False

    def snd_nowait(self, port: object, *msg: Any) -> None:
        """Send a message like :meth:`snd`, but never pause: raise ``LinkBusyError`` instead, having sent nothing.

        For code that must not wait and can drop the message or send it later. For a
        port of this node it is the same as :meth:`snd`. Any native thread may call it.

        Raises:
            LinkBusyError: More than ``high_water_bytes`` wait to be sent to that node, and this would wait as well.
            InvalidPortError, UnencodableMessageError, MessageTooLargeError: As in :meth:`snd`.
        """
        self._check_open("snd_nowait()")
        target = self._find(port)
        if target is None:
            parts = self._split_or_drop("snd_nowait()", port)
            if parts is None:
                return
            node, name = parts
            if not self._is_here(node):
                self._send_remote(node, name, msg, pausing=False)
                return
        elif target.state == REMOTE:
            node, name = self._split_port(target.id)
            self._send_remote(node, name, msg, pausing=False)
            return
        self.snd(port, *msg)

    def _send_elsewhere(self, port: object, msg: Message) -> None:
        """Send what :meth:`snd` does not send itself: to an object whose str() is a port ID, a missing port or a node.

        While every message must be checked, to any port.
        """
        self._check_open("snd()")
        target = self._find(port)
        if target is not None:
            self._scheduler.deliver(target, msg if target.state == REMOTE else self._as_sent(msg))
            return
        parts = self._split_or_drop("snd()", port)
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

    def _split_or_drop(
        self, call: str, port: object, *, may_be_node: bool = True, wanted: str = ""
    ) -> tuple[str, str] | None:
        """Return the two parts of a port ID; in a port's code, log an invalid one and return None.

        There it most likely came with a message, as the port to answer to, and the sender must not be able
        to kill the port that answers.

        Raises:
            InvalidPortError, NodePortError: It is not a port ID, and the call does not come from a port's code.
        """
        try:
            parts = self._split_port(port)
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
        line = hints.calling_line(*SENDING)
        is_news = line is not None and self._hints.is_due("port", line)
        log = self._scheduler.log if is_news else self._scheduler.complaints.log
        text = "port %s: %s had no effect: %s; called at %s %s"
        log(logging.WARNING if is_news else logging.DEBUG, text, port_id, call, why, line, hints.ONCE)
        return None

    def _no_such_port(self, port: str, name: str, msg: Message) -> None:
        """Drop a message to a port of this node that never existed or is dead."""
        line = hints.calling_line(*SENDING)
        if line is None or not self._hints.is_due("port", line):
            self._scheduler.complaints.log(
                logging.DEBUG, "%s to port %s dropped: there is no such port", Brief(msg), port
            )
            return
        if ids.is_unique_name(name):
            why = "it is dead; monitor a port to learn of its death"
        else:
            names = (known.partition("#")[2] for known in list(self._ports))
            given = (known for known in names if known and not ids.is_unique_name(known))
            why = f"this node has no such port{hints.nearest(name, given)}"
        text = "%s to port %s dropped: %s; sent at %s %s"
        self._scheduler.log(logging.WARNING, text, Brief(msg), port, why, line, hints.ONCE)

    def _send_remote(self, node: str, name: str, msg: Message, *, pausing: bool = True) -> None:
        """Drop a message to another node: a private node has no links. ``LinkedNode`` sends it."""
        # One warning: nearly always a call of initialise_node() is missing.
        level, self._dropped_aloud = logging.DEBUG if self._dropped_aloud else logging.WARNING, True
        text = "%s to %s dropped: this node is private; call initialise_node() first"
        self._scheduler.log(level, text, Brief(msg), f"{node}#{name}" if name else node)

    def _node_request(self, msg: Message) -> None:
        """Ignore a message to the node port of a private node. ``LinkedNode`` handles it."""

    def kil(self, port: object, *reason: Any) -> None:
        """Kill a port with a reason, or without one for a normal death: queue the kill and return. Never switches.

        The kill comes after the messages sent before it. Killing a dead port
        does nothing: the first kill wins. ``kil(SELF())`` returns, too: the
        handler keeps running until it waits. Any native thread may call it.

        Raises:
            NodePortError: It is a node port, which lives as long as its node.
            InvalidPortError: It is not a port ID. In a port's code both kills are dropped, as in :meth:`snd`.
            UnencodableMessageError: The port is on another node, and an element of the reason cannot travel there.
            MessageTooLargeError: The reason is too large for another node.
        """
        target: Any = self._find(port)
        if target is not None and target.state != REMOTE:
            scheduler = self._scheduler
            if self._is_strict:
                reason = self._as_sent(reason)
            if get_ident() != scheduler.thread and scheduler.is_foreign:
                scheduler.kill_from_afar(target, reason)
            else:
                scheduler.kill(target, reason)
            return
        parts = self._split_or_drop("kil()", port, may_be_node=False)
        if parts is not None and not self._is_here(parts[0]):
            self._kill_remote(*parts, reason)

    def _kill_remote(self, node: str, name: str, reason: Reason) -> None:
        """Ignore the kill of a port of another node: a private node has no links. ``LinkedNode`` sends it."""
