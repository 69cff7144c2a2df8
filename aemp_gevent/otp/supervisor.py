# SPDX-License-Identifier: MIT
"""Supervisors: they start children in order, start them again when they die, and stop them in reverse.

A supervisor is a :class:`Server`: deaths, restarts and requests are messages, one after another. While it stops or
starts a child, the others wait. A pause before a restart is a timer, so nothing waits for that.

**Groups.** The death of one child concerns a group of children: itself, all, or itself and those after it. The others
of the group are stopped at once. After the pause, all of the group are started in order; one that fails to start is
treated as if it had died. So there is one path: a death, or a failed start, ends in :meth:`Supervisor._ended`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, Literal

from aemp_gevent.errors import StartError
from aemp_gevent.node.access import is_shut_down, tag_of
from aemp_gevent.otp.budgets import Budget
from aemp_gevent.otp.children import Child
from aemp_gevent.otp.entries import ChildState, Entries, Entry, Event, Strategy
from aemp_gevent.otp.lost_children import LostChildren
from aemp_gevent.otp.marks import call
from aemp_gevent.otp.placement import LOST, is_end_of_node
from aemp_gevent.otp.server import Server
from aemp_gevent.otp.stopping import SHUTDOWN, stop_children
from aemp_gevent.otp.trees import trees_of
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.totals import CHILD_RESTARTS

GAVE_UP = "gave_up"
"""First element of the reason of a supervisor whose budget is spent. The ID and the reason of the child that died last
follow."""

_log = Log()


class Supervisor(Server):
    """A server that keeps others running: its children.

    ::

        shop = Supervisor.start([Child(Cart, "ada"), Child(poll, 10)], strategy="rest_for_one")

    or as a class, which can itself be a child::

        class Shop(Supervisor):
            strategy = "rest_for_one"

            def children(self, owner: str) -> list[Child]:
                return [Child(Cart, owner), Child(poll, 10)]

    The arguments of ``start`` that are named like the attributes below set these. Children start in order, each after
    the one before has started, and stop in reverse. If one does not start at first, ``start`` raises ``StartError``.
    """

    strategy: Strategy = "one_for_one"
    """Which children are started again when one has died: that one, all, or that one and those after it."""

    intensity: int | None = 3
    """How many restarts of its children, after the longest pause, a supervisor makes within :attr:`period`; 0: no
    restart at all; None: any number. Once more, and it gives up: it logs the last reasons, stops all children, and dies
    of ``("gave_up", child, *reason)``."""

    period: Seconds = 300.0
    """Seconds within which restarts count."""

    backoff: tuple[Seconds, Seconds] | None = (0.1, 30.0)
    """The first and the longest pause before a child is restarted, in seconds. Each is twice the one before, and up to
    half longer at random. After a child has run for longer than the longest one, they begin again with the first.
    Only restarts after the longest pause count for :attr:`intensity`. None: no pauses, and each restart counts."""

    auto_shutdown: Literal["never", "any_significant", "all_significant"] = "never"
    """Whether the supervisor stops when one significant child, or the last one, has ended and is not restarted."""

    terminate_timeout: Seconds | None = None
    _aemp_is_supervisor = True
    _aemp_forgets = False
    aemp_free_names = frozenset({"terminate"})
    _aemp_start_seconds = None
    _aemp_guarded = frozenset({"restart", "terminate", "delete"})
    """Methods that end ports, for which other nodes need the right to kill."""

    def children(self, *args: Any, **kwargs: Any) -> Iterable[Child]:
        """Return the children to start; override it in a class with children of its own, and its own arguments."""
        return _only_children(*args, **kwargs)

    def init(self, *args: Any, **options: Any) -> None:
        """Start the children."""
        for name in ("strategy", "intensity", "period", "backoff", "auto_shutdown"):
            if name in options:
                setattr(self, name, options.pop(name))
        _check("strategy", self.strategy, ("one_for_one", "one_for_all", "rest_for_one"))
        _check("auto_shutdown", self.auto_shutdown, ("never", "any_significant", "all_significant"))
        self._budget = Budget(self.intensity, self.period, self.backoff)
        self._complaints = BoundedLog(_log.log, self._title)
        self._entries = Entries(self.strategy)
        self._lost = LostChildren(self._aemp_life.node, str(self), self._title, self._complaints)
        if not (self._aemp_forgets or self._budget.one_child_can_spend_it):
            text = (
                "%s: one child alone cannot use up intensity=%s within period=%s, because it is restarted only every "
                "%s s: give a longer period, or backoff=None for Erlang's rule without pauses"
            )
            _log.warning(text, self._title, self.intensity, self.period, self._budget.longest)
        trees_of(self._aemp_life.node).add(str(self), self)
        for child in self.children(*args, **options):
            self._add(child)
        try:
            for entry in list(self._entries):
                self._start(entry)
        except BaseException:
            self._stop(self._entries)
            raise

    # --- requests ---

    @call
    def which_children(self) -> list[dict[str, Any]]:
        """Return the children in order, each as a dict.

        It has ``id``, ``state`` (``"running"``, ``"restarting"``: waits for its restart, ``"stopped"``, or ``"lost"``:
        its node cannot be reached), ``port`` (None unless it is running or lost), ``kind`` (``"supervisor"``,
        ``"server"`` or ``"port"``), ``restart``, ``restarts`` (how many there were) and ``last_reason`` (of its last
        death, or None).
        """
        return [entry.describe() for entry in self._entries]

    @call
    def count(self) -> dict[str, int]:
        """Return how many children there are: ``specs``, ``active`` (of these), ``supervisors`` and ``workers``."""
        supervisors = sum(entry.child.is_supervisor for entry in self._entries)
        active = sum(entry.state is ChildState.RUNNING for entry in self._entries)
        specs = len(self._entries)
        return {"specs": specs, "active": active, "supervisors": supervisors, "workers": specs - supervisors}

    @call
    def start_child(self, child: Child) -> str:
        """Start another child after the others, and return its port. For code of the same node.

        Raises:
            StartError: It did not start; it is not kept.
            ValueError: Its ID is taken.
        """
        if not isinstance(child, Child):
            raise TypeError(f"start_child() takes a Child, not {quoted(child)}")
        entry = self._add(child)
        try:
            self._start(entry)
        except BaseException:
            self._entries.remove(entry)
            raise
        return str(entry.port)

    @call
    def restart(self, id: str) -> str:  # noqa: A002  # as in Child
        """Start a child again, after stopping it if it is running; return its new port.

        Children that wait for the same pause start as well.

        Raises:
            ValueError: There is no such child.
            StartError: It did not start, and stays stopped.
        """
        entry = self._entries.get(id)
        self._stop([entry])
        self._hand_over_pause()
        self._start(entry)
        return str(entry.port)

    @call
    def terminate(self, id: str) -> None:  # type: ignore[override]  # noqa: A002  # the hook has another name here
        """Stop a child. It stays in the list, unless it is temporary, and can be restarted.

        Raises:
            ValueError: There is no such child.
        """
        entry = self._entries.get(id)
        self._stop([entry])
        self._hand_over_pause()
        if entry.child.restart == "temporary" or self._aemp_forgets:
            self._entries.remove(entry)

    @call
    def delete(self, id: str) -> None:  # noqa: A002
        """Remove a child that is stopped from the list.

        Raises:
            ValueError: There is no such child, or it is running or about to be.
        """
        entry = self._entries.get(id)
        if entry.state is not ChildState.STOPPED:
            raise ValueError(f"the child {quoted(id)} is {entry.state.value}, not stopped: terminate() it first")
        self._entries.remove(entry)

    @call
    def keeps(self, port: str) -> bool:
        """Return whether a port is one of the children now. Those on other nodes ask that after a lost connection."""
        return self._entries.has_port(port)

    # --- deaths and restarts ---

    def info(self, *msg: Any) -> None:
        """Handle the death of a child, or the end of a pause."""
        match msg:
            case (Event() as event, str() as key, port, *reason):
                entry = self._entries.find(key)
                if entry is None or self._is_out_of_reach(entry):
                    return
                if event is Event.DIED and entry.port is not None and port == entry.port:
                    self._ended(entry, tuple(reason))
                elif event is Event.RESTART and entry.timer is not None:
                    (self._lost.look_for if entry.state is ChildState.LOST else self._restart)(entry)
                elif event is Event.FOUND and entry.state is ChildState.LOST and port == entry.port:
                    self._lost.answered(entry, is_alive=reason == [True])
            case _:
                _log.warning("%s discarded %s: it is not a request to a supervisor", self._title, quoted(msg))

    def _is_out_of_reach(self, entry: Entry) -> bool:
        """Return whether a child belongs on another node, and this node is shut down."""
        return entry.child.placement is not None and is_shut_down(self._aemp_life.node)

    def _ended(self, entry: Entry, reason: tuple[Any, ...]) -> None:
        """Plan the restart of a child that has died, or leave it stopped."""
        is_end_of_node = self._note_end(entry, entry.port, reason)
        placement = entry.child.placement
        if is_end_of_node and placement is not None and placement.on_lost == "wait" and tag_of(reason) == LOST:
            self._lost.wait_for(entry)
            return
        self._entries.leave(entry, ChildState.STOPPED)
        restart = entry.child.restart
        is_normal = not is_end_of_node and (not reason or tag_of(reason) == SHUTDOWN)
        if restart == "permanent" or (restart == "transient" and not is_normal):
            self._plan_restart(entry, counts=not is_end_of_node)
            return
        if not is_normal:
            self._complaints.warn("%s: the child %s died: %s", self._title, entry.key, quoted(reason))
        if restart == "temporary" or self._aemp_forgets:
            self._entries.remove(entry)
        if entry.child.significant:
            self._end_of_significant(entry)

    def _note_end(self, entry: Entry, port: str | None, reason: tuple[Any, ...]) -> bool:
        """Note why a child ended or failed to start; return whether only because of its node.

        Then it did not end by itself, and the restart of all other children would not help.
        """
        entry.last_reason = reason
        found = entry.child.placement is not None and is_end_of_node(self._aemp_life.node, port, reason)
        entry.avoid = str(reason[1]) if found else ""
        return found

    def _plan_restart(self, entry: Entry, *, counts: bool) -> None:
        now = monotonic()
        pauses = entry.pauses if counts else entry.pauses_of_node
        assert pauses is not None, "only children with a place have a node that can be lost"
        pause = pauses.next(now - entry.started_at)
        spends = counts and pause.is_longest
        if spends and not self._budget.take(now):
            self._give_up(entry)
            return
        spent = ""
        if spends and self.intensity is not None:
            spent = f", {self._budget.spent} of {self.intensity} within {self._budget.period:g} s"
        text = "%s: the child %s died: %s; restart in %.2f s%s"  # whose reason is not quoted unless it is logged
        self._complaints.warn(text, self._title, entry.key, entry.last_reason, pause.seconds, spent)
        others = [other for other in self._entries.group_of(entry) if other is not entry]
        self._stop(others)
        for other in others:
            if other.child.restart == "temporary":
                self._entries.remove(other)
            else:
                other.state = ChildState.RESTARTING
        entry.state = ChildState.RESTARTING
        entry.pause(self._aemp_life.node, str(self), pause.seconds)

    def _hand_over_pause(self) -> None:
        """Start those that waited for the pause of a child that does not wait any more."""
        if self.strategy == "one_for_one":
            return
        waiting = [entry for entry in self._entries if entry.state is ChildState.RESTARTING]
        if waiting and not any(entry.timer for entry in waiting):
            waiting[0].pause(self._aemp_life.node, str(self), 0)

    def _restart(self, first: Entry) -> None:
        """Start a child, and those of its group that wait with it."""
        first.timer = None
        for entry in self._entries.group_of(first):
            if entry.state is not ChildState.RESTARTING:  # it was restarted or terminated by a user meanwhile
                continue
            entry.restarts += 1
            self._aemp_life.node.scheduler.totals[CHILD_RESTARTS, type(self).__name__] += 1
            try:
                self._start(entry)
            except StartError as error:
                self._failed(entry, error)
                return

    def _failed(self, entry: Entry, error: StartError) -> None:
        """Plan another start of a child, and of those of its group that wait. A failed start is never a normal end."""
        self._complaints.log(logging.ERROR, "%s: %s", self._title, error, exc_info=error.__cause__)
        entry.started_at = monotonic()
        reason = error.reason or ("start_failed", str(error))
        self._plan_restart(entry, counts=not self._note_end(entry, entry.tried, reason))

    # --- the end ---

    def _give_up(self, entry: Entry) -> None:
        reasons = {other.key: other.last_reason for other in self._entries if other.last_reason is not None}
        text = "%s gives up and stops all of its children: %s died, after %s restarts within %g s; last reasons: %s"
        _log.error(text, self._title, entry.key, self.intensity, self._budget.period, quoted(reasons, 1000))
        self.stop(GAVE_UP, entry.key, *(entry.last_reason or ()))

    def _end_of_significant(self, entry: Entry) -> None:
        others = [other for other in self._entries if other.child.significant and other is not entry]
        is_last = all(other.state is ChildState.STOPPED for other in others)
        if self.auto_shutdown == "any_significant" or (self.auto_shutdown == "all_significant" and is_last):
            self.stop(SHUTDOWN)

    # --- the children ---

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} {self}"

    def _add(self, child: Child) -> Entry:
        if child.significant and self.auto_shutdown == "never":
            why = "is significant, which has no effect with auto_shutdown='never'"
            raise ValueError(f"the child {quoted(child.title)} {why}")
        return self._entries.add(child, self._budget.pauses())

    def _start(self, entry: Entry) -> None:
        node = self._aemp_life.node
        entry.tried = None

        def watch(port: str) -> None:  # from its first moment, so that it cannot end unseen
            entry.tried = port
            entry.watch(node, str(self), port)

        try:
            port = entry.child.run(node, watch, avoid=entry.avoid, is_first=not entry.restarts)
        except BaseException as error:
            self._entries.leave(entry, ChildState.STOPPED)
            if isinstance(error, StartError):
                what = f"the child {entry.key}"
                raise StartError(what, _why(error), error.reason) from (error.__cause__ or error)
            raise
        self._entries.started(entry, port, monotonic())

    def _stop(self, entries: Iterable[Entry]) -> None:
        """Stop children in reverse. Switches."""
        running = self._leave(reversed(list(entries)))
        stop_children(self._aemp_life.node, running, self._title, together=self._aemp_forgets)

    def _leave(self, entries: Iterable[Entry]) -> Iterator[tuple[Child, str]]:
        """Give children up, one by one; yield those that run, with their ports."""
        for entry in entries:
            is_lost = entry.state is ChildState.LOST
            port = self._entries.leave(entry, ChildState.STOPPED)
            if port is not None and not is_lost:  # its keeper ends a lost one, if it is alive, as soon as it can ask
                yield entry.child, port

    @property
    def aemp_entries(self) -> Iterable[Entry]:
        """The children, for ``inspect``."""
        return self._entries

    def _aemp_terminate(self, reason: tuple[Any, ...]) -> None:
        if hasattr(self, "_entries") and not is_shut_down(self._aemp_life.node):  # which kills all of its ports
            self._stop(self._entries)


def _only_children(children: Iterable[Child] = ()) -> list[Child]:
    """Return the argument of ``Supervisor.start``."""
    found = list(children)
    for child in found:
        if not isinstance(child, Child):
            raise TypeError(f"the children of a supervisor must be Child(…), not {quoted(child)}")
    return found


def _check(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ValueError(f"Supervisor: {name} must be one of {', '.join(values)}, not {quoted(value)}")


def _why(error: StartError) -> str:
    return str(error).partition(" did not start: ")[2] or str(error)
