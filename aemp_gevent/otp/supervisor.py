# SPDX-License-Identifier: MIT
"""Supervisors: they start children in order, start them again when they die, and stop them in reverse.

A supervisor is a :class:`Server`: deaths, restarts and requests are messages, one after another. While it stops or
starts a child, the others wait. A pause before a restart is a timer, so nothing waits for that.

**Groups.** The death of one child concerns a group of children: itself, all, or itself and those after it. The others
of the group are stopped at once. After the pause, all of the group are started in order; one that fails to start is
treated as if it had died. So there is one path: a death, or a failed start, ends in :meth:`Supervisor._ended`.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from aemp_gevent.errors import StartError
from aemp_gevent.otp.budgets import Budget, RestartLimits
from aemp_gevent.otp.children import SHUTDOWN, Child, Stopping
from aemp_gevent.otp.marks import call
from aemp_gevent.otp.server import Server
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Monitor, Timer

GAVE_UP = "gave_up"
"""First element of the reason of a supervisor whose budget for a child is spent; that child's ID and reason follow."""

_TAG = "aemp_child"
_DIED, _RESTART = "died", "restart"

_log = Log()


class Entry:
    """A child, and what has become of it.

    Args:
        child: What it is.
        key: Its ID in its supervisor.
        limits: The limits of its restarts.
    """

    __slots__ = ("budget", "child", "guard", "key", "last_reason", "port", "restarts", "started_at", "timer")

    def __init__(self, child: Child, key: str, limits: RestartLimits) -> None:
        self.child = child
        self.key = key
        self.budget = Budget(limits)
        self.port: str | None = None
        self.guard: Monitor | None = None
        self.timer: Timer | None = None
        """The pause before it, and its group, are started again."""
        self.started_at = 0.0
        self.restarts = 0
        self.last_reason: tuple[Any, ...] | None = None

    def cancel(self) -> None:
        """End the pause and the monitor."""
        for guard in (self.timer, self.guard):
            if guard is not None:
                guard.cancel()
        self.timer = self.guard = None


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

    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    """Which children are started again when one has died: that one, all, or that one and those after it."""

    intensity: int | None = 10
    """How often one child is restarted within :attr:`period`; None: without limit. Once more, and the supervisor gives
    up: it logs the last reasons, stops all children, and dies of ``("gave_up", child, *reason)``."""

    period: Seconds = 300.0
    """Seconds within which restarts count."""

    backoff: tuple[Seconds, Seconds] | None = (0.1, 30.0)
    """The first and the longest pause before a child is restarted, in seconds. Each is twice the one before, and up to
    half longer at random. After a child has run for longer than the longest one, they begin again with the first."""

    auto_shutdown: Literal["never", "any_significant", "all_significant"] = "never"
    """Whether the supervisor stops when one significant child, or the last one, has ended and is not restarted."""

    terminate_timeout: Seconds | None = None
    _aemp_is_supervisor = True
    _aemp_forgets = False
    aemp_free_names = frozenset({"terminate"})
    _aemp_start_seconds = None

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
        self._limits = RestartLimits(self.intensity, self.period, self.backoff)
        self._entries: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}
        for child in self.children(*args, **options):
            self._add(child)
        started: list[Entry] = []
        try:
            for entry in self._entries.values():
                self._start(entry)
                started.append(entry)
        except BaseException:
            self._stop(started)
            raise

    # --- requests ---

    @call
    def which_children(self) -> list[dict[str, Any]]:
        """Return the children in order, each as a dict.

        It has ``id``, ``state`` (``"running"``, ``"restarting"``: waits for its restart, or ``"stopped"``), ``port``
        (None unless it is running), ``kind`` (``"supervisor"``, ``"server"`` or ``"port"``), ``restart``, ``restarts``
        (how many there were) and ``last_reason`` (of its last death, or None).
        """
        return [
            {
                "id": entry.key,
                "state": "running" if entry.port else "stopped" if self._pause_of(entry) is None else "restarting",
                "port": entry.port,
                "kind": "supervisor" if entry.child.is_supervisor else "server" if entry.child.is_server else "port",
                "restart": entry.child.restart,
                "restarts": entry.restarts,
                "last_reason": None if entry.last_reason is None else list(entry.last_reason),
            }
            for entry in self._entries.values()
        ]

    @call
    def count(self) -> dict[str, int]:
        """Return how many children there are: ``specs``, ``active`` (of these), ``supervisors`` and ``workers``."""
        supervisors = sum(entry.child.is_supervisor for entry in self._entries.values())
        active = sum(entry.port is not None for entry in self._entries.values())
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
            del self._entries[entry.key]
            raise
        return str(entry.port)

    @call
    def restart(self, id: str) -> str:  # noqa: A002  # as in Child
        """Start a child again, after stopping it if it is running; return its new port.

        Raises:
            ValueError: There is no such child.
            StartError: It did not start, and stays stopped.
        """
        entry = self._entry(id)
        self._stop([entry])
        self._start(entry)
        return str(entry.port)

    @call
    def terminate(self, id: str) -> None:  # type: ignore[override]  # noqa: A002  # the hook has another name here
        """Stop a child. It stays in the list, unless it is temporary, and can be restarted.

        Raises:
            ValueError: There is no such child.
        """
        entry = self._entry(id)
        self._stop([entry])
        if entry.child.restart == "temporary" or self._aemp_forgets:
            del self._entries[entry.key]

    @call
    def delete(self, id: str) -> None:  # noqa: A002
        """Remove a child that is stopped from the list.

        Raises:
            ValueError: There is no such child, or it is running or about to be.
        """
        entry = self._entry(id)
        if entry.port is not None or self._pause_of(entry) is not None:
            raise ValueError(f"the child {quoted(id)} is not stopped: terminate() it first")
        del self._entries[entry.key]

    # --- deaths and restarts ---

    def info(self, *msg: Any) -> None:
        """Handle the death of a child, or the end of a pause."""
        match msg:
            case (tag, event, str() as key, port, *reason) if tag == _TAG:
                entry = self._entries.get(key)
                if entry is None:
                    return
                if event == _DIED and port == entry.port:
                    self._ended(entry, tuple(reason))
                elif event == _RESTART and entry.timer is not None:
                    self._restart(entry)
            case _:
                _log.warning("%s discarded %s: it is not a request to a supervisor", self._title, quoted(msg))

    def _ended(self, entry: Entry, reason: tuple[Any, ...]) -> None:
        """Plan the restart of a child that has died or failed to start, or leave it stopped."""
        entry.cancel()
        entry.port = None
        entry.last_reason = reason
        is_normal = not reason or reason[0] == SHUTDOWN
        restart = entry.child.restart
        if restart == "permanent" or (restart == "transient" and not is_normal):
            self._plan_restart(entry)
            return
        if not is_normal:
            _log.warning("%s: the child %s died: %s", self._title, entry.key, quoted(reason))
        if restart == "temporary" or self._aemp_forgets:
            self._entries.pop(entry.key, None)
        if entry.child.significant:
            self._end_of_significant(entry)

    def _plan_restart(self, entry: Entry) -> None:
        now = monotonic()
        pause = entry.budget.take(now, now - entry.started_at)
        if pause is None:
            self._give_up(entry)
            return
        what = f"{self._title}: the child {entry.key} died: {quoted(entry.last_reason)}"
        of = "" if self.intensity is None else f" of {self.intensity} within {self._limits.period:g} s"
        _log.warning("%s; restart %d%s in %.2g s", what, entry.budget.spent, of, pause)
        group = self._group(entry)
        self._stop([other for other in group if other is not entry])
        for other in group:
            if other is not entry and other.child.restart == "temporary":
                self._entries.pop(other.key, None)
        entry.timer = self._aemp_life.node.after(pause, self, _TAG, _RESTART, entry.key, None)

    def _restart(self, first: Entry) -> None:
        """Start a child and its group again."""
        first.timer = None
        for entry in self._group(first):
            if entry.port is not None or entry.timer is not None:  # it was restarted by a user meanwhile, or has died
                continue
            entry.restarts += 1
            try:
                self._start(entry)
            except StartError as error:
                _log.error("%s: %s", self._title, error, exc_info=error.__cause__)
                entry.started_at = monotonic()
                self._ended(entry, error.reason or ("start_failed", str(error)))
                return

    def _give_up(self, entry: Entry) -> None:
        reasons = {other.key: other.last_reason for other in self._entries.values() if other.last_reason is not None}
        text = "%s gives up and stops all of its children: %s has used up its %s restarts within %g s; last reasons: %s"
        _log.error(text, self._title, entry.key, self.intensity, self._limits.period, quoted(reasons, 1000))
        self.stop(GAVE_UP, entry.key, *(entry.last_reason or ()))

    def _end_of_significant(self, entry: Entry) -> None:
        others = [other for other in self._entries.values() if other.child.significant and other is not entry]
        is_last = not any(other.port is not None or self._pause_of(other) is not None for other in others)
        if self.auto_shutdown == "any_significant" or (self.auto_shutdown == "all_significant" and is_last):
            self.stop(SHUTDOWN)

    # --- the children ---

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} {self}"

    def _entry(self, key: str) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            raise ValueError(f"there is no child {quoted(key)}; the children are {quoted(list(self._entries))}")
        return entry

    def _add(self, child: Child) -> Entry:
        key = child.id
        if key is None:
            key = self._new_key(child.title)
        elif key in self._entries:
            raise ValueError(f"two children have the ID {quoted(key)}")
        entry = self._entries[key] = Entry(child, key, self._limits)
        return entry

    def _new_key(self, title: str) -> str:
        """Return an ID that no child has had: the title, or that and a number."""
        while True:
            number = self._numbers[title] = self._numbers.get(title, 0) + 1
            key = title if number == 1 else f"{title}-{number}"
            if key not in self._entries:
                return key

    def _group(self, entry: Entry) -> list[Entry]:
        """Return the children that a death of one of them concerns, in order."""
        if self.strategy == "one_for_one":
            return [entry]
        every = list(self._entries.values())
        return every if self.strategy == "one_for_all" else every[every.index(entry) :]

    def _pause_of(self, entry: Entry) -> Entry | None:
        """Return the child whose pause this one waits for, if it waits."""
        if entry.port is not None:
            return None
        if self.strategy == "one_for_one":
            return entry if entry.timer is not None else None
        return next((each for each in self._entries.values() if each.timer and entry in self._group(each)), None)

    def _start(self, entry: Entry) -> None:
        node = self._aemp_life.node
        try:
            port = entry.child.run(node)
        except StartError as error:
            raise StartError(f"the child {entry.key}", _why(error), error.reason) from (error.__cause__ or error)
        entry.started_at = monotonic()
        entry.port = port
        entry.guard = node.mon(port, self, _TAG, _DIED, entry.key, port)

    def _stop(self, entries: Iterable[Entry]) -> None:
        """Stop children in reverse. Switches."""
        for entry in reversed(list(entries)):
            entry.cancel()
            port, entry.port = entry.port, None
            if port is not None:
                Stopping(self._aemp_life.node, entry.child, port).wait(self._title)

    def _aemp_terminate(self, reason: tuple[Any, ...]) -> None:
        if hasattr(self, "_entries"):
            self._stop(list(self._entries.values()))


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
