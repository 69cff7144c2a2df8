# SPDX-License-Identifier: MIT
"""The log of a node, for whoever asks for it over the network, as AnyEvent::MP's LogCatcher has it.

While nobody listens nothing here exists. A listener is a port, which gets a map for each record of its
level or above, until it dies, its link is lost, or it says that it has heard enough.

**What is caught.** Everything that the program's own logging would hand to handlers of the root
logger; and of this library's loggers also what is below their level, without showing that to the program's
handlers. The level of the program's other loggers stays as it is.

**Bounds.** At most :data:`MAX_A_SECOND` records a second, and a text of some size; a listener whose link is
full misses records; how many were left out stands in the next one. Nothing waits and
nobody is paused.

**No echo.** To tell of a record may make new ones, here or over there: a port that has no handler for it, say,
logs that at debug level. So what is logged while a record is told, and whatever holds a record of this kind, is caught
nowhere.

Loggers belong to the process, so what taps them is one for all nodes in it; listeners are a node's.
"""

from __future__ import annotations

import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import getcurrent, greenlet

from aemp_gevent.errors import AempError
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.logs import LOGGERS, traceback_of
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent.peers.peer import Peer

MAX_LISTENERS = 16
"""Of one node: people who look."""

MAX_A_SECOND = 500
"""Records. More than anybody reads; each costs 30 microseconds here, and as much for each listener."""

MAX_WAITING = 2000
"""Records that wait to be told, while everything else is busy."""

MAX_TEXT = 8000
"""Characters of a record's text, its traceback included; the last ones of that say most."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class Host(Protocol):
    """The node whose log it is."""

    @property
    def scheduler(self) -> Scheduler: ...
    def NODE(self) -> str: ...
    def node_of(self, port: object) -> str: ...

    def monitor(self, port: object, call: Handler, context: Port | None) -> Monitor:
        """Call a function when a port dies."""
        ...

    def reply(self, peer: Peer | None, port: Any, message: Message) -> None:
        """Send on a peer's behalf; never pauses for one."""


class _Listener:
    """A port that is told."""

    __slots__ = ("guard", "left_out", "level", "peer", "reply")

    def __init__(self, peer: Peer | None, level: int, reply: Message) -> None:
        self.peer = peer
        self.level = level
        self.reply = reply
        self.left_out = 0
        self.guard: Monitor | None = None


class LogCatcher:
    """Who listens to one node's log.

    Args:
        host: The node.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._listeners: dict[str, _Listener] = {}
        self._records: deque[tuple[int, dict[str, Any]]] = deque()
        self._is_due = False
        self._teller: greenlet | None = None
        self._second = 0.0
        self._count = 0
        self._left_out = 0

    # --- who listens ---

    def ask(self, peer: Peer | None, level: object, port: object, reply: Message) -> None:
        """Begin, or with the level None cease, to tell a port; answer with a map. Never switches."""
        self._host.node_of(port)  # refuses what takes seconds to be written as text, such as a long list
        # In a job: the logging module has locks.
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
        try:
            self._host.reply(peer, port, (*reply, answer))
        except AempError as error:  # it is no port, or one of a node that may not be told anything by us
            if peer is None:
                raise
            peer.complaints.warn("what %s asked of the log cannot be answered: %s", peer.node, error)

    def _listen(self, peer: Peer | None, level: int, port: str, reply: Message) -> int:
        node = self._host.node_of(port)
        if node != (self._host.NODE() if peer is None else peer.node) or node == port:
            raise ValueError("logs go only to ports of the requesting node")
        if port not in self._listeners and len(self._listeners) >= MAX_LISTENERS:
            raise ValueError(f"{MAX_LISTENERS} ports listen to this node's log already")
        self._forget(port)
        listener = self._listeners[port] = _Listener(peer, level, reply)
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
        _TAP.set(self, min(levels) if levels else None)

    def stop(self) -> None:
        """Tell nobody any more: the node shuts down."""
        for port in list(self._listeners):
            self._forget(port)

    def abandon(self) -> None:
        """Tell nobody, in a forked child: the parent does."""
        self._listeners = {}
        _TAP.set(self, None)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    # --- records ---

    def take(self, record: logging.LogRecord) -> None:
        """Catch a record, in whatever native thread or greenlet it was made. Neither switches nor raises."""
        if self._teller is getcurrent() or getattr(record, "is_echo", False):
            return
        now = monotonic()
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        if self._count > MAX_A_SECOND or len(self._records) >= MAX_WAITING:
            self._left_out += 1
            return
        self._records.append((record.levelno, self._map_of(record)))
        if not self._is_due:
            self._is_due = True
            self._host.scheduler.enqueue_job(CallJob(None, self._tell_all, ()))

    def _map_of(self, record: logging.LogRecord) -> dict[str, Any]:
        return {
            "node": self._host.NODE(),
            "time": record.created,
            "level": record.levelname,
            "name": record.name,
            "text": _text_of(record),
        }

    def _tell_all(self) -> None:
        self._is_due = False  # first: what comes from now on may be another job's
        if self._teller is not None:
            return
        self._teller = getcurrent()
        try:
            while self._records:
                level, told = self._records.popleft()
                left_out, self._left_out = self._left_out, 0
                for port, listener in list(self._listeners.items()):
                    listener.left_out += left_out
                    if level >= listener.level:
                        self._tell(port, listener, told)
        finally:
            self._teller = None

    def _tell(self, port: str, listener: _Listener, told: dict[str, Any]) -> None:
        peer = listener.peer
        if peer is not None and not peer.rights.inspect:  # any more: rules may change
            self._forget(port)
            answer = {"node": self._host.NODE(), "error": f"the rules let {peer.node} look at nothing here any more"}
            self._host.reply(peer, port, (*listener.reply, answer))
            return
        if peer is not None and peer.unsent > peer.high_water:
            listener.left_out += 1
            return
        if listener.left_out:
            told = {**told, "left_out": listener.left_out}
            listener.left_out = 0
        try:
            self._host.reply(peer, port, (*listener.reply, told))
        except AempError:  # it is larger than its node's settings allow, say
            listener.left_out += 1


def level_of(level: object) -> int:
    """Return the number of a level, given by number or name.

    Raises:
        ValueError: It is not one.
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
    except Exception as error:  # noqa: BLE001  # of the arguments' own code
        text = f"{quoted(record.msg)} (it cannot be formatted: {type(error).__name__})"
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT // 2]}\n[…]\n{text[-MAX_TEXT // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


# --- the process's loggers ------------------------------------------------------------------


class _Tap(logging.Handler):
    """Taps the loggers of this process while any node's log is listened to."""

    def __init__(self) -> None:
        super().__init__()
        self._catchers: dict[LogCatcher, int] = {}
        self._former: dict[str, int] = {}  # the levels of this library's loggers
        self._lowered: dict[str, int] = {}

    def createLock(self) -> None:  # noqa: N802  # as it is called
        # None is needed, and nobody must wait here for who logs in another thread.
        self.lock = None

    def set(self, catcher: LogCatcher, level: int | None) -> None:
        """Hand a catcher what is of this level or above; None: nothing."""
        if level is not None:
            self._catchers = {**self._catchers, catcher: level}
        elif catcher in self._catchers:
            self._catchers = {other: wanted for other, wanted in self._catchers.items() if other is not catcher}
        else:
            return
        self._restore()
        root = logging.getLogger()
        if self._catchers:
            self._lower(min(self._catchers.values()))
            root.addHandler(self)
        else:
            root.removeHandler(self)

    def _lower(self, level: int) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            effective = logger.getEffectiveLevel()
            self._former[name] = logger.level
            self._lowered[name] = max(min(level, effective), 1)
            logger.addFilter(self._take_ours)
        for name, lowered in self._lowered.items():
            logging.getLogger(name).setLevel(lowered)

    def _restore(self) -> None:
        for name, level in self._former.items():
            logger = logging.getLogger(name)
            logger.removeFilter(self._take_ours)
            if logger.level == self._lowered[name]:  # or the program has set another meanwhile
                logger.setLevel(level)
        self._former.clear()
        self._lowered.clear()

    def _take_ours(self, record: logging.LogRecord) -> bool:
        """Take a record of this library; return whether the program's handlers are to see it."""
        self._hand_out(record)
        return record.levelno >= self._former_level(logging.getLogger(record.name))

    def _former_level(self, logger: logging.Logger | None) -> int:
        while logger is not None:
            level = logger.level
            if level == self._lowered.get(logger.name):
                level = self._former[logger.name]
            if level:
                return level
            logger = logger.parent
        return 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Take what came to the root logger."""
        if record.name not in LOGGERS:
            self._hand_out(record)
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level and self._is_alone(record):
            logging.lastResort.handle(record)  # as Python does where no handler is at all
        return True

    def _is_alone(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True

    def _hand_out(self, record: logging.LogRecord) -> None:
        for catcher, level in self._catchers.items():
            if record.levelno >= level:
                catcher.take(record)


_TAP = _Tap()
