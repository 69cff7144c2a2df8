# SPDX-License-Identifier: MIT
"""A chat with rooms and lists of the people in them: Flask-SocketIO behind several gunicorn workers, without Redis.

Flask-SocketIO's rooms work across workers by themselves, with the client manager of this library. Presence knows who is
in a room: each connection tracks a person, who leaves when the last connection is closed or its worker is killed. Each
worker watches the rooms of its own clients, and sends them the list when it changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO, join_room, leave_room

from aemp_gevent import NODE
from aemp_gevent.contrib.gunicorn import on_drain
from aemp_gevent.contrib.socketio import AempManager
from aemp_gevent.presence import Presence, Session

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

NAME = re.compile(r"[\w.-]{1,30}")

app = Flask(__name__)
socketio: Any = SocketIO(app, client_manager=AempManager())  # Any: type stubs for it lack some of what it has


class Room:
    """A room with clients of this worker."""

    def __init__(self, name: str) -> None:
        self.present = Presence(f"room.{name}")
        self.sessions: dict[str, Session] = {}  # by Socket.IO's session ID
        self._name = name
        self._people: list[str] = []
        self._watch = self.present.watch(self._changed)

    def _changed(self, people: Mapping[str, object], *_changes: object) -> None:
        self._people = sorted(people)
        self.send_list(self._name)

    def send_list(self, to: str) -> None:
        """Send the list of people to clients of this worker only: each worker does that."""
        socketio.emit("people", self._people, to=to, ignore_queue=True)

    def close(self) -> None:
        """Stop watching."""
        self._watch.cancel()


rooms: dict[str, Room] = {}
"""This worker's, by name."""


def leave(session: str) -> None:
    """Take a client out of its room."""
    for name, room in list(rooms.items()):
        tracked = room.sessions.pop(session, None)
        if tracked is not None:
            tracked.cancel()
            if not room.sessions:
                rooms.pop(name).close()
            leave_room(name, session, "/")


@app.get("/")
def page() -> str:
    """Return the page, which does the rest."""
    return PAGE


@socketio.on("connect")
def connect(_auth: object = None) -> None:
    """Say which worker serves the client."""
    socketio.emit("node", NODE(), to=request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO adds it


@socketio.on("enter")
def enter(name: object, room: object) -> None:
    """Enter a room, and leave the one before."""
    session: str = request.sid  # type: ignore[attr-defined]
    leave(session)
    if not all(isinstance(text, str) and NAME.fullmatch(text) for text in (name, room)):
        return
    join_room(room)
    entered = rooms.get(str(room)) or rooms.setdefault(str(room), Room(str(room)))
    entered.sessions[session] = entered.present.track(str(name))
    entered.send_list(session)


@socketio.on("say")
def say(room: object, name: object, text: object) -> None:
    """Say something to everybody in the room, whichever worker serves them."""
    if room in rooms and request.sid in rooms[str(room)].sessions:  # type: ignore[attr-defined]
        socketio.emit("said", (str(name), str(text)), to=room)


@socketio.on("disconnect")
def disconnect(_reason: object = None) -> None:
    """Leave."""
    leave(request.sid)  # type: ignore[attr-defined]


@on_drain
def send_clients_away() -> None:
    """Close the connections of an ending worker: browsers come back by themselves, and meet another worker."""
    for client in list(socketio.server.eio.sockets.values()):
        client.close(wait=False, abort=True)
