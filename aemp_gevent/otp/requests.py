# SPDX-License-Identifier: MIT
"""Requests to servers that are not methods of their own, such as to stop.

They are messages with the tag :data:`SYSTEM`, and take their turn among the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent import Timeout

from aemp_gevent.errors import CallTimeout
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.toolkit import death_of

if TYPE_CHECKING:
    from aemp_gevent import Node

SYSTEM = "aemp_otp"
READY = "ready"
STOP = "stop"
IDLE = "idle"


def stop(node: Node, port: str, reason: tuple[Any, ...], timeout: Seconds | None) -> tuple[Any, ...]:
    """Ask a server to stop, and wait until it has died; return what it died of. Switches.

    Raises:
        CallTimeout: It is still alive after ``timeout`` seconds.
    """
    seconds = to_seconds(timeout, "stop()")
    with death_of(port, node=node) as death:
        node.snd(port, SYSTEM, STOP, *reason)
        try:
            died_of: Any = death.get(timeout=seconds)
        except Timeout:
            raise CallTimeout(port, STOP, seconds) from None
    return tuple(died_of)
