# SPDX-License-Identifier: MIT
"""Code that runs in ports: handlers that block, greenlets of a port's own, and attached ones."""

from __future__ import annotations

import functools
import gc
import itertools
from typing import Any

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent.errors import (
    NoPortContextError,
    PortKilled,
    ReceiverBusyError,
)
from aemp_gevent.node import spawnable_functions
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.node.local import Log, deaths_of, in_port
from tests.support.helpers import on_hub, wait_until
from tests.support.native import threading
from tests.support.seams import ports_of
from tests.support.settling import settle

# --- handlers may block ---------------------------------------------------------------


def test_a_handler_may_block_and_only_messages_to_its_port_wait(node, log):
    go_on = Event()

    def block(*msg):
        log("begins", *msg)
        go_on.wait()
        log("ends", *msg)

    port, other = node.port(block), node.port(log)
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    node.snd(other, "goes on")
    settle(node)
    assert log == [("begins", 1), ("goes on",)]
    go_on.set()
    wait_until(lambda: len(log) == 5, show=lambda: log)
    assert log[2:] == [("ends", 1), ("begins", 2), ("ends", 2)]


def test_many_blocked_handlers_do_not_delay_others(node, log):
    go_on = Event()
    for _ in range(200):
        node.snd(node.port(lambda: go_on.wait() and None))
    node.snd(node.port(log), "goes on")
    settle(node)
    assert log == [("goes on",)]
    go_on.set()


def test_a_handler_never_runs_on_the_hub(node, log):
    node.snd(node.port(lambda: log(getcurrent() is gevent.get_hub())))
    settle(node)
    assert log == [(False,)]


def test_a_handler_may_ask_other_ports_and_wait_for_their_answers(node, log):
    echo = node.port(lambda *msg: node.snd(msg[-1], *msg[:-1]))
    middle = node.port(lambda *msg: node.snd(msg[-1], "via", *node.syncal(5, echo, *msg[:-1])))
    assert node.syncal(5, middle, 1, 2) == ("via", 1, 2)


# --- port_async, rcv_async, actor --------------------------------------------------------


def test_port_async_returns_the_id_at_once_and_runs_the_function_later(node, log):
    port = node.port_async(lambda *args: log(SELF(), *args), 1, 2)
    assert log == []
    settle(node)
    assert log == [(port, 1, 2)]


@pytest.mark.parametrize("value", [None, True, "something"])
def test_returning_from_an_own_greenlet_is_a_normal_death(node, value):
    port = node.port_async(lambda: value)
    deaths = deaths_of(node, port)
    settle(node)
    assert deaths == [()]
    assert port not in ports_of(node)


def test_a_port_killed_before_its_greenlet_began_never_runs(node, log):
    port = node.port_async(log, "ran")
    deaths = deaths_of(node, port)
    node.kil(port, "early")
    settle(node)
    assert log == []
    assert deaths == [("early",)]


def test_a_kill_reaches_an_own_greenlet_wherever_it_blocks(node, log):
    def body():
        try:
            Event().wait()
        finally:
            log("finally", SELF() in ports_of(node))

    port = node.port_async(body)
    node.mon(port, functools.partial(log, "died"))
    settle(node)
    node.kil(port, "why")
    settle(node)
    assert log == [("finally", False), ("died", "why")]


def test_handlers_of_a_port_with_an_own_greenlet_are_served_there_while_it_receives(node, log):
    greenlets = []

    def body():
        node.rcv(SELF(), tag=lambda *rest: [log("handler", *rest), greenlets.append(getcurrent())])  # type: ignore[func-returns-value]
        greenlets.append(getcurrent())
        log("received", *receive())

    port = node.port_async(body)
    node.snd(port, "tag", 1)
    node.snd(port, "other", 2)
    settle(node)
    assert log == [("handler", 1), ("received", "other", 2)]
    assert greenlets[0] is greenlets[1]


def test_rcv_async_gives_an_idle_port_a_greenlet(node, log):
    port = node.port()
    deaths = deaths_of(node, port)
    assert node.rcv_async(port, lambda *args: log(SELF(), *args, *receive()), 1) == port
    node.snd(port, "x")
    settle(node)
    assert log == [(port, 1, "x")]
    assert deaths == [()]


def test_rcv_async_leaves_the_messages_so_far_to_receive(node, log):
    port = node.port(lambda *_msg: pytest.fail("a handler got it"))
    node.snd(port, 1)
    node.snd(port, 2)
    node.rcv_async(port, lambda: (log(*receive()), log(*receive())))
    settle(node)
    assert log == [(1,), (2,)]


def test_rcv_async_in_a_handler_takes_effect_when_the_handler_returns(node, log):
    def handle(*msg):
        node.rcv_async(SELF(), lambda: (log("received", *receive()), log("received", *receive())))
        log("handled", *msg)

    port = node.port(handle)
    for number in range(3):
        node.snd(port, number)
    settle(node)
    assert log == [("handled", 0), ("received", 1), ("received", 2)]


def test_a_port_has_one_greenlet_of_its_own(node):
    port = node.port_async(Event().wait)
    settle(node)
    with pytest.raises(ReceiverBusyError, match="has a greenlet of its own already"):
        node.rcv_async(port, pytest.fail)


def test_an_attached_port_has_its_greenlet_already(node):
    with node.attach() as port, pytest.raises(ReceiverBusyError, match="one greenlet receives for one port"):
        node.rcv_async(port, pytest.fail)


def test_an_actor_starts_a_port_when_called_and_returns_its_id(node, log):
    @node.actor
    def greet(*args, **kwargs):
        """Greet somebody."""
        log(SELF(), args, kwargs)
        log(*receive())

    one, other = greet(1, key=2), greet()
    assert log == []
    assert greet.__name__ == "greet"
    assert greet.__doc__ == "Greet somebody."
    node.snd(one, "x")
    settle(node)
    assert sorted(log, key=str) == sorted([(one, (1,), {"key": 2}), (other, (), {}), ("x",)], key=str)
    assert one not in ports_of(node), "returning is a normal death"


def test_detaching_from_another_greenlet_wakes_the_one_in_receive(node):
    attachments = []

    def wait():
        attachments.append(node.attach())
        receive()

    waiting = gevent.spawn(wait)
    wait_until(lambda: attachments and waiting.gr_frame is not None, within=2.0, show=lambda: attachments)
    attachments[0].detach()
    waiting.join(2.0)
    assert isinstance(waiting.value, gevent.GreenletExit)


def test_a_body_given_while_a_handler_receives_gets_the_remaining_messages(node):
    got: list[Any] = []

    def body():
        while True:
            got.append(("body", *receive()))

    def handler(*msg):
        got.append(("handler", *msg))
        got.append(("handler", *receive("wanted")))

    port = node.port(handler)
    node.snd(port, "first")
    settle(node)
    node.rcv_async(port, body)
    for tag in ("left", "wanted", "after"):
        node.snd(port, tag)
    settle(node)
    assert got == [("handler", "first"), ("handler", "wanted"), ("body", "left"), ("body", "after")]
    node.kil(port)


def test_an_actor_gets_every_message_sent_right_after_its_spawn(node, monkeypatch):
    got: list[Any] = []

    @node.actor
    def body():
        while True:
            got.append(receive())

    monkeypatch.setitem(spawnable_functions._spawnable, "test.body", body)
    port = node.spawn(node.NODE(), "test.body")
    for number in range(3):
        node.snd(port, number)
    settle(node)
    assert got == [(0,), (1,), (2,)]
    node.kil(port)


# --- attach -------------------------------------------------------------------------------


def test_attach_gives_the_running_greenlet_a_port(node):
    with node.attach() as port:
        deaths = deaths_of(node, port)
        assert SELF() == port
        node.snd(port, "x")
        assert receive(timeout=5) == ("x",)
    settle(node)
    assert SELF() is None
    assert deaths == [()], "leaving it is a normal death"
    assert port not in ports_of(node)


def test_an_exception_that_leaves_the_block_is_an_abnormal_death(node):
    with pytest.raises(LookupError), node.attach() as port:
        deaths = deaths_of(node, port)
        raise LookupError("mine")
    settle(node)
    assert deaths == [("die", "LookupError: mine")]


def test_a_timeout_that_leaves_the_block_is_an_abnormal_death_too(node):
    with pytest.raises(gevent.Timeout), node.attach() as port:
        deaths = deaths_of(node, port)
        raise gevent.Timeout
    settle(node)
    assert [death[:1] for death in deaths] == [("die",)]


def test_attaching_again_nests(node):
    with node.attach() as outer:
        with node.attach() as inner:
            assert SELF() == inner != outer
            node.snd(outer, "outer")
            node.snd(inner, "inner")
            assert receive(timeout=5) == ("inner",)
        assert SELF() == outer
        assert receive(timeout=5) == ("outer",)
    assert SELF() is None


def test_attaching_inside_a_handler_gives_the_handlers_context_back(node, log):
    def handle():
        before = SELF()
        with node.attach() as port:
            log(SELF() == port != before)
        log(SELF() == before)

    in_port(node, handle)
    assert log == [(True,), (True,)]


def test_nothing_is_thrown_into_an_attached_greenlet_outside_our_blocking_calls(node, log):
    go_on = Event()

    def handle_request():
        with node.attach() as port:
            deaths_of_it = deaths_of(node, port)
            log(port)
            go_on.wait()
            log("unharmed", *deaths_of_it)
            for call in (receive, functools.partial(node.syncal, 5, node.port())):
                with pytest.raises(PortKilled) as caught:
                    call()
                log(*caught.value.reason)

    greenlet = gevent.spawn(handle_request)
    wait_until(lambda: log)
    node.kil(log[0][0], "why")
    settle(node)
    assert len(log) == 1
    go_on.set()
    greenlet.join()
    assert log[1:] == [("unharmed", ("why",)), ("why",), ("why",)], "monitors fired though the greenlet went on"


def test_an_attached_port_dies_with_its_greenlet(node):
    deaths: list[Log] = []

    def run():
        deaths.append(deaths_of(node, node.attach()))

    gevent.spawn(run).join()
    wait_until(lambda: ports_of(node) == {}, show=lambda: ports_of(node))
    settle(node)
    assert deaths == [[()]]


def test_detaching_may_be_done_by_hand(node):
    attachment = node.attach()
    deaths = deaths_of(node, attachment)
    attachment.detach()
    attachment.detach()
    settle(node)
    assert deaths == [()]
    assert SELF() is None


def streamed(node, told):
    """A response that is a generator with a port."""
    with node.attach() as port:
        told.append(deaths_of(node, port))
        yield port


def closed_here(box):
    box.pop().close()


def closed_elsewhere(box):
    gevent.spawn(box.pop().close).join()


def dropped_elsewhere(box):
    gevent.spawn(lambda: (box.clear(), gc.collect())).join()


def collected_in_a_thread(box):
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()


ENDS = [closed_here, closed_elsewhere, dropped_elsewhere, collected_in_a_thread]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_block_in_a_generator_may_be_left_by_any_greenlet(node, end):
    """The one that entered it continues as if it had been closed there; for the port it is a normal death."""
    deaths: list[Log] = []

    def request():
        answering = node.port()
        node.serve(answering, hi=lambda: "hi")
        box = [streamed(node, deaths)]
        port = next(box[0])
        assert SELF() == port
        end(box)
        wait_until(lambda: port not in ports_of(node))
        assert SELF() is None
        assert node.call(answering, "hi", timeout=5) == "hi"
        with node.attach() as again:
            node.snd(again, "x")
            assert receive(timeout=5) == ("x",)
        node.kil(answering)

    gevent.spawn(request).get()
    settle(node)
    assert deaths == [[()]]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_blocks_in_generators_may_be_left_in_any_order(node, end, order):
    """What is given back is never a block that is over: neither by one left later, nor by a borrowed context."""
    deaths: list[Log] = []

    def request():
        boxes = [[streamed(node, deaths)] for _ in range(3)]
        ports = [next(box[0]) for box in boxes]
        for count, index in enumerate(order):
            other = node.port()
            node.peval(other, end, boxes[index])
            node.kil(other)
            wait_until(lambda index=index: ports[index] not in ports_of(node))
            left = [port for which, port in enumerate(ports) if which not in order[: count + 1]]
            assert SELF() == (left[-1] if left else None)

    gevent.spawn(request).get()
    settle(node)
    assert deaths == [[()], [()], [()]]


def test_an_exception_in_another_greenlet_that_leaves_the_block_is_an_abnormal_death(node):
    deaths: list[Log] = []

    def request():
        generator = streamed(node, deaths)
        next(generator)
        gevent.spawn(pytest.raises, LookupError, generator.throw, LookupError("mine")).get()
        assert SELF() is None

    gevent.spawn(request).get()
    settle(node)
    assert deaths == [[("die", "LookupError: mine")]]


def test_attaching_the_hub_is_refused_with_the_remedy(node):
    errors: list[str] = []

    def attach():
        try:
            node.attach()
        except NoPortContextError as error:
            errors.append(str(error))

    on_hub(attach)
    assert "the hub, which must never wait: spawn a greenlet" in errors[0]
    assert ports_of(node) == {}


@pytest.mark.parametrize("how", ["with", "by hand"])
def test_port_of_an_attached_greenlet_dies_when_the_greenlet_is_killed(node, how):
    deaths: list[Log] = []

    def run():
        if how == "with":
            with node.attach() as port:
                deaths.append(deaths_of(node, port))
                Event().wait()
        else:
            deaths.append(deaths_of(node, node.attach()))
            Event().wait()

    greenlet = gevent.spawn(run)
    wait_until(lambda: deaths)
    greenlet.kill()
    wait_until(lambda: ports_of(node) == {}, show=lambda: ports_of(node))
    settle(node)
    assert deaths == [[("die", "GreenletExit")]]
