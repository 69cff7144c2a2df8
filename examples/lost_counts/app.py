# SPDX-License-Identifier: MIT
"""Ways to count what several workers do; compare.py uses them all at the same time, and shows what is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.dirty import DirtyApp, stash  # type: ignore[import-untyped]

from aemp_gevent.shared import Counter


class NoApp(DirtyApp):  # type: ignore[misc]  # gunicorn has no types
    """Does nothing; gunicorn keeps a stash only for a server that has such an app."""

    def __call__(self, action: str, *_args: Any, **_kwargs: Any) -> Any:
        return action


def redis(command: str) -> int:
    """Send a command to the Redis that compare.py has started, and return the number that it answers."""
    with socket.socket(socket.AF_UNIX) as server, server.makefile("rb") as answers:
        server.connect(os.environ["REDIS_SOCKET"])
        server.sendall(f"{command}\r\n".encode())
        line = answers.readline()
        if line.startswith(b"$"):  # a text, behind its length; -1: there is none
            line = b":0" if line.startswith(b"$-1") else b":" + answers.readline()
        return int(line[1:]) if line.startswith(b":") else 0


def stashed() -> int:
    """Return the count in gunicorn's stash."""
    try:
        return int(stash.get("counts", "used") or 0)
    except stash.StashError:  # some versions raise this at first
        return 0


def stash_get_put() -> None:
    """Count with gunicorn's stash."""
    stash.put("counts", "used", stashed() + 1)


def redis_get_set() -> None:
    """Count with Redis as if it had no better way."""
    redis(f"SET got-and-set {redis('GET got-and-set') + 1}")


WAYS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "stash: get, then put": (stash_get_put, stashed),
    "Counter.add": (lambda: Counter("used").add(), lambda: round(Counter("used").value())),
    "Redis: GET, then SET": (redis_get_set, lambda: redis("GET got-and-set")),
    "Redis: INCR": (lambda: redis("INCR used"), lambda: redis("GET used")),
}
"""How to count, and how to read the count."""


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Count so many times in one of these ways, and return the count."""
    count, read = WAYS[environ["HTTP_WAY"]]
    for _ in range(int(environ["HTTP_TIMES"])):
        count()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(read()).encode()]
