# SPDX-License-Identifier: MIT
"""A worker's end."""

from __future__ import annotations

import enum
import functools
from collections import deque
from typing import Any

from gevent.queue import Queue

from aemp_gevent.contrib.locust_rpc import exchange
from aemp_gevent.contrib.locust_rpc.exchange import Message, encode
from aemp_gevent.errors import AempError
from aemp_gevent.node.access import dial_seeds, seeds_down
from aemp_gevent.node.node import Node
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.runtime.logs import Log

_KEPT = 1000
"""Messages that are kept until the master has them: as many as ZeroMQ queues."""

_CONNECT_SECONDS = 5.0
"""How long to wait for the first link, as Locust's worker does between two attempts."""

_log = Log()


class _Stage(enum.Enum):
    """What must happen before the master counts on this worker."""

    SETTLED = "nothing: it does, or does not know that this is a worker"
    DUE = "it must be told that the worker is ready"
    REPORTING = "the users have stopped, and their last statistics come next"
    STOPPING = "the users, whom nobody counts, must stop"


class WorkerEnd:
    """A worker's end: what it sends arrives at the master, and the other way round. Like ``locust.rpc.zmqrpc.Client``.

    When the link to the master is lost, the master shares out this worker's users among the other workers. So the
    worker is asked to stop its own; when the link is back, the master learns that it is ready. Statistics that the
    master may not have are sent to it again, unless it was restarted.

    Args:
        host: Where the master is.
        port: The master's TCP port.
        identity: The worker's ID.

    Raises:
        AempError: A setting is wrong, or there is no secret; the same as ``aemp_gevent.configure``.
    """

    def __init__(self, host: str, port: int, identity: str) -> None:
        self._identity = identity
        self._address = exchange.endpoint(host, port)
        self._inbox: Queue[Message | Exception] = Queue()
        self._stage = _Stage.SETTLED
        self._is_worker = False  # and does not only fetch the locustfile
        self._is_busy = False  # it has users, or is about to
        self._is_closed = False
        self._session = ""
        self._is_joined = False
        self._server = ""
        self._is_restarted = False  # the master, so that it does not want what came before
        self._sent = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._is_losing = False
        self._why_down = ""
        self._node = node = Node()
        node.mon_nodes(self._link_changed)
        exchange.configure(node, exchange.worker_node_id(identity), seeds=(self._address,))
        self._name = node.port()
        # As with ZeroMQ, it need not be there yet; but if it is, the first message reaches it.
        node.wait_for_seeds(_CONNECT_SECONDS)

    def recv(self) -> Message:
        """Wait for the next message of the master, and return it. Switches.

        Raises:
            locust.exception.RPCError: The message is broken, or this end is closed.
        """
        found = self._inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    def send(self, msg: Message) -> None:
        """Send a message to the master. May switch, if the link is slow.

        Without a link, what tells of the moment, such as a heartbeat, is dropped, and everything else is kept.

        Raises:
            locust.exception.RPCSendError: This end is closed, or the message is too large.
        """
        if self._is_closed:
            raise exchange.errors().RPCSendError("the worker's end is closed")
        self._note(msg)
        if not self._is_joined:
            self._hurry()
        if msg.type == exchange.READY:
            self._be_ready()
        elif msg.type not in exchange.OF_THE_MOMENT:
            self._send_numbered(msg)
        elif self._is_joined and self._stage is _Stage.SETTLED:
            self._send_frame(0, encode(msg))
        elif self._is_joined and msg.type == exchange.HEARTBEAT:
            # It lives: after a minute without its heartbeat, the worker would end.
            self._inbox.put(self._message(exchange.HEARTBEAT))
        self._announce()

    def close(self, linger: object = None) -> None:
        """Say goodbye to the master, after everything that was sent. Idempotent. Switches."""
        if not self._is_closed:
            self._is_closed = True
            self._inbox.put(exchange.errors().RPCError("the worker's end is closed"))
            self._end_session()
            self._node.shutdown()

    # --- what the worker says ---

    def _note(self, msg: Message) -> None:
        """Learn from a message of the worker what it does."""
        if msg.type in (exchange.READY, exchange.HEARTBEAT):
            self._is_worker = True
        if msg.type == exchange.READY:
            self._is_busy = False
        elif msg.type == exchange.HEARTBEAT and self._stage is _Stage.SETTLED:
            self._is_busy = self._is_busy or msg.data["state"] in exchange.BUSY_STATES

    def _be_ready(self) -> None:
        if self._stage is _Stage.SETTLED:
            self._stage = _Stage.DUE
        elif self._stage is _Stage.STOPPING:
            self._stage = _Stage.DUE if self._is_restarted else _Stage.REPORTING

    def _announce(self) -> None:
        """Report to the master that the worker is ready, if that is due."""
        if self._is_joined and self._stage is _Stage.DUE:
            self._stage, self._is_restarted = _Stage.SETTLED, False
            self._send_frame(0, encode(self._message(exchange.READY, exchange.version())))

    def _send_numbered(self, msg: Message) -> None:
        if self._is_restarted and self._stage is not _Stage.SETTLED:
            return  # it is of a test of which this master knows nothing
        self._sent += 1
        frame = self._sent, encode(msg)
        if len(self._kept) == _KEPT and not self._is_joined and not self._is_losing:
            self._is_losing = True
            _log.warning("more than %d messages wait for the Locust master; the oldest are being dropped", _KEPT)
        self._kept.append(frame)  # first, as sending may pause, and others send meanwhile
        if self._is_joined:
            try:
                self._send_frame(*frame)
            except exchange.errors().RPCSendError:
                self._kept.remove(frame)
                raise
        if self._stage is _Stage.REPORTING and msg.type == exchange.STATS:
            self._stage = _Stage.DUE

    def _send_frame(self, number: int, data: bytes) -> None:
        try:
            self._node.snd(exchange.MASTER_PORT, exchange.FRAME, self._session, number, data)
        except AempError as error:
            raise exchange.errors().RPCSendError(str(error)) from error

    def _message(self, kind: str, data: object = None) -> Message:
        return exchange.make_message(kind, data, self._identity)

    def _hurry(self) -> None:
        """Dial the master again soon, and log why there is no link when that is news."""
        dial_seeds(self._node)
        why = "; ".join(filter(None, seeds_down(self._node).values()))
        if why and why != self._why_down:
            _log.warning("no link to the Locust master at %s: %s", self._address, why)
        self._why_down = why or self._why_down

    # --- what happens to the link ---

    def _link_changed(self, node: str, is_up: bool, *reason: Any) -> None:
        if self._is_closed or reason == ("shutdown", self._node.NODE()):
            return
        if node != exchange.MASTER:
            if is_up:
                text = "there is no Locust master at %s, but node %s: check --master-host and --master-port"
                _log.warning(text, self._address, node)
        elif is_up:
            self._join()
        else:
            self._lost(reason)

    def _join(self) -> None:
        node = self._node
        self._session = session = node.port()
        node.rcv(session, [exchange.JOINED, str, int], functools.partial(self._joined, session))
        node.rcv(session, [exchange.FRAME, int, bytes], self._take)
        node.snd(exchange.MASTER_PORT, exchange.JOIN, self._identity, session, self._name)

    def _joined(self, session: str, _tag: str, server: str, received: int) -> None:
        if self._server not in ("", server):
            self._kept.clear()
            self._is_restarted = True
            if self._stage is _Stage.REPORTING:
                self._stage = _Stage.DUE
        self._server = server
        self._forget_kept(received)
        # It may pause, while others send: what they send comes after this, and so is kept until it is sent here.
        sent = received
        while due := [frame for frame in self._kept if frame[0] > sent]:
            sent = due[0][0]
            try:
                self._send_frame(*due[0])
            except exchange.errors().RPCSendError as error:
                _log.warning("a message to the Locust master is dropped: %s", error)
                self._kept.remove(due[0])
            if self._session != session:
                return  # the link was lost
        self._is_joined = True
        self._is_losing = False
        self._why_down = ""
        self._announce()

    def _lost(self, reason: tuple[Any, ...]) -> None:
        self._end_session()
        if not self._is_worker:
            return
        if self._is_busy:
            self._is_busy = False
            text = "link to the Locust master at %s lost: %s; this worker's users stop until it is back"
            why = "it shut down" if tag_of(reason) == "shutdown" else reason[-1]
            _log.warning(text, self._address, why)
            self._stage = _Stage.STOPPING
            self._inbox.put(self._message(exchange.STOP))
        elif self._stage is _Stage.SETTLED:
            self._stage = _Stage.DUE

    def _end_session(self) -> None:
        session, self._session = self._session, ""
        self._is_joined = False
        if session:
            self._node.kil(session)

    # --- what the master says ---

    def _take(self, _tag: str, received: int, data: bytes) -> None:
        self._forget_kept(received)
        try:
            message = exchange.decode(data)
        except ValueError as error:
            self._inbox.put(exchange.errors().RPCError(f"broken message of the master: {error}"))
            return
        if self._stage is not _Stage.SETTLED and message.type != exchange.QUIT:
            return  # the master has not yet handled that the link was lost
        if message.type == exchange.SPAWN:
            self._is_busy = True
        self._inbox.put(message)

    def _forget_kept(self, received: int) -> None:
        while self._kept and self._kept[0][0] <= received:
            self._kept.popleft()
