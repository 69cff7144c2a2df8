# SPDX-License-Identifier: MIT
"""Taps: what sees each message to one port before that gets it.

A tap takes the place of the port's mailbox, so that nobody pays for it while there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import Port, activate, make_inbox


class MailboxTap:
    """A mailbox that shows each message to a function, and then puts it into the port's inbox.

    Args:
        port: The port. A killed one gets no tap.
        see: Called with each message, in the greenlet or native thread that sends it. It must neither switch nor raise.
    """

    __slots__ = ("_port", "_see")

    def __init__(self, port: Port, see: Callable[[Message], None]) -> None:
        self._port = tapped = cast("Any", port)  # Any: its mailbox has no type for a tap, which few ports have
        self._see = see
        made = make_inbox(port)
        cell = activate(port)
        # Tests and stores are one step for other threads, as in Port.append.
        if tapped.mailbox is tapped:
            cell.inbox = made
            tapped.mailbox = self
        if tapped.mailbox is cell.inbox:
            tapped.mailbox = self

    def append(self, message: Message) -> None:
        """Show a message, and deliver it. This is the mailbox's part of ``snd``."""
        self._see(message)
        port = self._port
        if port.mailbox is not NOWHERE:  # as in WrittenInbox.put
            port.cell.inbox.append(message)
            if not port.state:
                port.cell.scheduler.enqueue(port)

    def close(self) -> None:
        """Give the port its own mailbox back."""
        port = self._port
        if port.mailbox is self:
            port.mailbox = port.cell.inbox
