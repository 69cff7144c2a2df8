# SPDX-License-Identifier: MIT
"""A chat in the browser, served by several gunicorn workers: what is typed in one tab, all tabs show.

Each worker has a port, the *room*, in a group that all workers see. What a tab says goes to all
rooms, and each room passes it on to the tabs of its own worker. A tab is a port as well: the
one of the greenlet that serves its stream of events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from flask import Flask, Response, request

from aemp_gevent import NODE, attach, grp_mon, grp_reg, mon, port, rcv, receive, snd, syncal
from aemp_gevent.contrib.gunicorn import is_draining, on_drain, on_join

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

ALIVE_SECONDS = 15
"""A browser that went away is noticed when something is written to it."""

PATIENCE_SECONDS = 5
"""A worker that has been stopped, not killed, holds up nobody for longer."""

AT_ONCE = 100
"""Messages that are written together, if so many wait."""

app = Flask(__name__)


class Room:
    """What one worker has of the chat."""

    def __init__(self) -> None:
        self.port = port()
        self._rooms: set[str] = {self.port}
        self._tabs: set[str] = set()
        rcv(self.port, "enter", self._enter)
        rcv(self.port, "said", self._said)
        rcv(self.port, "close", lambda: self._tell("close"))
        grp_reg("rooms", self.port)
        grp_mon("rooms", self._meet)

    def _meet(self, _rooms: Sequence[str], added: Sequence[str], _deleted: Sequence[str]) -> None:
        # The group says who is there. Who is gone, a monitor says: other than a group it never errs.
        for room in set(added) - self._rooms:
            self._rooms.add(room)
            mon(room, lambda *_reason, room=room: self._rooms.discard(room))

    def _enter(self, tab: str) -> None:
        self._tabs.add(tab)
        mon(tab, lambda *_reason: self._tabs.discard(tab))
        if is_draining():  # it came over a connection that this worker had accepted before
            snd(tab, "close")

    def _said(self, name: str, text: str, reply: str) -> None:
        self._tell("said", name, text)
        snd(reply)

    def _tell(self, *message: str) -> None:
        for tab in self._tabs:
            snd(tab, *message)

    def say(self, name: str, text: str) -> None:
        """Send a line to all rooms. Waits until all have it, because another worker may serve the next request."""
        for room in list(self._rooms):  # rooms come and go meanwhile
            syncal(PATIENCE_SECONDS, room, "said", name, text)


class _Worker:
    """This worker's room, once it is a node."""

    room: Room


@on_join
def open_room() -> None:
    """Create this worker's room."""
    _Worker.room = Room()


@on_drain
def close_room() -> None:
    """End all streams of this worker."""
    snd(_Worker.room.port, "close")  # browsers come back by themselves, and meet another worker


@app.get("/")
def page() -> str:
    """Return the page, which does the rest."""
    return PAGE


@app.post("/say")
def say() -> tuple[str, int]:
    """Post a line; the answer comes when it is on its way to all tabs."""
    _Worker.room.say(request.form["name"], request.form["text"])
    return "", 204


@app.get("/events")
def events() -> Response:
    """Stream the chat, for as long as the browser stays connected."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(_events(), mimetype="text/event-stream", headers=headers)


def _events() -> Iterator[str]:
    with attach() as tab:
        snd(_Worker.room.port, "enter", tab)
        yield f"retry: 500\nevent: node\ndata: {NODE()}\n\n"
        while True:
            messages = [receive(timeout=ALIVE_SECONDS, default=("quiet",))]
            while len(messages) < AT_ONCE and (more := receive(timeout=0, default=None)):
                messages.append(more)
            yield "".join(map(_event, messages))
            if ("close",) in messages:
                return


def _event(message: tuple[str, ...]) -> str:
    tag, *line = message
    return f"data: {json.dumps(line)}\n\n" if tag == "said" else f": {tag}\n\n"
