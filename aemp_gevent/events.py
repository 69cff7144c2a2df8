# SPDX-License-Identifier: MIT
"""The events that subscribers of ``zope.event`` get from this library.

Each event is a frozen dataclass, except :class:`~aemp_gevent.errors.PortDied`, which is
also raised where a greenlet waits for the port. Subscribers run in a runner greenlet, outside of any
port, one after the other and in the order of events; they may block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A link to a node came up; messages from that node come after this."""

    node: str
    """The ID of the other node."""
    by: str
    """The ID of the node that reports it."""


@dataclass(frozen=True, slots=True)
class NodeBlocked:
    """A node to which there is a link reports that its event loop is blocked: it lives, and does nothing."""

    node: str
    by: str
    since: float
    """When its loop ran last, in seconds since 1970."""
    where: str
    """The file, line and function that block it; empty if it does not tell this node."""


@dataclass(frozen=True, slots=True)
class NodeUnblocked:
    """The event loop of a blocked node runs again. A link that is lost meanwhile is a :class:`NodeDown` instead."""

    node: str
    by: str


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The link to a node went down."""

    node: str
    by: str
    reason: tuple[Any, ...]
    """As monitors get it: ``("transport_error", node, text)``."""
