# SPDX-License-Identifier: MIT
"""Messages and kills: what snd and kil promise."""

from __future__ import annotations

import functools
import logging

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import (
    InvalidPortError,
    NodePortError,
    PortKilled,
)
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import SELF
from tests.node.local import NO_PORTS, deaths_of, in_port, not_here
from tests.support.helpers import wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle

# --- snd --------------------------------------------------------------------------


def test_snd_takes_the_port_as_the_first_element_of_the_message(node, log):
    message = (node.port(log), "tag", 1)
    node.snd(*message)
    settle(node)
    assert log == [("tag", 1)]


def test_messages_go_by_reference_locally(node, log):
    thing, mapping = object(), {"a": [1]}
    node.snd(node.port(log), thing, mapping)
    settle(node)
    assert log[0][0] is thing
    assert log[0][1] is mapping


def test_snd_returns_before_anything_is_handled(node, log):
    node.snd(node.port(log), "x")
    assert log == []
    settle(node)
    assert log == [("x",)]


def test_snd_returns_before_anything_is_handled_also_in_a_handler(node):
    order = []
    other = node.port(lambda: order.append("handled"))

    def handle():
        node.snd(other)
        node.snd(SELF(), "again")
        order.append("sent")

    port = node.port(lambda *msg: order.append(msg) if msg else handle())
    node.snd(port)
    settle(node)
    assert order[0] == "sent"


@pytest.mark.parametrize("senders", [1, 7])
def test_messages_from_one_sender_to_one_port_arrive_in_order(node, senders):
    got: dict[int, list[int]] = {sender: [] for sender in range(senders)}
    port = node.port(lambda sender, number: got[sender].append(number))

    def send(sender, number=0):
        for step in range(50):
            node.snd(port, sender, number + step)
        if number < 450:
            node.snd(SELF(), sender, number + 50)

    for sender in range(senders):
        node.snd(node.port(send), sender)
    settle(node)
    assert got == {sender: list(range(500)) for sender in range(senders)}


@pytest.mark.parametrize("which", ["dead", "never", "node", "remote", "remote-node"])
def test_snd_to_a_missing_port_never_fails(node, dead, which):
    node.snd("elsewhere" if which == "remote-node" else not_here(node, dead, which), "x", object())
    settle(node)


@pytest.mark.parametrize("which", ["dead", "remote"])
def test_a_dropped_message_is_logged_at_debug_level_except_the_first(node, dead, which, caplog):
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    for text in ("first", "lost"):
        node.snd(not_here(node, dead, which), text)
    first, record = caplog.records
    assert first.levelno == logging.WARNING
    assert ("initialise_node()" if which == "remote" else "monitor a port") in first.getMessage()
    assert record.levelno == logging.DEBUG
    assert "message 'lost'" in record.getMessage()


@pytest.mark.parametrize("port", NO_PORTS)
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda node, port: node.snd(port, "x"), id="snd"),
        pytest.param(lambda node, port: node.kil(port), id="kil"),
        pytest.param(lambda node, port: node.mon(port, print), id="mon"),
        pytest.param(lambda node, port: node.mon_guard(port, []), id="mon_guard"),
        pytest.param(lambda node, port: node.rcv(port, print), id="rcv"),
        pytest.param(lambda node, port: node.reg(port, "service"), id="reg"),
        pytest.param(lambda node, port: node.cal(port, cb=print), id="cal"),
        pytest.param(lambda node, port: node.syncal(1, port), id="syncal"),
        pytest.param(lambda node, port: node.peval(port, print), id="peval"),
        pytest.param(lambda node, port: node.peval_async(port, print), id="peval_async"),
        pytest.param(lambda node, port: node.rcv_async(port, print), id="rcv_async"),
        pytest.param(lambda node, port: node.spawn(port, "posixpath.join"), id="spawn"),
    ],
)
def test_invalid_ports_are_refused_everywhere_with_advice(node, call, port):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\), spawn\(\) and SELF\(\)"):
        call(node, port)
    assert ports_of(node) == {}, "a refused call leaves nothing behind"


# --- native threads ---


def test_a_send_from_a_native_thread_wakes_the_hub(node):
    """The node does not come to belong to that thread, although it is the first to send."""
    got = gevent.event.Event()
    port = node.port(lambda *msg: got.set())
    sender = gevent.get_hub().threadpool.spawn(node.snd, port, "from afar")
    # The hub has nothing else to wake it before the timeout.
    assert got.wait(5.0)
    sender.get()
    node.kil(port)


# --- kil ------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [(), ("why",), ("die", 1, None)])
def test_kil_comes_after_the_messages_sent_before_it(node, log, reason):
    port = node.port(log)
    node.mon(port, functools.partial(log, "died"))
    node.snd(port, 1)
    node.snd(port, 2)
    node.kil(port, *reason)
    node.snd(port, "too late")
    assert log == []
    settle(node)
    assert log == [(1,), (2,), ("died", *reason)]


def test_nothing_sent_after_kil_returned_is_handled_not_even_by_a_blocked_handlers_end(node, log):
    go_on = Event()
    port = node.port(lambda *msg: [log(*msg), go_on.wait()])
    node.snd(port, 1)
    settle(node)
    node.kil(port)
    node.snd(port, 2)
    go_on.set()
    settle(node)
    assert log == [(1,)]


def test_the_first_kill_wins(node):
    port = node.port()
    deaths = deaths_of(node, port)
    node.kil(port, "first")
    node.kil(port, "second")
    settle(node)
    assert deaths == [("first",)]


def test_the_first_kill_wins_also_over_the_handlers_own_exception(node):
    port = node.port(lambda: node.kil(SELF(), "first") or 1 / 0)
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    assert deaths == [("first",)]


@pytest.mark.parametrize("which", ["dead", "never", "remote"])
def test_killing_a_missing_port_does_nothing(node, dead, which):
    node.kil(not_here(node, dead, which), "why")
    settle(node)


@pytest.mark.parametrize("which", ["own", "other"])
def test_killing_a_node_port_is_refused_with_the_remedy(node, which):
    with pytest.raises(NodePortError, match=r"kil\(\).*name a port of it"):
        node.kil(node.NODE() if which == "own" else "elsewhere")


def test_a_kill_is_thrown_into_a_blocked_handler_and_the_rest_is_discarded(node, log):
    def block(*msg):
        log(*msg)
        try:
            Event().wait()
        except PortKilled as kill:
            log("thrown", *kill.reason)
            assert SELF() not in ports_of(node), "finally blocks find the port dead"
            raise

    port = node.port(block)
    node.mon(port, functools.partial(log, "died"))
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    node.kil(port, "why")
    settle(node)
    assert log == [(1,), ("thrown", "why"), ("died", "why")]


def test_a_kill_of_one_port_never_hits_the_code_of_another(node, log):
    silent, other = node.port(), node.port()
    port = node.port(lambda: log(*node.peval(other, node.syncal, 0.01, silent, "x"), "unharmed"))
    node.snd(port)
    settle(node)
    node.kil(silent)
    wait_until(lambda: log, show=lambda: log)
    assert log == [("unharmed",)]


def test_kil_of_self_returns_and_the_next_wait_raises(node, log):
    def end():
        node.kil(SELF(), "why")
        log("kil returned")
        try:
            gevent.sleep(5)
        except PortKilled as kill:
            log("raised", *kill.reason)
            raise

    in_port(node, end)
    assert log == [("kil returned",), ("raised", "why")]


def test_kil_of_self_handles_what_was_sent_before(node, log):
    def end(*msg):
        log(*msg)
        node.kil(SELF())
        node.snd(SELF(), "too late")

    port = node.port(end)
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    assert log == [(1,), (2,)]


@pytest.mark.parametrize("how", ["handler", "own greenlet", "attached"])
def test_after_kil_of_self_syncal_raises_even_if_the_answer_comes_quickly(node, log, how):
    echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))
    # A runner that is free would deliver the answer before the hub had its look at the killed: there is one.
    node.snd(node.port(lambda *_: None))
    settle(node)
    assert node.scheduler._pool

    def end():
        node.kil(SELF(), "why")
        try:
            log(*node.syncal(5, echo, "x"))
        except PortKilled as kill:
            log("raised", *kill.reason)
            raise

    def attached():
        with node.attach():
            end()

    match how:
        case "handler":
            in_port(node, end)
        case "own greenlet":
            node.port_async(end)
            settle(node)
        case "attached":
            gevent.spawn(attached).join()
    assert log == [("raised", "why")]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", id="text"),
        pytest.param(ValueError(), "ValueError", id="no-text"),
        pytest.param(KeyError("k"), "KeyError: 'k'", id="key"),
        pytest.param(UnicodeDecodeError("ascii", b"\xff", 0, 1, "why"), None, id="several-arguments"),
    ],
)
@pytest.mark.parametrize("where", ["miniport", "tag", "pattern", "own greenlet"])
def test_an_exception_kills_at_once_with_its_text_and_drops_the_backlog(node, log, error, text, where, caplog):
    def fail(*msg):
        log(*msg)
        raise error

    match where:
        case "miniport":
            port = node.port(fail)
        case "tag":
            port = node.rcv(node.port(), x=fail)
        case "pattern":
            port = node.rcv(node.port(), ["x"], fail)
        case _:
            port = node.port_async(fail)
    deaths = deaths_of(node, port)
    node.snd(port, "x")
    node.snd(port, "x")
    settle(node)
    assert deaths == [("die", text or f"{type(error).__name__}: {error}")]
    assert len(log) == 1
    [record] = caplog.records
    assert record.name == "aemp_gevent"
    assert record.exc_info is not None, "the traceback is logged where it happened"
    assert record.exc_info[1] is error


def test_an_exception_whose_text_raises_is_a_death_like_any_other(log, caplog):
    class NastyError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def fail():
        raise NastyError

    node = LocalNode()
    port = node.port(fail)
    deaths = deaths_of(node, port)
    node.snd(port)
    node.snd(node.port(log), "goes on")
    settle(node)
    assert len(deaths) == 1
    assert deaths[0][0] == "die"
    assert "NastyError" in str(deaths[0][1])
    assert log == [("goes on",)]
