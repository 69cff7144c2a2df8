# SPDX-License-Identifier: MIT
"""The port itself: its mailbox, and where it stands in its life.

A :class:`Port` is data. What moves it from one state to the next is the
:mod:`aemp_gevent.ports.scheduler`, which is the file to read next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from aemp_gevent.ports.handlers import Handlers
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.reasons import Reason

if TYPE_CHECKING:
    from greenlet import greenlet

Mailbox: TypeAlias = "deque[Message] | Port"

# Plain integers, not an Enum: the hot paths test them, and an Enum member costs a look-up each time.
IDLE = 0
"""No message, nobody inside (or its greenlet waits in ``receive``)."""
QUEUED = 1
"""Stands in the run queue."""
RUNNING = 2
"""A greenlet is inside: in a handler, or in the body of a port with its own greenlet."""
DEAD = 3
JOB = 4
"""Not a port but a :class:`Job`, which shares the run queue with them."""

REMOTE = 5
"""Not a port of this node but a :class:`~aemp_gevent.peers.remote_port.RemotePort`; they share the table."""

NOWHERE: deque[Message] = deque(maxlen=0)
"""The mailbox of whoever was killed: what is appended vanishes, at no cost to the senders' hot path."""

STARTED = True
"""``Port.main`` while its own greenlet runs the body: ``receive`` serves the port's handlers there."""
INSIDE = False
"""``Port.main`` while that greenlet is inside a handler: ``receive`` serves none."""


class Job:
    """Something to run once that is not a message: a monitor's action, a timer's callback.

    Jobs share the run queue with ports, so that they take their turn in order.
    """

    __slots__ = ("context", "state")

    def __init__(self, context: Port | None) -> None:
        self.state = JOB
        self.context = context
        """The port in whose context it runs, and which dies of its exceptions."""

    def run(self) -> None:
        """Do it. Runs in a runner, in the port's context; may block and may raise."""
        raise NotImplementedError

    @property
    def is_due(self) -> bool:
        """Whether it is still to be done: it was neither begun nor cancelled."""
        return False

    def died(self, reason: Reason) -> bool:
        """A port this job monitors died; return whether it is to be run now."""
        raise NotImplementedError


class Table(Protocol):
    """The table that a port is found in."""

    def add(self, port: Port) -> None:
        """Make a port reachable under its ID."""


class PortHost(Protocol):
    """What runs a port, as the port and the code inside it see it: the scheduler."""

    scan: object
    """What the last ``receive`` to look at a message knows of its mailbox; None when one took a message since."""
    credit: int
    """Messages until the next look at the clock."""
    thread: int
    """The native thread that the ports belong to."""
    node: Any
    """The node whose port it is, for code that is spawned on it and wants to know."""
    is_abandoned: bool
    """Whether this is a forked child, and the ports are the parent's."""

    @property
    def table(self) -> Table:
        """The table that its ports are found in."""
        ...

    def enqueue(self, port: Port) -> None:
        """Queue a port if it is idle."""

    def enqueue_job(self, job: Job) -> None:
        """Queue a job."""

    def check_thread(self, call: str) -> None:
        """Raise ``WrongThreadError``, which names ``call``, in another native thread."""

    def leave(self, end: Callable[..., object], *args: Any) -> None:
        """Call what ends a ``with`` block, whatever strikes."""

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        """Call ``call(*args)`` on the hub once, in a while; return the timer."""

    def end_timer(self, timer: Any) -> None:
        """Stop a timer."""

    def turn_is_over(self) -> bool:
        """Return whether the hub must get control now; renew the credit if not."""
        ...

    def wait(self, port: Port, current: greenlet, scanned: int) -> None:
        """Give way until a port has more than ``scanned`` messages, or was killed."""

    def visit_hub(self, port: Port, current: greenlet) -> None:
        """Give way to sockets and timers."""

    def kill(self, port: Port, reason: Reason) -> None:
        """Kill a port once it handled what was sent before."""

    def doom(self, port: Port) -> None:
        """End a killed port with a greenlet inside at the latest when that blocks."""

    def fail(self, port: Port | None, error: BaseException) -> None:
        """Kill a port at once for an exception of its code."""

    def die(self, port: Port, reason: Reason) -> None:
        """End a port's life now."""


class Port:
    """Something that receives messages. Lives in one node, dies once.

    One of these costs 128 bytes, so whatever few ports have is kept elsewhere; the
    inbox (another 700 bytes) is made when the first message comes.
    """

    context: Context | None = None
    """The context its handlers run in; None: an empty one. See :class:`ContextPort`."""

    is_for_answer = False
    """Whether it was made for the answer to a question."""

    parent: str = ""
    """The ID of the node that spawned it; ``""``: this node, or it was not spawned."""

    asked: str = ""
    """The ID of the node that was asked the question, which may refuse by killing the port; ``""``: none was."""

    __slots__ = (
        "default",
        "dying",
        "handlers",
        "id",
        "inbox",
        "mailbox",
        "main",
        "monitors",
        "runner",
        "scheduler",
        "state",
        "waiter",
    )

    def __init__(self, port_id: str, scheduler: PortHost, default: Handler) -> None:
        self.id = port_id
        self.scheduler = scheduler
        self.default = default
        """What no handler matched goes here."""
        self.state = IDLE
        self.inbox: deque[Message] | None = None
        """What the port still has to handle; only its holder takes from it."""
        self.mailbox: Mailbox = self
        """What senders append to: the inbox, or :data:`NOWHERE` once the port was killed. Before the first
        message the port itself, whose ``append`` makes the inbox."""
        self.handlers: Handlers | None = None
        self.waiter: greenlet | None = None
        """The greenlet to resume when something happens: it waits in ``receive``."""
        self.runner: greenlet | None = None
        """The greenlet that is (or was last) inside."""
        self.dying: Reason | None = None
        """The reason of the first kill, from then on."""
        self.monitors: Job | dict[Job, None] | None = None
        """Who wants to know about its death: nobody, one (the usual case, at no cost), or several."""
        self.main: tuple[Handler, Message, bool] | bool | None = None
        """A body still to be started (function, arguments, "its end is the port's"), one of
        :data:`STARTED` and :data:`INSIDE`, or None for a port without a greenlet of its own."""

    def append(self, message: Message) -> None:
        """Take the first message; the mailbox's part in ``snd``."""
        # Making a deque may run the garbage collector, and a finalizer may send to this very
        # port, or another thread; its mailbox must not be overwritten: make, then test, then store,
        # with no call between test and store.
        made: deque[Message] = deque()
        if self.mailbox is self:
            self.inbox = self.mailbox = made
        self.mailbox.append(message)
        if not self.state:  # served in vain by the hub, while this, another thread, made the deque
            self.scheduler.enqueue(self)

    def divert_inbox(self) -> None:
        """Take the inbox away from the runner that is serving it; what is in it stays the port's."""
        inbox = self.inbox
        if inbox is None:
            return
        diverted = inbox.emptied() if isinstance(inbox, BoundedMailbox) else deque[Message]()
        # New messages go to the new one from here on, so the old ones go before them. No call between
        # test and store: another thread's kil() stores here, too.
        if self.mailbox is inbox:
            self.mailbox = diverted
        self.inbox = diverted
        diverted.extendleft(reversed(inbox))
        inbox.clear()

    def __repr__(self) -> str:
        return f"<Port {self.id} {('idle', 'queued', 'running', 'dead')[self.state]}>"


AnyPort = TypeVar("AnyPort", bound=Port)
"""One of the kinds of ports."""


class ContextPort(Port):
    """A port whose handlers run in a ``contextvars.Context`` of its own."""

    __slots__ = ("context",)

    def __init__(self, port_id: str, scheduler: PortHost, default: Handler, context: Context) -> None:
        super().__init__(port_id, scheduler, default)
        self.context = context


class ReplyPort(Port):
    """A port that was made for an answer, and lives as long as somebody waits for that."""

    is_for_answer = True

    __slots__ = ("asked",)

    def __init__(self, port_id: str, scheduler: PortHost, default: Handler) -> None:
        super().__init__(port_id, scheduler, default)
        self.asked = ""


class SpawnedPort(Port):
    """A port that ``spawn`` made, here or from another node."""

    __slots__ = ("parent",)

    def __init__(self, port_id: str, scheduler: PortHost, default: Handler) -> None:
        super().__init__(port_id, scheduler, default)
        self.parent = ""


class AttachedPort(Port):
    """A port that ``attach`` gave to a running greenlet."""

    __slots__ = ("before", "is_left")

    def __init__(self, port_id: str, scheduler: PortHost, default: Handler) -> None:
        super().__init__(port_id, scheduler, default)
        self.is_left = False
        """Whether the block is over: no greenlet gets this context back."""
        self.before: Port | None = None
        """The context that the greenlet had, and gets back."""


class BoundedMailbox(deque[Message]):
    """A mailbox that calls ``overflow`` instead of growing past ``limit`` messages.

    A subclass instead of a test in ``snd``: ports without a limit pay nothing.
    """

    def __init__(self, port: Port, limit: int, overflow: Callable[[], None]) -> None:
        super().__init__()
        self._port = port
        self._limit = limit
        self._overflow = overflow

    def emptied(self) -> BoundedMailbox:
        """Return an empty mailbox with the same bound."""
        return BoundedMailbox(self._port, self._limit, self._overflow)

    def append(self, message: Message) -> None:
        if len(self) < self._limit:
            # Not to this mailbox: another thread may have come here before the port's inbox was diverted.
            port = self._port
            _append(port.mailbox, message)  # type: ignore[arg-type]  # never the port itself
            if not port.state:  # as in Port.append
                port.scheduler.enqueue(port)
        else:
            self._overflow()


_append = deque[Message].append
