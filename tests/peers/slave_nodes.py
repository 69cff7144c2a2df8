# SPDX-License-Identifier: MIT
"""Slave nodes and their masters, for tests."""

from __future__ import annotations

from typing import Any

from aemp_gevent.testing import MemoryNetwork

QUICK: dict[str, Any] = {
    "heartbeat_interval": 0.1,
    "heartbeat_timeout": 0.5,
    "handshake_timeout": 10.0,
    "monitor_timeout": 2.0,
}


class Place:
    """Two masters, a slave of each, one more of the first, and a public node."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.m1, self.m2, self.public = (network.node(**QUICK) for _ in range(3))
        self.s1 = network.node("slave/one", self.m1.NODE(), **QUICK)
        self.s2 = network.node("slave/two", self.m2.NODE(), **QUICK)
        self.s3 = network.node("slave/", self.m1.NODE(), **QUICK)
