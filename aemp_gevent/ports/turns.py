# SPDX-License-Identifier: MIT
"""Turns: how long ports may run before sockets and timers get a look."""

from __future__ import annotations

from time import perf_counter

from aemp_gevent.ports.run_queue import RunQueue

SLICE = 32
"""Messages one port may handle before the next one's turn. Longer slices save little (7 % from 16
to 64), and a port behind a thousand busy ones waits for all of theirs."""

FIRST_LOOK = 2
"""Messages of a slice after which there is a look at the clock in any case, as its port's handlers may be slow. Most
slices have one message, and do not pay for it."""

CREDIT = 16
"""Messages between two looks at the clock (45 ns each, so 3 ns a message), however many ports had them."""

TURN_SECONDS = 0.003
"""How long ports may run before sockets and timers get a look: about what a loop iteration with
a few hundred ready sockets takes."""

CAREFUL_LOOKS = 256
"""For so many messages there is a look at the clock after each, once a turn took four times as long as it should. That
is 15 microseconds, which does not matter when the turn was long because other processes needed the processor."""


class Turns(RunQueue):
    """Counts messages, and looks at the clock now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = CREDIT
        """Messages until the next look at the clock."""
        self._turn_started = 0.0  # 0: by no pump; a greenlet that something else resumed begins one at its first look
        self._turn_over = False
        self._careful_looks = 0
        self._pace = 1  # the credit that was given last

    def turn_is_over(self) -> bool:
        """Renew the credit, or say that ports ran long enough; the caller goes to the hub then.

        Before the hub gets control a pump is asked for, whoever called.
        """
        now = perf_counter()
        if self._turn_started == 0.0:
            self._turn_started = now
        elif now - self._turn_started > TURN_SECONDS:
            if now - self._turn_started > 4 * TURN_SECONDS:
                self._careful_looks = CAREFUL_LOOKS
            self._turn_over = True
            self.credit = 0  # also the caller's own loop looks at it
            if not self.pumped:
                _ = self.hub
                self._next_turn.start(self.pump)
                self.pumped = True
            return True
        # Few messages at first: the first handlers of a turn may be slow ones, too.
        if self._careful_looks:
            self._careful_looks -= 1
            self._pace = 1
        elif self._pace < CREDIT:
            self._pace *= 2
        self.credit = self._pace
        return False
