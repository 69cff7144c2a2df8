# SPDX-License-Identifier: MIT
"""Queues that other nodes reach: gevent's own where they are, and a stand-in everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gevent.queue import Empty, Full, JoinableQueue

from aemp_gevent import CallTimeout, default_node
from aemp_gevent.local import LocalNode
from aemp_gevent.port import Reason
from aemp_gevent.serving import fail
from aemp_gevent.toolkit.lodgers import House, Lodger
from aemp_gevent.toolkit.remotes import QUICK_SECONDS, Remote

if TYPE_CHECKING:
    _Queue = JoinableQueue[Any]
else:  # Older gevents' cannot be subscripted; the one with join() is the only one in newer ones.
    _Queue = JoinableQueue


class PortQueue(_Queue):
    """A ``gevent.queue.Queue`` with a port: code on this node uses it as ever, others by messages.

    ``snd(queue.port, "put", item)`` puts an item in, from anywhere, and does not wait. On
    other nodes a :class:`RemoteQueue` of that port gets and puts.

    Items that other nodes get are safe: one that a getter was sent when it had just timed out, or
    died, goes back in, to the front. If the link breaks just then, an item may be gotten twice.

    Args:
        maxsize: Items it holds before ``put`` waits; None: any number.
        items: What it holds at first.
        node: Where its port lives.
    """

    def __init__(self, maxsize: int | None = None, items: Iterable[Any] = (), *, node: LocalNode = default_node):
        super().__init__(maxsize, items)
        self.node = node
        self.port: str = node.port()
        """Its port's ID, to be sent to others. ``str()`` of the queue is the same."""
        self._house = House(node, self.port)
        node.rcv(self.port, "put", self._put_for, "get", self._get_for, "get_nowait", self._get_now_for)
        node.rcv(self.port, "join", self._join_for)
        node.serve(
            self.port,
            put_nowait=self._offer,
            end=lambda: self.put(StopIteration, block=False),
            size=lambda: [self.qsize(), self.maxsize],
            task_done=self.task_done,
        )

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Let the port die: others get ``PortDied``. The queue itself goes on here."""
        self.node.kil(self.port)

    def _put_for(self, item: Any, reply: str | None = None) -> None:
        if reply is None:
            if self.full():
                self.node.scheduler.start_greenlet(self.put, item)
            else:
                self.put(item)
            return
        lodger = Lodger(self._house, reply, lambda _none: self.node.snd(reply), lambda _none, _reason: None)
        if self.full():
            lodger.wait(self.put, item)
        else:
            self.put(item)
            lodger.got(None)

    def _offer(self, item: Any) -> bool:
        try:
            self.put_nowait(item)
        except Full:
            return False
        return True

    def _getter(self, reply: str) -> Lodger:
        def give(item: Any) -> None:
            try:
                self.node.snd(reply, *(("end", None) if item is StopIteration else ("item", item)))
            except Exception as error:  # noqa: BLE001  # it cannot travel: that is told, once, and it is gone
                lodger.leave()
                fail(self.node, reply, error)

        def died(item: Any, reason: Reason) -> None:
            if reason:
                self.put(_Returned(item))

        lodger = Lodger(self._house, reply, give, died)
        return lodger

    def _get_for(self, reply: str) -> None:
        lodger = self._getter(reply)
        if self.empty():
            lodger.wait(self.get)
        else:
            lodger.got(self.get())

    def _get_now_for(self, reply: str) -> None:
        if self.empty():
            self.node.snd(reply, "empty", None)
        else:
            self._get_for(reply)

    def _join_for(self, reply: str) -> None:
        lodger = Lodger(self._house, reply, lambda _none: self.node.snd(reply), lambda _none, _reason: None)
        lodger.wait(self.join)

    def _put(self, item: Any) -> None:
        if isinstance(item, _Returned):
            items: Any = self.queue  # the stubs do not say what it is
            items.appendleft(item.item)
        else:
            super()._put(item)  # type: ignore[misc]  # the stubs do not say what subclasses may use


class _Returned:
    """An item that somebody had been given, and did not take."""

    def __init__(self, item: Any) -> None:
        self.item = item


class RemoteQueue(Remote):
    """A queue of another node, to be used as if it were a ``gevent.queue.Queue`` of this one.

    Every method waits for an answer, and raises ``PortDied`` when the queue is gone, or its node.

    Args:
        port: Of the :class:`PortQueue`.
        node: This node.
    """

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; wait while the queue is full.

        Args:
            item: Anything that can travel, or ``StopIteration``, which ends loops over the queue.
            block: Whether to wait.
            timeout: Seconds to wait; None: for ever. The item may be in the queue although the time was over.

        Raises:
            queue.Full: There was no room.
        """
        if item is StopIteration:
            self.node.call(self.port, "end", timeout=QUICK_SECONDS)
        elif not block:
            if not self.node.call(self.port, "put_nowait", item, timeout=QUICK_SECONDS):
                raise Full
        else:
            try:
                self.node.call(self.port, "put", item, timeout=timeout)
            except CallTimeout:
                raise Full from None

    def put_nowait(self, item: Any) -> None:
        """Put an item in if there is room, else raise ``queue.Full``."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item out; wait while there is none.

        Args:
            block: Whether to wait.
            timeout: Seconds to wait; None: for ever.

        Raises:
            queue.Empty: There was none.
        """
        try:
            if block:
                kind, item = self.node.call(self.port, "get", timeout=timeout)
            else:
                kind, item = self.node.call(self.port, "get_nowait", timeout=QUICK_SECONDS)
        except CallTimeout:
            raise Empty from None
        if kind == "empty":
            raise Empty
        return StopIteration if kind == "end" else item

    def get_nowait(self) -> Any:
        """Take the next item out if there is one, else raise ``queue.Empty``."""
        return self.get(block=False)

    def _size(self) -> Any:
        return self.node.call(self.port, "size", timeout=QUICK_SECONDS)

    def qsize(self) -> int:
        """Return how many items are in it."""
        size: int = self._size()[0]
        return size

    __len__ = qsize

    def __bool__(self) -> bool:
        return True  # as gevent's queues are, with or without items

    def empty(self) -> bool:
        """Return whether there is no item in it."""
        return not self.qsize()

    def full(self) -> bool:
        """Return whether ``put`` would wait."""
        size, maxsize = self._size()
        return maxsize is not None and size >= maxsize

    def task_done(self) -> None:
        """Say that an item that was taken out is done with, for those who :meth:`join`."""
        self.node.call(self.port, "task_done", timeout=QUICK_SECONDS)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item was taken out and is done with; return whether that is so."""
        try:
            self.node.call(self.port, "join", timeout=timeout)
        except CallTimeout:
            return False
        return True

    def __iter__(self) -> Iterator[Any]:
        """Give item by item, until somebody puts ``StopIteration`` in."""
        return self

    def __next__(self) -> Any:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item
