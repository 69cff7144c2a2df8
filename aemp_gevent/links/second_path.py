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
4. When its loop runs again, the node sends ``["", "unblocked", number]``: beats up to this number are outdated.

Each beat has a higher number than the one before, or it is dropped; so is what has no key of an open connection. What
is sent again, reordered or made up has no effect. Without UDP between the hosts everything is as if there was no
second path.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from gevent.hub import Hub

from aemp_gevent.links.node_state import UP, NodeState
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

_CALM_SECONDS = 1.0
"""A loop that was unblocked cannot be blocked for long enough before this: so a peer cannot change its state faster."""


class BeatLink(Protocol):
    """What a second path needs of its link."""

    state: NodeState
    beats: int
    finished: bool
    closed: bool

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
        self._heard = 0  # the highest number of a beat that came, or is outdated
        self._calm_until = 0.0  # on the monotonic clock
        self._outgoing: tuple[BeatKey, str, int] | None = None  # where beats of ours go
        self._numbers = count(1)
        self._blocked_number = 0  # of our last beat that says that we are blocked
        self._unblocked_number = 0  # up to which the peer knows that we are not

    # --- beats of the peer, on the hub ---

    def offer(self) -> None:
        """Announce to the peer where its beats may go. Done once, however often it is called."""
        if self._was_offered:
            return
        self._was_offered = True
        link = self._link
        if link.greeting is None or not link.greeting.knows_second_path or link.finished or link.closed:
            return
        ends = link.ends
        port = None if ends is None else self._paths.port_at(ends.here)
        if port is None:
            return
        salt = secrets.token_urlsafe(_SALT_BYTES)
        self._incoming = link.beat_key(salt, of_peer=True)
        self._paths.add(self._incoming, self)
        self.works = False
        link.send(["", BEATS, port, salt])

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
            return
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
            if self._link.state is not UP:
                self._link.state = UP
                self._calm_until = time.monotonic() + _CALM_SECONDS
                self._changed()

    def close(self) -> None:
        """Know no beat of the peer any more. Idempotent."""
        if self._incoming is not None:
            self._paths.remove(self._incoming)
        self._incoming = self._outgoing = None
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

    def unblock(self) -> None:
        """Report to the peer that this node's loop runs again, if it was told that it does not. On the hub."""
        link, number = self._link, self._blocked_number
        if number > self._unblocked_number and not link.closed and not link.finished:
            link.send(["", UNBLOCKED, number])
            self._unblocked_number = number  # afterwards: twice does no harm


class SecondPaths:
    """All second paths of a node.

    Args:
        hub: The node's hub.
        udp_port: Where beats are received; 0: at any free port; None: nowhere, so that blocked peers count as gone.
    """

    def __init__(self, hub: Hub, udp_port: int | None) -> None:
        self._hub = hub
        self._udp_port = udp_port
        self._paths: dict[SecondPath, None] = {}
        self._by_id: dict[bytes, SecondPath] = {}
        self._receivers: dict[str, DatagramReceiver | None] = {}  # by the address; None: it cannot be bound

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

    def port_at(self, host: str) -> int | None:
        """Return the UDP port at an address of this host; None: beats cannot be received there."""
        if self._udp_port is None:
            return None
        if host not in self._receivers and len(self._receivers) < MAX_RECEIVERS:
            try:
                self._receivers[host] = DatagramReceiver(self._hub, host, self._udp_port, self._received)
            except OSError:
                self._receivers[host] = None  # the port is taken, for example by another node with the same setting
        receiver = self._receivers.get(host)
        return None if receiver is None else receiver.port

    def _received(self, datagram: bytes) -> None:
        path = self._by_id.get(id_of(datagram))
        if path is not None:
            path.take(datagram)

    # --- what the loop watch calls ---

    def blocked(self, seconds: float, where: str) -> None:
        """Send beats to all peers. In the watch's thread, while the loop is blocked."""
        # One call of C code: the hub may wake at any moment, and open or close a path.
        with DatagramSender() as sender:
            for path in list(self._paths):
                path.beat(sender, seconds, where)

    def running(self) -> None:
        """Report to all peers that got beats that these are outdated. On the hub, when it runs again."""
        for path in list(self._paths):
            path.unblock()

    # --- the end ---

    def close(self) -> None:
        """Close everything. Idempotent."""
        for path in list(self._paths):
            path.close()
        for receiver in self._receivers.values():
            if receiver is not None:
                receiver.close()
        self._receivers.clear()
        self._udp_port = None

    def abandon(self, *, watching: bool) -> None:
        """Close this process's copies of the sockets, in a forked child."""
        self._paths.clear()
        self._by_id.clear()
        for receiver in self._receivers.values():
            if receiver is not None:
                receiver.abandon(watching=watching)
        self._receivers.clear()
        self._udp_port = None


def _place(beat: Beat) -> str:
    return escaped(beat.where)  # it is the peer's text
