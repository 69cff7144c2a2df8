# SPDX-License-Identifier: MIT
"""How a node leaves: by draining, by shutting down, on a signal, and when the program ends."""

from __future__ import annotations

import signal
import sys
from time import monotonic

import gevent
from greenlet import getcurrent

from aemp_gevent.calls import answers
from aemp_gevent.node.linked_node import LinkedNode
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.port import DEAD, QUEUED, REMOTE, RUNNING
from aemp_gevent.runtime import forking
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds, to_seconds

_QUIET_SECONDS = 0.5
"""A drained node that has had nothing to do for this long has got the messages that were on their way."""

_LOOK_SECONDS = 0.05


class Leaving(LinkedNode):
    """A node that can leave the network."""

    def drain(self, timeout: Seconds | None = 10.0) -> bool:
        """Take this node's entries out of the directory, and wait until its ports have done their work. Switches.

        Look-ups in groups and families find only ports of other nodes from then on. Call it before
        :meth:`shutdown`, so that messages that were sent here until then are handled. The work is done when no
        port has run a handler, and no message has waited for one, for half a second.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether the work was done in time.
        """
        self._check_may_wait("drain()")
        deadline = answers.deadline_of(to_seconds(timeout, "drain()"))
        self._directory.withdraw_all()
        quiet_since = monotonic()
        while True:
            now = monotonic()
            if self._is_busy:
                quiet_since = now
            if now - quiet_since >= _QUIET_SECONDS:
                return True
            left = answers.left_until(deadline)
            if left is not None and left <= 0:
                return False
            gevent.sleep(_LOOK_SECONDS)

    @property
    def _is_busy(self) -> bool:
        current = current_port()
        return any(port.state in (QUEUED, RUNNING) and port is not current for port in list(self._ports.values()))

    def shutdown(self, timeout: Seconds | None = 5.0) -> None:
        """Say goodbye to the peers, send queued messages within ``timeout`` seconds, and close all links. Switches.

        Monitors that peers have of ports here fire with ``("shutdown", node)``, after everything
        that was sent before; so do monitors that this node has of
        their ports. The node keeps its ports and its ID, and cannot be initialised again. Handlers and actors may
        keep sending to each other; everywhere else ``snd``, ``port`` and the like raise ``NodeShutDownError``.
        A call that waits for a port of a peer ends as after the loss of any node. If the error
        that ``call`` then raises, or one raised ``from`` it, ends a port, that port dies with ``("shutdown", node)`` as
        well, and one line is logged, but no crash. ``syncal`` and ``cal`` return nothing, and what their caller raises
        is a crash.
        When a program ends, this happens automatically, for all nodes of the main thread at the same time.

        Args:
            timeout: Seconds; peers that have not received everything by then are logged. At most half of it is spent
                on nodes that must be found first, and on handing over state.
        """
        self._scheduler.check_thread("shutdown()")
        seconds = to_limited_seconds(timeout, "shutdown()")
        if self._network is None:
            return
        self._check_may_wait("shutdown()")
        kept = seconds / 2  # peers that are linked get their goodbye in order, whatever the others take
        seconds = kept + self._network.wait_for_names(self._say_last_words(seconds - kept))
        self._log_feed.stop()
        if self._made_requests is not None:
            self._made_requests.views.stop()
        self._directory.stop()
        try:
            self._network.shut_down(seconds)
            if self._etcd is not None:
                self._etcd.stopped.wait(seconds)
        finally:
            self._close_ports()
        self._scheduler.hub.loop.run_callback(self._scheduler.end_idle_runners)

    def _say_last_words(self, timeout: float) -> float:
        """Call what is to be called before the shutdown, once; return the seconds left. Switches."""
        host = self._request_host
        calls, host.last_calls = host.last_calls, []
        deadline = answers.deadline_of(timeout)
        greenlets = [gevent.spawn(call) for call in calls]  # what they raise is not the shutdown's concern
        try:
            gevent.joinall(greenlets, timeout)
        finally:
            gevent.killall(greenlets, block=False)
        return answers.left_until(deadline) or 0.0

    def reset(self, timeout: Seconds | None = 1.0) -> None:
        """Kill every port here, shut down, and become a private node with a new ID. For tests. Switches.

        Ports die normally, their messages are dropped, and timers are stopped. Greenlets that the library did not
        start keep running; one that called ``attach`` learns of its port's death in its next blocking call.

        Args:
            timeout: Seconds for the shutdown.
        """
        self._check_may_wait("reset()")
        seconds = to_limited_seconds(timeout, "reset()")
        scheduler = self._scheduler
        scheduler.end_all_timers()
        mine = [port for port in set(self._ports.values()) if port.state != REMOTE]
        for port in mine:
            scheduler.kill_now(port, ())
        while any(port.state != DEAD for port in mine):
            gevent.sleep(0)  # killed ports die at the latest when the hub gets control
        self.shutdown(seconds)
        self._stop_watching()
        scheduler.end_all_timers()
        scheduler.hub.loop.run_callback(scheduler.end_idle_runners)
        current = getcurrent()
        if getattr(current, "aemp_port", None) in mine:
            current.aemp_port = None  # type: ignore[attr-defined]  # any greenlet can have it
        self._begin()

    def shutdown_on_signal(self, *signals: int, timeout: Seconds | None = 5.0) -> None:
        """Shut the node down on a signal, then end the program: raise ``SystemExit(128 + signal)``.

        A program that calls this in its first lines ends on Ctrl-C without a traceback. ``SystemExit`` is raised in
        the main greenlet, so that its ``finally`` blocks run. A second signal ends the program without waiting for
        peers. Signals are handled when gevent's loop runs: code that never waits cannot be interrupted.

        Args:
            signals: The signals' numbers. Without any: ``SIGINT``, which is Ctrl-C, and ``SIGTERM``.
            timeout: Seconds for the shutdown.
        """
        self._scheduler.check_thread("shutdown_on_signal()")
        seconds = to_limited_seconds(timeout, "shutdown_on_signal()")
        for number in signals or (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._end_program, number, seconds)

    @property
    def _is_due(self) -> bool:
        """Whether this node must be shut down when this native thread's program ends."""
        return self._is_of_this_thread() and self._is_on_sockets

    @property
    def _is_on_sockets(self) -> bool:
        """Whether this node has or may make connections over sockets."""
        return self._carrier is None and self._network is not None and not self._network.is_closed

    def _end_program(self, number: int, timeout: float) -> None:
        ending, self._ending = self._ending, True
        if not ending:
            self.shutdown(timeout)
        elif self._network is not None:
            self._network.close()
        sys.exit(128 + number)


def shut_down_all() -> None:
    """Shut down all networked nodes of this native thread at the same time, because the program ends. Switches."""
    nodes = [node for node in forking.nodes() if isinstance(node, Leaving)]
    due = [node for node in nodes if node._is_due]  # pyright: ignore[reportPrivateUsage]  # one of ours
    if due:  # otherwise this would make a hub in a program that may not have one
        gevent.joinall([gevent.spawn(node.shutdown) for node in due])
