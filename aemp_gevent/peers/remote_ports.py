# SPDX-License-Identifier: MIT
"""The ports of another node, as this node sees them: where their messages go, and who monitors them here.

A :class:`RemotePort` stands for a port of the peer in this node's tables. What the peer monitors of this
node is in :mod:`aemp_gevent.peers.watchers`; how packets get to the
peer, and whether there is a link, in :mod:`aemp_gevent.peers.peer`.

**Dead stays dead.** A monitored port of a link that was lost is *shunned*: messages to
it are dropped until it is monitored again, or its node is another incarnation. That is for names that only one port
ever has: a name that somebody gave is the address of whoever holds it, and can be reached again as soon as
the loss was reported. So can all ports of a node that does not say which incarnation it is, such as a Perl
node: nobody could tell the port that was lost from its successor. If this
node had spawned the port, it is an *orphan*, and killed when the link comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from aemp_gevent.addresses import ids
from aemp_gevent.ports import monitors
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Watch
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import REMOTE, Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.wire.vocabulary import CALL, KIL1, MON0, MON1

MAX_REMOTE_PORTS = 10_000
"""Remote ports remembered per peer without need, only to find them faster: 250 bytes each."""

MAX_VIRTUAL_PORTS = 32
"""The same for a peer whose link others carry: one real peer can bring thousands of these."""

MAX_SHUNNED_PORTS = 10_000
"""Past this the whole node is shunned, port by port until monitored again, instead of remembering which."""


def as_message(packet: list[Any]) -> list[Any]:
    """Return a call as the message that other programs understand; other packets as they are."""
    if packet[:2] == ["", CALL]:
        _name, _request, header, name, *message = packet
        return [name, *message, header["reply"]]
    return packet


class Sender(Protocol):
    """The peer, as its ports see it."""

    @property
    def node(self) -> str: ...

    def post(self, packet: list[Any]) -> None:
        """Send or queue a message to a port; may pause the greenlet that sends."""

    def check_room(self) -> None:
        """Raise ``LinkBusyError`` where ``post`` would pause."""

    def send(self, packet: list[Any]) -> None:
        """Send or queue a packet, and see that there is a link; never switches."""

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet if that needs no new link; never switches."""

    @property
    def is_up(self) -> bool:
        """Whether there is a link."""
        ...

    @property
    def understands_calls(self) -> bool:
        """Whether it takes ``call`` requests; as long as nobody knows, yes."""
        ...

    def connect(self) -> None:
        """See that there is a link."""


class _Parent(Job):
    """The monitor of a port that this node spawned: it keeps us informed whether there still is one."""

    __slots__ = ()

    def died(self, reason: Reason) -> bool:
        return False


_PARENT = _Parent(None)


class _Closed:
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


class RemotePort(Watch):
    """A port of another node, as this node sees it: where its messages go, and who monitors it here.

    Stands in the same table as local ports and is its own mailbox, so that ``snd`` finds
    both with one look-up and treats them alike. The name ``""`` is the node port,
    whose monitors watch the link.
    """

    __slots__ = ("_peer", "_ports", "id", "is_shunned", "is_spawned", "late", "loss", "mailbox", "name", "state")

    def __init__(self, peer: Sender, ports: RemotePorts, name: str) -> None:
        super().__init__()
        self._peer = peer
        self._ports = ports
        self.name = name
        self.id = f"{peer.node}#{name}" if name else peer.node
        self.state = REMOTE
        self.mailbox: Any = self  # Any: what snd wants of a mailbox is append
        self.is_spawned = False
        """Whether this node spawned it, and watches it ever since."""
        self.is_shunned = False
        """Whether it gets nothing before it is monitored again, over a link that is up."""
        self.loss: Reason | None = None
        """What its monitors are about to hear; until they did it gets nothing, as that would arrive behind a hole."""
        self.late: Sequence[Job] = ()
        """Monitors that came meanwhile: they will hear the same."""

    @property
    def can_be_shunned(self) -> bool:
        """Whether no other port will ever have its name."""
        return ids.is_unique_name(self.name)

    def append(self, message: Message) -> None:
        """Send a message; the mailbox's part in ``snd``."""
        self._peer.post([self.name, *message])

    def append_or_refuse(self, message: Message) -> None:
        """Send a message without ever pausing.

        Raises:
            LinkBusyError: Too much is unsent; nothing was sent.
        """
        if self.mailbox is not self:
            self.mailbox.append(message)  # nothing gets there
        else:
            self._peer.check_room()
            self._peer.send([self.name, *message])

    def call(self, message: Message, reply: str, left: float | None, chain: tuple[str, ...]) -> None:
        """Send a call: a message with a reply port appended, and more for those who understand it."""
        if self.mailbox is not self:
            self.mailbox.append(message)  # nothing gets there
        elif not self.name or not self._peer.understands_calls:
            self._peer.post([self.name, *message, reply])
        else:
            header: dict[str, Any] = {"reply": reply, "chain": chain}
            if left is not None:
                header["left"] = left
            self._peer.post(["", CALL, header, self.name, *message])

    def monitor(self, monitor: Job) -> None:
        """Add a monitor: with one, a shunned port gets messages, and is not shunned any more once the link is up."""
        if self.loss is not None and self.name:
            # Others are still to hear of a loss, so what follows now is lost as well.
            if monitor.died(self.loss):
                self.late = [*self.late, monitor]
            return
        first = self.monitors is None
        was_shunned, mailbox = self.is_shunned, self.mailbox
        monitors.add(self, monitor)
        try:
            if self._peer.is_up:
                self.is_shunned = False
            self.mailbox = self
            if not self.name:
                self._peer.connect()
            elif first:
                self._peer.send(["", MON1, self.name])
        except BaseException:
            # Struck, or at the recursion limit: nobody over there may know of it, and the next to monitor must ask.
            if not first:
                monitors.remove(self, monitor)
            elif self.monitors is monitor:
                self.monitors: Job | dict[Job, None] | None = None
                self.is_shunned, self.mailbox = was_shunned, mailbox
            raise

    def unwatched(self) -> None:
        """Tell the peer that nobody here monitors the port any more."""
        if self.name:
            self._peer.send_if_connected(["", MON0, self.name])
            self._ports.settle(self)

    def spawned(self) -> None:
        """Watch it from its first moment, as this node spawned it."""
        self.is_spawned = True
        self.is_shunned = False  # nobody ever believed it dead
        monitors.add(self, _PARENT)
        self._ports.settle(self)
        self._peer.send(["", MON1, self.name])

    def kill(self) -> None:
        """Kill it, an orphan, over the link that came back."""
        self._peer.send(["", KIL1, self.name, "transport_error", self._peer.node, "its parent lost the link"])

    def see_it_die(self) -> None:
        """Watch it, an orphan that was told to die; it stays shunned."""
        if self.monitors is None:
            self._peer.send(["", MON1, self.name])
        self.is_spawned = True
        monitors.add(self, _PARENT)


class RemotePorts:
    """The ports of one peer that this node knows of.

    Args:
        peer: Whose they are.
        scheduler: Runs this node's ports; in its table they stand, too.
        is_virtual: Whether others carry the peer's link.
    """

    def __init__(self, peer: Sender, scheduler: Scheduler, *, is_virtual: bool = False) -> None:
        self._peer = peer
        self._is_virtual = is_virtual
        self.scheduler = scheduler
        self._ports: dict[str, RemotePort] = {}
        self._sweep_at = self._most
        self._are_shunned = False  # all that were not monitored anew
        self._orphans: dict[RemotePort, None] = {}  # in the order they were spawned

    @property
    def _most(self) -> int:
        return MAX_VIRTUAL_PORTS if self._is_virtual else MAX_REMOTE_PORTS

    def get(self, name: str) -> RemotePort:
        """Return the port of this name over there; the same one each time while anybody cares."""
        port = self._ports.get(name)
        if port is None:
            if len(self._ports) >= self._sweep_at:
                self._forget_idle()
                if self._are_shunned and len(self._ports) >= self._most:
                    # Those that were monitored anew, and are no more, are like all others again.
                    self._forget([port for port in self._all() if not (port.monitors or port.loss)])
                # Where most are needed, looking at all of them for each new one would be quadratic.
                self._sweep_at = max(self._most, 2 * len(self._ports))
            port = self._ports[name] = RemotePort(self._peer, self, name)
            port.is_shunned = self._are_shunned and port.can_be_shunned
            self.settle(port)
            self.scheduler.table.add(port)  # type: ignore[arg-type]  # see RemotePort
        return port

    def died(self, name: str, reason: Reason) -> None:
        """One of them died: tell who monitors it."""
        port = self._ports.get(name)
        if port is not None and name:
            port.is_shunned = self._are_shunned and port.can_be_shunned
            port.is_spawned = False
            self._tell(reason, [port])

    def missed(self, name: str, reason: Reason) -> None:
        """A message to one of them was lost: tell who monitors it."""
        port = self._ports.get(name)
        if port is not None and port.monitors is not None:
            self._tell(reason, [port])
            if port.is_spawned:
                monitors.add(port, _PARENT)
            else:
                self._peer.send_if_connected(["", MON0, name])

    def all_lost(self, reason: Reason, *, shun: bool, was_up: bool) -> None:
        """The link to all of them is lost, or was never made: tell everybody who monitors any.

        Args:
            reason: Why.
            shun: Whether they may be alive, and must not hear of us before they are monitored again, if their
                names are theirs alone; else only until the loss was reported.
            was_up: Whether what was sent to them may have arrived.
        """
        monitored = [port for port in self._all() if port.monitors is not None]
        for port in monitored:
            if port.is_spawned:
                if was_up:  # else it never was
                    port.is_shunned = True
                    self._orphans[port] = None
                port.is_spawned = False
            elif shun and port.can_be_shunned:
                port.is_shunned = True
        self._tell(reason, monitored)
        if shun and sum(port.is_shunned for port in self._all()) > MAX_SHUNNED_PORTS:
            self._shun_all()
        self._forget_idle()

    def _tell(self, reason: Reason, ports: list[RemotePort]) -> None:
        """Fire the monitors of ports, which get nothing more before these ran."""
        if ports:
            see_through(self._tell_now, reason, ports)  # a loss that was noted must be told

    def _tell_now(self, reason: Reason, ports: list[RemotePort]) -> None:
        for port in ports:  # all of them before anybody can react
            port.loss = reason
            self.settle(port)
        for port in ports:
            port.fire(self.scheduler, reason)
        # Behind the monitors in the run queue.
        self.scheduler.enqueue_job(CallJob(None, self._told, (ports,)))

    def _told(self, ports: list[RemotePort]) -> None:
        late: list[Job] = []
        for port in ports:
            port.loss = None
            late += port.late
            port.late = ()
            self.settle(port)
        # Next, so that nobody sends in between, also behind a hole. Not before the port is open: what they do
        # is often to monitor it anew, and they would be late for ever.
        self.scheduler.enqueue_first(late)
        self._forget([port for port in ports if self._ports.get(port.name) is port and self._is_idle(port)])

    def settle(self, port: RemotePort) -> None:
        """Send the messages that wait for a port, or drop them."""
        is_shunned = port.is_shunned and port.monitors is None
        is_closed = port.name and (is_shunned or port.loss is not None)
        if not is_closed:
            port.mailbox = port
        elif port.mailbox is port:
            port.mailbox = _Closed(port, self.scheduler)

    def _shun_all(self) -> None:
        if not self._are_shunned:
            self._are_shunned = True
            text = (
                "more than %d ports of %s were reported dead: all its ports are shunned until they are monitored again"
            )
            self.scheduler.log_soon(logging.WARNING, text, MAX_SHUNNED_PORTS, self._peer.node)
        for port in self._all():
            if port.monitors is None and port.can_be_shunned:
                port.is_shunned = True
                self.settle(port)

    def returned(self) -> None:
        """The link to the same process is up again, before anything is sent: no orphan of ours may live on."""
        for port in self._all():
            if port.monitors is not None:
                port.is_shunned = False  # it was monitored anew, and now that counts
        for port in self._orphans:
            port.kill()

    def see_orphans_die(self) -> None:
        """Everything that waited for the link was sent: see what became of the orphans."""
        # Behind what waited, as somebody may have monitored one meanwhile, and taken that back.
        orphans, self._orphans = self._orphans, {}
        for port in orphans:
            port.see_it_die()

    def reincarnated(self) -> None:
        """Another process has the node ID: nobody over there was ever believed dead, or is an orphan."""
        self._are_shunned = False
        self._orphans.clear()
        for port in self._all():
            port.is_shunned = False
            self.settle(port)

    def is_closed(self, name: str) -> bool:
        """Return whether messages to this port are dropped."""
        port = self._ports.get(name)
        return port is not None and port.mailbox is not port

    def _all(self) -> list[RemotePort]:
        """Return all of them; a copy, as finalizers and monitors may send to others meanwhile."""
        return list(self._ports.values())

    def _is_idle(self, port: RemotePort) -> bool:
        """Return whether forgetting it changes nothing."""
        is_usual = port.is_shunned == (self._are_shunned and port.can_be_shunned) and port.loss is None
        return is_usual and port.monitors is None and port not in self._orphans

    @property
    def are_monitored(self) -> bool:
        """Whether anybody here monitors any of them."""
        return any(port.monitors is not None for port in self._all())

    @property
    def need_a_link(self) -> bool:
        """Whether anybody here would notice that the link is gone."""
        return bool(self._orphans) or any(port.monitors is not None or port.loss is not None for port in self._all())

    @property
    def are_idle(self) -> bool:
        """Whether forgetting all of them changes nothing."""
        return not self._are_shunned and all(map(self._is_idle, self._all()))

    def forget_all(self) -> None:
        """Forget all of them."""
        self._forget(self._all())

    def _forget_idle(self) -> None:
        self._forget([port for port in self._all() if self._is_idle(port)])

    def _forget(self, ports: Iterable[RemotePort]) -> None:
        for port in ports:
            del self._ports[port.name]
            self.scheduler.table.remove(port)  # type: ignore[arg-type]  # see RemotePort
