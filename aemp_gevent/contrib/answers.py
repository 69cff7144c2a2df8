# SPDX-License-Identifier: MIT
"""What other nodes answer to ``inspect``, for pages that show them. A node may send anything.

A node's answer counts only for the node that was asked. :func:`plain` makes of an answer what can be shown and written
as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

import gevent

from aemp_gevent.errors import AempError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.vocabulary import INSPECT

if TYPE_CHECKING:
    from typing import TypeGuard

Sent: TypeAlias = "Mapping[str, Any]"  # Any: a node may send anything

MAX_TEXT = 300
"""Characters of a text that are shown."""

_MAX_ITEMS = 1000
_MAX_DEPTH = 6
_MAX_NUMBER = 1e18


def ask_all(
    node: Node, others: Iterable[str], what: Mapping[str, int], timeout: float
) -> tuple[dict[str, Sent], dict[str, str]]:
    """Ask nodes about themselves, all at the same time. Switches.

    Returns:
        The answers by the IDs of the nodes, and for the nodes that did not answer, why.
    """
    results = {other: node.call_async(other, INSPECT, dict(what), timeout=timeout) for other in dict.fromkeys(others)}
    gevent.wait(list(results.values()))
    answers: dict[str, Sent] = {}
    silent: dict[str, str] = {}
    for other, result in results.items():
        try:
            answers[other] = _checked(result.get(), other)
        except (AempError, ValueError) as error:
            silent[other] = str(error)
    return answers, silent


def ask(node: Node, other: str, what: Mapping[str, int | str], timeout: float) -> Sent:
    """Ask a node about itself. Switches.

    Raises:
        AempError, ValueError: It does not answer, or refuses.
    """
    return _checked(node.call(other, INSPECT, dict(what), timeout=timeout), other)


def _checked(answer: Any, asked: str) -> Sent:
    if not isinstance(answer, Mapping):
        raise ValueError("it sent an unexpected answer")  # noqa: TRY004  # a peer gave it
    if "error" in answer:
        raise ValueError(f"it refuses: {quoted(answer['error'], MAX_TEXT)}")
    if answer.get("node") != asked:
        raise ValueError(f"it answers as another node, {quoted(answer.get('node'), MAX_TEXT)}")
    return answer


def is_number(value: object) -> TypeGuard[float]:
    """Return whether this is a number that can be shown, and with which one can calculate."""
    return isinstance(value, (int, float)) and -_MAX_NUMBER <= value <= _MAX_NUMBER and isfinite(value)


def plain(sent: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return what was sent with short texts and lists, and None for what JSON does not have."""
    if sent is None or isinstance(sent, bool):
        return sent
    if isinstance(sent, (int, float)):
        return sent if is_number(sent) else None
    if isinstance(sent, str):
        return short(sent)
    if isinstance(sent, (list, tuple)) and depth:
        return [plain(each, depth - 1) for each in sent[:_MAX_ITEMS]]
    if isinstance(sent, Mapping) and depth:
        items = list(sent.items())[:_MAX_ITEMS]
        return {short(key): plain(value, depth - 1) for key, value in items if isinstance(key, str)}
    return None


def short(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text that can be shown: not too long, and without what UTF-8 cannot express."""
    return text[:limit].encode("utf-8", "replace").decode()
