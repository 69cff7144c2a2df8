# SPDX-License-Identifier: MIT
"""pyzmq's green sockets, DEALER to ROUTER, with msgpack: one frame for each message, as its guide shows it."""

from __future__ import annotations

import itertools
from typing import Any

import gevent
import msgpack
import zmq.green as zmq
from gevent.event import AsyncResult
from gevent.pool import Group

from benchmarks import n1_net_pingpong, n2_net_oneway, n4_net_rpc100
from benchmarks.bare import LOOPBACK
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import one_cpu, peer

CONTEXT = zmq.Context()


def serve(answer: Any) -> str:
    """Answer each message with what ``answer(message)`` returns, unless that is None."""
    router = CONTEXT.socket(zmq.ROUTER)
    port = router.bind_to_random_port(f"tcp://{LOOPBACK}")

    def serve_all() -> None:
        while True:
            client, data = router.recv_multipart()
            reply = answer(msgpack.unpackb(data))
            if reply is not None:
                router.send_multipart([client, msgpack.packb(reply)])

    gevent.spawn(serve_all)
    return str(port)


def dealer(address: str) -> Any:
    """Connect, and wait until the other side answered."""
    sock = CONTEXT.socket(zmq.DEALER)
    sock.connect(f"tcp://{LOOPBACK}:{address}")
    sock.send(msgpack.packb(["hello"]))
    sock.recv()
    return sock


def serve_n1(variant: str) -> str:
    """Send everything back."""
    return serve(lambda message: message)


def n1(n: int, variant: str) -> Figure:
    """One message back and forth."""
    if "one cpu" in variant and not one_cpu():
        return {"skipped": "this system cannot pin a process to a CPU"}
    with peer(__name__, "n1", variant) as address:
        sock = dealer(address)
        settle()
        started = clock()
        for number in range(n):
            sock.send(msgpack.packb(["ping", number]))
            msgpack.unpackb(sock.recv())
        return figure(n, n1_net_pingpong.UNIT, clock() - started)


def serve_n2(variant: str) -> str:
    """Count, and answer "hello" and "end" with the count."""
    count = itertools.count()

    def counted(message: list[Any]) -> int | None:
        number = next(count)
        return None if message[0] == "tag" else number

    return serve(counted)


def n2(n: int, variant: str) -> Figure:
    """A stream, then an ack."""
    with peer(__name__, "n2", variant) as address:
        sock = dealer(address)
        settle()
        started = clock()
        for number in range(n):
            sock.send(msgpack.packb(["tag", number, n2_net_oneway.TEXT]))
        sock.send(msgpack.packb(["end"]))
        if msgpack.unpackb(sock.recv()) != n + 1:
            raise RuntimeError("messages were lost")
        return figure(n, n2_net_oneway.UNIT, clock() - started)


def serve_n4(variant: str) -> str:
    """Answer a request's number with the number plus one."""
    return serve(lambda message: message if message[0] == "hello" else [message[0], message[1] + 1])


def n4(n: int, variant: str) -> Figure:
    """100 greenlets on one socket; a greenlet reads, and wakes the one that an answer is for."""
    callers = n4_net_rpc100.CALLERS
    share = max(1, n // callers)
    with peer(__name__, "n4", variant) as address:
        sock = dealer(address)
        waiting: dict[int, AsyncResult[int]] = {}
        requests = itertools.count()

        def read() -> None:
            while True:
                request, number = msgpack.unpackb(sock.recv())
                waiting.pop(request).set(number)

        def caller() -> None:
            for number in range(share):
                request = next(requests)
                result: AsyncResult[int] = AsyncResult()
                waiting[request] = result
                sock.send(msgpack.packb([request, number]))
                if result.get() != number + 1:
                    raise RuntimeError("a reply reached the wrong caller")

        settle()
        started = clock()
        reader, group = gevent.spawn(read), Group()
        for _ in range(callers):
            group.spawn(caller)
        group.join(raise_error=True)
        seconds = clock() - started
        reader.kill()
        return figure(share * callers, n4_net_rpc100.UNIT, seconds)
