# SPDX-License-Identifier: MIT
"""A web application whose work is done by backends: other processes, found through a group.

============================  ======================================================
the request                   answer
============================  ======================================================
is answered by a backend      200
whose backend dies meanwhile  is given to another one; 502 if that dies, too
is not answered in time       503
comes while nobody is there   503
============================  ======================================================
"""

from __future__ import annotations

import random
from time import monotonic

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from aemp_gevent import grp_get, syncal
from aemp_gevent.contrib.gunicorn import on_join

SECONDS = 2.0
"""For all tries together."""

TRIES = 3
"""Ports that are asked, one after the other: factors may be looked for twice."""

BIGGEST = 10**12
"""Its factors are found in a fraction of a second."""

app = Flask(__name__)


@on_join
def know_the_workers() -> None:
    """Watch the group, so that it is known when the first request comes."""
    grp_get("workers")


@app.get("/factors/<int:number>")
def factors(number: int) -> ResponseReturnValue:
    """Ask a backend for the factors of a number, within ``SECONDS``."""
    if number > BIGGEST:
        return jsonify(error=f"at most {BIGGEST}"), 400
    deadline = monotonic() + SECONDS
    tried: set[str] = set()
    for _ in range(TRIES):
        workers = [worker for worker in grp_get("workers") or () if worker not in tried]
        if not workers:
            return jsonify(error="no backend is there"), 503
        worker = random.choice(workers)
        answer = syncal(deadline - monotonic(), worker, "factor", number, request.args.get("seconds", 0.0, float))
        if answer:
            return jsonify(backend=answer[0], factors=answer[1], tries=len(tried) + 1)
        if monotonic() >= deadline:
            return jsonify(error=f"no answer within {SECONDS:g} s"), 503
        tried.add(worker)  # it died
    return jsonify(error=f"{TRIES} backends died of it, or with it"), 502
