# SPDX-License-Identifier: MIT
"""The second path: how a node whose event loop is blocked shows its peers that it lives.

A blocked loop sends nothing on its links, not even heartbeats. But the native thread of
:mod:`aemp_gevent.runtime.loop_watch` runs, and sends *beats* (:mod:`aemp_gevent.wire.beats`): datagrams from the
blocked node to the host at the other end of each connection. So two nodes of this library do this, once a connection
is up:

1. Each sends ``["", "beats", port, salt]`` with its first heartbeat: at which UDP port it waits for beats, and the
   salt of their keys.
2. The other answers with one beat, which says only that datagrams arrive. Nothing more is sent while all is well.
3. While its loop is blocked, a node's thread sends a beat a second for each connection, with the place of the code.
   The peer counts it as a sign of life, and the node as blocked, for at most ``blocked_timeout``.
4. When its loop runs again, the node sends ``["", "unblocked", number]``: beats up to this number are outdated. This
   leaves at the end of the loop's turn, and slow handlers may run before. So a beat says at once that the loop runs.

Each beat has a higher number than the one before, or it is dropped; so is what has no key of an open connection. What
is sent again, reordered or made up has no effect. Without UDP between the hosts everything is as if there was no
second path.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from aemp_gevent.errors import AempError
from aemp_gevent.links.node_state import UP, NodeState
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.quoting import escaped
from aemp_gevent.transport.datagrams import DatagramReceiver, DatagramSender, Ends
from aemp_gevent.wire.beats import Beat, BeatKey, id_of
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.vocabulary import BEATS, UNBLOCKED

MAX_RECEIVERS = 64
"""UDP sockets, one for each address of this host that links end at."""

_SALT_BYTES = 32
_MAX_SALT = 100
_MAX_NUMBER = 2**63

_MAX_COMPLAINTS = 100
"""Addresses and reasons that are logged, each once."""

_CALM_SECONDS = 1.0
"""A loop that was unblocked cannot be blocked for long enough before this: so a peer cannot change its state faster."""


class BeatLink(Protocol):
    """What a second path needs of its link."""

    state: NodeState
    beats: int
    finished: bool
    closed: bool

    @property
    def is_held(self) -> bool: ...
    @property
    def greeting(self) -> Greeting | None: ...
    @property
    def ends(self) -> Ends | None: ...
    def send(self, packet: list[Any]) -> int: ...
    def beat_key(self, salt: str, *, of_peer: bool) -> BeatKey: ...


class SecondPath:
    """The second path beside one link. Made by :meth:`SecondPaths.open`.

    Args:
        paths: All those of the node.
        link: The link, which is up.
        changed: Called on the hub when the peer was blocked, or is not any more.
        shows_where: Whether the peer may see which code blocks this node. Called in any thread.
    """

    def __init__(
        self, paths: SecondPaths, link: BeatLink, changed: Callable[[], object], shows_where: Callable[[], bool]
    ) -> None:
        self.works: bool | None = None
        """Whether a beat of the peer ever came; None: the peer knows no second path, or none was offered."""
        self._paths = paths
        self._link = link
        self._changed = changed
        self._shows_where = shows_where
        self._was_offered = False
        self._incoming: BeatKey | None = None
        self._address: str | None = None  # where beats of the peer arrive
        self._heard = 0  # the highest number of a beat that came, or is outdated
        self._heard_blocked = 0  # of the last beat that came and said that the peer is blocked
        self._calm_until = 0.0  # on the monotonic clock
        self._outgoing: tuple[BeatKey, str, int] | None = None  # where beats of ours go
        self._numbers = count(1)
        self._blocked_number = 0  # of our last beat that says that we are blocked
        self._unblocked_number = 0  # up to which the peer knows that we are not

    # --- beats of the peer, on the hub ---

    def offer(self) -> None:
        """Announce to the peer where its beats may go. Done once, however often it is called."""
        link = self._link
        # One that is held may belong to a node that is refused, which must not hear anything before that.
        if self._was_offered or link.is_held:
            return
        self._was_offered = True
        if link.greeting is None or not link.greeting.knows_second_path or link.finished or link.closed:
            return
        ends = link.ends
        if ends is None:
            return
        self._address = ends.here
        port = self._paths.use(ends.here, self)
        if port is None:
            return
        salt = secrets.token_urlsafe(_SALT_BYTES)
        self._incoming = link.beat_key(salt, of_peer=True)
        self._paths.add(self._incoming, self)
        if self._send(BEATS, port, salt):
            self.works = False
        else:
            self._refuse_beats()

    def take(self, datagram: bytes) -> None:
        """Take a datagram that claims to be a beat of the peer."""
        link = self._link
        beat = None if self._incoming is None or link.closed else self._incoming.open(datagram)
        if beat is None or not self._heard < beat.number < _MAX_NUMBER:
            return
        self._heard = beat.number
        self.works = True
        link.beats += 1
        if not beat.seconds:
            self._runs()
            return
        self._heard_blocked = beat.number
        if link.state is not UP:
            link.state = NodeState("blocked", link.state.since, _place(beat))
        elif time.monotonic() >= self._calm_until:
            link.state = NodeState("blocked", time.time() - beat.seconds, _place(beat))
            self._changed()

    def handle(self, request: str, args: list[Any]) -> None:
        """Handle ``beats`` or ``unblocked`` of the peer. What has another form is ignored."""
        if request == BEATS and len(args) >= 2:
            self._direct(args[0], args[1])
        elif request == UNBLOCKED and args and isinstance(args[0], int):
            self._heard = max(self._heard, min(args[0], _MAX_NUMBER))
            if args[0] >= self._heard_blocked:  # or it was blocked again since
                self._runs()

    def _runs(self) -> None:
        """Take note that the peer's loop runs."""
        if self._link.state is not UP:
            self._link.state = UP
            self._calm_until = time.monotonic() + _CALM_SECONDS
            self._changed()

    def _refuse_beats(self) -> None:
        if self._incoming is not None:
            self._paths.remove(self._incoming)
            self._incoming = None
        if self._address is not None:
            self._paths.release(self._address, self)
            self._address = None

    def close(self) -> None:
        """Know no beat of the peer any more. Idempotent."""
        self._refuse_beats()
        self._outgoing = None
        self._paths.forget(self)

    # --- our own ---

    def _direct(self, port: object, salt: object) -> None:
        """Take note where the peer waits for our beats."""
        ends = self._link.ends
        if self._outgoing is not None or ends is None or isinstance(port, bool):
            return
        if isinstance(port, int) and 0 < port < 2**16 and isinstance(salt, str) and len(salt) <= _MAX_SALT:
            key = self._link.beat_key(salt, of_peer=False)
            self._outgoing = key, ends.there, port
            with DatagramSender() as sender:
                sender.send(key.seal(Beat(next(self._numbers), 0.0, "")), ends.there, port)

    def beat(self, sender: DatagramSender, seconds: float, where: str) -> None:
        """Send a beat, as this node's loop is blocked. In the watch's thread."""
        outgoing, link = self._outgoing, self._link
        if outgoing is None or link.closed or link.finished:
            return
        key, host, port = outgoing
        number = next(self._numbers)
        sender.send(key.seal(Beat(number, seconds, where if self._shows_where() else "")), host, port)
        self._blocked_number = number

    def unblock(self, sender: DatagramSender) -> None:
        """Report to the peer that this node's loop runs again, if it was told that it does not. On the hub."""
        outgoing, link, number = self._outgoing, self._link, self._blocked_number
        if number > self._unblocked_number and not link.closed and not link.finished:
            if outgoing is not None:
                key, host, port = outgoing
                sender.send(key.seal(Beat(next(self._numbers), 0.0, "")), host, port)
            self._send(UNBLOCKED, number)
            self._unblocked_number = number  # afterwards: twice does no harm

    def _send(self, request: str, *args: object) -> bool:
        """Send a request to the peer; return False if it is too large for the node's limit."""
        try:
            self._link.send(["", request, *args])
        except AempError:
            return False
        return True


class SecondPaths:
    """All second paths of a node.

    Args:
        scheduler: Whose hub watches the sockets.
        udp_port: Where beats are received; 0: at any free port; None: nowhere, so that blocked peers count as gone.
    """

    def __init__(self, scheduler: Scheduler, udp_port: int | None) -> None:
        self._hub = scheduler.hub
        self._log = scheduler.log_soon
        self._udp_port = udp_port
        self._paths: dict[SecondPath, None] = {}
        self._by_id: dict[bytes, SecondPath] = {}
        self._receivers: dict[str, DatagramReceiver] = {}  # by the address
        # By the address, the paths that use it: not a number, which an interrupt could make wrong.
        self._users: dict[str, set[SecondPath]] = {}
        self._complaints: set[tuple[str, str]] = set()  # addresses without a receiver, and why: what was logged
        self._sender: DatagramSender | None = None  # while the watch's thread sends beats

    def open(self, link: BeatLink, changed: Callable[[], object], shows_where: Callable[[], bool]) -> SecondPath:
        """Return the second path of a link that came up; see there for the arguments."""
        path = SecondPath(self, link, changed, shows_where)
        self._paths[path] = None
        return path

    def forget(self, path: SecondPath) -> None:
        """Send no more beats for a link."""
        self._paths.pop(path, None)

    def add(self, key: BeatKey, path: SecondPath) -> None:
        """Know the beats with this key."""
        self._by_id[key.id] = path

    def remove(self, key: BeatKey) -> None:
        """Drop the beats with this key."""
        self._by_id.pop(key.id, None)

    def use(self, host: str, path: SecondPath) -> int | None:
        """Return the UDP port at an address of this host, which stays open until each path has released it.

        None: beats cannot be received there.
        """
        if self._udp_port is None:
            return None
        receiver = self._receivers.get(host)
        if receiver is None:
            receiver = self._open(host, self._udp_port)
            if receiver is None:
                return None
            self._receivers[host] = receiver
        self._users.setdefault(host, set()).add(path)
        return receiver.port

    def _open(self, host: str, port: int) -> DatagramReceiver | None:
        if len(self._receivers) >= MAX_RECEIVERS:
            why = f"there are {MAX_RECEIVERS} such sockets already"
        else:
            try:
                return DatagramReceiver(self._hub, host, port, self._received)
            except OSError as error:  # the port is taken, for example by another node with the same setting
                why = error.strerror or str(error)
        if (host, why) not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add((host, why))
            text = "UDP port %s at %s cannot be opened: %s; nodes with links to it count as lost when they are blocked"
            self._log(logging.WARNING, text, port or "(any)", host, why)
        return None

    def release(self, host: str, path: SecondPath) -> None:
        """Note that a path does not use an address. Idempotent."""
        users = self._users.get(host, set())
        users.discard(path)
        if not users:
            self._users.pop(host, None)
            receiver = self._receivers.pop(host, None)
            if receiver is not None:
                receiver.close()

    def _received(self, datagram: bytes) -> None:
        path = self._by_id.get(id_of(datagram))
        if path is not None:
            path.take(datagram)

    # --- what the loop watch calls ---

    def blocked(self, seconds: float, where: str) -> None:
        """Send beats to all peers. In the watch's thread, while the loop is blocked."""
        # One call of C code: the hub may wake at any moment, and open or close a path.
        with DatagramSender() as self._sender:
            for path in list(self._paths):
                path.beat(self._sender, seconds, where)
        self._sender = None

    def running(self) -> None:
        """Report to all peers that got beats that these are outdated. On the hub, when it runs again."""
        with DatagramSender() as sender:
            for path in list(self._paths):
                path.unblock(sender)

    # --- the end ---

    def close(self) -> None:
        """Close everything. Idempotent."""
        for path in list(self._paths):
            path.close()
        for receiver in self._receivers.values():
            receiver.close()
        self._receivers.clear()
        self._udp_port = None

    def abandon(self, *, watching: bool) -> None:
        """Close this process's copies of the sockets, in a forked child."""
        self._paths.clear()
        self._by_id.clear()
        if self._sender is not None:  # of a thread that does not exist here
            self._sender.close()
        for receiver in self._receivers.values():
            receiver.abandon(watching=watching)
        self._receivers.clear()
        self._udp_port = None


def _place(beat: Beat) -> str:
    return escaped(beat.where)  # it is the peer's text
