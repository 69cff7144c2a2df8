# SPDX-License-Identifier: MIT
"""Holding back the first answers of a node that begins to keep the directory, until it has all that others have.

The directory of a global node is whole when every other one has sent its own part. A node that has just begun does not
know their parts, and an answer at that time would be wrong without anybody noticing: a message to a group, for
example, would reach only those of its ports whose nodes were quicker. So it waits for the links to its seeds and for
the parts of all global nodes, but for no more than :data:`HOLD_SECONDS`, as some of them may be dead. A seed that
accepts no connection is not waited for, nor a node that the rules let write nothing, and a node without seeds waits for
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.directory.embedded.turns import Turns
from aemp_gevent.peers.peer import Peer
from aemp_gevent.wire.framing_msgpack import make_resting_encoder

HOLD_SECONDS = 2.0
"""How long answers are held back. A link to another continent takes less, and callers that wait 5 s still get one."""

MAX_HELD = 10_000
"""Requests of peers that are held back; one more ends the wait, so that nobody can fill the memory."""

MAX_HELD_BYTES = 16 * 2**20
"""The same for what they have together."""

_MAX_NAMED = 5

Request = tuple[Peer, str, list[Any]]


class HeldAnswers:
    """The requests of peers that a new global node does not answer yet.

    Args:
        host: The node's links.
        turns: Makes the call of the timer.
        unheard: Returns the nodes that have not sent their part of the directory, and may.
        ended: Called when the time is over.
        warn: Logs a warning about the directory.
    """

    def __init__(
        self,
        host: EmbeddedHost,
        turns: Turns,
        unheard: Callable[[], list[str]],
        ended: Callable[[], None],
        warn: Callable[..., None],
    ) -> None:
        self._host = host
        self._turns = turns
        self._unheard = unheard
        self._ended = ended
        self._warn = warn
        self._held: deque[Request] = deque()
        self._size = 0  # of all that were held, in bytes
        self._encode = make_resting_encoder()
        self._timer: int | None = None
        self.is_over = not host.has_seeds
        """Whether answers are given."""

    def stop(self) -> None:
        """End the timer. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._host.scheduler.end_timer(timer)

    def review(self) -> None:
        """Stop holding answers back if the directory is whole now, as far as can be known. Repeatable.

        The time begins with the first call.
        """
        if self.is_over:
            return
        if self._host.seeds_are_settled and not self._unheard():
            self._end()
        elif self._timer is None:
            self._timer = self._host.scheduler.start_timer(HOLD_SECONDS, self._turns.take, self._give_up)

    def _end(self) -> None:
        self.is_over = True
        self.stop()

    def _give_up(self) -> None:
        if not self.is_over:
            missing = self._unheard()
            named = ", ".join(missing[:_MAX_NAMED]) + (", …" if len(missing) > _MAX_NAMED else "")
            self._warn("answers may lack entries at first: nothing has come yet from %s", named or "some seeds")
            self._end()
        self._ended()

    # --- requests of peers ---

    def hold(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Keep a request for later."""
        self._size += len(self._encode(args))
        self._held.append((peer, request, args))
        if len(self._held) > MAX_HELD or self._size > MAX_HELD_BYTES:
            self._give_up()

    def forget(self, peer: Peer) -> None:
        """Drop what a peer has requested: its link is down. Repeatable."""
        if self._held:
            self._held = deque(each for each in self._held if each[0] is not peer)

    def next(self) -> Request | None:
        """Return the first request that is to be answered now; None: there is none."""
        return self._held[0] if self._held and self.is_over else None

    def answered(self) -> None:
        """Drop the first request."""
        self._held.popleft()
