# SPDX-License-Identifier: MIT
"""Redis' publish and subscribe through redis-py in patched processes, with a server of our own on loopback."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import redis
from gevent import monkey, socket

from benchmarks import n1_net_pingpong, n2_net_oneway
from benchmarks.bare import LOOPBACK
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

monkey.patch_all()  # as its users on gevent do

VARIABLE = "AEMP_BENCHMARK_REDIS"


@contextmanager
def server() -> Generator[None, None, None]:
    """Run a Redis server that keeps nothing, and tell the peer its port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        os.environ[VARIABLE] = str(port)
        try:
            wait_for(lambda: connect().ping())
            yield
        finally:
            process.kill()
            process.wait()


def connect() -> Any:
    """Return a client."""
    return redis.Redis(host=LOOPBACK, port=int(os.environ[VARIABLE]))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the server listens."""
    for _ in range(1000):
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        gevent.sleep(0.01)
    raise RuntimeError("redis-server does not answer")


def subscribe(channel: str) -> Iterator[bytes]:
    """Subscribe, and yield what is published."""
    pubsub = connect().pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(channel)
    return (message["data"] for message in pubsub.listen() if message is not None)


def serve(answer: Callable[[bytes], bytes | None]) -> str:
    """Answer what is published for the server."""
    client = connect()
    taken = subscribe("server")

    def serve_all() -> None:
        for data in taken:
            reply = answer(data)
            if reply is not None:
                client.publish("client", reply)

    gevent.spawn(serve_all)
    wait_for(lambda: client.pubsub_numsub("server")[0][1])
    return "ready"


def serve_n1(variant: str) -> str:
    """Send everything back."""
    return serve(lambda data: data)


def n1(n: int, variant: str) -> Figure:
    """One message back and forth, through the server."""
    with server(), peer(__name__, "n1", variant):
        client, answers = connect(), subscribe("client")
        client.publish("server", b"hello")
        next(answers)
        settle()
        started = clock()
        for _ in range(n // 10):
            client.publish("server", b"ping")
            next(answers)
        return figure(n // 10, n1_net_pingpong.UNIT, clock() - started)


def serve_n2(variant: str) -> str:
    """Count, and answer "hello" and "end"."""
    return serve(lambda data: data if data in {b"hello", b"end"} else None)


def n2(n: int, variant: str) -> Figure:
    """A stream, one ``publish`` for each message, then an ack; a tenth of the work."""
    with server(), peer(__name__, "n2", variant):
        client, answers = connect(), subscribe("client")
        client.publish("server", b"hello")
        next(answers)
        settle()
        started = clock()
        for number in range(n // 10):
            client.publish("server", f"{number} {n2_net_oneway.TEXT}")
        client.publish("server", b"end")
        next(answers)
        return figure(n // 10, n2_net_oneway.UNIT, clock() - started)
