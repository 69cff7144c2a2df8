# SPDX-License-Identifier: MIT
"""One port in full, for those that may look into the node: the stack of its code, and the messages that it gets.

**Messages are masked.** What is remembered of one is what log lines show: its tag, and how many elements it has, with
their types and sizes. **They are bounded**: :data:`MAX_SEEN` of each port, and :data:`MAX_PORTS` ports. Nothing is
remembered before somebody asks, and no more once nobody has asked for :data:`KEEP_SECONDS`.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from time import time
from types import FrameType
from typing import Any, Protocol

from greenlet import getcurrent

from aemp_gevent.calls.serve import call_of
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import IDLE, QUEUED, Port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.ports.tap import MailboxTap
from aemp_gevent.runtime.logs import Brief
from aemp_gevent.runtime.quoting import quoted

MAX_FRAMES = 50
"""Calls of a stack: the innermost ones."""

MAX_SEEN = 100
"""Messages of one port that are remembered: the last ones."""

MAX_PORTS = 8
"""Ports of one node whose messages are remembered at the same time."""

KEEP_SECONDS = 10.0
"""How long messages are remembered after they were asked for last."""

_MAX_ELEMENTS = 8
_MAX_LINE = 300

_SIZED = (str, bytes, list, tuple, dict)


class ViewedNode(Protocol):
    """The node whose ports are looked at."""

    @property
    def scheduler(self) -> Scheduler: ...

    def find_port(self, name: str) -> Port | None:
        """Return the living local port of this name."""
        ...


class PortViews:
    """Looks at ports of one node.

    Args:
        host: The node.
    """

    def __init__(self, host: ViewedNode) -> None:
        self._host = host
        self._recent: dict[Port, Recent] = {}

    def look(self, what: Mapping[str, Any]) -> tuple[Port, dict[str, Any]]:
        """Return a port with its stack and, if they are wanted, the last messages that it got since the first look.

        Args:
            what: ``port``, its ID or its name; ``messages``, whether these are wanted.

        Raises:
            ValueError: There is no such port, or too many are watched already.
        """
        wanted = what["port"]
        port = self._host.find_port(wanted.rpartition("#")[2]) if isinstance(wanted, str) else None
        if port is None:
            raise ValueError(f"there is no port {quoted(wanted, 50)} here")
        found: dict[str, Any] = {"stack": stack_of(port)}
        if what.get("messages"):
            found |= self._messages_of(port)
        return port, found

    def _messages_of(self, port: Port) -> dict[str, Any]:
        recent = self._recent.get(port)
        if recent is None:
            if len(self._recent) >= MAX_PORTS:
                raise ValueError(f"the messages of {MAX_PORTS} ports are watched already; try again later")
            recent = self._recent[port] = Recent(port)
        else:
            self._host.scheduler.end_timer(recent.timer)
        recent.timer = self._host.scheduler.start_timer(KEEP_SECONDS, self._forget, port)
        return {"seen": recent.count, "messages": list(recent.last)}

    def _forget(self, port: Port) -> None:  # on the hub
        recent = self._recent.pop(port, None)
        if recent is not None:
            recent.tap.close()
            self._host.scheduler.end_timer(recent.timer)

    def stop(self) -> None:
        """Forget all messages: the node shuts down."""
        for port in list(self._recent):
            self._forget(port)


class Recent:
    """The last messages that a port got.

    Args:
        port: The port.
    """

    def __init__(self, port: Port) -> None:
        self.count = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=MAX_SEEN)
        self.timer: Any = None
        """Ends it; the scheduler's."""
        self.tap = MailboxTap(port, self._see)

    def _see(self, message: Message) -> None:
        self.count += 1
        self.last.append({"number": self.count, "time": time(), **masked(message)})


def masked(message: Message) -> dict[str, Any]:
    """Return what may be shown of a message: its tag, and the types and sizes of its first elements."""
    # Not isinstance(), which looks into proxies: their code may do anything. Nor does Brief use it.
    is_call = call_of(message) is not None
    shown = message[:-1] if is_call else message
    return {
        "text": str(Brief(shown)),
        "elements": [_kind_of(element) for element in shown[:_MAX_ELEMENTS]],
        "is_call": is_call,
    }


def _kind_of(element: object) -> str:
    kind = type(element).__name__[:50]
    return f"{kind} of {len(element)}" if type(element) in _SIZED else kind  # type: ignore[arg-type]  # it has a length


def frame_of(port: Port) -> FrameType | None:
    """Return the innermost frame of a port's code, which waits; None if none does, or it is what asks."""
    runner = port.cell.runner
    is_inside = port.state not in (IDLE, QUEUED) or port.cell.waiter is not None
    return runner.gr_frame if is_inside and runner is not None and runner is not getcurrent() else None


def frames_from(frame: FrameType | None) -> Iterable[FrameType]:
    """Return a frame, the one that called it, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def stack_of(port: Port) -> list[str]:
    """Return the calls in which a port's code waits, the innermost last, like the lines of a traceback."""
    calls = [(frame, frame.f_lineno) for frame in islice(frames_from(frame_of(port)), MAX_FRAMES)]
    lines = traceback.StackSummary.extract(reversed(calls)).format()
    return [line.rstrip()[:_MAX_LINE] for line in lines]
