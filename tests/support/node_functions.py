# SPDX-License-Identifier: MIT
"""Functions that tests spawn on one of several nodes in this process."""

from __future__ import annotations

from typing import Any

from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF

node = Node()
"""The node on which they are spawned; a test puts its own here."""

called: list[tuple[Any, ...]] = []


def echo(reply: str) -> None:
    node.rcv(SELF(), lambda *message: node.snd(reply, *message))


def note(*args: Any) -> None:
    called.append((SELF(), *args))


def fail(text: str) -> None:
    raise ValueError(text)
