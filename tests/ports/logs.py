# SPDX-License-Identifier: MIT
"""What tests of ports share."""

from __future__ import annotations

from typing import Any


class Log(list[Any]):
    """What happened, in order."""

    def add(self, *what: Any) -> None:
        self.append(what)


def monitored(node, port, log):
    """Log a port's death."""
    node.mon(port, lambda *reason: log.add("died", *reason))
    return port
