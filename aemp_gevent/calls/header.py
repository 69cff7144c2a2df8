# SPDX-License-Identifier: MIT
"""The header of a call between nodes: where the answer goes, how long it is waited for, and which ports wait.

There are two forms. Every node of this library reads both, and sends the short one to those whose greeting says
that they do.

in full
    A map: ``reply``, the ID of the reply port; ``left``, the seconds until the caller gives up, absent if it never
    does; ``chain``, the IDs of the ports that wait for the answer; ``traceparent`` and ``tracestate`` of W3C's Trace
    Context, if the caller works for a trace.
in short
    A list: the reply port, the seconds, or nil, and then the ports that wait. Ports of the calling node are
    written without its ID, which the receiver knows: ``"#name"``.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from aemp_gevent.calls.serve import ReplyPortID
from aemp_gevent.runtime.quantities import to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import Trace, trace_in
from aemp_gevent.wire.limits import is_long

MAX_CHAIN = 1000
"""Ports in a call's chain that travel: the last ones."""


def in_full(reply: str, left: float | None, chain: tuple[str, ...], trace: Trace | None = None) -> dict[str, Any]:
    """Return the header as every node of this library reads it."""
    header: dict[str, Any] = {**(trace or {}), "reply": reply, "chain": chain}
    if left is not None:
        header["left"] = left
    return header


def in_short(reply: str, left: float | None, chain: tuple[str, ...]) -> list[Any]:
    """Return the header for a node that reads the short form. The reply port is one of this node."""
    skipped = reply.find("#")
    prefix = reply[: skipped + 1]
    short = [reply[skipped:], left]
    for port in chain:
        short.append(port[skipped:] if port.startswith(prefix) else port)  # noqa: PERF401  # a generator takes longer
    return short


def read(header: Any, caller: str | None, max_name_bytes: int) -> ReplyPortID:
    """Return the reply port that another node's call came with.

    Args:
        header: The call's header, in either form.
        caller: The node that it came from; None: this one.
        max_name_bytes: The most bytes of a node ID, and of a port name.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: It has neither form. The text is for the log.
    """
    trace: Trace | None = None
    if isinstance(header, list):
        reply, left, *chain = header
        if caller is not None:
            reply = caller + reply if reply.startswith("#") else reply
            chain = [caller + port if port.startswith("#") else port for port in chain[-MAX_CHAIN:]]
    else:
        trace = trace_in(header)
        reply, left, chain = header["reply"], header.get("left"), header.get("chain", ())
    chain = chain[-MAX_CHAIN:]  # so longer circles are not noticed
    for port in (reply, *chain):
        if is_long(port, 2 * max_name_bytes):
            raise ValueError(f"a port ID in its header is longer than {2 * max_name_bytes} bytes")
    node, _, name = reply.partition("#")
    if not name or (caller is not None and node != caller):
        raise ValueError(f"{quoted(reply)} is not a port of the calling node")
    if left is None:
        return ReplyPortID(reply, None, chain, trace)
    if not left >= 0:  # NaN is not, either
        raise ValueError(f"{quoted(left)} is not a number of seconds")
    left = to_seconds(left, "call()", "left")  # JSON and CBOR have integers of any size
    return ReplyPortID(reply, None if left is None else monotonic() + left, chain, trace)
