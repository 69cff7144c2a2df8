# SPDX-License-Identifier: MIT
"""The port itself: its mailbox, its state and its cell; and the jobs that monitor it or run in its context.

A :class:`Port` is data: what others need to send to it and to monitor it. What running it takes is in its
:class:`Cell`, most of which no port has before its first message. The
:mod:`scheduler <aemp_gevent.ports.scheduler>`, the file to read next, moves a port from one state to the next. Ports,
cells and jobs know each other, so all are defined here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from aemp_gevent.ports.handlers import Handlers
from aemp_gevent.ports.inboxes import TracedInbox, WrittenInbox
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.timer_queue import TimerQueue
from aemp_gevent.runtime.totals import Totals

if TYPE_CHECKING:
    from greenlet import greenlet

Mailbox: TypeAlias = "deque[Message] | Port"

# Plain integers, not an Enum: the hot paths test them, and an Enum member costs a look-up each time.
IDLE = 0
"""No message, and no greenlet inside (or it waits in ``receive``)."""
QUEUED = 1
"""Stands in the run queue."""
RUNNING = 2
"""A greenlet is inside: in a handler, or in the body of a port with its own greenlet."""
DEAD = 3
JOB = 4
"""Not a port but a :class:`Job`, which shares the run queue with them."""

REMOTE = 5
"""Not a port of this node but a :class:`~aemp_gevent.peers.remote_port.RemotePort`, in the same table."""

STARTED = True
"""``Cell.main`` while its own greenlet runs the body. ``receive`` serves the port's handlers there."""
INSIDE = False
"""``Cell.main`` while that greenlet is inside a handler. ``receive`` serves no handlers there."""


class Due:
    """What stands in the run queue, or could: its state says which kind it is, and whether it does."""

    __slots__ = ("state",)

    def __init__(self, state: int) -> None:
        self.state = state


class Receiver(Due):
    """What messages can be sent to: a port of this node, or one of another node as this node sees it."""

    __slots__ = ("id", "mailbox", "monitors")

    mailbox: Any
    """What messages are appended to: a deque, or what has an ``append`` of its own."""


class Job(Due):
    """Code to run once that no message starts: a monitor's action, a timer's callback.

    Jobs share the run queue with ports, so that both run in order.
    """

    __slots__ = ("context",)

    def __init__(self, context: Port | None) -> None:
        self.state = JOB
        self.context = context
        """The port in whose context it runs, and that dies of its exceptions."""

    def run(self) -> None:
        """Do the job. Runs in a runner, in the port's context; may block and may raise."""
        raise NotImplementedError

    @property
    def is_due(self) -> bool:
        """Whether it still has to be done: it was neither begun nor cancelled."""
        return False

    def died(self, reason: Reason) -> bool:
        """Note the death of the port that this job monitors; return whether it must run now."""
        raise NotImplementedError


class Table(Protocol):
    """The table that a port is found in."""

    def add(self, port: Port) -> None:
        """Make a port reachable under its ID."""


class PortsOwner:
    """The owner of the ports that a scheduler runs; this one does nothing.

    A node has one of its own, which it gives its scheduler at the start.
    """

    node: Any = None
    """The node; None without one."""

    def unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        """Return the job to run after an abnormal death that no monitor saw, if there is one."""
        return None


class PortHost(Protocol):
    """What runs a port, as the port and the code inside it see it: the scheduler."""

    scan: object
    """What the last ``receive`` that looked at a message knows of its mailbox; None once a message was taken."""
    credit: int
    """Messages until the next look at the clock."""
    thread: int
    """The native thread that the ports belong to."""
    owner: PortsOwner
    """The owner of the ports that it runs."""
    is_abandoned: bool
    """Whether this is a forked child, and the ports are the parent's."""
    totals: Totals
    """What is counted for those who monitor the node."""
    timers: TimerQueue
    """The timers."""

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
        """Make the call that ends a ``with`` block, again if it is struck."""

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> int:
        """Call ``call(*args)`` on the hub once, after some seconds; return the timer."""
        ...

    def end_timer(self, timer: int) -> None:
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


class Cell:
    """What a scheduler needs to run one port, beside the port itself, which others address.

    Most ports of a large node wait for their first message. They share one cell, their scheduler's *blank* one, in
    which nothing is stored. So whatever a port's cell is, it can be read. Before anything is stored in it,
    :func:`activate` gives the port a cell of its own, which it keeps.
    """

    __slots__ = ("dying", "handlers", "inbox", "is_blank", "main", "runner", "scheduler", "waiter")

    is_blank: bool
    """Whether it is the scheduler's blank one."""
    scheduler: PortHost
    inbox: deque[Message] | None
    """The messages that the port still has to handle. Only its holder takes from it."""
    handlers: Handlers | None
    waiter: greenlet | None
    """The greenlet that waits in ``receive`` and is resumed when something happens."""
    runner: greenlet | None
    """The greenlet that is inside, or was last."""
    dying: Reason | None
    """The reason of the first kill; None before it."""
    main: tuple[Handler, Message, bool] | bool | None
    """A body that is to be started (function, arguments, whether its end is the port's), one of
    :data:`STARTED` and :data:`INSIDE`, or None for a port without a greenlet of its own."""


def blank_cell(scheduler: PortHost) -> Cell:
    """Return the cell that ports of a scheduler have before their first use."""
    cell = Cell()
    cell.is_blank = True
    cell.scheduler = scheduler
    cell.inbox = cell.handlers = cell.waiter = cell.runner = cell.dying = cell.main = None
    return cell


def activate(port: Port) -> Cell:
    """Return a port's own cell, which is made if it has the blank one."""
    cell = port.cell
    if not cell.is_blank:
        return cell
    # As in Port.append: make, then test, then store. Without an __init__, which would take twice as long.
    made = Cell()
    made.is_blank = False
    made.scheduler = cell.scheduler
    made.inbox = made.handlers = made.waiter = made.runner = made.dying = made.main = None
    if port.cell is cell:
        port.cell = made
        return made
    return port.cell


class Port(Receiver):
    """Something that receives messages. It lives in one node, and dies once.

    A port takes 80 bytes, so what only few ports have is kept elsewhere. Its own :class:`Cell`, 100 bytes, and the
    inbox, another 700 bytes, are made when the first message comes.
    """

    context: Context | None = None
    """The ``contextvars.Context`` of its handlers; None: an empty one. See :class:`ContextPort`."""

    is_for_answer = False
    """Whether it was made for an answer. See :class:`ReplyPort`."""

    parent: str = ""
    """The ID of the node that spawned it; ``""``: this node spawned it, or it was not spawned."""

    asked: str = ""
    """The ID of the node that was asked, which may kill the port to refuse; ``""``: no node was asked."""

    __slots__ = ("cell", "default")

    def __init__(self, port_id: str, blank: Cell, default: Handler) -> None:
        self.id = port_id
        self.cell = blank
        """What runs it. Code that is seldom run reads it by the properties below, each of which is a call."""
        self.default = default
        """Called with the messages that no handler matches."""
        self.state = IDLE
        self.mailbox: Mailbox = self
        """Senders append to this: the inbox, or :data:`~aemp_gevent.ports.inboxes.NOWHERE` once the port was killed.
        Before the first message it is the port itself, whose ``append`` makes the inbox."""
        self.monitors: Job | dict[Job, None] | None = None
        """The monitors of its death: none, one (the usual case, at no cost), or several."""

    @property
    def scheduler(self) -> PortHost:
        """What runs it."""
        return self.cell.scheduler

    @property
    def inbox(self) -> deque[Message] | None:
        """The messages that it still has to handle."""
        return self.cell.inbox

    @property
    def dying(self) -> Reason | None:
        """The reason of the first kill; None before it."""
        return self.cell.dying

    def append(self, message: Message) -> None:
        """Take the first message. This is the mailbox's part of ``snd``."""
        # While a deque is made, a finalizer or another thread may send to this very port,
        # and the mailbox made there must not be overwritten: make, then test, then store,
        # with no call between test and store.
        made: deque[Message] = make_inbox(self) if _are_traced else deque()
        cell = activate(self)
        if self.mailbox is self:
            cell.inbox = self.mailbox = made
        self.mailbox.append(message)
        if not self.state:  # the hub served it in vain while this, another thread, made the deque
            cell.scheduler.enqueue(self)

    def divert_inbox(self) -> None:
        """Take the inbox away from the runner that is serving it. The port keeps its messages."""
        cell = self.cell
        inbox = cell.inbox
        if inbox is None:
            return
        diverted = inbox.emptied() if isinstance(inbox, WrittenInbox) else deque[Message]()
        # From here on new messages go to the new inbox, so the old ones go before them. No call between
        # test and store, because kil() in another thread stores here, too.
        if self.mailbox is inbox:
            self.mailbox = diverted
        cell.inbox = diverted
        diverted.extendleft(reversed(inbox))
        inbox.clear()

    def __repr__(self) -> str:
        return f"<Port {self.id} {('idle', 'queued', 'running', 'dead')[self.state]}>"


AnyPort = TypeVar("AnyPort", bound=Port)
"""A kind of port."""


class ContextPort(Port):
    """A port whose handlers run in a ``contextvars.Context`` of its own."""

    __slots__ = ("context",)

    def __init__(self, port_id: str, blank: Cell, default: Handler, context: Context) -> None:
        super().__init__(port_id, blank, default)
        self.context = context


class ReplyPort(Port):
    """A port that was made for an answer, and lives until the wait for it is over."""

    is_for_answer = True

    __slots__ = ("asked",)

    def __init__(self, port_id: str, blank: Cell, default: Handler) -> None:
        super().__init__(port_id, blank, default)
        self.asked = ""


class SpawnedPort(Port):
    """A port that ``spawn`` made, here or from another node."""

    __slots__ = ("parent",)

    def __init__(self, port_id: str, blank: Cell, default: Handler) -> None:
        super().__init__(port_id, blank, default)
        self.parent = ""


class AttachedPort(Port):
    """A port that ``attach`` gave to a running greenlet."""

    __slots__ = ("before", "is_left")

    def __init__(self, port_id: str, blank: Cell, default: Handler) -> None:
        super().__init__(port_id, blank, default)
        self.is_left = False
        """Whether the block was left, so that no greenlet gets this context back."""
        self.before: Port | None = None
        """The context that the greenlet had before, and gets back."""


_are_traced = False


def make_inbox(port: Port) -> deque[Message]:
    """Return an inbox for a port without one, which keeps traces if messages are traced; answers have none."""
    return TracedInbox(port) if _are_traced and not port.is_for_answer else deque()


def trace_inboxes(wanted: bool) -> None:
    """Keep the traces of messages from now on, or not, in ports that get their first message; in the whole process."""
    global _are_traced  # noqa: PLW0603  # what is tested for each port must cost nothing
    _are_traced = wanted
