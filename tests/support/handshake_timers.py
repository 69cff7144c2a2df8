# SPDX-License-Identifier: MIT
"""Handshakes of a node that time out when a test says so, so that no busy machine can end one too early."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from aemp_gevent.links.link import Link
from aemp_gevent.node.node import Node


class HandshakeTimers:
    """The time limits of a node's handshakes.

    Args:
        node: The node, whose ``handshake_timeout`` should be longer than the test takes.
        monkeypatch: Ends the observation after the test.
    """

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = node.scheduler.start_timer
        self._calls: list[Callable[[], object]] = []
        monkeypatch.setattr(node.scheduler, "start_timer", self._start_timer)

    def _start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        if getattr(call, "__func__", None) is Link._too_slow:
            self._calls.append(partial(call, *args))
        return self._start(seconds, call, *args)

    def run_out(self) -> None:
        """Do what happens when the time of all handshakes that were begun is over."""
        assert self._calls
        for call in self._calls:
            call()
