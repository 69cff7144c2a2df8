# SPDX-License-Identifier: MIT
"""Agents: short-lived ports that do on another node what only that node can do.

An agent is spawned there and called. The call proves which node asks, so that it may do no more than that node may do
anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aemp_gevent import SELF, default_node, spawnable
from aemp_gevent.node.access import running_node

if TYPE_CHECKING:
    from gevent.event import AsyncResult

    from aemp_gevent import Node

AGENT = "aemp_gevent.otp.agent"

MAX_SECONDS = 600.0
"""How long an agent lives at most."""

requests: dict[str, Callable[..., Any]] = {}
"""What agents can be asked for, by name. Filled by the modules of this package."""


@spawnable(AGENT)
def agent() -> None:
    """Serve the requests of the node that has spawned this."""
    node: Node = running_node() or default_node
    me = SELF()
    for name, function in requests.items():
        node.serve(me, name, function)
    node.after(MAX_SECONDS, node.kil, me)  # the node that spawned it may never come back


def ask_agent(node: Node, where: object, request: str, *args: Any, timeout: float | None = None) -> AsyncResult[Any]:
    """Spawn an agent on another node, make one call to it, and return what will have the answer. Never switches."""
    port = node.spawn(node.node_of(where), AGENT)
    result = node.call_async(port, request, *args, timeout=timeout)
    result.rawlink(lambda _result: node.kil(port))
    return result
