# SPDX-License-Identifier: MIT
"""Calls that arrive from other nodes, the usual ones: with a short header, for a port that is there.

These are little work, and so they are delivered like messages, many of them in one turn of the loop and without the
checks of requests. All others go to the node port (:mod:`aemp_gevent.node.requests`), which also logs what is wrong
with them.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Protocol

from aemp_gevent.calls.call import CallHost
from aemp_gevent.calls.serve import AnswerWay, ReplyPortID
from aemp_gevent.runtime.quantities import FOREVER_SECONDS

MAX_USUAL_CHAIN = 20
"""Ports in the chain of a usual call."""


class CallingPeer(AnswerWay, Protocol):
    """The peer that calls."""

    @property
    def node(self) -> str: ...
    @property
    def reads_short_calls(self) -> bool: ...


def deliver(host: CallHost, prefix: str, peer: CallingPeer, message: list[Any], max_name_bytes: int) -> bool:
    """Deliver a call to its port, if it is a usual one; return whether it is. Never raises.

    Args:
        host: This node.
        prefix: How the IDs of its ports begin.
        peer: The node that calls.
        message: The request, with the header, the port's name, the tag, and the arguments.
        max_name_bytes: The most bytes of a node ID, and of a port name.
    """
    if len(message) < 4 or not peer.reads_short_calls:
        return False
    header, name = message[1], message[2]
    if type(header) is not list or type(name) is not str or not 2 <= len(header) <= MAX_USUAL_CHAIN:
        return False
    scheduler = host.scheduler
    port = scheduler.table.find(prefix + name)
    if port is None or port in host.waiting:  # a port that waits may close a circle
        return False
    node = peer.node
    chain: list[str] = []
    left = None
    for place, element in enumerate(header):
        if place == 1:
            left = element
        elif type(element) is not str:
            return False
        else:
            member: str = element
            if member[:1] == "#":
                member = node + member
            if 2 * len(member) > max_name_bytes:  # a character has at most four bytes, and a port ID two names
                return False
            chain.append(member)
    reply = chain.pop(0)
    answered: str = header[0]
    if answered[:1] != "#" or len(answered) == 1:
        return False
    if left is not None:
        if (type(left) is not float and type(left) is not int) or not 0 <= left < FOREVER_SECONDS:
            return False
        left += monotonic()
    target = ReplyPortID(reply, left, chain)
    target.way = peer
    del message[:3]
    message.append(target)
    scheduler.deliver(port, tuple(message))
    return True
