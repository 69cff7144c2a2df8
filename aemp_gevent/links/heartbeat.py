# SPDX-License-Identifier: MIT
"""Heartbeats: they keep idle links alive, and show which silent ones are dead.

Every link that is up has a :class:`Heartbeat`; the :class:`Pulse` of a node beats them
all. Two rules keep the living from being declared dead:

- Any bytes that come are a sign of life, also a piece of a message that takes a minute. But a peer that has begun
  to send a message in fragments, and lives, must continue it: see :data:`STALLED_TIMEOUTS`.
- Silence is counted in beats of our own loop, not by the clock: while this program was
  blocked or stopped it could not have heard any peer, so that time does not count.

A peer that is blocked sends signs of life over the second path (:mod:`aemp_gevent.links.second_path`), and is
believed to be alive for ``blocked_timeout`` seconds without anything on the link.

A link that carries nothing but these signs for ``idle_timeout`` seconds is idle, which is reported to its
owner: :mod:`aemp_gevent.peers.direct_peer` closes it if neither side needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from aemp_gevent.links.link import Link
from aemp_gevent.links.node_state import UP
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.hub_calls import repeated
from aemp_gevent.settings.fields import Settings

_LONGEST_BEAT_SECONDS = 1.0
_SHORTEST_BEAT_SECONDS = 0.01
_BEATS_AN_INTERVAL = 4

_CREDITED_FROM = 10
"""At most this part of the timeout is counted for each beat: during the rest this process was blocked."""

STALLED_TIMEOUTS = 4
"""For how many times ``heartbeat_timeout`` a peer may leave a message in fragments as it is, and send less than
``STALLED_RATE``. Then the link is dropped."""

STALLED_RATE = 64
"""Bytes a second. A peer that sends more may be sending the next fragment, or what goes before it, over a slow line:
at this rate a fragment takes 17 minutes. A peer that has forgotten the message sends heartbeats, which are less than
one byte a second.
"""

_HEARTBEATS_A_TIMEOUT = 3
"""A peer may miss two before it is given up."""


class Heartbeat:
    """Sends heartbeats on one link that is up, and notes those of the peer.

    A peer without ``heartbeat`` in its greeting (a Perl node) sends none, and is asked
    for the time instead when it has been silent for too long.

    Args:
        link: The link.
        scheduler: Where log lines go.
        settings: How long to wait for what.
        probe: A packet that a peer without heartbeats answers.
        found_idle: Called when nothing but heartbeats came or went for ``idle_timeout`` seconds, and
            again after as many more.
    """

    def __init__(
        self, link: Link, scheduler: Scheduler, settings: Settings, probe: list[Any], found_idle: Callable[[Link], None]
    ) -> None:
        greeting = link.greeting
        self._node = greeting.node if greeting else "?"
        theirs = greeting.heartbeat if greeting else None
        self.interval = None if theirs is None else min(settings.heartbeat_interval, theirs / _HEARTBEATS_A_TIMEOUT)
        """The longest that we may be silent; None for a peer that expects nothing."""
        self._link = link
        self._log = scheduler.log_soon
        self._timeout = settings.heartbeat_timeout
        self._answer_timeout = settings.monitor_timeout
        self._blocked_timeout = settings.blocked_timeout
        self._blocked_seconds = 0.0  # for how long the peer has been blocked, and nothing came over the link
        self._probe = probe
        self._last_heard = link.heard
        self._last_arrived = link.arrived
        self._silent = 0.0  # seconds since the peer was heard
        self._unfinished = 0  # fragments of a message that is not complete
        self._stalled = 0.0  # seconds since the last of them
        self._stalled_from = 0  # bytes that had come by then
        self._since_sent = 0.0  # seconds since we sent something
        self._warnings = 0  # how many for this silence
        self.idle_seconds = 0.0
        """Seconds since anything but a heartbeat came or went."""
        self._idle_timeout = settings.idle_timeout
        self._report_at = settings.idle_timeout or 0.0
        self._found_idle = found_idle
        self._heard = link.received - link.keep_alives
        self._has_beaten = False  # whether what leaves next, or left last, is a heartbeat

    def beat(self, elapsed: float, counted: float, beat: float) -> None:
        """Do what is due.

        Args:
            elapsed: Seconds since the last call.
            counted: How many of these count against the peer.
            beat: Seconds until the next call.
        """
        if self._link.second_path is not None:
            self._link.second_path.offer()
        self._listen(counted, beat)
        self._link.rest()
        if self._link.unfinished:
            self._watch_fragments(counted)
        if not self._link.closed:
            self._note_idle(counted)
            self._speak(elapsed, beat)

    def _listen(self, counted: float, beat: float) -> None:
        link = self._link
        if link.state is UP or link.arrived != self._last_arrived:
            self._blocked_seconds = 0.0
            self._last_arrived = link.arrived
        else:
            self._blocked_seconds += counted
            if self._blocked_timeout is not None and self._blocked_seconds >= self._blocked_timeout:
                link.fail(f"it is {link.state}, and blocked_timeout is {self._blocked_timeout:g} s")
                return
        # A link that is held is not read, and on one that has ended nothing more comes.
        if link.heard != self._last_heard or link.is_held or link.has_ended:
            self._last_heard = link.heard
            self._silent = 0.0
            self._warnings = 0
            return
        self._silent += counted
        if self.interval is None:
            if self._silent >= self._timeout and not self._warnings:
                self._warnings = 1
                self._log(logging.INFO, "link to %s: nothing received for %.1f s, probing", self._node, self._silent)
                if not link.finished:
                    link.send(self._probe)
            if self._silent >= self._timeout + self._answer_timeout:
                link.fail(f"nothing received for {self._silent:.1f} s, and no answer to the probe")
            return
        # One beat later than it was due: what is just under way is not missed.
        missed = int(self._silent / (self._timeout / _HEARTBEATS_A_TIMEOUT + beat))
        if missed > self._warnings:
            self._warnings = missed
            self._log(logging.WARNING, "missed heartbeat %d of %s: silent for %.1f s", missed, self._node, self._silent)
        if self._silent >= self._timeout:
            before = "" if link.state is UP else f" since it was {link.state}"
            link.fail(f"nothing received for {self._silent:.1f} s{before}")

    def _watch_fragments(self, counted: float) -> None:
        link = self._link
        if link.unfinished != self._unfinished or link.is_held:
            self._unfinished, self._stalled, self._stalled_from = link.unfinished, 0.0, link.received
            return
        self._stalled += counted
        if self._stalled >= STALLED_TIMEOUTS * self._timeout:
            if link.received - self._stalled_from < STALLED_RATE * self._stalled:
                text = f"the peer has not continued a message in fragments for {self._stalled:.1f} s"
                link.refuse("message", text)
            self._stalled, self._stalled_from = 0.0, link.received

    def _note_idle(self, counted: float) -> None:
        link = self._link
        heard = link.received - link.keep_alives
        # What leaves in the same turn as a heartbeat is overlooked: then the link is only found idle too early.
        has_said = link.transport.buffered or (link.has_sent and not self._has_beaten)
        if heard != self._heard or has_said:
            self._heard = heard
            self.idle_seconds = 0.0
            self._report_at = self._idle_timeout or 0.0
            return
        self.idle_seconds += counted
        if self._idle_timeout is not None and self.idle_seconds >= self._report_at:
            self._report_at = self.idle_seconds + self._idle_timeout
            self._found_idle(link)

    def _speak(self, elapsed: float, beat: float) -> None:
        link = self._link
        if link.has_sent:
            link.has_sent = self._has_beaten = False
            self._since_sent = elapsed  # it may have left right after the last beat
        else:
            self._since_sent += elapsed
        # What is still to leave is a sign of life itself once it moves, and a heartbeat cannot overtake it.
        due = self.interval is not None and self._since_sent + beat > self.interval
        if due and not link.finished and not link.closed and not link.transport.buffered:
            self._has_beaten = True
            link.beat()


class Pulse:
    """Beats the heartbeats of all links of a node.

    Args:
        scheduler: Whose hub keeps the time.
        settings: How often.
    """

    def __init__(self, scheduler: Scheduler, settings: Settings) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._hearts: dict[Link, Heartbeat] = {}
        self._own_interval = min(
            settings.heartbeat_interval,
            settings.heartbeat_timeout / _HEARTBEATS_A_TIMEOUT,
            settings.idle_timeout or settings.heartbeat_interval,
        )
        self._beat = 0.0
        self._last = 0.0
        self._timer: Any = None  # gevent's watchers have no types

    def add(self, link: Link, probe: list[Any], found_idle: Callable[[Link], None]) -> None:
        """Watch over a link until it is closed; see :class:`Heartbeat`."""
        self._hearts[link] = Heartbeat(link, self._scheduler, self._settings, probe, found_idle)
        self._keep_beat()

    def idle_seconds(self, link: Link) -> float:
        """Return for how many seconds nothing but heartbeats came or went on a link, as of the last beat."""
        heart = self._hearts.get(link)
        return 0.0 if heart is None else heart.idle_seconds

    def _keep_beat(self) -> None:
        """Beat as often as the most impatient of the peers that are there now needs it."""
        intervals = [heart.interval for heart in self._hearts.values() if heart.interval is not None]
        beat = _beat_for(min([self._own_interval, *intervals]))
        if not self._hearts:
            self.stop()
        elif self._timer is None or beat != self._beat:
            self.stop()
            self._beat = beat
            self._last = monotonic()
            # No reference: a program that waits for nothing else may end.
            hub = self._scheduler.hub
            self._timer = hub.loop.timer(beat, beat, ref=False)
            self._timer.start(repeated(hub, self._tick))

    def _tick(self) -> None:  # on the hub
        now = monotonic()
        elapsed, self._last = now - self._last, now
        counted = min(elapsed, max(2 * self._beat, self._settings.heartbeat_timeout / _CREDITED_FROM))
        for link, heart in list(self._hearts.items()):
            if link.closed:
                if link.second_path is not None:
                    link.second_path.close()
                    link.second_path = None  # which knows the link: a cycle would keep both until the next collection
                del self._hearts[link]  # afterwards: if an interrupt strikes, the next beat closes it
            else:
                heart.beat(elapsed, counted, self._beat)
        self._keep_beat()

    def stop(self) -> None:
        """Stop beating, until a link is added. Idempotent."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


def _beat_for(interval: float) -> float:
    """Return how often to look for something that is due every ``interval`` seconds."""
    return max(_SHORTEST_BEAT_SECONDS, min(_LONGEST_BEAT_SECONDS, interval / _BEATS_AN_INTERVAL))
