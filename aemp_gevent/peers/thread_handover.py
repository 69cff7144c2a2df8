# SPDX-License-Identifier: MIT
"""How native threads send to other nodes: they encode packets, and the hub of the node's thread takes these over.

Another native thread than the node's cannot touch a link. What it sends is encoded
at once, counted, and handed to the hub by :class:`Handover`; while too much is unsent, the thread blocks.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from aemp_gevent.errors import LinkBusyError
from aemp_gevent.links.flow_control import Room, has_room
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.threads import ThreadLocal
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire.framing_msgpack import make_resting_encoder


class Sendable(Protocol):
    """A peer, as far as the handover uses it."""

    room: Room

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent to it. Any thread may read this."""
        ...

    def send_encoded(self, name: str, data: bytes) -> None:
        """Send or queue a packet, encoded as msgpack, for a port of this name. Never switches."""


class HandoverHost(Protocol):
    """The network that packets are handed to."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...

    def peer(self, node: str) -> Sendable:
        """Return the peer of this ID, made if need be. In the node's thread only."""
        ...

    def known_peer(self, node: str) -> Sendable | None:
        """Return the peer of this ID if there is one. Any thread may call this."""
        ...


class _SendingThread:
    """One native thread that sends: what it encodes with, and how far the hub is behind it."""

    def __init__(self) -> None:
        self.encode = make_resting_encoder()
        # Two counters, each with one thread that writes it, instead of one with a lock.
        self.handed_bytes = 0  # by the thread
        self.taken_bytes = 0  # by the hub
        self.room = Room()

    @property
    def is_ahead(self) -> bool:
        """Whether the hub has not taken everything yet."""
        return self.handed_bytes != self.taken_bytes


class Handover:
    """Takes packets for other nodes from any native thread but the node's own, in each one's order.

    What a thread handed over and the hub has not taken yet counts as unsent.
    """

    def __init__(self, host: HandoverHost) -> None:
        self._host = host
        self.handed: deque[tuple[_SendingThread, str, str, bytes]] = deque()
        """What is still to be taken: before the node's own thread sends anything, which would overtake it."""
        self._is_taking = False
        self._threads = ThreadLocal()
        self._limits = host.settings.limits
        self._high_water = host.settings.high_water_bytes

    def send_message(self, node: str, packet: list[Any], *, pausing: bool) -> None:
        """Send a message to a port.

        Args:
            node: Where the port is.
            packet: The port's name and the message.
            pausing: Whether to block while too much is unsent, or else to send nothing and raise.

        Raises:
            LinkBusyError, UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        if not pausing:
            self.check_room(node)
        self.send(node, packet)
        if pausing:
            self.pause(node)

    def send(self, node: str, packet: list[Any]) -> None:
        """Encode a packet for a node now, and have the hub send it. Never blocks.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        sender = self._sender()
        data = sender.encode(packet)
        self._limits.check(packet, len(data))
        sender.handed_bytes += len(data)
        self.handed.append((sender, node, packet[0], data))
        self._host.scheduler.call_on_hub(self.take)

    def pause(self, node: str) -> None:
        """Block this thread while too much is unsent to a node."""
        sender = self._sender()
        if self._unsent(sender, node) <= self._high_water:
            return
        if sender.is_ahead:
            sender.room.block_while(lambda: sender.is_ahead)
        peer = self._host.known_peer(node)
        if peer is not None and peer.unsent > self._high_water:
            peer.room.block_while(lambda: not has_room(peer.unsent, self._high_water))

    def check_room(self, node: str) -> None:
        """Refuse to send where :meth:`pause` would block.

        Raises:
            LinkBusyError: Too much is unsent.
        """
        unsent = self._unsent(self._sender(), node)
        if unsent > self._high_water:
            raise LinkBusyError(node, unsent, self._high_water)

    def _sender(self) -> _SendingThread:
        sender: _SendingThread | None = getattr(self._threads, "sender", None)
        if sender is None:
            sender = self._threads.sender = _SendingThread()
        return sender

    def _unsent(self, sender: _SendingThread, node: str) -> int:
        peer = self._host.known_peer(node)
        return sender.handed_bytes - sender.taken_bytes + (0 if peer is None else peer.unsent)

    def take(self) -> None:
        """Send or queue everything that was handed over. In the node's thread only; never switches."""
        if self._is_taking:
            return  # called by a finalizer that sends, in the middle of this
        try:
            self._is_taking = True
            while self.handed:
                # Left where it is until it was sent: at the recursion limit nothing can be put back.
                sender, node, name, data = self.handed[0]
                is_done = True
                try:
                    self._host.peer(node).send_encoded(name, data)
                except (RecursionError, MemoryError):
                    is_done = False  # the caller is struck, which sends just now, and others' messages wait
                    raise
                except Exception:
                    raise
                except BaseException:  # Ctrl-C
                    is_done = False
                    raise
                finally:
                    if is_done:
                        del self.handed[0]
                        self._taken(sender, data)
        finally:
            self._is_taking = False

    def _taken(self, sender: _SendingThread, data: bytes) -> None:
        sender.taken_bytes += len(data)
        if not sender.is_ahead:
            sender.room.open()
