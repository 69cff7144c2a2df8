# SPDX-License-Identifier: MIT
"""What subscribers of ``zope.event`` hear from us.

Each event is a frozen dataclass, but for :class:`~aemp_gevent.errors.PortDied`, which is
raised, too, where somebody waits for the port. Subscribers run in a runner greenlet, outside any
port, one after the other and in the order things happened; they may block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A link to a node came up; messages of that node come after this."""

    node: str
    """The ID of the other node."""
    by: str
    """The ID of the node that tells it: ours."""


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The link to a node went down."""

    node: str
    by: str
    reason: tuple[Any, ...]
    """As monitors get it: ``("transport_error", node, text)``."""
