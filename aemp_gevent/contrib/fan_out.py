# SPDX-License-Identifier: MIT
"""Sending to all other processes of an application: each has a port in a group of the directory.

A process is in the group before :meth:`FanOut.open` returns, and the others know it, so it misses nothing
that they send from then on; and it knows all that were in the group before. If some nodes cannot be reached within a
few seconds, a warning says so. Messages of one process arrive at each other one in the order in which it sent them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from gevent.event import Event
from gevent.lock import RLock

from aemp_gevent.calls import serve
from aemp_gevent.contrib.joining import MeshURL
from aemp_gevent.contrib.per_process import PerProcess
from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.node.access import ports_host_of, seeds_down, unheard_nodes
from aemp_gevent.node.lasting_port import LastingPort
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log

_PATIENCE_SECONDS = 5.0
"""How long to wait until it is known where the others are."""

_MAX_NAMED = 5
"""How many nodes a warning names."""

_IN_PART = "%s: not all other processes may be known yet, and these miss what is sent now: %s"
_NO_ANSWER = "no answer yet"

_log = Log()


class FanOut:
    """A group of processes, of which each sends to all others.

    Args:
        group: The group's name.
        url: The nodes to join.
        take: Called with each message of the others, as a handler; None: this process only sends. It must not trust
            them: peers may send anything.
        call: What needs the group, for the text of errors.
        node: The node; None: the default node.
    """

    def __init__(
        self, group: str, url: MeshURL, take: Callable[..., object] | None, call: str, node: Node | None = None
    ) -> None:
        self._group = group
        self._url = url
        self._take = take
        self._call = call
        self._node = node
        self._membership = PerProcess(_Membership)

    def open(self) -> _Membership:
        """Enter the group, and wait until the others know; only the first call in a process does so.

        Raises:
            PrivateNodeError: This process has not joined other nodes, and the URL has no name.
            AempError: The same as :func:`~aemp_gevent.contrib.join_host`.
        """
        membership = self._membership.get()
        if not membership.is_open:
            with membership.opening:
                if not membership.is_open:
                    membership.open(self._url.join(self._call, self._node), self._group, self._take, self._call)
        return membership

    def send(self, *message: Any, instead: Callable[[], tuple[Any, ...]] | None = None) -> int:
        """Send a message to all others, and return how many there are. Switches while a link's buffer is full.

        Args:
            message: The message.
            instead: Makes another one, if this one cannot travel to another node; all that have not got this one
                get that one.

        Raises:
            PrivateNodeError, AempError: As in :meth:`open`.
            DirectoryTimeout, DirectoryUnavailableError: It is not known where the others are; nothing was sent.
            UnencodableMessageError, MessageTooLargeError: The message cannot travel to another node.
        """
        membership = self.open()
        with membership.in_turn():
            return membership.send(message, instead)


class _Membership:
    """What a process has in the group."""

    def __init__(self) -> None:
        self.opening = RLock()
        self.is_open = False
        self._node: Node
        self._group = ""
        self._port: LastingPort | None = None
        self._last = Event()  # set when all have sent
        self._last.set()

    def open(self, node: Node, group: str, take: Callable[..., object] | None, call: str) -> None:
        """Enter the group, and wait until it is known, and the others know."""
        self._node = node
        self._group = group
        if take is not None and self._port is None:  # None: this call was not interrupted before
            self._port = LastingPort(node, lambda port: self._enter(port, take))
            self._port.open()
        node.grp_get(group)  # from now on a copy of the group is kept here
        is_whole = node.wait_for_seeds(_PATIENCE_SECONDS)
        unknown = {**seeds_down(node), **unheard_nodes(node)}
        if unknown or not is_whole:
            named = "; ".join(f"{name}: {why or _NO_ANSWER}" for name, why in islice(unknown.items(), _MAX_NAMED))
            _log.warning(_IN_PART, call, named or _NO_ANSWER)
        self.is_open = True

    def _enter(self, port: str, take: Callable[..., object]) -> None:
        self._node.rcv(port, take)
        self._node.grp_reg(self._group, port)

    @contextmanager
    def in_turn(self) -> Generator[None, None, None]:
        """Wait for the greenlets that came before, so that none overtakes one that is paused between two recipients."""
        before, mine = self._last, Event()
        self._last = mine
        try:
            before.wait()
            yield
        finally:
            if before.ready():
                mine.set()
            else:  # this greenlet was killed while it waited
                before.rawlink(lambda _before: mine.set())

    def send(self, message: tuple[Any, ...], instead: Callable[[], tuple[Any, ...]] | None) -> int:
        """Send a message to all others of the group."""
        node = self._node
        known = node.grp_get(self._group) or node.db_wait(self._group, _anything, _PATIENCE_SECONDS)
        host = ports_host_of(node)
        own = None if self._port is None else self._port.id
        others = [port for port in known if port != own and serve.is_port(host, port)]
        # Other nodes first: if the message cannot travel, nobody has got it.
        for port in sorted(others, key=lambda port: host.find(port) is not None):
            try:
                node.snd(port, *message)
            except UnencodableMessageError:
                if instead is None:
                    raise
                message, instead = instead(), None
                node.snd(port, *message)
        return len(others)


def _anything(_entries: object) -> bool:
    return True
