# SPDX-License-Identifier: MIT
"""A port of another node, as this node sees it: where its messages go, and who monitors it here.

**Dead stays dead.** A monitored port of a link that was lost is *shunned*: messages to
it are dropped until it is monitored again, or its node is another incarnation. That is for names that only one port
ever has: a name that a program chose is the address of whichever port holds it, and can be reached again as soon as
the loss was reported. So can all ports of a node that does not say which incarnation it is, such as a Perl
node: the port that was lost could not be distinguished from its successor. If this
node had spawned the port, it is an *orphan*, and killed when the link comes back.

**Watches are kept.** The peer reports the death of a port that is monitored here, because it was asked to. It continues
for a while after the last monitor was cancelled, so that one call after another to the same port asks it once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aemp_gevent.addresses import ids
from aemp_gevent.ports import monitors
from aemp_gevent.ports.monitors import MonitoredRemote
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import REMOTE, Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.tracing import Trace, outgoing
from aemp_gevent.wire.vocabulary import KIL1, MON0, MON1

# Compiled, these names stand for a C function and for 0 (c_calls.pxd). Nothing can be assigned to them.
in_front: Callable[[object, Message], list[Any]]
PURE: bool
globals().update(PURE=True)


class Sender(Protocol):
    """The peer, as far as its ports use it."""

    @property
    def node(self) -> str: ...

    def post(self, packet: list[Any]) -> None:
        """Send or queue a message to a port; may pause the greenlet that sends."""

    def post_call(
        self,
        name: str,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
        trace: Trace | None = None,
    ) -> None:
        """Send or queue a call in a form that the peer understands; may pause the greenlet that sends."""

    def post_traced(self, name: str, message: Message, trace: Trace) -> None:
        """Send or queue a message to a port with its trace; may pause the greenlet that sends."""

    def check_room(self, packet: list[Any]) -> None:
        """Raise ``LinkBusyError`` where ``post`` would pause."""

    def send(self, packet: list[Any]) -> None:
        """Send or queue a packet, and see that there is a link; never switches."""

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet if that needs no new link; never switches."""

    @property
    def is_up(self) -> bool:
        """Whether there is a link."""
        ...

    def connect(self) -> None:
        """Request a link."""


class WatchKeeper(Protocol):
    """What keeps watches."""

    @property
    def clearances(self) -> int:
        """How often all were ended, so that the peer has room for others."""
        ...

    def prepare(self) -> None:
        """Make sure that a watch can be kept with little stack."""

    def keep(self, port: RemotePort) -> None:
        """Keep the watch of a port, whose last monitor was cancelled just now."""


class PeerPorts(Protocol):
    """All ports of the peer."""

    def settle(self, port: RemotePort) -> None:
        """Send the messages that wait for a port, or drop them."""

    @property
    def kept(self) -> WatchKeeper:
        """The watches that outlive their last monitor here."""
        ...


class ClosedMailbox:
    """The mailbox of a port that gets nothing at the moment; a new one for each loss."""

    __slots__ = ("_dropped", "_log", "_port")

    def __init__(self, port: RemotePort, scheduler: Scheduler) -> None:
        self._port = port
        self._log = scheduler.log_soon
        self._dropped = 0

    def append(self, message: Message) -> None:
        """Drop a message; the first one is worth a warning."""
        self._dropped += 1
        if self._port.loss is not None:
            text = "message %d to %s dropped: earlier messages to it were lost, and its monitors have not been told yet"
        else:
            text = "message %d to %s dropped: it was reported dead when the link was lost; monitor it again to reach it"
        self._log(logging.WARNING if self._dropped == 1 else logging.DEBUG, text, self._dropped, self._port.id)


class RemotePort(MonitoredRemote):
    """A port of another node, as this node sees it: where its messages go, and who monitors it here.

    Stands in the same table as local ports and is its own mailbox, so that ``snd`` finds
    both with one look-up and treats them alike. The name ``""`` is the node port,
    whose monitors watch the link.
    """

    __slots__ = (
        "_peer",
        "_ports",
        "asked_at",
        "has_unique_name",
        "is_kept",
        "is_shunned",
        "is_spawned",
        "late",
        "loss",
        "name",
    )

    def __init__(self, peer: Sender, ports: PeerPorts, name: str) -> None:
        super().__init__()
        self._peer = peer
        self._ports = ports
        self.name = name
        self.id = f"{peer.node}#{name}" if name else peer.node
        self.has_unique_name = ids.is_unique_name(name)
        """Whether no other port will ever have its name."""
        self.state = REMOTE
        self.mailbox: Any = self  # Any: what snd wants of a mailbox is append
        self.is_spawned = False
        """Whether this node spawned it, and watches it since then, also while nobody here monitors it."""
        self.is_kept = False
        """Whether the peer still watches it although the last monitor here was cancelled."""
        self.asked_at = 0
        """After how many clearances of kept watches the peer was asked to watch it."""
        self.is_shunned = False
        """Whether it gets nothing before it is monitored again, over a link that is up."""
        self.loss: Reason | None = None
        """What its monitors are about to hear; until they have, it gets no messages: they would arrive after a gap."""
        self.late: Sequence[Job] = ()
        """Monitors that came meanwhile: they will hear the same."""

    @property
    def is_watched(self) -> bool:
        """Whether this node must hear of its death: somebody here monitors it, or this node spawned it."""
        return self.monitors is not None or self.is_spawned

    def append(self, message: Message) -> None:
        """Send a message; the mailbox's part in ``snd``. See :func:`trace_messages`."""
        if _are_traced:
            self.append_traced(message)
        elif PURE:
            self._peer.post([self.name, *message])
        else:
            self._peer.post(in_front(self.name, message))

    def append_traced(self, message: Message) -> None:
        """Send a message with the current trace, if there is one."""
        trace = outgoing()
        if trace is None:
            self._peer.post([self.name, *message])
        else:
            self._peer.post_traced(self.name, message, trace)

    def append_or_refuse(self, message: Message) -> None:
        """Send a message without ever pausing.

        Raises:
            LinkBusyError: Too much is unsent; nothing was sent.
        """
        if self.mailbox is not self:
            self.mailbox.append(message)  # nothing gets there
        else:
            packet = [self.name, *message]
            self._peer.check_room(packet)
            self._peer.send(packet)

    def call(
        self,
        message: Message,
        reply: str,
        left: float | None,
        chain: tuple[str, ...],
        trace: Trace | None = None,
    ) -> None:
        """Send a call: a message with a reply port appended, and more for those who understand it."""
        if self.mailbox is not self:
            self.mailbox.append(message)  # nothing gets there
        elif not self.name:
            self._peer.post(["", *message, reply])
        else:
            self._peer.post_call(self.name, message, reply, left, chain, trace)

    def monitor(self, monitor: Job) -> None:
        """Add a monitor: with one, a shunned port gets messages, and is not shunned any more once the link is up."""
        if self.loss is not None and self.name:
            # Others are still to hear of a loss, so what follows now is lost as well.
            if monitor.died(self.loss):
                self.late = [*self.late, monitor]
            return
        was_watched = self.monitors is not None or self.is_spawned
        was_shunned, mailbox = self.is_shunned, self.mailbox
        monitors.add(self, monitor)
        try:
            if was_shunned and self._peer.is_up:
                self.is_shunned = False
            self.mailbox = self
            if not self.name:
                self._peer.connect()
            elif not (was_watched or self.is_kept):
                self.asked_at = self._ports.kept.clearances
                self._ports.kept.prepare()
                self._peer.send(["", MON1, self.name])
        except BaseException:
            # Struck, or at the recursion limit: nobody over there may know of it, and the next to monitor must ask.
            if was_watched:
                monitors.remove(self, monitor)
            elif self.monitors is monitor:
                self.monitors: Job | dict[Job, None] | None = None
                self.is_shunned, self.mailbox = was_shunned, mailbox
            raise

    def unmonitored(self) -> None:
        """Stop the peer's reports, soon if there is a link: nobody here monitors the port any more."""
        if self.name and not self.is_spawned:
            if self._peer.is_up and self.has_unique_name:
                self._ports.kept.keep(self)
            else:
                self._peer.send_if_connected(["", MON0, self.name])
            self._ports.settle(self)

    def spawned(self) -> None:
        """Note that this node spawned it, and watches it from its first moment. Makes no call."""
        self.is_spawned = True
        self.is_shunned = False  # it was never reported dead
        self.mailbox = self

    def disown(self) -> None:
        """Forget that this node spawned it, so that the loss of the link does not make it an orphan."""
        self.is_spawned = False
        if self.monitors is None:
            self.unmonitored()

    def kill(self) -> None:
        """Kill it, an orphan, over the link that came back."""
        self._peer.send(["", KIL1, self.name, "transport_error", self._peer.node, "its parent lost the link"])

    def see_it_die(self) -> None:
        """Monitor it, an orphan that was killed; it stays shunned."""
        if not self.is_watched:
            self._peer.send(["", MON1, self.name])
        self.is_spawned = True


def trace_messages(wanted: bool) -> None:
    """Send messages to ports of other nodes with their traces from now on, or without; in the whole process."""
    global _are_traced  # noqa: PLW0603  # what is tested for each message must cost nothing
    _are_traced = wanted


_are_traced = False
