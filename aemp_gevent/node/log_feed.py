# SPDX-License-Identifier: MIT
"""The log of a node, sent to the ports that asked for it with the request ``log``.

While no port listens, records are not caught. A listener gets a map for each record of its level or above,
until it dies, its link is lost, or it asks for no more. AnyEvent::MP's LogFeed does the same.

**Bounds.** At most :data:`MAX_A_SECOND` records a second, and a text of some size; a listener whose link is
full misses records; the next record says how many were left out. Nothing waits, and no greenlet is paused.

**No echo.** Sending a record may cause more records, here or at the listener: a port without a handler for it,
for example, logs that at debug level. So what is logged while a record is sent, and every record that quotes one, is
not caught.

Listeners belong to a node. Where the records come from is :mod:`aemp_gevent.node.log_tap`.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import AbstractContextManager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import getcurrent, greenlet

from aemp_gevent.errors import AempError
from aemp_gevent.node.log_tap import TAP
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.logs import traceback_of
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.vocabulary import LOG

if TYPE_CHECKING:
    from aemp_gevent.peers.peer import Peer

MAX_LISTENERS = 16
"""Of one node."""

MAX_A_SECOND = 500
"""Records. More than anybody reads; each costs 30 microseconds, and as much again for each listener."""

MAX_WAITING = 2000
"""Records that wait to be sent while the scheduler is busy."""

MAX_TEXT = 8000
"""Characters of a record's text, including its traceback; the middle of a longer text is left out."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class FeedHost(Protocol):
    """The node whose log is sent."""

    @property
    def scheduler(self) -> Scheduler: ...
    def NODE(self) -> str: ...
    def node_of(self, port: object) -> str: ...

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call a function when a port dies."""
        ...

    def reply(self, peer: Peer | None, port: Any, message: Message) -> None:
        """Send a message for a peer. Never pauses for one."""

    def reporting(self, peer: Peer | None, request: Any) -> AbstractContextManager[None]:
        """Log what a block raises."""
        ...


class _Subscriber:
    """A port to which log records are sent."""

    __slots__ = ("guard", "left_out", "level", "peer", "reply")

    def __init__(self, peer: Peer | None, level: int, reply: Message) -> None:
        self.peer = peer
        self.level = level
        self.reply = reply
        self.left_out = 0
        self.guard: Monitor | None = None


class LogFeed:
    """The listeners to one node's log.

    Args:
        host: The node.
    """

    def __init__(self, host: FeedHost) -> None:
        self._host = host
        self._listeners: dict[str, _Subscriber] = {}
        self._records: deque[tuple[int, dict[str, Any]]] = deque()
        self._job: CallJob | None = None
        self._sender: greenlet | None = None
        self._second = 0.0
        self._count = 0
        self._left_out = 0

    # --- listeners ---

    def ask(self, peer: Peer | None, level: object, port: object, reply: Message) -> None:
        """Send records to a port from now on, or no more if the level is None; answer with a map. Never switches."""
        self._host.node_of(port)  # refuses values that take seconds to write as text, such as a long list
        # In a job, because the logging module has locks.
        self._host.scheduler.enqueue_job(CallJob(None, self._ask, (peer, level, str(port), reply)))

    def _ask(self, peer: Peer | None, level: object, port: str, reply: Message) -> None:
        answer: dict[str, Any] = {"node": self._host.NODE()}
        try:
            if level is None:
                self._forget(port)
            else:
                answer["level"] = logging.getLevelName(self._listen(peer, level_of(level), port, reply))
        except ValueError as error:
            answer["error"] = str(error)
        with self._host.reporting(peer, LOG):
            self._host.reply(peer, port, (*reply, answer))

    def _listen(self, peer: Peer | None, level: int, port: str, reply: Message) -> int:
        node = self._host.node_of(port)
        if node != (self._host.NODE() if peer is None else peer.node) or node == port:
            raise ValueError("logs go only to ports of the requesting node")
        if port not in self._listeners and len(self._listeners) >= MAX_LISTENERS:
            raise ValueError(f"{MAX_LISTENERS} ports listen to this node's log already")
        self._forget(port)
        listener = self._listeners[port] = _Subscriber(peer, level, reply)
        listener.guard = self._host.monitor(port, lambda *_reason: self._forget(port), None)
        self._tap()
        return level

    def _forget(self, port: str) -> None:
        listener = self._listeners.pop(port, None)
        if listener is not None:
            if listener.guard is not None:
                listener.guard.cancel()
            self._tap()

    def _tap(self) -> None:
        levels = [listener.level for listener in self._listeners.values()]
        TAP.set(self, min(levels) if levels else None)

    def stop(self) -> None:
        """Send no more records: the node shuts down."""
        for port in list(self._listeners):
            self._forget(port)

    def abandon(self) -> None:
        """Send no records in a forked child: the parent does."""
        self._listeners = {}
        TAP.set(self, None)

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    # --- records ---

    def take(self, record: logging.LogRecord) -> None:
        """Catch a record, in whatever native thread or greenlet it was made. Neither switches nor raises."""
        if self._sender is getcurrent() or getattr(record, "is_echo", False):
            return
        now = monotonic()
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        if self._count > MAX_A_SECOND or len(self._records) >= MAX_WAITING:
            self._left_out += 1
            return
        self._records.append((record.levelno, self._map_of(record)))
        if self._job is None or not self._job.is_due:
            job = CallJob(None, self._send_all, ())
            self._host.scheduler.enqueue_job(job)
            self._job = job  # after it was queued: an exception in between leaves two jobs, and not none

    def _map_of(self, record: logging.LogRecord) -> dict[str, Any]:
        return {
            "node": self._host.NODE(),
            "time": record.created,
            "level": record.levelname,
            "name": record.name,
            "text": _text_of(record),
        }

    def _send_all(self) -> None:
        if self._sender is not None:
            return
        self._sender = getcurrent()
        try:
            while self._records:
                level, record_map = self._records.popleft()
                left_out, self._left_out = self._left_out, 0
                for port, listener in list(self._listeners.items()):
                    listener.left_out += left_out
                    if level >= listener.level:
                        self._send(port, listener, record_map)
        finally:
            self._sender = None

    def _send(self, port: str, listener: _Subscriber, record_map: dict[str, Any]) -> None:
        peer = listener.peer
        if peer is not None and not peer.rights.inspect:  # rules may change
            self._forget(port)
            answer = {"node": self._host.NODE(), "error": f"the rules no longer let {peer.node} inspect this node"}
            with self._host.reporting(peer, LOG):
                self._host.reply(peer, port, (*listener.reply, answer))
            return
        if peer is not None and peer.unsent > peer.high_water:
            listener.left_out += 1
            return
        if listener.left_out:
            record_map = {**record_map, "left_out": listener.left_out}
            listener.left_out = 0
        try:
            self._host.reply(peer, port, (*listener.reply, record_map))
        except AempError:  # larger than the node's settings allow, for example
            listener.left_out += 1


def level_of(level: object) -> int:
    """Return the number of a level, given by number or name.

    Raises:
        ValueError: It is not a level.
    """
    number = _LEVELS.get(level.lower()) if isinstance(level, str) else level
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= logging.CRITICAL:
        raise ValueError(f"{quoted(level, 50)} is not a level: {', '.join(_LEVELS)}")
    return number


def _text_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + (record.exc_text or traceback_of(record.exc_info[1]))
    except Exception as error:  # noqa: BLE001  # the arguments' own code may raise anything
        text = f"{quoted(record.msg)} (it cannot be formatted: {type(error).__name__})"
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT // 2]}\n[…]\n{text[-MAX_TEXT // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()
