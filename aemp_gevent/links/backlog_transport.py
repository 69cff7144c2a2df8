# SPDX-License-Identifier: MIT
"""A link's transport while large packets leave in fragments: hands over one at a time, so that others can pass.

A transport sends whatever it was given, in order. So a :class:`BacklogTransport` keeps what can wait, and the inner
one has at most some fragments of it at any moment. It takes the place of the link's transport when the first packet
has to wait, and gives it back when the last one has left; so links that send no large packets know nothing of it.

Which packets must wait for which is in :mod:`aemp_gevent.wire.fragments`.
"""

from __future__ import annotations

from aemp_gevent.transport.datagrams import Ends
from aemp_gevent.transport.transport import Sink, Transport
from aemp_gevent.wire.fragments import FRAGMENT_BYTES, Backlog

AHEAD_BYTES = FRAGMENT_BYTES
"""The next fragment is handed over when less than this waits before it: the system always has something to send."""


class BacklogTransport:
    """A :class:`~aemp_gevent.transport.transport.Transport` with a backlog, over another one.

    Args:
        inner: The other one, which was started.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.backlog = Backlog()
        self.was_overtaken = False
        """Whether the last packet went before what waits."""
        self.is_finishing = False
        self.write = inner.write
        self._due_at = 0  # how much the inner one must have sent before it gets a fragment although much waits there

    @property
    def buffered(self) -> int:
        return self.inner.buffered + self.backlog.size

    @property
    def sent(self) -> int:
        return self.inner.sent

    @property
    def sent_writes(self) -> int:
        return self.inner.sent_writes

    @property
    def peer_address(self) -> str:
        return self.inner.peer_address

    @property
    def ends(self) -> Ends | None:
        return self.inner.ends

    @property
    def round_trip(self) -> float | None:
        return self.inner.round_trip

    def feed(self) -> int:
        """Hand over as much as is due; return how many fragments that were not the last of their packets.

        Packets that pass get at most half of the line: one fragment goes for every ``AHEAD_BYTES`` that are sent.
        """
        inner, backlog = self.inner, self.backlog
        incomplete = 0
        while backlog.packets and (inner.buffered < AHEAD_BYTES or inner.sent >= self._due_at):
            incomplete += not backlog.take(inner.write)
            self._due_at = inner.sent + AHEAD_BYTES
        return incomplete

    def start(self, sink: Sink) -> None:
        self.inner.start(sink)

    def pause(self) -> None:
        self.inner.pause()

    def resume(self) -> None:
        self.inner.resume()

    def finish(self) -> None:
        self.is_finishing = True  # the link does it when nothing waits

    def close(self, last_words: bytes = b"") -> None:
        self.backlog.clear()
        self.inner.close(last_words)

    def abort(self) -> None:
        self.backlog.clear()
        self.inner.abort()

    def abandon(self, *, watching: bool) -> None:
        self.backlog.clear()
        self.inner.abandon(watching=watching)
