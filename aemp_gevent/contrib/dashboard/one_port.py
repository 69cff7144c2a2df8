# SPDX-License-Identifier: MIT
"""What the dashboard shows of one port: the stack of its code, and the messages that it gets while a visitor looks."""

from __future__ import annotations

from typing import Any

from aemp_gevent.contrib.answers import ask, plain
from aemp_gevent.node.node import Node

_MAX_ROWS = 100


def look_at_port(node: Node, other: str, port: str, timeout: float, *, with_messages: bool) -> dict[str, Any]:
    """Return what a node says of one of its ports, cut to what the page shows. Switches.

    Args:
        node: The node that asks.
        other: The node that is asked.
        port: The port's ID.
        timeout: Seconds to wait for the answer.
        with_messages: Whether that node remembers the messages that the port gets, from now on for some seconds.

    Raises:
        AempError, ValueError: It does not answer, or refuses.
    """
    sent = plain(ask(node, other, {"port": port, "messages": True} if with_messages else {"port": port}, timeout))
    row, stack = sent.get("port"), _rows(sent.get("stack"))
    found: dict[str, Any] = {
        "state": _text(row.get("state") if isinstance(row, dict) else None),
        "stack": [line for line in stack if isinstance(line, str)],
    }
    if with_messages:
        found["seen"] = _number(sent.get("seen"))
        found["messages"] = [_message(each) for each in _rows(sent.get("messages")) if isinstance(each, dict)]
    return found


def _message(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": _number(row.get("number")),
        "time": _number(row.get("time")),
        "text": _text(row.get("text")),
        "elements": ", ".join(_text(each) for each in _rows(row.get("elements"))),
        "is_call": row.get("is_call") is True,
    }


def _rows(value: Any) -> list[Any]:
    return value[:_MAX_ROWS] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0
