# SPDX-License-Identifier: MIT
"""``snd`` to a port that is found at once: the hot path.

Messages to all other ports are sent by :mod:`aemp_gevent.node.sending`. Compiled, ``direct_sending.pyx`` takes
the place of this module: it does the same with C functions, a test for which would cost every message in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import QUEUED, Receiver
from aemp_gevent.ports.scheduler import Scheduler


class DirectSending:
    """What a node and all its parts begin with.

    Args:
        scheduler: Runs the node's ports.
        direct: See below.
    """

    def __init__(self, scheduler: Scheduler, direct: Mapping[str, Receiver]) -> None:
        self._scheduler = scheduler
        self._direct = direct
        """Where :meth:`snd` looks first: the table of ports, or an empty one while every message must be checked."""

    def snd(self, port: object, *msg: Any) -> None:
        """Send a message to a port: queue it and return. ``snd(*msg_with_port_first)`` works as well.

        A local port gets the message by reference: do not change it afterwards. For another node it
        is copied now. The call never fails because a node is unreachable (monitor the port to
        learn of that). It switches greenlets only when it leaves a link's buffer
        above its high-water mark. Messages from one node to one port arrive in order.
        Any native thread may call it; where a greenlet would be paused, the whole thread blocks.

        Raises:
            InvalidPortError: It is not a port ID, and the call does not come from a port's code. In a port's code,
                where it most likely came with a message, the message is dropped and a warning names the line.
            UnencodableMessageError: An element cannot travel to another node. A strict node checks all messages.
            MessageTooLargeError: It is larger than ``max_message_bytes``.
            NodeShutDownError: The node was shut down, and the call does not come from a port's code.
        """
        # The hot path: one look-up with the whole ID, then Scheduler.deliver and Scheduler.enqueue
        # written out, because two more calls would cost a quarter. The docstring of aemp_gevent.ports says where
        # interrupts may strike, and which steps are atomic for native threads: a test and what is inside its "if".
        try:
            target = self._direct[port]  # type: ignore[index]  # any object may miss
        except (KeyError, TypeError):
            self._send_elsewhere(port, msg)
            return
        while True:
            if target.state:
                target.mailbox.append(msg)
                return
            scheduler = self._scheduler
            if scheduler.pumped:
                if not target.state:  # again, in one step with what follows
                    target.state = QUEUED
                    try:
                        scheduler.runq.append(target)
                    except BaseException:
                        scheduler.runq += (target,)  # without a call; adding it twice does no harm
                        raise
            else:
                scheduler.ask()

    def _send_elsewhere(self, port: object, msg: Message) -> None:
        """Send a message to a port that :meth:`snd` did not find."""
        raise NotImplementedError
