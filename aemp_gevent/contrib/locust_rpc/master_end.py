# SPDX-License-Identifier: MIT
"""The master's end."""

from __future__ import annotations

import functools
from typing import Any

from aemp_gevent.contrib.locust_rpc import exchange
from aemp_gevent.contrib.locust_rpc.exchange import Message, encode
from aemp_gevent.contrib.locust_rpc.inbox import PacedInbox
from aemp_gevent.errors import AempError, LinkBusyError, ListenError
from aemp_gevent.links.node_state import NodeState
from aemp_gevent.node.node import Node
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.runtime.logs import Log

_REPEAT_SECONDS = 1.0
"""How often the heartbeat of a blocked worker is repeated: as often as Locust's workers send theirs."""

MAX_LOST = 1000
"""Workers without a link that are remembered. Programs that start new ones again and again do not use them twice."""

_log = Log()


class _Worker:
    """What the master's end knows of one worker.

    Attributes:
        identity: Locust's ID of it.
        client: Its end; another one begins to count its messages again.
        session: Its port of the moment; ``""``: it has no link.
        received: The number of the last message that must not be lost.
        is_ready: Whether the master counts on it.
        is_behind: Whether messages to it are dropped because too much is unsent.
        heartbeat: Its last one.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.client = ""
        self.session = ""
        self.received = 0
        self.is_ready = False
        self.is_behind = False
        self.heartbeat: Message | None = None


class MasterEnd:
    """The master's end: workers join it, and it has what they send. Like ``locust.rpc.zmqrpc.Server``.

    When the link to a worker is lost, or its process is killed, ``recv_from_client`` returns the worker's ``quit``. One
    that ends in order says so itself, or misses its heartbeats, as with ZeroMQ. While the event loop of a worker is
    blocked, its last heartbeat is repeated, because it lives.

    Args:
        host: The interface to listen on; ``*``: all of them.
        port: The TCP port; 0: any free one.

    Attributes:
        port: The TCP port.

    Raises:
        locust.exception.RPCError: The port cannot be bound.
        AempError: A setting is wrong, or there is no secret; the same as ``aemp_gevent.configure``.
    """

    def __init__(self, host: str, port: int) -> None:
        self._inbox: PacedInbox[tuple[str, Message] | Exception] = PacedInbox()
        # Not forgotten as soon as they are lost: what they have sent must not count twice when they come back.
        self._workers: dict[str, _Worker] = {}
        self._lost: dict[str, None] = {}
        """Those without a link, in the order in which they were lost."""
        self._sessions: dict[str, _Worker] = {}
        self._blocked: set[str] = set()
        self._is_closed = False
        self._node = node = Node()
        node.mon_nodes(lambda *_link: None, state=self._state_changed)
        try:
            exchange.configure(node, exchange.MASTER, binds=(exchange.endpoint(host, port),))
        except ListenError as error:
            why = getattr(error.__cause__, "strerror", None) or error
            # Locust compares this text, and explains it.
            raise exchange.errors().RPCError(f"Socket bind failure: {why}") from error
        self._port = node.port()
        node.rcv(self._port, [exchange.JOIN, str, str, str], self._join)
        node.rcv(self._port, [exchange.FRAME, str, int, bytes], self._take)
        node.reg(self._port, exchange.MASTER_PORT.partition("#")[2])
        self.port = int(node.addresses()[0].rpartition(":")[2])

    def recv_from_client(self) -> tuple[str, Message]:
        """Wait for the next message of a worker, and return it with the worker's ID. Switches.

        Raises:
            locust.exception.RPCReceiveError: A worker sent a broken message; its attribute ``addr`` is the worker.
            locust.exception.RPCError: This end is closed.
        """
        found = self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    def send_to_client(self, msg: Message) -> None:
        """Send a message to the worker that it names; without a link to it, the message is dropped.

        Raises:
            locust.exception.RPCSendError: This end is closed, or the message is too large.
        """
        if self._is_closed:
            raise exchange.errors().RPCSendError("the master's end is closed")
        worker = self._workers.get(msg.node_id)
        if worker is None or not worker.session:
            _log.debug("%s to Locust worker %s dropped: it has no link", msg.type, msg.node_id)
            return
        try:
            # A worker that reads nothing must not make the master wait.
            self._node.snd_nowait(worker.session, exchange.FRAME, worker.received, encode(msg))
            worker.is_behind = False
        except LinkBusyError as error:
            if not worker.is_behind:
                _log.warning("messages to Locust worker %s are being dropped: %s", worker.identity, error)
            worker.is_behind = True
        except AempError as error:
            raise exchange.errors().RPCSendError(str(error)) from error

    def close(self, linger: object = None) -> None:
        """Say goodbye to the workers, and stop listening. Idempotent. Switches."""
        if not self._is_closed:
            self._is_closed = True
            self._inbox.put(exchange.errors().RPCError("the master's end is closed"))
            self._node.shutdown()

    # --- what workers do; in the context of our port ---

    def _join(self, _tag: str, identity: str, session: str, client: str) -> None:
        """Take a worker in, which may have been here before."""
        self._node.mon(session, functools.partial(self._gone, session))
        worker = self._workers.setdefault(identity, _Worker(identity))
        if worker.session:
            del self._sessions[worker.session]
            if worker.client == client:  # it lost a link of which this end has not heard yet
                self._quit(worker)
        if worker.client != client:
            worker.client, worker.received = client, 0
        worker.session, worker.is_behind = session, False
        self._lost.pop(identity, None)
        self._sessions[session] = worker
        self._node.snd(session, exchange.JOINED, self._port, worker.received)

    def _gone(self, session: str, *reason: Any) -> None:
        worker = self._sessions.pop(session, None)
        if worker is None:  # it has another session
            return
        worker.session = ""
        if reason and tag_of(reason) != "shutdown":
            self._quit(worker)
        self._lost[worker.identity] = None
        if len(self._lost) > MAX_LOST:
            oldest = next(iter(self._lost))
            del self._lost[oldest], self._workers[oldest]

    def _quit(self, worker: _Worker) -> None:
        """Report to the master that a worker quit, if it counts on it."""
        if worker.is_ready:
            worker.is_ready = False
            message = exchange.make_message(exchange.QUIT, None, worker.identity)
            self._inbox.put((worker.identity, message), is_change=True)

    def _state_changed(self, node: str, state: NodeState) -> None:
        if state.state == "blocked" and node not in self._blocked:
            self._blocked.add(node)
            self._repeat_heartbeat(node)

    def _repeat_heartbeat(self, node: str) -> None:
        """Repeat a worker's last heartbeat, now and every second while it is blocked, as the master counts them."""
        if self._is_closed or self._node.node_state(node).state != "blocked":
            self._blocked.discard(node)
            return
        for session, worker in self._sessions.items():
            if self._node.node_of(session) == node and worker.heartbeat is not None:
                self._inbox.put((worker.identity, worker.heartbeat))
        self._node.after(_REPEAT_SECONDS, functools.partial(self._repeat_heartbeat, node))

    def _take(self, _tag: str, session: str, number: int, data: bytes) -> None:
        worker = self._sessions.get(session)
        if worker is None:
            return
        worker.received = number or worker.received
        try:
            message = exchange.decode(data)
            exchange.check_report(message, worker.identity)
        except ValueError as error:
            why = f"broken message of worker {worker.identity}: {error}"
            self._inbox.put(exchange.errors().RPCReceiveError(why, addr=worker.identity))
            return
        if message.type in exchange.STANDING:
            worker.is_ready = exchange.STANDING[message.type]
        if message.type == exchange.HEARTBEAT:
            worker.heartbeat = message
        self._inbox.put((worker.identity, message), is_change=message.type in exchange.STANDING)
