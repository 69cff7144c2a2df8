# SPDX-License-Identifier: MIT
"""Inboxes: the mailboxes of ports for which a deque does not do, because they are bounded or keep traces.

Which port gets which is decided elsewhere: by :func:`aemp_gevent.ports.port.make_inbox`, and by what limits a port.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

from aemp_gevent.ports.patterns import Message
from aemp_gevent.runtime.tracing import TRACING

NOWHERE: deque[Message] = deque(maxlen=0)
"""The mailbox of killed ports: what is appended vanishes, at no cost to the senders' hot path."""


class InboxOwner(Protocol):
    """A port, as its inbox sees it. See :class:`~aemp_gevent.ports.port.Port`."""

    state: int
    mailbox: Any
    cell: Any


_append = deque[Message].append


class WrittenInbox(deque[Message]):
    """An inbox whose ``append`` is written in Python, where threads can switch. A base class.

    Subclasses, not tests in ``snd``, so that ports with a plain deque pay nothing. What they add, they add by
    :meth:`put`, so that a message whose thread stopped in ``append`` is not lost when the port's inbox is diverted.

    Args:
        port: The port.
    """

    def __init__(self, port: InboxOwner) -> None:
        super().__init__()
        self._port = port

    def emptied(self) -> WrittenInbox:
        """Return an empty inbox of the same kind."""
        return type(self)(self._port)

    def put(self, element: Any) -> None:
        """Add to what is the port's inbox by now; nothing, if the port was killed meanwhile."""
        port = self._port
        if port.mailbox is not NOWHERE:
            _append(port.cell.inbox, element)  # this, or what this was diverted to
            if not port.state:  # as in Port.append
                port.cell.scheduler.enqueue(port)


class BoundedMailbox(WrittenInbox):
    """A mailbox that calls ``overflow`` instead of growing past ``limit`` messages."""

    def __init__(self, port: InboxOwner, limit: int, overflow: Callable[[], None]) -> None:
        super().__init__(port)
        self._limit = limit
        self._overflow = overflow

    def emptied(self) -> BoundedMailbox:
        """Return an empty mailbox with the same bound."""
        return BoundedMailbox(self._port, self._limit, self._overflow)

    def append(self, message: Message) -> None:
        if len(self) < self._limit:
            self.put(message)
        else:
            self._overflow()


_iterate = deque[Message].__iter__
_first = itemgetter(0)


class TracedInbox(WrittenInbox):
    """An inbox that keeps the trace in which each message was sent, and continues in it when the message is taken.

    Its elements are pairs of a message and a trace, so that a message is added with its trace in one step, whichever
    thread sends it. Code that takes or reads messages sees only these; ``extendleft`` and ``reversed`` move the pairs.
    """

    def append(self, message: Message) -> None:
        tracer = TRACING.tracer
        self.put((message, None if tracer is None else tracer.current()))

    def popleft(self) -> Message:
        message, trace = super().popleft()
        self._arrived(trace)
        return message  # type: ignore[no-any-return]  # an element of a pair

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)[0]

    def __iter__(self) -> Iterator[Message]:
        # All at once, as deques are copied: another thread may add a message in the middle of a loop.
        return iter(list(map(_first, chain.from_iterable(map(_iterate, (self,))))))

    def __delitem__(self, index: Any) -> None:
        _message, trace = super().__getitem__(index)
        super().__delitem__(index)
        self._arrived(trace)

    def _arrived(self, trace: object) -> None:
        tracer = TRACING.tracer
        if tracer is not None:
            tracer.arrived(trace)
