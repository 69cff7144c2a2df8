# SPDX-License-Identifier: MIT
"""The calls of the directory and of groups: a node with ``db_set``, ``grp_get`` and the like.

They check their arguments and wait for answers; the work is done in :mod:`aemp_gevent.directory.local_directory`.
This module is longer than 400 lines because the docstrings of these public calls, a third of it, are users' reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import EllipsisType, MappingProxyType
from typing import Any, overload

from aemp_gevent.calls import answers, serve
from aemp_gevent.directory.engine import Query
from aemp_gevent.directory.family_monitor import DirectoryMonitor, FamilyCallback
from aemp_gevent.directory.groups import GroupCallback, Groups
from aemp_gevent.directory.local_directory import Directory, DirectoryEntry, Watching
from aemp_gevent.directory.merge import Change
from aemp_gevent.errors import DirectoryTimeout, DirectoryUnavailableError
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import SELF, current_port, port_or_self
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.own_end import marked
from aemp_gevent.ports.port import Port
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.runtime.quantities import Seconds, to_seconds

_OVER = object()
"""What a waiting call gets when the directory ends."""


class DirectoryNode(LocalNode):
    """A node with a directory, which has only its own entries while it is not networked."""

    def _begin(self) -> None:
        super()._begin()
        self._directory = Directory(self._ports_host)
        self._groups = Groups(self._directory)

    # --- own entries ---

    def db_set(self, family: str, key: str, value: Any = None) -> DirectoryEntry:
        """Set an entry of the directory, for all nodes to see, until it is deleted or this node ends. Never switches.

        The entry belongs to this node: if several nodes set the same key, readers see the
        value of the node with the smallest ID. Entries that are set before the node is initialised
        are published when it is.

        Args:
            family: The name of the family that the entry belongs to; not empty, and not beginning with ``'``.
            key: The entry's key, a str.
            value: Any message data, copied now; at most 1 MiB encoded.

        Returns:
            A guard: ``.cancel()`` deletes the entry, unless it was set again, and so does
            leaving the guard as a context manager. Dropping the guard does nothing.

        Raises:
            InvalidEntryError: The name of the family is invalid or reserved, the key is not a str, or the entry is
                too large.
            UnencodableMessageError: The value cannot be sent to other nodes.
        """
        self._scheduler.check_thread("db_set()")
        self._check_open("db_set()")
        return self._directory.set(family, key, value)

    def db_del(self, family: str, *keys: str) -> None:
        """Delete entries that this node has set; those of other nodes with these keys stay. Never switches.

        Raises:
            InvalidEntryError: The name of the family is invalid or reserved.
        """
        self._scheduler.check_thread("db_del()")
        self._directory.delete(family, keys)

    def db_reg(self, family: str, port: object = SELF, value: Any = None) -> DirectoryEntry:
        """Set an entry whose key is a port's ID, until that port dies. Never switches.

        Args:
            family: As in :meth:`db_set`.
            port: A port of any node. ``SELF`` (the function), the default, is the
                port in whose context this code runs.
            value: As in :meth:`db_set`.

        Returns:
            A guard, as from :meth:`db_set`.

        Raises:
            NoPortContextError: ``port`` is ``SELF``, and this code runs in no port's context.
            InvalidPortError: ``port`` is not a port ID.
            InvalidEntryError, UnencodableMessageError: As in :meth:`db_set`.
        """
        self._scheduler.check_thread("db_reg()")
        self._check_open("db_reg()")
        return self._register("db_reg()", family, port, value)

    def _register(self, call: str, family: str, port: object, value: Any) -> DirectoryEntry:
        wanted = port_or_self(port, call)
        found = self._find_local(wanted)
        key = str(wanted) if found is None else found.id  # the ID by which other nodes know it
        self._split_port(key)
        entry = DirectoryEntry(self._directory, family, key, is_port=True)
        try:
            entry.monitor = self._monitor(wanted, lambda *_reason: entry.cancel(), None)
            self._directory.put(entry, value)
        except BaseException:
            if entry.monitor is not None and not self._directory.holds(entry):
                see_through(entry.monitor.cancel)
            raise
        return entry

    # --- reading ---

    @overload
    def db_family(
        self, family: str, cb: None = None, *, timeout: Seconds | EllipsisType | None = ...
    ) -> dict[str, Any]: ...
    @overload
    def db_family(self, family: str, cb: Callable[[dict[str, Any]], object]) -> None: ...
    def db_family(
        self,
        family: str,
        cb: Callable[[dict[str, Any]], object] | None = None,
        *,
        timeout: Seconds | EllipsisType | None = ...,
    ) -> dict[str, Any] | None:
        """Return the entries of a family as a dict of values by key. Switches, unless ``cb`` is given.

        Args:
            family: As in :meth:`db_set`.
            cb: Called with the answer, in this port's context; the method itself returns None at once.
                It is not called if no answer ever comes.
            timeout: Seconds to wait; None waits forever. Not given: the setting ``monitor_timeout``.

        Raises:
            DirectoryUnavailableError: There was no answer in time, or the node was shut down.
            InvalidEntryError: The name of the family is invalid or reserved.
            NoPortContextError: On the hub, which must never wait: use ``cb``.
            PortKilled: The waiting port was killed.
        """
        answer: dict[str, Any] | None = self._read("family", family, cb, timeout)
        return answer

    @overload
    def db_keys(self, family: str, cb: None = None, *, timeout: Seconds | EllipsisType | None = ...) -> list[str]: ...
    @overload
    def db_keys(self, family: str, cb: Callable[[list[str]], object]) -> None: ...
    def db_keys(
        self,
        family: str,
        cb: Callable[[list[str]], object] | None = None,
        *,
        timeout: Seconds | EllipsisType | None = ...,
    ) -> list[str] | None:
        """Return the keys of a family, in any order. Otherwise as :meth:`db_family`."""
        answer: list[str] | None = self._read("keys", family, cb, timeout)
        return answer

    @overload
    def db_values(self, family: str, cb: None = None, *, timeout: Seconds | EllipsisType | None = ...) -> list[Any]: ...
    @overload
    def db_values(self, family: str, cb: Callable[[list[Any]], object]) -> None: ...
    def db_values(
        self,
        family: str,
        cb: Callable[[list[Any]], object] | None = None,
        *,
        timeout: Seconds | EllipsisType | None = ...,
    ) -> list[Any] | None:
        """Return the values of a family, in any order. Otherwise as :meth:`db_family`."""
        answer: list[Any] | None = self._read("values", family, cb, timeout)
        return answer

    def _read(
        self, what: Query, family: str, cb: Callable[[Any], object] | None, timeout: Seconds | EllipsisType | None
    ) -> Any:
        call = f"db_{what}()"
        self._scheduler.check_thread(call)
        self._directory.check_family(family)
        seconds = self._directory_seconds if isinstance(timeout, EllipsisType) else to_seconds(timeout, call)
        if cb is not None:
            check_callable(f"{call}, cb", cb)
            job = CallJob(current_port(), cb, ())

            def answered(answer: Any) -> None:
                if job.is_due:  # after an interrupt the answer may come twice
                    job.args = (answer,)
                    self._scheduler.enqueue_job(job)

            try:
                self._directory.query(what, family, answered)
            except BaseException:
                job.drop()  # no answer comes after an exception
                raise
            return None
        return self._wait_for(what, family, seconds)

    def _wait_for(self, what: Query, family: str, seconds: float | None) -> Any:
        call = f"db_{what}()"

        def ask(reply: Port) -> answers.Guard:
            ended = _Ended(self._directory, lambda: self._scheduler.deliver(reply, (_OVER,)))
            self._directory.query(what, family, lambda answer: self._scheduler.deliver(reply, (answer,)))
            return ended

        answer = () if self._directory.is_over else answers.wait_for_answer(self._ports_host, call, seconds, ask)
        if answer and answer[0] is not _OVER:
            return answer[0]
        if self._directory.is_over:
            raise self._over(call)
        why = f"within {seconds} s; check with node_is_up() or mon_nodes() that one of the seeds is up"
        raise DirectoryUnavailableError(call, why)

    def _over(self, call: str) -> DirectoryUnavailableError:
        """Return the error of a call that waited in vain, because this node was shut down."""
        error = DirectoryUnavailableError(call, "because this node was shut down")
        return marked(error, ("shutdown", self._id))

    @property
    def _directory_seconds(self) -> float:
        """How long a query may take, in seconds."""
        from aemp_gevent.settings.fields import Settings  # noqa: PLC0415  # of nodes with links

        return Settings.monitor_timeout

    # --- watching ---

    def db_mon(self, family: str, cb: FamilyCallback) -> DirectoryMonitor:
        """Call ``cb(map, added, changed, deleted)`` with a whole family first, then with each change. Never switches.

        The calls are made one at a time, in order, in this port's context: its death ends them, and an
        exception in the callback kills the port. The first call comes even if the family is empty, and has all keys
        in ``added``. After the node was cut off from the directory for a while, the next call has the difference.
        If a callback is more than 1,000 changes behind, it gets them as one.

        Args:
            family: As in :meth:`db_set`.
            cb: ``map`` is a read-only view of the values by key, as they were after this
                change. The next call of this monitor changes it: copy what you keep. The
                other arguments are lists of keys.

        Returns:
            A guard: no call is made after ``.cancel()``. It is also a context manager.

        Raises:
            InvalidEntryError: The name of the family is invalid or reserved.
        """
        self._scheduler.check_thread("db_mon()")
        self._check_open("db_mon()")
        check_callable("db_mon()", cb)
        self._directory.check_family(family)
        monitor = DirectoryMonitor(self._directory, family, cb)
        self._directory.watch(monitor)
        return monitor

    def db_wait(
        self, family: str, predicate: Callable[[Mapping[str, Any]], Any], timeout: Seconds | None = None
    ) -> dict[str, Any]:
        """Wait until a family meets a condition, and return its values by key. Switches, unless it does already.

        Args:
            family: As in :meth:`db_set`.
            predicate: The condition: called with a read-only view of the values by key, first as they are,
                then after each change; a true result ends the wait. Its exceptions are raised here.
            timeout: Seconds to wait; None waits forever.

        Raises:
            DirectoryTimeout: The condition was not met in time.
            DirectoryUnavailableError: The node was shut down.
            InvalidEntryError, NoPortContextError, PortKilled: As in :meth:`db_family`.
        """
        self._scheduler.check_thread("db_wait()")
        check_callable("db_wait()", predicate)
        self._directory.check_family(family)
        seconds = to_seconds(timeout, "db_wait()")
        waiting = _FamilyWait(self._directory, family)
        deadline = answers.deadline_of(seconds)
        self._directory.watch(waiting)
        try:
            while not self._directory.is_over:
                entries = self._directory.copy(family)
                if entries is not None:
                    seen = dict(entries)
                    if predicate(MappingProxyType(seen)):
                        return seen
                left = answers.left_until(deadline)

                def ask(reply: Port) -> answers.Guard:
                    return waiting.call_once(lambda: self._scheduler.deliver(reply, (None,)))

                if not answers.wait_for_answer(self._ports_host, "db_wait()", left, ask):
                    copy = self._directory.copy(family)
                    raise DirectoryTimeout(family, seconds, None if copy is None else len(copy))
        finally:
            waiting.cancel()
        raise self._over("db_wait()")

    # --- groups ---

    def grp_reg(self, group: str, port: object = SELF) -> DirectoryEntry:
        """Add a port to a group until it dies, or until the returned guard is cancelled. Never switches.

        The same as :meth:`db_reg` without a value, with the same errors.
        """
        self._scheduler.check_thread("grp_reg()")
        self._check_open("grp_reg()")
        return self._register("grp_reg()", group, port, None)

    def grp_get(self, group: str) -> list[str] | None:
        """Return the IDs of a group's ports at once; None if the group is empty or not known yet. Never switches.

        The answer comes from a copy of the group that this node keeps from the first call on. Until the directory
        has sent the group, which takes a moment, the copy is empty: None can mean either case.

        - To loop over the ports there are, write ``for port in grp_get(group) or ():``.
        - To wait until the group has ports, call ``db_wait(group, len, timeout)``.
        - To send to all ports once the group is known, call :meth:`grp_snd`.
        - To follow the group, call :meth:`grp_mon`: its first call comes when the group is known, even if it is empty.

        Returns:
            A list of port IDs, which is never empty and which you may change; or None.

        Raises:
            InvalidEntryError: The name of the group is invalid or reserved.
        """
        self._scheduler.check_thread("grp_get()")
        self._check_open("grp_get()")
        return self._groups.get(group)

    def grp_snd(self, group: str, *msg: Any, timeout: Seconds | EllipsisType | None = ...) -> list[str]:
        """Send a message to every port of a group, waiting until the group is known; return the ports' IDs.

        The first call for a group waits for the directory, and keeps a copy of the group from then on; later calls
        do not wait. An empty list means that the group has no ports at the moment: to wait for some, call
        ``db_wait(group, len)`` first. The messages are sent as with :meth:`snd`.

        Args:
            group: The group's name.
            msg: What to send.
            timeout: Seconds to wait for the group; None waits forever. Not given: the setting ``monitor_timeout``.

        Raises:
            DirectoryTimeout: The group did not become known in time; nothing was sent.
            DirectoryUnavailableError: The node was shut down; nothing was sent.
            UnencodableMessageError, MessageTooLargeError: The message cannot be sent to other nodes, and a port of
                the group is on another node; nothing was sent.
            InvalidEntryError, NoPortContextError, PortKilled: As in :meth:`db_wait`.
        """
        self._scheduler.check_thread("grp_snd()")
        self._check_open("grp_snd()")
        seconds = self._directory_seconds if isinstance(timeout, EllipsisType) else to_seconds(timeout, "grp_snd()")
        self._groups.get(group)
        known = self._directory.copy(group)
        if known is None:
            known = self.db_wait(group, lambda _ports: True, seconds)
        host = self._ports_host
        members = [member for member in known if serve.is_port(host, member)]  # peers may enter anything
        if not all(self._is_here(self._split_port(member)[0]) for member in members):
            copy_as_sent(["port", *msg], self._limits)  # fail before the first one is sent
        for member in members:
            self.snd(member, *msg)
        return members

    def grp_mon(self, group: str, cb: GroupCallback) -> DirectoryMonitor:
        """Call ``cb(ports, added, deleted)`` with the ports of a group first, then whenever some joined or left.

        Otherwise as :meth:`db_mon`: the first call comes when the group is known, with all
        ports in ``added``. Never switches.
        """
        self._scheduler.check_thread("grp_mon()")
        self._check_open("grp_mon()")
        check_callable("grp_mon()", cb)
        self._directory.check_family(group)
        return self._groups.monitor(group, cb)


class _Ended:
    """A registration to be called when the directory ends."""

    def __init__(self, directory: Directory, call: Callable[[], None]) -> None:
        self._directory = directory
        self._call = call
        directory.ended[call] = None

    def cancel(self) -> None:
        self._directory.ended.pop(self._call, None)


class _FamilyWait(Watching):
    """The interest of a greenlet that waits for a family to change."""

    def __init__(self, directory: Directory, family: str) -> None:
        super().__init__(directory, family)
        self._call: Callable[[], None] | None = None

    def call_once(self, call: Callable[[], None]) -> _Ended:
        """Register a call for the next change, or for the end of the directory."""
        self._call = call
        return _Ended(self._directory, call)

    def heard(self, change: Change, added: list[str]) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()
