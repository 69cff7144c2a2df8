# SPDX-License-Identifier: MIT
"""Helpers that the tests of local nodes share."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

from aemp_gevent.errors import (
    DeadPortError,
    InvalidPortError,
    NodePortError,
    NotLocalError,
)
from tests.support.settling import settle


class Log(list[tuple[object, ...]]):
    """A callback that notes what it was called with."""

    def __call__(self, *msg: object) -> None:
        self.append(msg)


def deaths_of(node, port) -> Log:
    deaths = Log()
    node.mon(port, deaths)
    return deaths


def in_port(node, function: Callable[[], object]) -> str:
    """Run a function in a handler of a new port, at once; return the port's ID."""
    port = node.port(lambda: function() and None)
    node.snd(port)
    settle(node)
    return port  # type: ignore[no-any-return]


def spin(seconds: float) -> None:
    """Keep the loop from running, so that several timers are due in one turn of it."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    float("inf"),
    "",
    "grün \U0001f600 \x00",
    b"\x00\xff",
    [],
    [1, [2, [3]]],
    {},
    {"a": {1: b"x", None: 2.5, False: []}},
]
"""One of each type that can travel."""

NO_PORTS = [
    pytest.param(None, id="None"),
    pytest.param("", id="empty"),
    pytest.param("#p", id="no-node"),
    pytest.param("two words#p", id="blank"),
    pytest.param("localhost:4040#p", id="unresolved"),
    pytest.param(print, id="function"),
]

NOT_HERE = [
    pytest.param("dead", DeadPortError, r"create one with port\(\)", id="dead"),
    pytest.param("never", DeadPortError, r"create one with port\(\)", id="never-existed"),
    pytest.param("node", NodePortError, "name a port of it", id="node-port"),
    pytest.param("remote", NotLocalError, "spawn a function there that makes the call", id="remote"),
    pytest.param("garbage", InvalidPortError, r"as returned by port\(\)", id="no-port-ID"),
]


def not_here(node, dead: str, which: str) -> str:
    return {  # type: ignore[no-any-return]
        "dead": dead,
        "never": f"{node.NODE()}#never",
        "node": node.NODE(),
        "remote": "elsewhere#p",
        "garbage": "two words",
    }[which]


class Closable:
    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def close(self) -> None:
        self.noted.append("close")

    def cancel(self) -> None:
        self.noted.append("cancel")
