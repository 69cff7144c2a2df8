# SPDX-License-Identifier: MIT
"""Requests to servers that are not methods of their own, such as to stop.

They are messages with the tag :data:`SYSTEM`, and take their turn among the others. Those that only code of the same
process may make have a :class:`Request` in place of a text: it cannot travel, so no other node can send one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from aemp_gevent.errors import CallTimeout, PortDied
from aemp_gevent.node.access import local_id
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.toolkit import death_of

if TYPE_CHECKING:
    from gevent.event import AsyncResult

    from aemp_gevent import Node

SYSTEM = "aemp_otp"
READY = "ready"
STOP = "stop"
"""The request of another node. It is a call, which proves what node asks."""


class Request(Enum):
    """What code of this process asks a server."""

    STOP = "stop"
    IDLE = "idle"


def ask_to_stop(node: Node, port: str, *reason: Any, timeout: float | None = None) -> AsyncResult[Any] | None:
    """Ask a server to stop; return what fails if its node refuses that, or None for a server of this node.

    Args:
        node: The node that asks.
        port: The server.
        reason: Why.
        timeout: Seconds after which the answer of another node does not matter; None: it always does.
    """
    if local_id(node, port) is not None:
        node.snd(port, SYSTEM, Request.STOP, *reason)
        return None
    return node.call_async(port, SYSTEM, STOP, *reason, timeout=timeout)


def stop(node: Node, port: str, reason: tuple[Any, ...], timeout: Seconds | None) -> None:
    """Ask a server to stop, and wait until it has died. Switches.

    Raises:
        CallTimeout: It is still alive after ``timeout`` seconds.
        RemoteError: Its node does not let this one stop it.
    """
    seconds = to_seconds(timeout, "stop()")
    with death_of(port, node=node) as death:
        asked = ask_to_stop(node, port, *reason, timeout=seconds)
        ended = death if asked is None else asked
        # get() would mistake a Timeout of the caller's own for its own.
        ended.wait(timeout=seconds)
    if not ended.ready() or isinstance(ended.exception, CallTimeout):
        raise CallTimeout(port, STOP, seconds)
    if ended.exception is not None and not isinstance(ended.exception, PortDied):
        raise ended.exception
