# SPDX-License-Identifier: MIT
"""Pacing: how long ports may run before sockets and timers are looked at."""

from __future__ import annotations

from time import perf_counter

from aemp_gevent.ports.run_queue import RunQueue

SLICE = 32
"""Messages that one port may handle before the next port. Longer slices save little (7 % from 16
to 64), and a port behind a thousand busy ones waits for all of their slices."""

FIRST_LOOK = 2
"""Messages of a slice after which the clock is read in any case, because its port's handlers may be slow. Most
slices have one message, and do not pay for it."""

CREDIT = 16
"""Messages between two looks at the clock, of all ports together. A look takes 45 ns, so 3 ns a message."""

TURN_SECONDS = 0.003
"""How long ports may run before sockets and timers are looked at: about the time of a loop iteration with
a few hundred ready sockets."""

CAREFUL_LOOKS = 256
"""Messages after each of which the clock is read, once a turn took four times as long as it should. They take
15 microseconds, which does not matter if the turn was long because other processes needed the processor."""


class Pacing(RunQueue):
    """Counts messages, and looks at the clock now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = CREDIT
        """Messages until the next look at the clock."""
        self._turn_started = (
            0.0  # 0: no pump has begun a turn; a greenlet that other code resumed begins one at its first look
        )
        self._turn_over = False
        self._careful_looks = 0
        self._pace = 1  # the credit that was given last

    def turn_is_over(self) -> bool:
        """Return whether ports ran long enough, so that the caller must go to the hub; otherwise renew the credit.

        If so, a pump is asked for already.
        """
        now = perf_counter()
        if self._turn_started == 0.0:
            self._turn_started = now
        elif now - self._turn_started > TURN_SECONDS:
            if now - self._turn_started > 4 * TURN_SECONDS:
                self._careful_looks = CAREFUL_LOOKS
            self._turn_over = True
            self.credit = 0  # the caller's own loop looks at it, too
            if not self.pumped:
                _ = self.hub
                self._next_turn.start(self.pump)
                self.pumped = True
            return True
        # Few messages at first, because the first handlers of a turn may be slow ones.
        if self._careful_looks:
            self._careful_looks -= 1
            self._pace = 1
        elif self._pace < CREDIT:
            self._pace *= 2
        self.credit = self._pace
        return False
