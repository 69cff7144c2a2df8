# SPDX-License-Identifier: MIT
"""A Socket.IO server for tests of several workers. Clients ask for what an application does by itself."""

from __future__ import annotations

import os
from typing import Any

import socketio

if os.environ.get("TEST_REDIS"):
    manager = socketio.RedisManager(os.environ["TEST_REDIS"])
else:
    from aemp_gevent.contrib.socketio import AempManager

    manager = AempManager()

server = socketio.Server(async_mode="gevent", client_manager=manager, ping_interval=60, ping_timeout=60)
app = socketio.WSGIApp(server)


@server.on("connect")
def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    for room in (auth or {}).get("rooms", ()):
        server.enter_room(sid, room)


@server.on("worker")
def worker(sid: str) -> int:
    return os.getpid()


@server.on("say")
def say(sid: str, room: str, sender: str, number: int, *more: Any) -> int:
    """Emit to a room, and acknowledge."""
    server.emit("said", (room, sender, number, *more), to=room)
    return number


@server.on("emit")
def emit(sid: str, arguments: list[Any], options: dict[str, Any]) -> None:
    server.emit(*arguments, **options)


@server.on("emit_bytes")
def emit_bytes(sid: str, to: str, data: bytes) -> None:
    server.emit("bytes", {"data": [data, {"more": data * 2}]}, to=to)


@server.on("call")
def call(sid: str, to: str, data: Any) -> Any:
    """Ask another client, and pass on its answer."""
    return server.call("asked", data, to=to, timeout=20)


@server.on("enter")
def enter(sid: str, other: str, room: str) -> None:
    server.enter_room(other, room)


@server.on("leave")
def leave(sid: str, other: str, room: str) -> None:
    server.leave_room(other, room)


@server.on("close")
def close(sid: str, room: str) -> None:
    server.close_room(room)


@server.on("end")
def end(sid: str, other: str) -> None:
    server.disconnect(other)


@server.on("*", namespace="/other")
def other(event: str, sid: str, *data: Any) -> None:
    server.emit("heard", (event, *data), namespace="/other")


server.on("connect", lambda _sid, _environ, _auth: None, namespace="/other")
