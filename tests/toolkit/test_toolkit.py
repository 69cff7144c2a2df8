# SPDX-License-Identifier: MIT
"""What users may import from the toolkit: it exists, is listed, and is documented."""

from __future__ import annotations

import gc
import inspect
import io
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from aemp_gevent import toolkit
from aemp_gevent.errors import PortDied
from aemp_gevent.toolkit import (
    PortEvent,
    PortQueue,
    PortSemaphore,
    RemoteEvent,
    RemotePool,
    RemoteQueue,
    events,
    queues,
    semaphores,
)
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.networking import WAIT
from tests.support.settling import settle

THINGS: list[Callable[..., Any]] = [
    PortQueue,
    PortEvent,
    PortSemaphore,
    lambda node: RemotePool([node.NODE()], node=node),
]


def test_all_lists_what_the_package_exports_and_nothing_else():
    exported = {
        name for name, value in vars(toolkit).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert exported == set(toolkit.__all__)


@pytest.mark.parametrize("name", toolkit.__all__)
def test_public_name_is_documented(name):
    thing = getattr(toolkit, name)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
        if not attribute.startswith("_") and callable(member):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


@pytest.mark.slow
def test_importing_it_starts_nothing():
    program = """
import aemp_gevent.toolkit
from gevent.hub import _get_hub
assert _get_hub() is None, "a hub was made"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("make", THINGS, ids=["queue", "event", "semaphore", "pool"])
def test_what_nobody_refers_to_is_gone_at_once_and_its_port_soon(make_node, make):
    node = make_node(None)
    reasons: list[Any] = []
    thing = make(node=node)
    node.mon(thing.port, lambda *reason: reasons.append(reason))
    reference, port = weakref.ref(thing), thing.port
    gc.disable()
    try:
        del thing
        assert reference() is None, "only the garbage collector finds it"
    finally:
        gc.enable()
    wait_until(lambda: reasons)
    assert node.scheduler.table.find(port) is None
    assert reasons[0][0] == "unreferenced"
    assert "nothing refers to the" in reasons[0][1]


def test_who_asks_for_what_is_gone_hears_why_at_once(make_node):
    owner, user = make_node(), make_node()
    queue = PortQueue(node=owner)
    remote = RemoteQueue(queue.port, node=user)
    assert remote.empty()
    del queue
    for _ in range(2):
        with pytest.raises(PortDied, match="nothing refers to the PortQueue any more|nonexistent"):
            remote.get(timeout=WAIT)


def test_a_waiting_greenlet_keeps_it(make_node):
    owner, user = make_node(), make_node()
    event = PortEvent(node=owner)
    port, waiters = event.port, event._object_port.waiters
    waiter = gevent.spawn(RemoteEvent(port, node=user).wait, WAIT)
    wait_until(lambda: waiters)
    del event
    gevent.sleep(0.01)
    user.snd(port, "set")
    assert waiter.get(timeout=WAIT)
    wait_until(lambda: owner.scheduler.table.find(port) is None)


def test_it_may_go_in_another_native_thread(make_node):
    node = make_node(None)
    queues = [PortQueue(node=node)]
    port = queues[0].port
    thread = threading.Thread(target=queues.clear)
    thread.start()
    thread.join()
    wait_until(lambda: node.scheduler.table.find(port) is None)


def test_a_remote_form_of_what_is_here_keeps_it(make_node):
    node = make_node(None)
    assert RemoteQueue(PortQueue(items=[1], node=node), node=node).get(timeout=WAIT) == 1


BAD_REPLIES: dict[str, Any] = {
    "none": None,
    "number": 5,
    "list": ["127.0.0.1:9#r"],
    "bytes": b"127.0.0.1:9#r",
    "empty": "",
    "blanks": "a b#c",
    "unprintable": "a#\n",
    "unresolved": "localhost:4040#r",
    "node": "127.0.0.1:9",
    "nameless": "127.0.0.1:9#",
    "long": "127.0.0.1:9#" + "x" * 3000,
}


@pytest.mark.parametrize("reply", [*BAD_REPLIES.values(), ...], ids=[*BAD_REPLIES, "this-node"])
def test_request_with_a_bad_reply_port_takes_nothing_and_raises_nowhere(make_node, monkeypatch, caplog, reply):
    """Whatever the request, also if it has to wait, and is answered outside of any port."""
    node = make_node(None)
    caplog.set_level("WARNING", "aemp_gevent")
    raised = io.StringIO()
    monkeypatch.setattr(gevent.get_hub(), "exception_stream", raised)
    bad = node.NODE() if reply is ... else reply
    good = node.port(lambda *_message: None)
    free, held = PortSemaphore(1, node=node), PortSemaphore(1, node=node)
    empty, full = PortQueue(1, node=node), PortQueue(1, ["item"], node=node)
    event = PortEvent(node=node)
    held.acquire()
    args = {
        "acquire": (good,),
        "acquire_nowait": (good,),
        "put": ("put",),
        "put_nowait": ("put",),
        "shutdown": (False,),
    }
    requests = {semaphores: (free, held), queues: (empty, full), events: (event,)}
    for module, things in requests.items():
        for tag in [*module._MESSAGES, *module._CALLS]:
            if (module, tag) == (events, "set") or (tag in ("put", "end") and bad is None):  # no answer is wanted
                continue
            for thing in things:
                node.snd(thing.port, tag, *args.get(tag, ()), bad)
    for semaphore in (free, held):
        node.snd(semaphore.port, "acquire", bad, good)
    settle(node)
    held.release()
    event.set()
    empty.put("other")
    settle(node)
    gevent.sleep(0)
    settle(node)
    assert (free.counter, held.counter) == (1, 1)
    assert (list(empty.queue), list(full.queue)) == (["other"], ["item"])
    assert raised.getvalue() == ""
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not [thing for things in requests.values() for thing in things if thing._object_port.waiters]


@pytest.mark.slow
def test_what_is_left_when_the_program_ends_ends_in_silence():
    program = """
from aemp_gevent import NODE, attach, call_async, port
from aemp_gevent.toolkit import PortEvent, PortQueue, PortSemaphore, RemotePool, RemoteQueue, RemoteSemaphore
queue, event, semaphore, pool = PortQueue(1, [1]), PortEvent(), PortSemaphore(), RemotePool([NODE()])
queue.itself = queue
def generator():
    with attach(), RemoteSemaphore(semaphore):
        yield
running = generator()
next(running)
waiting = call_async(queue.port, "put", 2)
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
