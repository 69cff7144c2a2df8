# SPDX-License-Identifier: MIT
"""Deaths: how ports are killed, when they die, and which errors are logged.

Actions of monitors are queued here and run as jobs; :mod:`aemp_gevent.ports.monitors` is the file to read next.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

from greenlet import getcurrent

from aemp_gevent.errors import PortKilled
from aemp_gevent.ports.blame import called_function
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.own_end import end_behind
from aemp_gevent.ports.pacing import Pacing
from aemp_gevent.ports.port import DEAD, RUNNING, Port, PortsOwner, activate, blank_cell
from aemp_gevent.ports.port_table import PortTable
from aemp_gevent.ports.reasons import Reason, describe
from aemp_gevent.runtime.bounded_log import ErrorLog

NOBODY = PortsOwner()


class Deaths(Pacing):
    """Kills ports, and ends their lives.

    Args:
        owner: The owner of the ports.
    """

    def __init__(self, owner: PortsOwner = NOBODY) -> None:
        super().__init__()
        self.owner = owner
        """The owner of these ports: nobody in a forked child, where those of the parent are abandoned."""
        self.table = PortTable()
        """Finds ports, and is the only one to change what it finds."""
        self.blank = blank_cell(self)  # type: ignore[arg-type]  # what is run is a whole scheduler
        """The cell of all ports that have none of their own yet."""
        self._deaths: deque[Port] = deque()
        self._failures = ErrorLog(self.log)

    @property
    def ports(self) -> Mapping[str, Port]:
        """Every living port by its ID, and by its aliases. For reading."""
        return self.table.by_id

    def kill(self, port: Port, reason: Reason) -> None:
        """Kill a port with ``reason`` once it handled what was sent before. Later kills have no effect."""
        cell = port.cell
        if cell.dying is not None:
            return
        # First what may raise: a port that is queued without having been killed is served in vain.
        if port.state == RUNNING:
            self.doom(port)
        else:
            self.enqueue(port)
        if cell.is_blank:
            cell = activate(port)
        if cell.dying is None:  # no call before the two stores, because other native threads kill, too
            cell.dying = reason
            port.mailbox = NOWHERE

    def kill_from_afar(self, port: Port, reason: Reason) -> None:
        """Kill a port like :meth:`kill`, in another native thread: it is killed at once, and the hub ends it."""
        if port.cell.dying is None:
            self.call_on_hub(self._kill_here, port, reason)
            cell = activate(port)
            if cell.dying is None:
                cell.dying = reason
                port.mailbox = NOWHERE

    def _kill_here(self, port: Port, reason: Reason) -> None:  # on the hub
        self.kill(port, reason)
        # It may have been marked in the other thread.
        if port.state == RUNNING:
            self.doom(port)
        else:
            self.enqueue(port)

    def overflow(self, port: Port, limit: int) -> None:
        """Kill a port that has too many messages. Any native thread may call it."""
        reason = ("mailbox_overflow", limit)
        if self.is_foreign:
            self.kill_from_afar(port, reason)
            self.call_on_hub(self.kill_now, port, reason)  # its waiting messages must not be handled
        else:
            self.kill_now(port, reason)

    def doom(self, port: Port) -> None:
        """Ask the hub to end a killed port with a greenlet inside, if that greenlet blocks.

        A greenlet that is still inside when the hub gets control is blocked, and to wait
        for its end would make a sleeping port unkillable. Also to be called when a greenlet
        enters a killed port to handle what was sent before the kill.
        """
        if not self.pumped:
            self.ask()
        self._deaths.append(port)

    def _leave(self, port: Port) -> None:
        """Ask the hub to end a port without a greenlet inside. Nothing in here can be struck."""
        cell = port.cell  # its own: it was served
        port.state = RUNNING
        cell.runner = None
        port.mailbox = NOWHERE
        if cell.dying is None:
            cell.dying = ("die", "interrupted")
        self._deaths += (port,)

    def kill_now(self, port: Port, reason: Reason) -> None:
        """Kill a port with ``reason`` without handling what was sent before."""
        self.kill(port, reason)
        # Afterwards, so that the finalizer of a message cannot send to the port any more.
        if port.cell.inbox:
            port.cell.inbox.clear()

    def fail(self, port: Port | None, error: BaseException) -> None:
        """Kill a port at once for an exception of its code, drop its messages, and log the exception.

        The exception that the kill itself raised is not logged. Neither is the traceback of one that is due to the
        shutdown of this node.

        Args:
            port: The port whose code raised; None when it ran outside any port.
            error: What it raised.
        """
        is_news = not isinstance(error, PortKilled) or port is None or port.cell.dying is None
        end = end_behind(error, port)
        if port is not None and port.state != DEAD:
            reason = port.cell.dying
            if reason is None:
                reason = ("die", describe(error)) if end is None else end
            if port.state == RUNNING and port.cell.runner is getcurrent():
                self.die(port, reason)
            else:
                self.kill_now(port, reason)
        # Afterwards: a log handler may block, and a foreign Timeout may strike there.
        where = f"port {port.id}" if port else "a callback outside any port"
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self.log(logging.INFO, "%s was interrupted: %s", where, describe(error))
            self._interrupt(error)
        elif is_news and end is not None:
            self.log(logging.INFO, "%s ended, because its node shuts down: %s", where, describe(error))
        elif is_news:
            called = called_function(error, port.default if port else None)
            self._failures.log(error, "exception in %s%s", where, called and f"; {called}")

    def die(self, port: Port, reason: Reason) -> None:
        """End a port's life now: nothing more is handled, and its monitors' actions are queued.

        Only for the greenlet inside the port, or the hub. Never switches.
        """
        # If this is struck in the middle, it may be begun again: the state that shows that all is done comes last.
        if port.state == DEAD:
            return
        cell = port.cell
        if cell.is_blank:
            cell = activate(port)
        cell.dying = reason
        port.mailbox = NOWHERE
        if cell.inbox:
            cell.inbox.clear()
        cell.handlers = None
        self.table.remove(port)
        monitors = port.monitors
        if monitors is None and reason and not port.is_for_answer:
            monitors = port.monitors = self.owner.unmonitored_death(port.id, reason)  # as a job, which runs once
        if monitors is not None:
            if isinstance(monitors, dict):
                for monitor in tuple(monitors):
                    if monitor.died(reason):
                        self.enqueue_job(monitor)
            else:
                monitor = monitors
                if monitor.died(reason):
                    self.enqueue_job(monitor)
            port.monitors = None
        port.state = DEAD
