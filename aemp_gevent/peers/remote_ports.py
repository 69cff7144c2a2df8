# SPDX-License-Identifier: MIT
"""All ports of another node that this node knows of: deaths and losses are reported to their monitors here.

What one port is, and what *shunned* means, is in :mod:`aemp_gevent.peers.remote_port`; what the peer monitors of
this node, in :mod:`aemp_gevent.peers.peer_monitors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from aemp_gevent.peers.kept_watches import MAX_KEPT, MAX_KEPT_VIRTUAL, KeptWatches
from aemp_gevent.peers.remote_port import ClosedMailbox, RemotePort, Sender
from aemp_gevent.ports.monitors import LastAction
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.reasons import MONITOR_REFUSED, Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.runtime.tracing import TRACING
from aemp_gevent.wire.vocabulary import MON0, MON1

MAX_REMOTE_PORTS = 10_000
"""Remote ports remembered per peer without need, only to find them faster: 250 bytes each."""

MAX_VIRTUAL_PORTS = 32
"""The same for a peer whose link others carry: one real peer can bring thousands of these."""

MAX_SENT_ONCE = 1000
"""Names of ports remembered that got one message; for a peer whose link others carry, ``MAX_VIRTUAL_PORTS``."""

MAX_SHUNNED_PORTS = 10_000
"""Past this the whole node is shunned, port by port until monitored again, instead of remembering which."""


class RemotePorts:
    """The ports of one peer that this node knows of.

    Args:
        peer: Whose they are.
        scheduler: Runs this node's ports, and has these in its table, too.
        is_virtual: Whether others carry the peer's link.
    """

    def __init__(self, peer: Sender, scheduler: Scheduler, *, is_virtual: bool = False) -> None:
        self._peer = peer
        self._is_virtual = is_virtual
        self.scheduler = scheduler
        self._ports: dict[str, RemotePort] = {}
        self._sweep_at = self._most
        self._are_shunned = False  # all that were not monitored again
        self._orphans: dict[RemotePort, None] = {}  # in the order they were spawned
        self.kept = KeptWatches(peer, scheduler, MAX_KEPT_VIRTUAL if is_virtual else MAX_KEPT)
        """The watches that outlive their last monitor here."""
        self._sent_once: set[str] = set()  # the names of unknown ports that got one message
        self._untold: dict[RemotePort, Reason] = {}  # losses whose report was struck, and not completed

    @property
    def _most(self) -> int:
        return MAX_VIRTUAL_PORTS if self._is_virtual else MAX_REMOTE_PORTS

    def get(self, name: str) -> RemotePort:
        """Return the port of this name over there; the same one each time while it is needed."""
        port = self._ports.get(name)
        if port is None:
            if len(self._ports) >= self._sweep_at:
                self._forget_unneeded()
                if self._are_shunned and len(self._ports) >= self._most:
                    # Those that were monitored again, and are no longer, are like all others.
                    self._forget([port for port in self._all() if not (port.is_watched or port.is_kept or port.loss)])
                # Where most are needed, looking at all of them for each new one would be quadratic.
                self._sweep_at = max(self._most, 2 * len(self._ports))
            port = self._ports[name] = RemotePort(self._peer, self, name)
            port.is_shunned = self._are_shunned and port.has_unique_name
            self.settle(port)
            self.scheduler.table.add(port)  # type: ignore[arg-type]  # see RemotePort
        return port

    def is_unknown(self, name: str) -> bool:
        """Return whether nothing about a port is known, so that it gets messages without being remembered."""
        return name not in self._ports and not self._are_shunned

    def send(self, name: str, message: Message) -> None:
        """Send a message to a port that may be unknown. It is remembered with its second message: most get one answer.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        once = self._sent_once
        if not name or name in once or not self.is_unknown(name) or TRACING.tracer is not None:
            once.discard(name)
            self.get(name).mailbox.append(message)
            return
        if len(once) >= (MAX_VIRTUAL_PORTS if self._is_virtual else MAX_SENT_ONCE):
            once.clear()
        self._peer.post([name, *message])
        once.add(name)

    def died(self, name: str, reason: Reason) -> None:
        """Report the death of one of them to its monitors."""
        port = self._ports.get(name)
        if port is not None and name:
            self.kept.drop(port)
            if port.is_watched and reason[:2] == (MONITOR_REFUSED, name):
                # The peer had no room: it has some when it watches nothing without a monitor.
                self.kept.end_all()
                if port.asked_at < self.kept.clearances:
                    port.asked_at = self.kept.clearances
                    self._peer.send_if_connected(["", MON1, name])
                    return
            port.is_shunned = self._are_shunned and port.has_unique_name
            if port.is_spawned and port.monitors is None and reason:  # as in the death of a port of this node
                port.monitors = self.scheduler.owner.unmonitored_death(port.id, reason)
            port.is_spawned = False
            self._tell(reason, [port])

    def missed(self, name: str, reason: Reason) -> None:
        """Report to the monitors of one of them that a message to it was lost."""
        port = self._ports.get(name)
        if port is not None and port.is_watched:
            self._tell(reason, [port])
            if not port.is_spawned:
                self.kept.drop(port)
                self._peer.send_if_connected(["", MON0, name])

    def all_lost(self, reason: Reason, *, shun: bool, was_up: bool) -> None:
        """Report to the monitors of all of them that the link is lost, or could not be made.

        Args:
            reason: Why.
            shun: Whether they may be alive, and get nothing before they are monitored again, if their
                names are theirs alone; else only until the loss was reported.
            was_up: Whether what was sent to them may have arrived.
        """
        self.kept.drop_all()
        self._sent_once.clear()
        monitored = [port for port in self._all() if port.is_watched]
        self._note(reason, monitored)  # first: a call that is struck later and begins again finds fewer of them
        for port in monitored:
            if port.is_spawned:
                if was_up:  # else it never was
                    port.is_shunned = True
                    self._orphans[port] = None
                port.is_spawned = False
            elif shun and port.has_unique_name:
                port.is_shunned = True
        self._tell(reason, monitored)
        if shun and sum(port.is_shunned for port in self._all()) > MAX_SHUNNED_PORTS:
            self._shun_all()
        self._forget_unneeded()

    def _tell(self, reason: Reason, ports: list[RemotePort]) -> None:
        """Fire the monitors of ports, which get nothing more before these ran."""
        self._note(reason, ports)
        losses = self._untold
        if not losses:
            return
        try:
            self._untold = {}
            see_through(self._tell_now, losses)  # a loss that was noted must be reported
        except BaseException:
            # Struck twice, if any are left: the loss of the link, which follows, reports them.
            self._untold = {**losses, **self._untold}
            raise

    def _note(self, reason: Reason, ports: list[RemotePort]) -> None:
        for port in ports:
            self._untold.setdefault(port, reason)

    def _tell_now(self, losses: dict[RemotePort, Reason]) -> None:
        for port, reason in losses.items():  # all of them before anybody can react
            port.loss = reason
            self.settle(port)
        for port, reason in losses.items():
            port.fire(self.scheduler, reason, partial(self._tell_last, port, reason))
        losses.clear()

    def _tell_last(self, port: RemotePort, reason: Reason) -> None:
        """Open a port again, as the last of its monitors runs now: what that does is often to monitor the port again.

        With late monitors it stays closed until the last of those runs: what was sent since they came is lost, and
        they must hear of it before anything is sent again. They come next, and so do those that the last action sets.
        """
        if port.loss is reason and port.late:
            self.scheduler.enqueue_first([LastAction(None, partial(self._tell_late, port, reason))])
        else:
            self._told(port, reason)

    def _tell_late(self, port: RemotePort, reason: Reason) -> None:
        if port.loss is reason and port.late:
            *others, last = port.late
            self.scheduler.enqueue_first([*others, LastAction(last, partial(self._told, port, reason))])
            port.late = ()
        else:
            self._told(port, reason)

    def _told(self, port: RemotePort, reason: Reason) -> None:
        # Begun again wherever it is struck, and made twice if the call that queued it was struck.
        if port.loss is reason:
            # Later than the late: next, but the port is open. Monitors that always monitor again would be late forever.
            self.scheduler.enqueue_first(port.late)
            port.late = ()
            port.loss = None
        self.settle(port)  # also if it was not settled the last time
        if self._ports.get(port.name) is port and self._can_forget(port):
            self._forget([port])

    def settle(self, port: RemotePort) -> None:
        """Send the messages that wait for a port, or drop them."""
        is_shunned = port.is_shunned and not port.is_watched
        is_closed = port.name and (is_shunned or port.loss is not None)
        if not is_closed:
            port.mailbox = port
        elif port.mailbox is port:
            port.mailbox = ClosedMailbox(port, self.scheduler)

    def _shun_all(self) -> None:
        if not self._are_shunned:
            self._are_shunned = True
            text = (
                "more than %d ports of %s were reported dead: all its ports are shunned until they are monitored again"
            )
            self.scheduler.log_soon(logging.WARNING, text, MAX_SHUNNED_PORTS, self._peer.node)
        for port in self._all():
            if not port.is_watched and port.has_unique_name:
                port.is_shunned = True
                self.settle(port)

    def returned(self) -> None:
        """Kill the orphans, as the link to the same process is up again, and nothing was sent yet."""
        for port in self._all():
            if port.is_watched:
                port.is_shunned = False  # it was monitored again, and now that counts
        for port in self._orphans:
            port.kill()

    def see_orphans_die(self) -> None:
        """Monitor the orphans that were killed, once everything that waited for the link was sent."""
        # Behind what waited, as somebody may have monitored one meanwhile, and taken that back.
        orphans, self._orphans = self._orphans, {}
        for port in orphans:
            port.see_it_die()

    def reincarnated(self) -> None:
        """Forget which ports were reported dead, and the orphans, as another process has the node ID."""
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

    def _can_forget(self, port: RemotePort) -> bool:
        """Return whether forgetting it changes nothing."""
        is_usual = port.is_shunned == (self._are_shunned and port.has_unique_name) and port.loss is None
        return is_usual and not (port.is_watched or port.is_kept) and port not in self._orphans

    @property
    def are_monitored(self) -> bool:
        """Whether anybody here monitors any of them."""
        return any(port.is_watched for port in self._all())

    @property
    def need_a_link(self) -> bool:
        """Whether anybody here would notice that the link is gone."""
        return bool(self._orphans) or any(port.is_watched or port.loss is not None for port in self._all())

    @property
    def can_be_forgotten(self) -> bool:
        """Whether forgetting all of them changes nothing."""
        return not self._are_shunned and all(map(self._can_forget, self._all()))

    def forget_all(self) -> None:
        """Forget all of them."""
        self._forget(self._all())

    def _forget_unneeded(self) -> None:
        self._forget([port for port in self._all() if self._can_forget(port)])

    def _forget(self, ports: Iterable[RemotePort]) -> None:
        for port in ports:
            self.scheduler.table.remove(port)  # type: ignore[arg-type]  # see RemotePort
            del self._ports[port.name]  # last, so that a struck call finds the port again
