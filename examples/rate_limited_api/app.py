# SPDX-License-Identifier: MIT
"""An API that each client may use so many times in some seconds, on all workers together.

The page shows it: each click is one request, which any worker may get, and all of them count together. How often the
API was used altogether is a counter that all workers share.

While the worker that counts does not answer, until another one takes its place, everybody may use the API: the limit
protects it from a few clients, and must not turn all of them away. Those uses are not counted.
"""

from __future__ import annotations

import math
import os

from flask import Flask, Response, jsonify, request

from aemp_gevent import NODE
from aemp_gevent.errors import StateUnavailableError
from aemp_gevent.shared import Counter, Limiter, Verdict

LIMIT = int(os.environ.get("API_LIMIT", "5"))
SECONDS = float(os.environ.get("API_SECONDS", "10"))
PATIENCE = 2.0
"""Seconds that a request may wait for the worker that counts."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A limited API</title>
<h1>A limited API</h1>
<p><button id="ask">Use it</button> <span id="state">ready</span></p>
<ol id="answers"></ol>
<script>
  document.getElementById("ask").onclick = async () => {
    const answer = await fetch("api", {method: "POST"})
    const found = await answer.json()
    const line = document.createElement("li")
    line.textContent = answer.ok
      ? `number ${found.number ?? "unknown"}, ${found.remaining} left, by ${found.node}`
      : `too many, try again in ${answer.headers.get("Retry-After")} s`
    document.getElementById("answers").append(line)
    document.getElementById("state").textContent = answer.status
  }
</script></html>
"""

app = Flask(__name__)
limiter = Limiter("api", LIMIT, SECONDS, timeout=PATIENCE)
used = Counter("api", timeout=PATIENCE)


def judge(client: str) -> Verdict:
    """Return whether a client may use the API now."""
    try:
        return limiter.hit(client)
    except StateUnavailableError:
        return Verdict(allowed=True, remaining=0, retry_after=0.0)  # rather too often than not at all


def count() -> float | None:
    """Count one use, and return its number; None if that is not known."""
    try:
        return used.add()
    except StateUnavailableError:
        return None


@app.get("/")
def page() -> str:
    """Return the page."""
    return PAGE


@app.post("/api")
def api() -> Response:
    """Do the work, unless this client asked too often."""
    verdict = judge(request.remote_addr or "")
    if verdict.allowed:
        return jsonify(number=count(), remaining=verdict.remaining, node=NODE())
    answer = jsonify(error="too many requests")
    answer.status_code = 429
    answer.headers["Retry-After"] = str(math.ceil(verdict.retry_after))
    return answer
