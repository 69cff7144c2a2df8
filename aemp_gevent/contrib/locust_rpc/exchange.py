# SPDX-License-Identifier: MIT
"""What Locust's master and workers send each other over a link, and the nodes that do it.

The master's node has a fixed name, and a port with a fixed name on it. For each link to the master, a worker makes a
new port, its *session*::

    worker → master   "join", identity, session, client
    master → session  "joined", server, received
    worker → master   "frame", session, number, message
    master → session  "frame", received, message

``identity`` is Locust's ID of the worker; ``client`` and ``server`` are words that no other process has. A message is
encoded by Locust. Those that a lost link must not lose, such as statistics, have a number: the worker keeps them until
the master reports that number as received, and sends those that are left in its next session with the same master,
which takes nothing more from the former session. All others have the number 0.

The master monitors sessions. So it learns at once when a worker's process or link is gone.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.settings.directory_address import EMBEDDED

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

# Locust's objects are Any: few of them have type annotations. It is imported only when it runs already, because
# importing it patches the process.
Message: TypeAlias = Any
"""A ``locust.rpc.Message``: it has a ``type``, ``data`` and the ``node_id`` of a worker."""

MASTER = "locust/master"
"""The node ID of every master."""

MASTER_PORT = f"{MASTER}#locust"

JOIN, JOINED, FRAME = "join", "joined", "frame"

READY, QUIT, STOP, SPAWN, HEARTBEAT, STATS = "client_ready", "quit", "stop", "spawn", "heartbeat", "stats"
LOCUSTFILE = "locustfile"
"""Locust's types of messages that mean something here."""

OF_THE_MOMENT = frozenset({HEARTBEAT, QUIT, "spawning", "spawning_complete", "client_stopped", LOCUSTFILE})
"""What a worker sends, and nobody wants later, or from a worker that the master does not count on."""

BUSY_STATES = frozenset({"spawning", "running"})
"""The states in a worker's heartbeat that mean that it has users."""

STANDING = {READY: True, QUIT: False, "client_stopped": False}
"""The messages after which the master counts, or no longer counts, on the worker that sent them."""

_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    HEARTBEAT: {"state": str, "current_cpu_usage": (int, float)},
    "spawning_complete": {"user_classes_count": dict},
    STATS: {"stats": list, "stats_total": dict, "errors": dict, "user_classes_count": dict},
    "exception": {"msg": str, "traceback": str},
    LOCUSTFILE: {"version": str},
    "logs": {"worker_id": str, "logs": list},
}
"""What the master takes for granted in the data of a worker's messages: without, it would stop listening."""


def worker_node_id(identity: str) -> str:
    """Return the node ID of the worker with this ID of Locust's."""
    return "locust/worker/" + re.sub(r"[^A-Za-z0-9_.-]", "-", identity)[:200]


def endpoint(host: str, port: int) -> str:
    """Return an endpoint from what Locust's options say; an IPv6 address gets its brackets."""
    return str(Endpoint(host, port)) if ":" in host and not host.startswith("[") else f"{host}:{port}"


def configure(node: Node, nodeid: str, *, seeds: tuple[str, ...] = (), binds: tuple[str, ...] = ()) -> None:
    """Initialise one end's node. Everything else is a setting in the environment or the profile file.

    Raises:
        AempError: The same as ``Node.configure``.
    """
    node.configure(nodeid=nodeid, seeds=seeds, binds=binds, services=(), directory=EMBEDDED)


def make_message(kind: str, data: object, identity: str) -> Message:
    """Return a message of a worker, or for it."""
    return import_module("locust.rpc").Message(kind, data, identity)


def encode(message: Message) -> bytes:
    """Return a message as Locust encodes it."""
    data: bytes = message.serialize()
    return data


def decode(data: bytes) -> Message:
    """Return the message in a frame.

    Raises:
        ValueError: It is not a message of Locust's; the text says what is wrong.
    """
    try:
        found = import_module("locust.rpc").Message.unserialize(data)
    except Exception as error:  # of any class: Locust checks nothing
        raise ValueError(f"it is not a message of Locust's: {str(error) or type(error).__name__}") from error
    if isinstance(found.type, str):
        return found
    raise ValueError(f"its type must be a string, not {type(found.type).__name__}")


def check_report(message: Message, identity: str) -> None:
    """Check that a message of this worker has what the master takes for granted; add what older releases leave out.

    Raises:
        ValueError: It does not; the text says what is wrong.
    """
    kind = quoted(message.type)
    if message.node_id != identity:
        raise ValueError(f"its message {kind} is in the name of {quoted(message.node_id)}")
    if message.type == LOCUSTFILE and message.data is None:
        message.data = {"version": ""}
    data, needed = message.data, _NEEDED.get(message.type, {})
    missing = [key for key in needed if not isinstance(data, dict) or key not in data]
    if missing:
        raise ValueError(f"its message {kind} lacks {', '.join(missing)}")
    odd = [key for key, types in needed.items() if not isinstance(data[key], types)]
    if odd:
        raise ValueError(f"{odd[0]} in its message {kind} is of the wrong type: {type(data[odd[0]]).__name__}")
    if "user_classes_count" in needed and not _are_integers(data["user_classes_count"]):
        raise ValueError(f"user_classes_count in its message {kind} has values that are not integers")
    if message.type == READY and not isinstance(data, str) and data not in (None, -1):
        raise ValueError(f"its message {kind} must name a version of Locust, not {quoted(data)}")


def _are_integers(counts: Any) -> bool:
    return all(isinstance(count, int) for count in counts.values())


def errors() -> Any:
    """Return the module of Locust's exceptions: what the two ends raise."""
    return import_module("locust.exception")


def version() -> str:
    """Return Locust's version, which a worker reports when it is ready."""
    found: str = import_module("locust").__version__
    return found
