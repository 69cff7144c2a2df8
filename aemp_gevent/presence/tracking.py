# SPDX-License-Identifier: MIT
"""Tracking who is present, and watching who comes and goes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any, TypeAlias

from aemp_gevent import DirectoryMonitor, MessageTooLargeError, Node, default_node
from aemp_gevent.addresses import ids
from aemp_gevent.errors import InvalidPresenceError, NodePortError
from aemp_gevent.node.access import is_shut_down, kept_for, ports_host_of
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import port_or_self
from aemp_gevent.ports.copying import copy_as_sent, copy_of_data
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.presence.people import Gathering, People, entry_key
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.values import lone_surrogate

FAMILY = "aemp_gevent.presence."
"""What the names of the families begin with; the name of the presence follows."""

MAX_CHARACTERS = 200
"""Characters of a name, and of a key."""

MAX_META_BYTES = 16 * 1024
"""What is known of one session, encoded; each node that watches keeps a copy."""

Watcher: TypeAlias = Callable[[People, dict[str, list[Any]], dict[str, list[Any]], dict[str, list[Any]]], object]
"""``cb(people, joined, changed, left)``."""


class _Sessions:
    """The IDs of one node's sessions, which no other session of any node has."""

    def __init__(self, _node: Node) -> None:
        self._prefix = ids.new_uniq()
        self._numbers = itertools.count()

    def new(self) -> str:
        return f"{self._prefix}.{next(self._numbers)}"


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise InvalidPresenceError(what, text, "it must be a str that is not empty")
    if len(text) > MAX_CHARACTERS:
        raise InvalidPresenceError(what, text, f"it has {len(text)} characters, and {MAX_CHARACTERS} are allowed")
    objection = lone_surrogate(text)
    if objection is not None:
        raise InvalidPresenceError(what, text, f"it {objection}")


class Session:
    """The presence of one person through one node, as returned by :meth:`Presence.track`.

    ``cancel()`` ends it; it is also a context manager. Dropping it does nothing.
    """

    def __init__(self, node: Node, family: str, key: str, meta: Any) -> None:
        self.key = key
        """The key of the person."""
        self._node = node
        self._family = family
        self._entry_key = entry_key(kept_for(node, _Sessions).new(), key)
        self._death: Monitor | None = None
        self._is_over = False
        self._entry = node.db_set(family, self._entry_key, _checked(meta))

    def __repr__(self) -> str:
        return f"<Session of {self.key}{', over' if self._is_over else ''}>"

    def follow(self, port: object) -> None:
        """End the session when a port dies."""
        host = ports_host_of(self._node)
        wanted = port_or_self(port, "track()")
        if not host.split_port(wanted)[1]:
            raise NodePortError("track()", str(wanted))
        self._death = host.monitor(wanted, self._end, None)

    def update(self, meta: Any = None) -> None:
        """Replace what is known of this session. Does nothing if it is over. Never switches.

        Raises:
            UnencodableMessageError, InvalidPresenceError: As in :meth:`Presence.track`.
        """
        checked = _checked(meta)
        if not self._is_over:
            self._entry = self._node.db_set(self._family, self._entry_key, checked)

    def cancel(self) -> None:
        """End the session. May be called any number of times. Never switches."""
        self._node.scheduler.check_thread("cancel() of a session")
        if self._death is not None:
            self._death.cancel()
        self._end()

    def _end(self, *_reason: Any) -> None:
        if not self._is_over:
            self._is_over = True
            if not is_shut_down(self._node):
                self._entry.cancel()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._node.scheduler.leave(self.cancel)


def _checked(meta: Any) -> Any:
    try:
        copy_as_sent(["", "meta", meta], Limits(MAX_META_BYTES))
    except MessageTooLargeError as error:
        why = f"it has {error.size} {error.unit}, and {error.limit} are allowed; keep it elsewhere, and track its key"
        raise InvalidPresenceError("meta", f"<{type(meta).__name__}>", why) from None
    return meta


class Presence:
    """The people who are present somewhere: in a room, on a page, or in the whole application.

    Each call of :meth:`track`, on any node, begins a *session* of a person. A person is present while there is
    a session with the person's key. When a node ends, however it ends, its sessions do.

    An object of this class holds nothing: make one wherever you need it.

    Args:
        name: Of what it is the presence; up to 200 characters.
        node: This node.

    Raises:
        InvalidPresenceError: It is not such a name.
    """

    def __init__(self, name: str, *, node: Node = default_node) -> None:
        _check_text("name", name)
        self.name = name
        """Of what it is the presence."""
        self._node = node
        self._family = FAMILY + name

    def __repr__(self) -> str:
        return f"<Presence {self.name}>"

    def track(self, key: str, meta: Any = None, *, port: object = None) -> Session:
        """Note that somebody is present, until the session that this returns ends. Never switches.

        Args:
            key: The key of the person, such as a user's name; up to 200 characters.
            meta: What others see of this session, such as a device or a status: any message data, copied now; at
                most 16 KiB encoded.
            port: A port, of any node, with whose death the session ends. ``SELF`` (the function) is the port in
                whose context this code runs. None: the session ends with ``cancel()``, or with the node.

        Returns:
            The session: ``.update(meta)`` changes what others see; ``.cancel()`` ends it, and so does leaving it as a
            context manager.

        Raises:
            InvalidPresenceError: The key is not valid, or ``meta`` is too large.
            UnencodableMessageError: ``meta`` cannot be sent to other nodes.
            InvalidPortError, NodePortError: ``port`` is not a port ID, or that of a node.
            NoPortContextError: ``port`` is ``SELF``, and this code runs in no port's context.
        """
        _check_text("key", key)
        self._node.scheduler.check_thread("track()")
        session = Session(self._node, self._family, key, meta)
        if port is not None:
            try:
                session.follow(port)
            except BaseException:
                session.cancel()
                raise
        return session

    def list(self, timeout: Seconds | EllipsisType | None = ...) -> dict[str, list[Any]]:
        """Return who is present: what is known of each session of each person, by key. All of it is yours.

        Switches, unless this node watches the same presence already: then the answer comes from its copy.

        Args:
            timeout: Seconds to wait for the directory; None waits forever. Not given: the default of the setting
                ``monitor_timeout``, 30.

        Raises:
            DirectoryTimeout, DirectoryUnavailableError: The directory did not answer in time, or the node was shut
                down.
            NoPortContextError: On the hub, which must never wait.
        """
        seconds = Settings.monitor_timeout if isinstance(timeout, EllipsisType) else timeout
        gathering = Gathering()
        entries = self._node.db_wait(self._family, lambda _entries: True, seconds)
        gathering.apply({key: copy_of_data(meta) for key, meta in entries.items()}, ())
        return dict(gathering.people)

    def watch(self, cb: Watcher) -> DirectoryMonitor:
        """Call ``cb(people, joined, changed, left)`` now, and whenever somebody comes or goes. Never switches.

        The first call comes when the presence is known, with everybody in ``joined``. The calls are made one at a
        time, in order, in this port's context, as with :meth:`db_mon`. Somebody who has another session left, on
        whatever node, has not left, but has changed.

        Args:
            cb: ``people`` is a read-only view of everybody: lists of what is known of each session, by the
                person's key. The next call changes it. Do not change what is in these lists, which is this node's
                copy. The other arguments are dicts of the same kind: those who came with their first session; those
                with a session more, less, or changed; and those whose last session ended, with what was known of it.

        Returns:
            A guard: no call is made after ``.cancel()``. It is also a context manager.
        """
        check_callable("watch()", cb)
        gathering = Gathering()
        is_first = True

        def heard(entries: Mapping[str, Any], added: list[str], different: list[str], deleted: list[str]) -> None:
            nonlocal is_first
            change = gathering.apply({key: entries[key] for key in (*added, *different)}, deleted)
            if is_first or not change.is_empty:
                is_first = False
                cb(gathering.people, *change)

        return self._node.db_mon(self._family, heard)
