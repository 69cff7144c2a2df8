# SPDX-License-Identifier: MIT
"""Exit reasons: the tuples that say why a port died.

A reason may contain what cannot travel. When a port of this node dies of one, peers get its words
(``port_died`` in :mod:`aemp_gevent.peers.peer_monitors`). ``kil`` of a port of another node
raises instead (``_kill_remote`` in :mod:`aemp_gevent.node.linked_node`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from aemp_gevent.runtime.quoting import said, worded

Reason: TypeAlias = "tuple[Any, ...]"
"""Why a port died; an empty one is a normal death."""

MONITOR_REFUSED = "monitor_refused"
"""First element of the reason that a monitor fires with when the other node watches too many ports for this one."""

MAX_WORDS = 10
"""Elements of a reason that are sent when it cannot travel as it is."""


def describe(error: BaseException) -> str:
    """Return an exception as the text in a reason: its class and message."""
    try:
        text = said(error)
    except BaseException:  # noqa: BLE001  # the user's __str__; the caller reports a death and must not fail
        text = "<str() failed>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def in_words(reason: Reason) -> Reason:
    """Return a reason that can travel in place of one that cannot: its texts, cut, and its other elements as text.

    Never raises: deaths are reported with it.
    """
    return tuple(worded(element) for element in reason[:MAX_WORDS])


def no_such_port(port: str) -> Reason:
    """Return the reason that a monitor of a nonexistent port fires with."""
    return ("no_such_port", "cannot monitor nonexistent port", port)
