# SPDX-License-Identifier: MIT
"""Receiving: which message a waiting greenlet takes, and how long it waits.

How it gives way to others meanwhile is decided in :mod:`aemp_gevent.ports.giving_way`. What users call is in
:mod:`aemp_gevent.ports.receive`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import Any

from greenlet import greenlet

from aemp_gevent.errors import PortKilled, ReceiverBusyError, ReceiveTimeout
from aemp_gevent.ports.patterns import Matcher, Message
from aemp_gevent.ports.port import DEAD, INSIDE, RUNNING, STARTED, Port
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime import threads

# Compiled, these names stand for C functions, and PURE for 0 (c_calls.pxd). Nothing can be assigned to them.
PURE: bool
get_ident: Callable[[], int]
getcurrent: Callable[[], greenlet]
popleft: Callable[[deque[Any]], Any]
globals().update(PURE=True, get_ident=threads.get_ident, getcurrent=greenlet.getcurrent, popleft=deque.popleft)

_NEAR = 1024
"""Messages at each end of an inbox that a deque reaches through no more than 16 of its blocks."""


class Deadline:
    """A timer that resumes a greenlet waiting for a port. Close it afterwards.

    Args:
        port: The port.
        due: When, on the monotonic clock.
    """

    def __init__(self, port: Port, due: float) -> None:
        self.expired = False
        self._port = port
        self._due = due
        self._timers = port.cell.scheduler.timers
        self._timer = self._timers.new()

    def start(self) -> None:
        """Start it; not as it is made, so that its user can close it wherever this is struck."""
        self._timers.set_off(self._timer, self._due, self._expire)

    def close(self) -> None:
        self._timers.end(self._timer)

    def _expire(self) -> None:  # on the hub
        self.expired = True
        port = self._port
        if port.cell.waiter is not None and not port.state:
            port.cell.scheduler.enqueue(port)


def receive_for(port: Port, matches: Matcher | None, timeout: float | None) -> Message:
    """Receive for a port that this greenlet holds. Called by ``receive`` and by code that waits for answers."""
    current = getcurrent()
    cell = port.cell
    scheduler: Scheduler = cell.scheduler  # type: ignore[assignment]  # the only kind of PortHost
    if cell.runner is not current or port.state != RUNNING or get_ident() != scheduler.thread:
        _check_holder(port)
    scanned = 0  # how many messages at the front of the inbox do not match
    seen: list[Message] = []  # those, and perhaps the next ones
    in_time: int | None = None  # once the timeout has passed: how many of those that came before are left to look at
    ends: float | None = None
    if timeout is not None:
        if timeout > 0:
            ends = monotonic() + timeout
        else:
            in_time = len(cell.inbox or ())
    deadline: Deadline | None = None
    try:
        while True:
            inbox = cell.inbox
            if inbox and cell.dying is not None:
                scheduler.doom(port)  # handlers, predicates and the caller may block
            if inbox and matches is None and cell.handlers is None and in_time is None:
                # Any message will do, such as an answer: the same as below in half the time.
                scheduler.credit -= 1
                if scheduler.credit <= 0 and scheduler.turn_is_over():
                    scheduler.visit_hub(port, current)
                    continue
                return inbox.popleft() if PURE else popleft(inbox)
            while inbox and scanned < len(inbox):
                if in_time is not None:
                    if in_time <= 0:
                        # Before a kill, as messages are left that came before that.
                        raise ReceiveTimeout(timeout or 0.0)
                    in_time -= 1
                message = seen[scanned] if scanned < len(seen) else _look_at(inbox, scanned, seen)
                scheduler.scan = seen
                served = cell.main is STARTED and cell.handlers is not None and _serve(port, message, scanned, seen)
                matched = not served and (matches is None or matches(message))
                # Handlers and predicates may have received, too, which shifts the inbox.
                shifted = scheduler.scan is not seen
                if not matched and not served:
                    scanned += 1
                # The credit comes before the message is taken, which a foreign Timeout that strikes here must not lose.
                scheduler.credit -= 1
                if scheduler.credit <= 0 and (timeout is None or timeout > 0) and scheduler.turn_is_over():
                    scheduler.visit_hub(port, current)
                if matched and _take(port, message, scanned):
                    return message
                if shifted:
                    scanned = _scan_again(port, seen, scanned)
                    inbox = cell.inbox
                is_over = ends is not None and monotonic() >= ends if deadline is None else deadline.expired
                if is_over and in_time is None:
                    in_time = _let_in(port, current) - scanned
                    inbox = cell.inbox
            # In this order: a message in the inbox comes before a kill and a timeout that
            # came after it, or in the same loop iteration.
            if port.state == DEAD:
                raise PortKilled(*(cell.dying or ()))
            if cell.dying is not None:
                scheduler.die(port, cell.dying)
                raise PortKilled(*cell.dying)
            if timeout is not None:
                if ends is None or in_time is not None:
                    raise ReceiveTimeout(timeout)
                if deadline is None:
                    deadline = Deadline(port, ends)
                    deadline.start()
                elif deadline.expired:
                    in_time = _let_in(port, current) - scanned
                    continue
            scheduler.credit -= 1  # predicates that send to each other's ports never find a message
            scheduler.wait(port, current, scanned)
    finally:
        scheduler.scan = None
        if deadline is not None:
            # Written out: a function that makes the call again could itself be struck where it begins.
            try:
                deadline.close()
            except BaseException:
                deadline.close()
                raise


def _let_in(port: Port, current: greenlet) -> int:
    """Give way until what sockets and timers have brought so far is delivered; return how many messages there are."""
    cell = port.cell
    scheduler = cell.scheduler
    # Twice: in the first round of the loop this greenlet may be resumed before all callbacks were made.
    for _ in range(2):
        moment = Deadline(port, monotonic())
        try:
            moment.start()
            while not moment.expired and cell.dying is None:
                scheduler.wait(port, current, len(cell.inbox or ()))
        finally:
            moment.close()
    if cell.dying is not None and port.state != DEAD:
        scheduler.doom(port)  # the caller looks at what is left, and may block
    return len(cell.inbox or ())


def _look_at(inbox: deque[Message], index: int, seen: list[Message]) -> Message:
    """Return the first message of the inbox that was not seen yet, and add it to those seen."""
    # A deque reaches messages near its ends at once, and those in the middle by walking there. So in the middle
    # one walk takes as many messages as are in front of it.
    if index >= _NEAR and len(inbox) - index > _NEAR:
        try:
            seen.extend(islice(inbox, index, 2 * index))
            return seen[index]
        except RuntimeError:  # a finalizer, or another thread, sent to this port meanwhile
            del seen[index:]
    message = inbox[index]
    seen.append(message)
    return message


def _take(port: Port, message: Message, index: int) -> bool:
    """Remove a message from a port's inbox; return whether it was still there. ``index`` is its last known place."""
    cell = port.cell
    inbox = cell.inbox
    cell.scheduler.scan = None  # an outer receive, whose predicate calls this one, looks again
    if inbox and index < len(inbox) and inbox[index] is message:  # nearly always
        del inbox[index]
        return True
    for place, queued in enumerate(list(inbox or ())):
        if queued is message:
            del inbox[place]  # type: ignore[union-attr]  # the message is in there
            return True
    return False


def _scan_again(port: Port, seen: list[Message], scanned: int) -> int:
    """Return how many messages at the front of an inbox do not match, after others were taken.

    Args:
        port: The port with the inbox.
        seen: The messages that were at its front. Those that are still there are kept in it.
        scanned: How many of them did not match.
    """
    known = set(map(id, seen[:scanned]))
    front = list(port.cell.inbox or ())[:scanned]
    seen[:] = itertools.takewhile(lambda message: id(message) in known, front)
    return len(seen)


def _check_holder(port: Port) -> None:
    """Raise unless this greenlet may receive for the port."""
    cell = port.cell
    if get_ident() != cell.scheduler.thread:
        cell.scheduler.check_thread("receive()")
    if port.state == DEAD:
        raise PortKilled(*(cell.dying or ()))
    if cell.runner is not getcurrent() or port.state != RUNNING:
        raise ReceiverBusyError(port.id, "this greenlet only borrows its context (psub, peval, a callback)")


def _serve(port: Port, message: Message, index: int, seen: list[Message]) -> bool:
    """Give a message to the handlers that match it. An exception in one of them kills the port."""
    served = False
    failure: BaseException | None = None
    cell = port.cell
    scheduler = cell.scheduler
    cell.main = INSIDE
    try:
        calls = cell.handlers.find(message) if cell.handlers is not None else []
        shifted = scheduler.scan is not seen  # a pattern's predicate may have received
        if calls and _take(port, message, index):
            served = True
            if not shifted:
                del seen[index]
                scheduler.scan = seen
            for call in calls:
                call()
    except BaseException as error:  # noqa: BLE001
        failure = error
    cell.main = STARTED
    if failure is not None:
        scheduler.fail(port, failure)
        try:
            raise PortKilled(*(cell.dying or ())) from failure
        finally:
            failure = None  # its traceback has this frame: a reference cycle, which would keep the message alive
    return served
