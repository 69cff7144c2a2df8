# SPDX-License-Identifier: MIT
"""How running children are stopped: those of supervisors, and those of task groups."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from aemp_gevent.errors import NodeShutDownError
from aemp_gevent.otp.requests import ask_to_stop
from aemp_gevent.runtime.logs import Log
from aemp_gevent.toolkit import PortDeath, death_of

if TYPE_CHECKING:
    from aemp_gevent import Node
    from aemp_gevent.otp.children import Child

SHUTDOWN = "shutdown"
"""The reason that a child gets when its supervisor stops it."""

KILLED = "killed"
"""The reason of a child that did not stop in time, or is not given any."""

LAST_SECONDS = 1.0
"""How long a child that was killed is waited for."""

_log = Log()


def stop_children(node: Node, running: Iterable[tuple[Child, str]], who: str, *, together: bool = False) -> None:
    """Stop running children, and wait until they have ended. Switches.

    If that is interrupted, such as by the death of the port that runs this, all that are left are killed at once.

    Args:
        node: The node of their supervisor.
        running: The children in the order in which they stop, with their ports. An iterator is asked for the next one
            when the one before has ended.
        who: The supervisor, for the log.
        together: Whether all stop at the same time, and not one after another.
    """
    left = iter(running)
    begun: list[Stopping] = []
    try:
        if together:
            began = monotonic()
            begun.extend(Stopping(node, child, port) for child, port in left)
            for each in begun:
                each.wait(who, monotonic() - began)
        for child, port in left:
            begun = [Stopping(node, child, port)]
            begun[0].wait(who)
    except BaseException:
        with suppress(NodeShutDownError):  # which has killed them
            for each in begun:
                each.kill()
            for _child, port in left:
                node.kil(port, KILLED)
        raise


class Stopping:
    """The stop of a running child. Making one begins it, without switching.

    Args:
        node: The node of its supervisor.
        child: What it is.
        port: Its port.
    """

    def __init__(self, node: Node, child: Child, port: str) -> None:
        self._node = node
        self._child = child
        self._port = port
        self._death: PortDeath = death_of(port, node=node)
        if child.shutdown == 0:
            node.kil(port, KILLED)
        elif child.is_server:
            ask_to_stop(node, port, SHUTDOWN)
        else:
            node.kil(port, SHUTDOWN)

    def wait(self, who: str, spent: float = 0.0) -> None:
        """Wait until the child has ended; kill it if that takes too long, and log that. Switches.

        Args:
            who: The supervisor, for the log.
            spent: How many of the seconds that the child may take have passed.
        """
        seconds = self._child.shutdown
        with self._death as death:
            # get() would mistake a Timeout of somebody else for its own.
            death.wait(timeout=None if seconds is None else max(seconds - spent, 0.0))
            if death.ready():
                return
            if seconds:
                text = "%s: the child %s (%s) did not stop within %g s, and is killed"
                _log.warning(text, who, self._child.title, self._port, seconds)
            self.kill()
            death.wait(timeout=LAST_SECONDS)
            if not death.ready():
                _log.log(logging.ERROR, "%s: the child %s (%s) is still running", who, self._child.title, self._port)

    def kill(self) -> None:
        """Give the child no more time. Never switches."""
        self._node.kil(self._port, KILLED)
