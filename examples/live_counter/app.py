# SPDX-License-Identifier: MIT
"""How many visitors look at this page right now, over all workers, live.

Each worker enters the number of its own visitors into the directory; what everybody sees is the sum. So
nobody has to count for all, and the visitors of a worker that is killed are gone with its entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response

from aemp_gevent import NODE, attach, db_mon, db_set, receive, snd
from aemp_gevent.contrib.gunicorn import is_draining, on_drain, on_join

FAMILY = "visitors"
ALIVE_SECONDS = 15
"""A browser that went away is noticed when something is written to it."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Live</title>
<h1><span id="count">?</span> here now</h1>
<script>
  new EventSource("events").onmessage = event => { document.getElementById("count").textContent = event.data }
</script></html>
"""

app = Flask(__name__)


class Counter:
    """The visitors of this worker, and the sum of all workers'."""

    def __init__(self) -> None:
        self.total = 0
        self._tabs: set[str] = set()
        db_mon(FAMILY, self._changed)

    def _changed(self, counts: Mapping[str, Any], *_changes: object) -> None:
        self.total = sum(counts.values())
        self._tell("count", self.total)

    def _tell(self, *message: object) -> None:
        for tab in self._tabs:
            snd(tab, *message)

    def enter(self, tab: str) -> None:
        self._tabs.add(tab)
        if is_draining():  # it came over a connection that this worker had accepted before
            snd(tab, "close")
        db_set(FAMILY, NODE(), len(self._tabs))

    def leave(self, tab: str) -> None:
        self._tabs.discard(tab)
        db_set(FAMILY, NODE(), len(self._tabs))

    def close(self) -> None:
        self._tell("close")


class _Worker:
    counter: Counter


@on_join
def open_counter() -> None:
    """Begin to count the visitors of this worker."""
    _Worker.counter = Counter()


@on_drain
def close_counter() -> None:
    """End all streams of this worker."""
    _Worker.counter.close()  # browsers come back by themselves, and meet another worker


@app.get("/")
def page() -> str:
    """Return the page."""
    return PAGE


@app.get("/events")
def events() -> Response:
    """Stream the number of visitors, for as long as the browser is there."""
    return Response(_events(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


def _events() -> Iterator[str]:
    counter = _Worker.counter
    with attach() as tab:
        counter.enter(tab)
        try:
            yield f"retry: 500\ndata: {counter.total}\n\n"
            while (message := receive(timeout=ALIVE_SECONDS, default=("quiet",))) != ("close",):
                yield f"data: {message[1]}\n\n" if message[0] == "count" else ": still here\n\n"
        finally:
            counter.leave(tab)
