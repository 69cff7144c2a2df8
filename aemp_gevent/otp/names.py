# SPDX-License-Identifier: MIT
"""Names of ports: on their node, and in the whole network.

A name in the network is a family of the directory whose keys are the ports that claim it, each with the time of its
claim. Normally there is one, because a claim is refused while there is another. Two nodes that claim a name at the
same time, or while the network is divided, cannot know of each other. So every claimant watches the family, and
the rule is: **the earliest claim wins**, by the clocks of the claimants' hosts; if they are equal, the smaller port ID
wins. The others die of ``("name_taken", name, winner)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any

from aemp_gevent import SELF, default_node
from aemp_gevent.errors import AlreadyStartedError, NoPortContextError
from aemp_gevent.node.access import held_name, local_id, running_node
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Node

NAME_TAKEN = "name_taken"
"""First element of the reason of a port that has lost its name in the network; the name and the winner follow."""

DIRECTORY_SECONDS = 15.0
"""How long the directory may take to answer."""


def whereis(name: str, *, node: Node | None = None, timeout: Seconds | None = DIRECTORY_SECONDS) -> str | None:
    """Return the port that has a name: on this node, or else in the network; None: there is none. May switch.

    ``Cart.at(whereis("cart"))`` is a reference to it.

    Args:
        name: As given to ``start(name=…)``, ``start(network_name=…)``, ``reg`` or :func:`register`.
        node: The node to ask. None: that of the running port, or else the default node.
        timeout: Seconds that the directory may take.

    Raises:
        DirectoryUnavailableError: The directory did not answer in time.
    """
    here: Node = node or running_node() or default_node
    held = held_name(here, name)
    if held is not None:
        return held
    return _winner(here.db_family(_family(name), timeout=to_limited_seconds(timeout, "whereis()")))


def register(name: str) -> None:
    """Claim a name in the network for this port (``SELF()``), until it dies. Switches.

    If others claim it at the same time, the earliest claim wins, and the other ports die of
    ``("name_taken", name, winner)``.

    Raises:
        AlreadyStartedError: Another port has it.
        DirectoryUnavailableError: The directory did not answer in time.
        NoPortContextError: ``SELF()`` is None.
    """
    me = SELF()
    if me is None:
        raise NoPortContextError("register()")
    claim(running_node() or default_node, me, name)


def claim(node: Node, port: str, name: str) -> None:
    """Claim a name in the network for a port of this node. See :func:`register`."""
    family = _family(name)
    holder = _winner(node.db_family(family, timeout=DIRECTORY_SECONDS))
    if holder is not None and holder != port:
        raise AlreadyStartedError(port, name, holder)
    node.db_reg(family, port, time())

    def changed(claims: Mapping[str, Any], *_differences: list[str]) -> None:
        me = SELF()
        winner = _winner(claims)
        if me in claims and winner is not None and winner != me:
            node.kil(me, NAME_TAKEN, name, winner)

    if local_id(node, port) is not None:
        node.peval(port, node.db_mon, family, changed)  # ends with the port


def _family(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"a name in the network must be a text that is not empty, not {quoted(name)}")
    return f"aemp_gevent.otp name {name}"


def _winner(claims: Mapping[str, Any]) -> str | None:
    """Return the port whose claim counts."""
    # Any node may write into the family.
    times = {port: when for port, when in claims.items() if isinstance(when, (int, float))}
    return min(times, key=lambda port: (times[port], port), default=None)
