# SPDX-License-Identifier: MIT
"""How a slave finds its master: the first of several that takes it in.

A slave's ID contains its master's, so it does not know its own ID before it knows that. It greets as the
slave of the address that it dials; if the node there has another ID, it
connects again as the slave of that. Then it routes a packet to itself: what a master
sends first is either a refusal, or shows that it does not refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent.event import AsyncResult

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import endpoints_of
from aemp_gevent.addresses.name_service import NameService
from aemp_gevent.addresses.resolve import resolve_node
from aemp_gevent.errors import AempError, NoMasterError
from aemp_gevent.links.link import Link, LinkOwner
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.quoting import quoted, worded
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.connector import Connector
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire.vocabulary import REFUSED, VIA

_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 2.0
"""When none of the masters took a slave in, it asks all of them again after this long, doubling, with jitter."""

_SHORTEST_SHARE_SECONDS = 0.5


class Meeting(Protocol):
    """The part of :class:`aemp_gevent.peers.strangers.Strangers` that is used here."""

    def meet(self, transport: Transport, owner: LinkOwner, *, dialled: bool) -> Link:
        """Start a handshake on a connection."""
        ...

    def forget(self, link: Link) -> None:
        """Forget a connection that was in its handshake."""


class MasterSearchHost(Protocol):
    """The network of the node that is to be a slave."""

    node_id: str

    @property
    def settings(self) -> Settings: ...
    @property
    def connector(self) -> Connector: ...

    @property
    def strangers(self) -> Meeting: ...


class MasterCandidate:
    """The owner of a link with a node that may become our master.

    Args:
        host: Our network.
        master: The ID that we believe it has.
        taken_in: Called with the link, and the master's ID, before what came over it is handled.
    """

    def __init__(self, host: MasterSearchHost, master: str, taken_in: Callable[[Link, str], None]) -> None:
        self._host = host
        self._master = master
        self._taken_in = taken_in
        self.outcome: AsyncResult[str] = AsyncResult()
        """Empty when it took us in, its ID when that is another one, or an error."""

    def _say(self, outcome: str) -> None:
        if not self.outcome.ready():
            self.outcome.set(outcome)

    def greeted(self, link: Link) -> None:
        greeting = link.greeting
        assert greeting is not None  # that is what "greeted" means
        if not greeting.is_ours:
            link.fail(f"{greeting.node} is not an aemp_gevent node, and cannot be the master of slave nodes")
        elif greeting.node == self._master:
            link.prove()
        elif ids.is_node_id(greeting.node) and ids.master_of(greeting.node) is None:
            self._host.strangers.forget(link)
            link.close()
            self._say(greeting.node)
        else:
            link.fail(f"{quoted(greeting.node)} cannot be a master")

    def came_up(self, link: Link) -> None:
        here = self._host.node_id
        link.send(["", VIA, here, here, []])

    def begins(self, link: Link, packet: list[Any]) -> bool:
        if packet[:2] == ["", REFUSED]:
            link.fail(f"it refuses this node: {' '.join(map(worded, packet[2:4]))}")
            return False
        self._host.strangers.forget(link)
        self._taken_in(link, self._master)
        self._say("")
        return True

    def ended(self, link: Link) -> None:
        link.fail("it closed the connection")

    def failed(self, link: Link, why: str) -> None:
        self._host.strangers.forget(link)
        if not self.outcome.ready():
            self.outcome.set_exception(OSError(why))

    def requested(self, link: Link, message: list[Any]) -> None:
        """Ignore it: nothing is handled before a master accepts this node, and then the link has another owner."""

    def dropped(self, link: Link, name: str, message: list[Any]) -> None:
        """Ignore it, too."""

    def has_room(self, link: Link) -> None: ...


def join(host: MasterSearchHost, name: str, masters: Sequence[str], taken_in: Callable[[Link, str], None]) -> str:
    """Become a slave of the first of several nodes that takes us in. Blocks.

    Args:
        host: The network of the node that is to be a slave.
        name: The part of its ID before the master's.
        masters: Noderefs, resolved or not.
        taken_in: Called on the hub with the link, and the master's ID.

    Returns:
        The noderef of the master.

    Raises:
        NoMasterError: None did within ``monitor_timeout``.
    """
    patience = host.settings.monitor_timeout
    deadline = monotonic() + patience
    failures: dict[str, str] = {}
    pauses = Backoff(_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS)
    while True:
        for index, master in enumerate(masters):
            share = (deadline - monotonic()) / (len(masters) - index)
            try:
                _ask(host, name, master, max(share, _SHORTEST_SHARE_SECONDS), taken_in)
            except TimeoutError as error:
                failures.setdefault(master, str(error))  # an answer before says more
            except (AempError, OSError) as error:
                failures[master] = str(error)
            else:
                return master
        left = deadline - monotonic()
        if left <= 0:
            raise NoMasterError(failures, patience)
        gevent.sleep(min(pauses.next(), left))


def _ask(host: MasterSearchHost, name: str, master: str, seconds: float, taken_in: Callable[[Link, str], None]) -> None:
    """Ask one master.

    Raises:
        AempError, OSError: It did not take us in.
    """
    deadline = monotonic() + seconds
    noderef = resolve_node(master, NameService(seconds))
    called = noderef
    for _ in range(2):  # the second time with what it calls itself
        host.node_id = ids.slave_id(name, called)
        left = max(deadline - monotonic(), 0.1)
        candidate = MasterCandidate(host, called, taken_in)
        link = host.strangers.meet(host.connector.dial(endpoints_of(noderef), left), candidate, dialled=True)
        try:
            candidate.outcome.wait(timeout=max(deadline - monotonic(), 0.1))
        finally:
            if not candidate.outcome.ready():
                host.strangers.forget(link)
                link.close()
        if not candidate.outcome.ready():
            raise TimeoutError(f"it did not accept this node within {seconds:g} s")
        called = candidate.outcome.get() or ""
        if not called:
            return
    raise OSError("it calls itself by another name each time")
