# SPDX-License-Identifier: MIT
"""Other native threads: what they may call, and in which order it arrives at the ports of a node."""

from __future__ import annotations

import functools
import logging

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent import psub, receive
from aemp_gevent.errors import WrongThreadError
from aemp_gevent.node.local_node import LocalNode
from tests.support.helpers import on_hub, wait_until
from tests.support.native import threading
from tests.support.networking import WAIT, Deaths, Inbox, line_of, process
from tests.support.seams import ports_of
from tests.support.settling import settle
from tests.support.threads import in_thread


def _closure(node, port):
    return node.peval(port, lambda: psub(lambda: None))


REFUSED = {
    "port": ("port()", lambda node, port: node.port),
    "rcv": ("rcv()", lambda node, port: lambda: node.rcv(port, tag=print)),
    "rcv-decorator": ("rcv()", lambda node, port: functools.partial(node.rcv(port, "tag"), print)),
    "reg": ("reg()", lambda node, port: lambda: node.reg(port, "name")),
    "reg-self": ("reg()", lambda node, port: lambda: node.reg("name")),
    "mon": ("mon()", lambda node, port: lambda: node.mon(port, print)),
    "mon-self": ("mon()", lambda node, port: lambda: node.mon(port)),
    "mon_guard": ("mon_guard()", lambda node, port: lambda: node.mon_guard(port, [])),
    "cancel": ("cancel()", lambda node, port: node.mon(port, print).cancel),
    "spawn": ("spawn()", lambda node, port: lambda: node.spawn(node.NODE(), "os.getpid")),
    "after": ("after()", lambda node, port: lambda: node.after(0, print)),
    "timer": ("cancel()", lambda node, port: node.after(None, print).cancel),
    "cal": ("cal()", lambda node, port: lambda: node.cal(port, cb=print)),
    "syncal": ("syncal()", lambda node, port: lambda: node.syncal(1, port)),
    "port_async": ("port_async()", lambda node, port: lambda: node.port_async(print)),
    "rcv_async": ("rcv_async()", lambda node, port: lambda: node.rcv_async(port, print)),
    "actor": ("port_async()", lambda node, port: node.actor(print)),
    "attach": ("attach()", lambda node, port: node.attach),
    "peval": ("peval()", lambda node, port: lambda: node.peval(port, print)),
    "peval_async": ("peval_async()", lambda node, port: lambda: node.peval_async(port, print)),
    "psub": ("psub()", _closure),
    "initialise_node": ("initialise_node()", lambda node, port: node.initialise_node),
    "configure": ("configure()", lambda node, port: node.configure),
    "shutdown": ("shutdown()", lambda node, port: node.shutdown),
    "mon_nodes": ("mon_nodes()", lambda node, port: lambda: node.mon_nodes(print)),
    "mon_nodes-guard": ("cancel()", lambda node, port: node.mon_nodes(print).cancel),
}


@pytest.mark.parametrize("call", REFUSED)
def test_calls_of_other_threads_raise_an_error(make_node, call):
    node = make_node(None)
    port = node.port()
    named, prepare = REFUSED[call]
    function = prepare(node, port)
    with pytest.raises(WrongThreadError, match=r"use snd\(\) or kil\(\)") as caught:
        in_thread(function)
    assert named in str(caught.value)
    assert node.scheduler.table.find(port).state == 0, "the call had an effect all the same"
    node.kil(port)
    settle(node)
    assert not ports_of(node)


def test_another_thread_cannot_receive_for_an_attached_greenlet(make_node):
    node = make_node(None)
    attachment = node.attach()
    port = getcurrent().aemp_port

    def receive_over_there():
        getcurrent().aemp_port = port
        receive()

    with pytest.raises(WrongThreadError, match=r"receive\(\)"):
        in_thread(receive_over_there)
    with pytest.raises(WrongThreadError, match=r"detach\(\)"):
        in_thread(attachment.detach)
    attachment.detach()


def test_a_node_without_ports_belongs_to_the_thread_that_makes_the_first():
    node = LocalNode()
    in_thread(node.port)
    with pytest.raises(WrongThreadError):
        node.port()


def test_pure_look_ups_work_from_everywhere(make_node):
    a = make_node()
    b = make_node("127.0.0.1:0", a.NODE())
    wait_until(a.up_nodes)
    assert in_thread(a.NODE) == a.NODE()
    assert in_thread(a.node_of, f"{b.NODE()}#x") == b.NODE()
    assert in_thread(a.up_nodes) == [b.NODE()]
    assert in_thread(a.node_is_up, b.NODE()) is True
    assert in_thread(a.resolve_node, "127.0.0.1:7") == "127.0.0.1:7"


def test_greenlets_of_a_patched_program_are_not_foreign_and_its_thread_pool_is():
    program = """
import gevent.monkey; gevent.monkey.patch_all()
import threading, gevent
import aemp_gevent as mp
got = []
port = mp.port(lambda *message: got.append(message))

def in_a_patched_thread():
    with mp.attach() as me:
        mp.mon(port, print).cancel()
        mp.snd(me, "hello")
        got.append(mp.receive(timeout=5))

thread = threading.Thread(target=in_a_patched_thread)
thread.start()
thread.join()

def elsewhere():
    mp.snd(port, "from the pool")
    try:
        mp.port()
    except mp.WrongThreadError:
        mp.snd(port, "refused")

gevent.get_hub().threadpool.apply(elsewhere)
while len(got) < 3:
    gevent.sleep(0.01)
print(got)
"""
    with process(program) as child:
        assert line_of(child) == "[('hello',), ('from the pool',), ('refused',)]"


def test_messages_and_the_kill_of_another_thread_arrive_in_its_order(node):
    got: list[object] = []
    deaths = Deaths()
    port = node.port(got.append)
    node.mon(port, deaths)

    def work():
        for number in range(100):
            node.snd(port, number)
        node.kil(port, "enough")
        node.snd(port, "too late")

    in_thread(work)
    assert deaths.wait() == ("enough",)
    assert got == list(range(100))


def test_messages_after_a_kill_from_another_thread_are_not_handled(node):
    got: list[object] = []
    port = node.port(got.append)
    sent_in_time = Event()

    def block():  # the hub, so that the kill has not got there yet when we send
        killer = threading.Thread(target=node.kil, args=(port, "gone"))
        killer.start()
        killer.join(WAIT)
        node.snd(port, "too late")
        sent_in_time.set()

    on_hub(block)
    assert sent_in_time.is_set()
    settle(node)
    wait_until(lambda: node.scheduler.table.find(port) is None)
    assert got == []


@pytest.mark.slow
def test_a_hub_that_sleeps_is_woken_at_once():
    # In a process of its own: here anything may wake it.
    program = """
import threading, time
from gevent.event import Event
import aemp_gevent as mp
woken = Event()
port = mp.port(woken.set)

def work():
    time.sleep(0.2)
    mp.snd(port)

threading.Thread(target=work).start()
started = time.monotonic()
woken.wait(8)
print(time.monotonic() - started < 4)
"""
    with process(program) as child:
        assert line_of(child) == "True"


def test_killing_a_dead_port_or_a_node_port_from_another_thread(node):
    port = node.port()
    node.kil(port)
    in_thread(node.kil, port, "again")
    from aemp_gevent.errors import NodePortError

    with pytest.raises(NodePortError):
        in_thread(node.kil, node.NODE())


def test_an_actor_in_receive_is_woken_and_killed_from_another_thread(node):
    got: list[object] = []
    deaths = Deaths()

    def body():
        while True:
            got.append(receive())

    port = node.port_async(body)
    node.mon(port, deaths)
    wait_until(lambda: node.scheduler.table.find(port).cell.waiter is not None)
    in_thread(node.snd, port, "hello")
    wait_until(lambda: got == [("hello",)])
    in_thread(node.kil, port, "over")
    assert deaths.wait() == ("over",)


def test_a_bounded_mailbox_that_another_thread_fills_dies_in_its_own_thread(node):
    deaths: list[tuple[object, ...]] = []
    port = node.port(lambda *_message: gevent.sleep(WAIT), limit=3)
    node.mon(port, lambda *reason: deaths.append((threading.get_ident(), *reason)))
    in_thread(lambda: [node.snd(port, number) for number in range(20)])
    wait_until(lambda: deaths)
    assert deaths == [(threading.get_ident(), "mailbox_overflow", 3)]


def test_requests_to_our_own_node_port_are_handled_in_the_nodes_thread(make_node):
    node = make_node()
    inbox = Inbox(node)
    threads = []
    original = node._requests.handle
    node._requests.handle = lambda *args: (threads.append(threading.get_ident()), original(*args))
    in_thread(node.snd, node.NODE(), "snd", inbox.port, "relayed")
    wait_until(lambda: inbox.messages == [("relayed",)])
    assert threads == [threading.get_ident()]


def test_a_thread_that_sends_to_a_dead_port_logs_in_the_nodes_thread(node, caplog):
    threads = []

    class Handler(logging.Handler):
        def emit(self, record):
            threads.append(threading.get_ident())

    handler = Handler()
    log = logging.getLogger("aemp_gevent")
    log.addHandler(handler)
    try:
        node.port()
        with caplog.at_level(logging.DEBUG, logger="aemp_gevent"):
            in_thread(node.snd, node.NODE() + "#nobody", 1)
            wait_until(lambda: threads)
    finally:
        log.removeHandler(handler)
    assert threads == [threading.get_ident()]
    assert "this node has no such port" in caplog.text
