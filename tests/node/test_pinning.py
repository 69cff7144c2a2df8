# SPDX-License-Identifier: MIT
"""What fails lets go of its arguments at once: the garbage collector, which would, does not count bytes."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aemp_gevent.calls import serve as serving
from aemp_gevent.calls.serve import ReplyPortID, time_left
from aemp_gevent.errors import RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import psub
from aemp_gevent.ports.receive import receive
from aemp_gevent.toolkit import PortQueue
from tests.support.helpers import wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle


class Blob:
    """Something large."""


def fail(*_args: Any) -> None:
    raise ValueError("bad blob")


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def call(node: Node, blob: Blob) -> None:
    with pytest.raises(RemoteError):
        node.call(node.serve(node.port(), "parse", fail), "parse", blob)


def syncal(node: Node, blob: Blob) -> None:
    assert node.syncal(0.5, node.serve(node.port(), "parse", fail), "parse", blob) == ()


def actor(node: Node, blob: Blob) -> None:
    def body() -> None:
        node.rcv(node_self(), "parse", fail)
        receive("never")

    def node_self() -> str:
        from aemp_gevent.ports.context import SELF

        return str(SELF())

    port = node.port_async(body)
    settle(node)
    node.snd(port, "parse", blob)


WAYS: dict[str, Callable[[Node, Blob], object]] = {
    "call": call,
    "syncal": syncal,
    "handler": lambda node, blob: node.snd(node.port(fail), blob),
    "tag-handler": lambda node, blob: node.snd(node.rcv(node.port(), parse=fail), "parse", blob),
    "handler-in-receive": actor,
    "body": lambda node, blob: node.port_async(fail, blob),
    "timer": lambda node, blob: node.after(0, fail, blob),
    "monitor": lambda node, blob: node.mon(dead_port(node), fail, blob),
    "peval": lambda node, blob: node.peval(node.port(), fail, blob),
    "psub": lambda node, blob: node.peval(node.port(), lambda: psub(fail)(blob)),
    "request": lambda node, blob: node.snd(node.NODE(), "tests.node.test_pinning.fail", blob),
    "toolkit": lambda node, blob: node.snd(PortQueue(node=node).port, "put_nowait", blob, blob, blob),
}


def dead_port(node: Node) -> str:
    port = node.port()
    node.kil(port)
    settle(node)
    return port


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_fails_lets_go_of_its_arguments_at_once(
    node: Node, way: Callable[[Node, Blob], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])  # pytest's keep the tracebacks
    blob = Blob()
    ref = weakref.ref(blob)
    way(node, blob)
    del blob
    settle(node)
    node.snd(node.port(), "something else")  # a runner that continues lets go of what it had last
    settle(node)
    wait_until(lambda: ref() is None)


# --- reply ports ------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline", [None, 10.0])
@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda message: pickle.loads(pickle.dumps(message)), id="pickle"),
        pytest.param(lambda message: pickle.loads(pickle.dumps(message, 2)), id="old-pickle"),
    ],
)
def test_reply_port_survives_being_copied(
    copied: Callable[[Any], Any], deadline: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = ReplyPortID("a#p", deadline and serving.monotonic() + deadline, ("b#q",))
    other = copied(({"job": 1}, reply))[1]
    assert type(other) is ReplyPortID
    assert (other, other.chain) == ("a#p", ("b#q",))
    left, other_left = time_left(reply), time_left(other)
    assert left == other_left if left is None or other_left is None else abs(left - other_left) < 1


def test_copied_reply_port_answers_the_call(node: Node) -> None:
    kept: list[Any] = []
    port = node.rcv(node.port(), later=lambda *call: kept.append(pickle.loads(pickle.dumps(copy.deepcopy(call)))))
    result = node.call_async(port, "later", {"n": 1})
    settle(node)
    [(job, reply)] = kept
    node.snd(reply, job["n"] + 1)
    settle(node)
    assert result.get(timeout=1) == 2
