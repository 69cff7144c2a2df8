# SPDX-License-Identifier: MIT
"""A client of the crowd whose connection ends while its library writes.

``python -m tests.soak.missed_end error`` prints what the client's question returned, and whether its connection is
lost, after an end as gunicorn makes it; with ``close`` it is the end that WebSockets have. It is a process of its own,
because the crowd patches the standard library.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gevent
from gevent.event import Event
from gevent.server import StreamServer
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from aemp_gevent.testing import wait_until
from soak import socketio_crowd
from soak.socketio_crowd import Connection, Sent

OPEN = {"sid": "a", "upgrades": [], "pingInterval": 60_000, "pingTimeout": 60_000}
ENDS = {
    "error": b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 120\r\n\r\n" + b"x" * 120,
    "close": b"\x88\x02\x03\xe8",
}


class Worker:
    """A Socket.IO server for one client, which closes the connection when it has read ``say``."""

    def __init__(self) -> None:
        self._listener = StreamServer(("127.0.0.1", 0), self._serve)
        self._listener.start()
        self._socket: Any = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    def _serve(self, socket: Any, _address: object) -> None:
        self._socket = socket
        connection = WSConnection(ConnectionType.SERVER)
        while data := socket.recv(4096):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, Request):
                    socket.sendall(connection.send(AcceptConnection()))
                    socket.sendall(connection.send(TextMessage("0" + json.dumps(OPEN))))
                elif isinstance(event, TextMessage) and event.data.startswith("40"):
                    socket.sendall(connection.send(TextMessage('40{"sid":"b"}')))
                elif isinstance(event, TextMessage) and event.data.endswith('["worker"]'):
                    number = event.data[2 : event.data.index("[")]
                    socket.sendall(connection.send(TextMessage(f"43{number}[1]")))
                elif isinstance(event, TextMessage) and event.data.endswith('["say"]'):
                    return

    def end(self, how: str) -> None:
        """Say that the connection ends."""
        self._socket.sendall(ENDS[how])


def main() -> None:
    """End the reader when a packet waits for the writer."""
    socketio_crowd.STALL, socketio_crowd.PATIENCE = 0.2, 20.0
    worker = Worker()
    connection = Connection(worker.url, [], Sent())
    library = connection._client.eio
    send, writing, may_write = library.ws.send, Event(), Event()

    def send_late(packet: Any) -> Any:
        writing.set()
        may_write.wait()
        return send(packet)

    library.ws.send = send_late
    connection._client.emit("first")
    writing.wait()
    asking = gevent.spawn(connection.ask, "say")
    wait_until(lambda: library.queue.qsize() == 1)
    worker.end(sys.argv[1])
    wait_until(lambda: library.queue.qsize() == 2)  # the packet, and the reader's mark
    may_write.set()
    print(json.dumps([asking.get(), connection.lost.is_set()]))


if __name__ == "__main__":
    main()
