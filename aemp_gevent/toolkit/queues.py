# SPDX-License-Identifier: MIT
"""Queues that other nodes can put into and get from."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gevent import Greenlet
from gevent.queue import Empty, Full, JoinableQueue

from aemp_gevent import CallTimeout, default_node
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.toolkit.proxy_waiters import ObjectPort, ProxyWaiter
from aemp_gevent.toolkit.remotes import Remote, is_poll
from aemp_gevent.toolkit.times import checks_times

T = TypeVar("T")

if TYPE_CHECKING:
    _Queue = JoinableQueue
else:  # has join() in all supported versions of gevent; it cannot be subscripted in the older ones
    _Queue = {T: JoinableQueue}


_MESSAGES = {
    "put": "_put_for",
    "end": "_end_for",
    "get": "_get_for",
    "get_nowait": "_get_now_for",
    "peek": "_peek_for",
    "peek_nowait": "_peek_now_for",
    "join": "_join_for",
}
_CALLS = {
    "put_nowait": "_put_now_for",
    "end_nowait": "_end_now_for",
    "size": "_sizes",
    "task_done": "task_done",
    "shutdown": "shutdown",
}


@checks_times
class PortQueue(_Queue[T]):
    """A ``gevent.queue.Queue`` that other nodes use through a :class:`RemoteQueue`.

    ``snd(queue.port, "put", item)`` puts an item in from any node, and does not wait. While the queue is
    full, such items wait outside of it in their order of arrival.

    Items that other nodes get are not lost: if a getter times out or dies while an item is on its way, the item goes
    back to the front of the queue. If the link breaks at that moment, two getters may receive the same item.

    The port dies when nothing refers to the queue any more, so keep a reference to it.

    Args:
        maxsize: Items it holds before ``put`` waits; None: any number.
        items: The initial items.
        unfinished_tasks: How many of them :meth:`join` waits for; None: all.
        node: The node that its port belongs to.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(
        self,
        maxsize: int | None = None,
        items: Iterable[T] = (),
        unfinished_tasks: int | None = None,
        *,
        node: LocalNode = default_node,
    ) -> None:
        super().__init__(maxsize, items, unfinished_tasks)
        self.node = node
        self._object_port = ObjectPort(self, node, _MESSAGES, _CALLS)
        self.port: str = self._object_port.port
        """The port's ID, which you can send to other nodes. ``str(queue)`` returns it, too."""
        self._line = _Line(self)
        self._is_drained = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}: {self.qsize()} items>"  # gevent's repr shows all of them

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Close the port: other nodes get ``PortDied``. The queue itself keeps working on this node."""
        self._object_port.close()

    def copy(self) -> PortQueue[T]:
        """Return a queue with the same items and another port."""
        mine: Any = self  # gevent's stubs confuse some checkers
        return type(self)(self.maxsize, mine.queue, mine.unfinished_tasks, node=self.node)

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down: ``put`` raises ``ShutDown`` from now on, everywhere, and ``get`` when nothing is left.

        Args:
            immediate: Whether to drop what is in it, so that ``get`` raises at once.
        """
        self._is_drained = immediate
        super().shutdown(immediate)

    # --- requests of remote clients ---

    def _put_for(self, item: Any, reply: str | None = None) -> None:
        waiter = None if reply is None else ProxyWaiter(self._object_port, reply, lambda _none: self.node.snd(reply))
        self._line.put(item, waiter)

    def _end_for(self, reply: str | None = None) -> None:
        self._put_for(StopIteration, reply)

    def _put_now_for(self, item: Any) -> bool:
        try:
            if self._line.is_empty:
                self.put_nowait(item)
                return True
        except Full:
            pass
        return False

    def _end_now_for(self) -> bool:
        return self._put_now_for(StopIteration)

    def _get_for(self, reply: str) -> None:
        self._give(reply, self.get)

    def _get_now_for(self, reply: str) -> None:
        self._give(reply, self.get_nowait)

    def _give(self, reply: str, get: Callable[[], Any]) -> None:
        waiter = ProxyWaiter(self._object_port, reply, partial(self._send, reply), self._take_back)
        if self.empty():
            waiter.wait(get)
        else:
            waiter.got(get())

    def _send(self, reply: str, item: Any) -> None:
        self.node.snd(reply, *(("end", None) if item is StopIteration else ("item", item)))

    def _take_back(self, item: Any, reason: Reason) -> None:
        """Put an item back that was sent to a client which has died."""
        if not reason:
            return
        if self._is_drained:
            self.task_done()
            return
        # Not by put(), which may wait, fails after a shutdown, and counts another unfinished task.
        mine: Any = self
        mine.queue.appendleft(item)
        self.node.scheduler.hub.loop.run_callback(mine._unlock)

    def _peek_for(self, reply: str) -> None:
        ProxyWaiter(self._object_port, reply, partial(self._send, reply)).wait(self.peek)

    def _peek_now_for(self, reply: str) -> None:
        ProxyWaiter(self._object_port, reply, partial(self._send, reply)).wait(self.peek_nowait)

    def _join_for(self, reply: str) -> None:
        ProxyWaiter(self._object_port, reply, lambda _none: self.node.snd(reply, True)).wait(self.join)

    def _sizes(self) -> list[Any]:
        return [self.qsize(), self.maxsize, self.unfinished_tasks]


class _GaveUp(BaseException):
    """The client that put the item has given up."""


class _Turn:
    """An item that waits for room in the queue."""

    def __init__(self, item: Any, waiter: ProxyWaiter | None) -> None:
        self.item = item
        self.waiter = waiter


class _Line:
    """Put items into a queue in order, waiting for room before each.

    Args:
        queue: The queue.
    """

    def __init__(self, queue: PortQueue[Any]) -> None:
        self._queue = weakref.ref(queue)  # the queue refers to the line
        self._turns: deque[_Turn] = deque()
        self._greenlet: Greenlet[..., Any] | None = None
        self._putting: _Turn | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no item waits."""
        return not self._turns

    def put(self, item: Any, waiter: ProxyWaiter | None) -> None:
        """Put an item in when its turn comes, and then notify its waiter if it has one."""
        queue = self._queue()
        if queue is None:
            return
        turn = _Turn(item, waiter)
        if not self._turns and not queue.full():
            self._put(queue, turn, block=False)
            return
        self._turns.append(turn)
        if waiter is not None:
            waiter.wait_elsewhere(partial(self._give_up, turn))
        if self._greenlet is None:
            self._greenlet = queue.node.scheduler.start_greenlet(self._work, queue)

    def _put(self, queue: PortQueue[Any], turn: _Turn, *, block: bool = True) -> None:
        try:
            queue.put(turn.item, block)
        except Exception as error:  # noqa: BLE001  # goes to the client that put the item
            failure = error
        else:
            if turn.waiter is not None:
                turn.waiter.got(None)
            return
        if turn.waiter is not None:
            turn.waiter.failed(failure)
        else:
            queue.node.scheduler.log(logging.DEBUG, "%s: dropped an item that was put: %s", queue.port, quoted(failure))
        del failure  # its traceback refers to this frame, which would be a cycle

    def _work(self, queue: PortQueue[Any]) -> None:
        try:
            while self._turns:
                self._putting = self._turns[0]
                with contextlib.suppress(_GaveUp):
                    self._put(queue, self._putting)
                self._putting = None
                self._turns.popleft()
        finally:
            self._greenlet = None

    def _give_up(self, turn: _Turn) -> None:
        queue = self._queue()
        if queue is not None:
            queue.node.scheduler.hub.loop.run_callback(self._remove, turn)

    def _remove(self, turn: _Turn) -> None:  # on the hub, so that the greenlet is not running
        if turn is self._putting and self._greenlet is not None:
            self._greenlet.throw(_GaveUp)
        elif turn in self._turns:
            self._turns.remove(turn)


class RemoteQueue(Remote, Generic[T]):
    """A queue on another node, with the methods of a ``gevent.queue.Queue``.

    Each method waits for an answer, and raises ``PortDied`` if the queue or its node is gone.

    Args:
        port: The port of the :class:`PortQueue`.
        node: This node.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # as gevent's

    def put(self, item: T, block: bool = True, timeout: Seconds | None = None) -> None:
        """Put an item in; wait while the queue is full.

        Args:
            item: Anything serialisable, or ``StopIteration``, which ends loops over the queue.
            block: Whether to wait.
            timeout: Seconds to wait; None: forever, 0: do not wait. After a timeout the item may still
                have been put in.

        Raises:
            queue.Full: There was no room.
            gevent.queue.ShutDown: The queue was shut down.
        """
        waits = block and not is_poll(timeout, "put()")
        tag, args = ("end", ()) if item is StopIteration else ("put", (item,))
        try:
            if not waits:
                is_in = self._call(tag + "_nowait", *args)
            else:
                self._wait(timeout, tag, *args)
                is_in = True
        except CallTimeout:
            is_in = False
        if not is_in:
            raise Full

    def put_nowait(self, item: T) -> None:
        """Put an item in if there is room, otherwise raise ``queue.Full``."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: Seconds | None = None) -> T:
        """Take the next item out; wait while the queue is empty.

        Args:
            block: Whether to wait.
            timeout: Seconds to wait; None: forever, 0: do not wait.

        Raises:
            queue.Empty: The queue was empty.
            gevent.queue.ShutDown: The queue was empty and shut down.
        """
        return self._take("get", block, timeout)

    def get_nowait(self) -> T:
        """Take the next item out if there is one, otherwise raise ``queue.Empty``."""
        return self.get(block=False)

    def peek(self, block: bool = True, timeout: Seconds | None = None) -> T:
        """Return the next item without taking it out; otherwise the same as :meth:`get`."""
        return self._take("peek", block, timeout)

    def peek_nowait(self) -> T:
        """Return the next item, if there is one, without taking it out; otherwise raise ``queue.Empty``."""
        return self.peek(block=False)

    def _take(self, tag: str, block: bool, timeout: Seconds | None) -> T:
        waits = block and not is_poll(timeout, tag + "()")
        try:
            kind, item = self._wait(timeout, tag) if waits else self._call(tag + "_nowait")
        except CallTimeout:
            raise Empty from None
        taken: Any = StopIteration if kind == "end" else item
        return taken  # type: ignore[no-any-return]

    def _sizes(self) -> list[Any]:
        sizes: list[Any] = self._call("size")
        return sizes

    def qsize(self) -> int:
        """Return how many items are in the queue."""
        size: int = self._sizes()[0]
        return size

    __len__ = qsize

    def __bool__(self) -> bool:
        return True  # as gevent's queues are, with or without items

    def empty(self) -> bool:
        """Return whether the queue is empty."""
        return not self.qsize()

    def full(self) -> bool:
        """Return whether ``put`` would wait."""
        size, maxsize, _ = self._sizes()
        return maxsize is not None and size >= maxsize

    @property
    def maxsize(self) -> int | None:
        """How many items the queue holds before ``put`` waits; None: any number. Asked over the network."""
        maxsize: int | None = self._sizes()[1]
        return maxsize

    @property
    def unfinished_tasks(self) -> int:
        """How many items :meth:`join` waits for. Asked over the network."""
        unfinished: int = self._sizes()[2]
        return unfinished

    def task_done(self) -> None:
        """Mark an item that was taken out as done, for :meth:`join`."""
        self._call("task_done")

    def join(self, timeout: Seconds | None = None) -> bool:
        """Wait until all items are taken out and done; return whether that was within ``timeout`` seconds."""
        if is_poll(timeout, "join()"):
            return not self.unfinished_tasks
        return self._wait_until(timeout, "join") is not None

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down: ``put`` raises ``ShutDown`` from now on, everywhere, and ``get`` when nothing is left.

        Args:
            immediate: Whether to drop what is in it, so that ``get`` raises at once.
        """
        self._call("shutdown", immediate)

    def __iter__(self) -> Iterator[T]:
        """Return an iterator that gets items until it gets ``StopIteration``."""
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item
