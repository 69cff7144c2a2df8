# SPDX-License-Identifier: MIT
"""Every call that needs no network, and what it promises."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import re
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent.errors import (
    DeadPortError,
    InvalidPortError,
    NodePortError,
    NoPortContextError,
    NotLocalError,
    PortExistsError,
    PortKilled,
    ReceiverBusyError,
)
from aemp_gevent.node import spawning
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.patterns import any_
from aemp_gevent.ports.receive import receive
from tests.helpers import on_hub, wait_until
from tests.native import threading
from tests.settling import PortLike, settle, wait_for_timers


class Log(list[tuple[object, ...]]):
    """A callback that notes what it was called with."""

    def __call__(self, *msg: object) -> None:
        self.append(msg)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def dead(node) -> str:
    """The ID of a port that died."""
    port = node.port()
    node.kil(port)
    settle(node)
    return port  # type: ignore[no-any-return]


def deaths_of(node, port) -> Log:
    deaths = Log()
    node.mon(port, deaths)
    return deaths


def in_port(node, function: Callable[[], object]) -> str:
    """Have a new port run a function in a handler, at once; return the port's ID."""
    port = node.port(lambda: function() and None)
    node.snd(port)
    settle(node)
    return port  # type: ignore[no-any-return]


def spin(seconds: float) -> None:
    """Keep the loop from running, so that several timers are due in one turn of it."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


NO_PORTS = [
    pytest.param(None, id="None"),
    pytest.param("", id="empty"),
    pytest.param("#p", id="no-node"),
    pytest.param("two words#p", id="blank"),
    pytest.param("localhost:4040#p", id="unresolved"),
    pytest.param(print, id="function"),
]

NOT_HERE = [
    pytest.param("dead", DeadPortError, r"create one with port\(\)", id="dead"),
    pytest.param("never", DeadPortError, r"create one with port\(\)", id="never-existed"),
    pytest.param("node", NodePortError, "name a port of it", id="node-port"),
    pytest.param("remote", NotLocalError, "spawn a function there that makes the call", id="remote"),
    pytest.param("garbage", InvalidPortError, r"as returned by port\(\)", id="no-port-ID"),
]


def not_here(node, dead: str, which: str) -> str:
    return {  # type: ignore[no-any-return]
        "dead": dead,
        "never": f"{node.NODE()}#never",
        "node": node.NODE(),
        "remote": "elsewhere#p",
        "garbage": "two words",
    }[which]


# --- NODE, IDs ------------------------------------------------------------------


def test_a_node_that_was_never_initialised_is_private(node):
    assert re.fullmatch(r"anon/[A-Za-z0-9]{10}", node.NODE())
    assert node.NODE() in repr(node)


@pytest.mark.parametrize("wrap", [str, PortLike])
def test_node_of_a_port_is_the_node_part(node, wrap):
    assert node.NODE(wrap(node.port())) == node.NODE()
    assert node.NODE(wrap("1.2.3.4:4040#p")) == "1.2.3.4:4040"
    assert node.NODE(wrap("elsewhere")) == "elsewhere"


@pytest.mark.parametrize("port", NO_PORTS[1:])
def test_node_of_what_is_no_port_is_refused_with_the_remedy(node, port):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.NODE(port)


def test_port_ids_are_plain_strings_of_this_node(node):
    port = node.port()
    assert type(port) is str
    assert port.startswith(node.NODE() + "#")


def test_no_id_is_used_twice_by_any_node(node):
    nodes = [LocalNode() for _ in range(100)]
    made = [port for each in nodes for port in (each.port(), each.port_async(id, 0), each.port())]
    made += [each.spawn(nodes[0].NODE(), "posixpath.join") for each in nodes]
    names = [port.partition("#")[2] for port in made]
    assert len(set(names)) == len(made), "the names alone differ: spawned ports carry them to other nodes"
    assert len({each.NODE() for each in nodes}) == len(nodes)
    for each in nodes:
        settle(each)


def test_ids_of_dead_ports_are_not_used_again(node):
    seen = set()
    for _ in range(300):
        port = node.port()
        assert port not in seen
        seen.add(port)
        node.kil(port)
        settle(node)


def test_ids_made_before_the_node_got_its_name_keep_working(node, log):
    port = node.port(log)
    before = node.NODE()
    node.reg(port, "service")
    selves = []
    node.rcv(port, self=lambda: selves.append(SELF()))
    node._rename("shop")
    renamed = port.replace(before, "shop")
    for each in (port, renamed, "shop#service", f"{before}#service"):
        node.snd(each, each)
    node.snd(port, "self")
    assert node.NODE() == "shop"
    assert node.port().startswith("shop#")
    settle(node)
    assert log == [(port,), (renamed,), ("shop#service",), (f"{before}#service",)]
    assert selves == [renamed], "the library's own calls use the new ID"
    deaths = deaths_of(node, port)
    node.kil(renamed, "why")
    settle(node)
    assert deaths == [("why",)]


# --- port -----------------------------------------------------------------------


def test_a_miniport_gets_every_message_whole(node, log):
    port = node.port(log)
    for message in ((), ("tag",), ("tag", 1), (1, 2), (None,), ([],), ({"a": 1}, "b")):  # type: ignore[var-annotated]
        node.snd(port, *message)
    settle(node)
    assert log == [(), ("tag",), ("tag", 1), (1, 2), (None,), ([],), ({"a": 1}, "b")]


def test_a_miniport_that_returns_true_is_destroyed_normally(node, log):
    port = node.port(lambda *msg: log(*msg) or msg == ("stop",))
    deaths = deaths_of(node, port)
    for message in ("a", "stop", "b"):
        node.snd(port, message)
    settle(node)
    assert log == [("a",), ("stop",)], "what came after is discarded"
    assert deaths == [()]


@pytest.mark.parametrize("value", [1, "True", [1], 1.0, object(), False, 0])
def test_a_miniport_that_returns_anything_else_lives_on(node, log, value):
    port = node.port(lambda *msg: (log(*msg), value)[1])
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    assert log == [(1,), (2,)]


def test_the_first_kill_wins_over_returning_true(node):
    port = node.port(lambda: (node.kil(SELF(), "first"), True)[1])
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    assert deaths == [("first",)]


def test_what_no_handler_matches_is_discarded_counted_and_logged_at_debug_level(node, log, caplog):
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    port = node.port()
    node.rcv(port, wanted=log)
    for message in (("unwanted", 1), (), ([], 2)):  # type: ignore[var-annotated]
        node.snd(port, *message)
    settle(node)
    assert log == []
    assert node._scheduler.discarded == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG] * 3
    assert "message 'unwanted' with 1 more element discarded: no handler matches" in caplog.text
    assert port in node._ports


def test_a_full_mailbox_kills_its_port_and_drops_what_waits(node, log):
    port = node.port(log, limit=2)
    deaths = deaths_of(node, port)
    for number in range(5):
        node.snd(port, number)
    settle(node)
    assert deaths == [("mailbox_overflow", 2)]
    assert log == []


def test_a_bounded_port_that_keeps_up_lives(node, log):
    port = node.port(log, limit=2)
    for number in range(5):
        node.snd(port, number)
        settle(node)
    assert log == [(number,) for number in range(5)]


def test_a_bounded_port_that_blocks_is_killed_by_the_message_too_many(node):
    port = node.port(lambda *_msg: Event().wait(), limit=1)
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    node.snd(port, "waits")
    settle(node)
    assert deaths == []
    node.snd(port, "too many")
    settle(node)
    assert deaths == [("mailbox_overflow", 1)]


@pytest.mark.parametrize("callback", ["name", 5, b"x"])
def test_a_callback_that_cannot_be_called_is_refused(node, callback):
    with pytest.raises(TypeError, match="cannot be called"):
        node.port(callback)


# --- objects whose str() is a port ID ---------------------------------------------


class StringLike(str):
    """A str that is no plain str."""

    __slots__ = ()


class HashableLike:
    def __init__(self, port: str) -> None:
        self.port = port

    def __str__(self) -> str:
        return self.port


@pytest.fixture(params=[str, StringLike, HashableLike, PortLike])
def wrap(request) -> Callable[[str], object]:
    return request.param  # type: ignore[no-any-return]


def test_snd_takes_objects(node, log, wrap):
    node.snd(wrap(node.port(log)), "x", 1)
    settle(node)
    assert log == [("x", 1)]


def test_kil_takes_objects(node, wrap):
    port = node.port()
    deaths = deaths_of(node, port)
    node.kil(wrap(port), "why")
    settle(node)
    assert deaths == [("why",)]


def test_mon_takes_objects_in_every_place(node, log, wrap):
    watched, linked, told = node.port(), node.port(), node.port(log)
    deaths = deaths_of(node, linked)
    called = Log()
    node.mon(wrap(watched), called)
    node.mon(wrap(watched), wrap(linked))
    node.mon(wrap(watched), wrap(told), "down")
    node.kil(watched, "why")
    settle(node)
    assert called == deaths == [("why",)]
    assert log == [("down", "why")]


def test_mon_guard_takes_objects(node, wrap):
    closed: list[Any] = []
    port = node.port()
    node.mon_guard(wrap(port), Closable(closed))
    node.kil(port)
    settle(node)
    assert closed == ["close"]


def test_rcv_takes_objects_and_returns_them(node, log, wrap):
    port = node.port()
    given = wrap(port)
    assert node.rcv(given, log) is given
    assert node.rcv(given, "tag", log) is given
    node.rcv(given, "decorated")(log)
    for message in (("default",), ("tag", 1), ("decorated", 2)):
        node.snd(port, *message)
    settle(node)
    assert log == [("default",), (1,), (2,)]


def test_reg_takes_objects(node, log, wrap):
    node.reg(wrap(node.port(log)), "service")
    node.snd(f"{node.NODE()}#service", "x")
    settle(node)
    assert log == [("x",)]


def test_after_takes_objects(node, log, wrap):
    node.after(0, wrap(node.port(log)), "x")
    wait_for_timers(node, 0.002)
    assert log == [("x",)]


def test_cal_and_syncal_take_objects(node, log, wrap):
    port = node.port(lambda *msg: node.snd(msg[-1], "answer"))
    node.cal(wrap(port), "x", cb=log)
    assert node.syncal(5, wrap(port), "x") == ("answer",)
    settle(node)
    assert log == [("answer",)]


def test_answers_may_be_sent_to_an_object(node, wrap):
    port = node.port(lambda *msg: node.snd(wrap(msg[-1]), "answer"))
    assert node.syncal(5, port, "x") == ("answer",)


def test_peval_and_rcv_async_take_objects(node, wrap):
    port = node.port()
    assert node.peval(wrap(port), SELF) == port
    given = wrap(port)
    seen = []
    assert node.rcv_async(given, lambda: seen.append(SELF())) is given
    settle(node)
    assert seen == [port]


def test_spawn_takes_objects(node, wrap):
    assert node.NODE(node.spawn(wrap(node.port()), "posixpath.join")) == node.NODE()
    settle(node)


def test_an_attachment_is_such_an_object(node):
    attachment = node.attach()
    node.snd(attachment, "x")
    assert receive(timeout=5) == ("x",)
    assert str(attachment) == attachment.port == SELF()
    attachment.detach()


# --- rcv --------------------------------------------------------------------------


def test_rcv_replaces_the_default_callback(node, log):
    port = node.port(lambda *_msg: pytest.fail("replaced"))
    assert node.rcv(port, log) == port
    node.rcv(port, tag=lambda *_rest: None)
    node.snd(port, "tag")
    node.snd(port, "other", 1)
    settle(node)
    assert log == [("other", 1)], "it gets what nothing else matched"


def test_a_default_callback_set_by_rcv_also_ends_the_port_with_true(node):
    port = node.rcv(node.port(), lambda *_msg: True)
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    assert deaths == [()]


@pytest.mark.parametrize(
    "register",
    [
        pytest.param(lambda node, port, a, b: node.rcv(port, "a", a, "b", b), id="pairs"),
        pytest.param(lambda node, port, a, b: node.rcv(port, a=a, b=b), id="keywords"),
        pytest.param(lambda node, port, a, b: node.rcv(port, "a", a, b=b), id="both"),
        pytest.param(
            lambda node, port, a, b: (node.rcv(port, "a")(a), node.rcv(port, "b")(b), port)[-1], id="decorator"
        ),
        pytest.param(lambda node, port, a, b: node.rcv(node.rcv(port, "a", a), "b", b), id="chained"),
        pytest.param(lambda node, port, a, b: node.rcv(port, print, "a", a, "b", b), id="default-first"),
        pytest.param(lambda node, port, a, b: node.rcv(port, "a", a, "b", b, print), id="default-last"),
    ],
)
def test_every_form_of_rcv_registers_tags(node, register):
    port, a, b = node.port(), Log(), Log()
    assert register(node, port, a, b) == port
    for message in (("a", 1), ("b", 2), ("a",)):
        node.snd(port, *message)
    settle(node)
    assert (a, b) == ([(1,), ()], [(2,)])


def test_the_decorator_returns_the_function(node):
    port = node.port()

    @node.rcv(port, "tag")
    def handle(*rest):
        return rest

    assert handle(1) == (1,)


def test_keywords_may_be_named_like_parameters(node, log):
    port = node.rcv(node.port(), port=log, what=log, self=log)
    for tag in ("port", "what", "self"):
        node.snd(port, tag, tag)
    settle(node)
    assert log == [("port",), ("what",), ("self",)]


def test_a_new_handler_replaces_the_old_and_none_removes_it(node):
    port, old, new, rest = node.port(), Log(), Log(), Log()
    node.rcv(port, rest)
    node.rcv(port, tag=old)
    node.rcv(port, tag=new)
    node.snd(port, "tag", 1)
    settle(node)
    node.rcv(port, tag=None)
    node.rcv(port, "tag", None)
    node.snd(port, "tag", 2)
    settle(node)
    assert (old, new, rest) == ([], [(1,)], [("tag", 2)])


def test_a_tag_handler_that_returns_true_is_removed_and_the_port_lives(node):
    port, calls, rest = node.port(), Log(), Log()
    node.rcv(port, rest, "tag", lambda *msg: (calls(*msg), True)[1])  # type: ignore[func-returns-value]
    node.snd(port, "tag", 1)
    node.snd(port, "tag", 2)
    settle(node)
    assert (calls, rest) == ([(1,)], [("tag", 2)])
    assert port in node._ports


def test_a_handler_replaced_during_its_own_call_stays_replaced_whatever_it_returns(node, log):
    port = node.port()

    def replace():
        node.rcv(port, tag=log)
        return True

    node.rcv(port, tag=replace)
    node.snd(port, "tag")
    node.snd(port, "tag", "second")
    settle(node)
    assert log == [("second",)]


def test_patterns_get_the_whole_message_and_add_up(node):
    port, tag, first, second = node.port(), Log(), Log(), Log()
    node.rcv(port, "a", tag)
    assert node.rcv(port, ["a", int], first) == port
    node.rcv(port, [any_, 1], second, ["never"], pytest.fail)
    for message in (("a", 1), ("a", "x"), ("b", 1)):
        node.snd(port, *message)
    settle(node)
    assert tag == [(1,), ("x",)]
    assert first == [("a", 1)]
    assert second == [("a", 1), ("b", 1)]


def test_a_pattern_that_returns_true_is_removed_alone(node, log):
    port, once = node.port(), Log()
    node.rcv(port, [any_], lambda *msg: (once(*msg), True)[1])  # type: ignore[func-returns-value]
    node.rcv(port, [any_], log)
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    assert (once, log) == ([(1,)], [(1,), (2,)])


@pytest.mark.parametrize(
    ("args", "tags", "remedy"),
    [
        pytest.param(("a", print, "b"), {}, "'b' has no handler; give tag, handler pairs", id="tag-alone"),
        pytest.param((None,), {}, "give tag, handler pairs", id="None-alone"),
        pytest.param((["a"],), {}, "give tag, handler pairs", id="pattern-alone"),
        pytest.param((print, print), {}, r"is neither a tag \(str\) nor a pattern \(list\)", id="two-callbacks"),
        pytest.param((int, print), {}, r"is neither a tag \(str\) nor a pattern \(list\)", id="type-without-list"),
        pytest.param((1, print), {}, r"is neither a tag \(str\) nor a pattern \(list\)", id="number"),
        pytest.param((b"a", print), {}, r"is neither a tag \(str\) nor a pattern \(list\)", id="bytes"),
        pytest.param((["a"], None), {}, r"pattern \(list\) with a handler", id="pattern-removed"),
        pytest.param(("a", 5), {}, "the handler of 'a': 5 cannot be called", id="handler-number"),
        pytest.param((["a"], "b"), {}, "the handler of .*: 'b' cannot be called", id="handler-str"),
        pytest.param((), {"a": "b"}, "the handler of 'a': 'b' cannot be called", id="keyword"),
        pytest.param(("a",), {"b": print}, "'a' has no handler", id="decorator-with-keyword"),
    ],
)
def test_other_forms_of_rcv_are_refused_with_the_remedy(node, args, tags, remedy):
    with pytest.raises(TypeError, match=remedy):
        node.rcv(node.port(), *args, **tags)


@pytest.mark.parametrize("args", [("a", print, "b", 5), (print, "b", 5), ("a", print, 7, print)])
def test_a_refused_rcv_changes_nothing(node, args):
    port = node._ports[node.port()]
    default = port.default
    with pytest.raises(TypeError):
        node.rcv(port.id, *args)
    assert port.default is default
    assert port.handlers is None


@pytest.mark.parametrize(("which", "error", "remedy"), NOT_HERE)
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda node, port: node.rcv(port, print), id="rcv"),
        pytest.param(lambda node, port: node.rcv(port, "tag"), id="rcv-decorator"),
        pytest.param(lambda node, port: node.reg(port, "service"), id="reg"),
        pytest.param(lambda node, port: node.rcv_async(port, print), id="rcv_async"),
        pytest.param(lambda node, port: node.peval(port, print), id="peval"),
    ],
)
def test_calls_for_local_ports_refuse_others_with_the_remedy(node, dead, call, which, error, remedy):
    with pytest.raises(error, match=remedy):
        call(node, not_here(node, dead, which))


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
def test_snd_to_a_port_that_is_not_there_never_fails(node, dead, which):
    node.snd("elsewhere" if which == "remote-node" else not_here(node, dead, which), "x", object())
    settle(node)


@pytest.mark.parametrize("which", ["dead", "remote"])
def test_a_dropped_message_is_logged_at_debug_level_but_for_the_first(node, dead, which, caplog):
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
def test_what_is_no_port_is_refused_everywhere_with_the_remedy(node, call, port):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\), spawn\(\) and SELF\(\)"):
        call(node, port)
    assert node._ports == {}, "a refused call leaves nothing behind"


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


def test_many_blocked_handlers_delay_nobody(node, log):
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


# --- kil ------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [(), ("why",), ("die", 1, None)])
def test_kil_takes_its_place_behind_the_messages_sent_before_it(node, log, reason):
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
def test_killing_a_port_that_is_not_there_does_nothing(node, dead, which):
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
            assert SELF() not in node._ports, "finally blocks find the port dead"
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
    assert node._scheduler._pool

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


def test_an_exception_whose_text_cannot_be_had_is_a_death_like_any_other(log, caplog):
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


# --- mon ------------------------------------------------------------------------------


def test_mon_calls_back_with_the_reason(node):
    port = node.port()
    deaths = deaths_of(node, port)
    node.kil(port, "why", 1)
    assert deaths == []
    settle(node)
    assert deaths == [("why", 1)]


@pytest.mark.parametrize(("reason", "expected"), [((), []), (("why",), [("why",)]), ((None,), [(None,)])])
@pytest.mark.parametrize("form", ["mon(port)", "mon(port, rcvport)"])
def test_a_link_passes_on_abnormal_deaths_only(node, reason, expected, form):
    watched = node.port()
    if form == "mon(port)":
        linked = in_port(node, lambda: node.mon(watched))
    else:
        linked = node.port()
        node.mon(watched, linked)
    deaths = deaths_of(node, linked)
    node.kil(watched, *reason)
    settle(node)
    assert deaths == expected


@pytest.mark.parametrize("reason", [(), ("why", 2)])
@pytest.mark.parametrize("msg", [("down",), ("down", 1), (None,), ([],)])
def test_mon_sends_a_message_with_the_reason_behind_also_for_normal_deaths(node, log, reason, msg):
    watched = node.port()
    node.mon(watched, node.port(log), *msg)
    node.kil(watched, *reason)
    settle(node)
    assert log == [(*msg, *reason)]


def test_what_the_dead_port_sent_before_comes_before_its_deaths_message(node, log):
    listener = node.port(log)

    def last_words():
        for number in range(100):
            node.snd(listener, number)
        raise LookupError

    port = node.port(last_words)
    node.mon(port, listener, "down")
    node.snd(port)
    settle(node)
    assert log == [(number,) for number in range(100)] + [("down", "die", "LookupError")]


@pytest.mark.parametrize("how", ["handler", "own greenlet"])
def test_last_words_come_before_the_kill_of_a_linked_port(node, log, how):
    linked = node.port(log)

    def last_words():
        node.snd(linked, "last words")
        raise LookupError

    port = node.port_async(last_words) if how == "own greenlet" else node.port(last_words)
    node.mon(port, linked)
    node.mon(linked, functools.partial(log, "died"))
    node.snd(port)
    settle(node)
    assert log == [("last words",), ("died", "die", "LookupError")]


@pytest.mark.parametrize("which", ["dead", "never"])
def test_monitoring_a_port_that_is_not_there_fires_at_once_but_not_within_mon(node, dead, which):
    port = not_here(node, dead, which)
    deaths = deaths_of(node, port)
    assert deaths == []
    settle(node)
    [death] = deaths
    assert death[0] == "no_such_port"
    assert isinstance(death[1], str)
    assert death[2] == port


@pytest.mark.parametrize("port", ["elsewhere", "elsewhere#p", "1.2.3.4:4040#p"])
def test_monitoring_another_node_from_a_private_one_fires_with_the_remedy(node, port):
    deaths = deaths_of(node, port)
    settle(node)
    [death] = deaths
    assert death[:2] == ("transport_error", node.NODE(port))
    assert "initialise_node()" in str(death[2])


def test_monitoring_a_dying_port_gives_its_true_reason(node):
    port = node.port()
    node.kil(port, "true")
    deaths = deaths_of(node, port)
    settle(node)
    assert deaths == [("true",)]


def test_mon_without_an_action_outside_a_port_is_refused_with_the_remedy(node):
    with pytest.raises(NoPortContextError, match=r"mon\(port\) needs a port context.*with attach"):
        node.mon(node.port())


@pytest.mark.parametrize("action", [(None,), ("two words",), ("",), ("two words", "down"), (None, "down")])
def test_an_action_that_is_neither_function_nor_port_is_refused_with_the_remedy(node, action):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.mon(node.port(), *action)


def test_linking_a_node_port_is_refused_with_the_remedy(node):
    with pytest.raises(NodePortError, match="name a port of it"):
        node.mon(node.port(), node.NODE())


def test_the_guard_cancels_every_form(node, log):
    watched, linked = node.port(), node.port(log)
    guards = [node.mon(watched, log), node.mon(watched, linked), node.mon(watched, linked, "down")]
    node.peval(linked, lambda: guards.append(node.mon(watched)))
    for guard in guards:
        guard.cancel()
    node.kil(watched, "why")
    settle(node)
    assert log == []
    assert linked in node._ports


def test_of_the_messages_sent_after_mon_every_one_arrives_or_the_action_runs(node, log):
    for kill_at in range(6):
        got = Log()
        port = node.port(got)
        deaths = deaths_of(node, port)
        for number in range(6):
            if number == kill_at:
                node.kil(port, "why")
            node.snd(port, number)
        settle(node)
        assert got == [(number,) for number in range(kill_at)], "no holes"
        assert deaths == [("why",)]


# --- mon_guard ------------------------------------------------------------------------


class Closable:
    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def close(self) -> None:
        self.noted.append("close")

    def cancel(self) -> None:
        self.noted.append("cancel")


class Cancellable:
    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def cancel(self) -> None:
        self.noted.append("cancel")


class Plain:
    pass


def test_mon_guard_keeps_objects_alive_until_the_port_dies(node):
    port, thing = node.port(), Plain()
    gone = weakref.ref(thing)
    node.mon_guard(port, thing)
    del thing
    settle(node)
    assert gone() is not None
    node.kil(port)
    settle(node)
    assert gone() is None


def test_mon_guard_closes_what_can_be_closed_in_order(node):
    port = node.port()
    noted: list[Any] = []
    node.mon_guard(port, Closable(noted), Plain(), Cancellable(noted), None, 7)
    settle(node)
    assert noted == []
    node.kil(port)
    settle(node)
    assert noted == ["close", "cancel"]


def test_mon_guard_closes_also_for_normal_deaths_and_for_ports_that_are_dead_already(node, dead):
    noted: list[str] = []
    node.mon_guard(dead, Closable(noted))
    settle(node)
    assert noted == ["close"]


def test_mon_guard_ends_the_timers_of_a_port(node, log):
    port = node.port()
    node.mon_guard(port, node.after(0.002, log, "fired"))
    node.kil(port)
    wait_for_timers(node, 0.01)
    assert log == []


def test_a_cancelled_mon_guard_releases_objects_unclosed(node):
    port = node.port()
    noted: list[Any] = []
    thing = Closable(noted)
    gone = weakref.ref(thing)
    guard = node.mon_guard(port, thing)
    del thing
    guard.cancel()
    assert gone() is None
    node.kil(port)
    settle(node)
    assert noted == []


def test_an_object_that_fails_to_close_keeps_no_other_open(node, caplog):
    class Failing:
        def close(self):
            raise OSError("cannot close")

    port = node.port()
    noted: list[Any] = []
    node.mon_guard(port, Failing(), Closable(noted))
    node.kil(port)
    settle(node)
    assert noted == ["close"]
    assert "cannot close" in caplog.text


# --- reg ------------------------------------------------------------------------------


def test_a_registered_name_reaches_its_port_by_every_call(node, log):
    port = node.port(log)
    assert node.reg(port, "service") is None
    name = f"{node.NODE()}#service"
    node.snd(name, "x")
    assert node.peval(name, SELF) == port
    deaths = deaths_of(node, name)
    settle(node)
    node.kil(name, "why")
    settle(node)
    assert log == [("x",)]
    assert deaths == [("why",)]


def test_reg_with_a_name_alone_registers_self(node, log):
    port = in_port(node, lambda: node.reg("service"))
    node.rcv(port, log)
    node.snd(f"{node.NODE()}#service", "x")
    settle(node)
    assert log == [("x",)]


def test_reg_with_a_name_alone_outside_a_port_is_refused_with_the_remedy(node):
    with pytest.raises(NoPortContextError, match=r"reg\(name\) needs a port context.*with attach"):
        node.reg("service")


def test_a_names_new_holder_replaces_the_old_which_lives_on(node):
    old, new = Log(), Log()
    first, second = node.port(old), node.port(new)
    node.reg(first, "service")
    node.reg(second, "service")
    node.snd(f"{node.NODE()}#service", "x")
    node.snd(first, "y")
    settle(node)
    assert (old, new) == ([("y",)], [("x",)])


def test_the_death_of_a_former_holder_leaves_the_name_to_the_new_one(node, log):
    first, second = node.port(), node.port(log)
    node.reg(first, "service")
    node.reg(second, "service")
    node.kil(first)
    settle(node)
    node.snd(f"{node.NODE()}#service", "x")
    settle(node)
    assert log == [("x",)]


def test_a_port_has_one_name(node, log):
    port = node.port(log)
    node.reg(port, "one")
    node.reg(port, "two")
    node.snd(f"{node.NODE()}#one", "old")
    node.snd(f"{node.NODE()}#two", "new")
    settle(node)
    assert log == [("new",)]
    assert deaths_after(node, f"{node.NODE()}#one")[0][0] == "no_such_port"


def deaths_after(node, port) -> Log:
    deaths = deaths_of(node, port)
    settle(node)
    return deaths


def test_registering_the_same_name_again_changes_nothing(node, log):
    port = node.port(log)
    node.reg(port, "service")
    node.reg(port, "service")
    node.snd(f"{node.NODE()}#service", "x")
    settle(node)
    assert log == [("x",)]


def test_a_name_is_gone_with_its_port_and_free_again(node, log):
    port, name = node.port(), f"{node.NODE()}#service"
    node.reg(port, "service")
    node.kil(port)
    settle(node)
    assert node._registered("service") is None
    assert deaths_after(node, name) == [("no_such_port", "cannot monitor nonexistent port", name)]
    node.reg(node.port(log), "service")
    node.snd(name, "x")
    settle(node)
    assert log == [("x",)]


def test_a_monitor_by_name_stays_with_the_holder_of_the_moment(node):
    first, second = node.port(), node.port()
    node.reg(first, "service")
    deaths = deaths_of(node, f"{node.NODE()}#service")
    node.reg(second, "service")
    node.kil(second, "second")
    settle(node)
    assert deaths == []
    node.kil(first, "first")
    settle(node)
    assert deaths == [("first",)]


def test_self_is_the_id_and_not_the_name(node, log):
    port = node.port(lambda: log(SELF()))
    node.reg(port, "service")
    node.snd(f"{node.NODE()}#service")
    settle(node)
    assert log == [(port,)]


def test_a_name_that_is_a_ports_own_is_refused_with_the_remedy(node):
    port, other = node.port(), node.port()
    with pytest.raises(PortExistsError, match="port IDs are never used twice"):
        node.reg(other, port.partition("#")[2])


@pytest.mark.parametrize("name", ["two words", "new\nline", pytest.param("")])
def test_a_name_that_makes_no_port_id_is_refused_with_the_remedy(node, name):
    with pytest.raises(InvalidPortError, match="is not a port ID"):
        node.reg(node.port(), name)


# --- cal ------------------------------------------------------------------------------


def test_cal_sends_the_message_with_a_reply_port_appended(node, log):
    asked = Log()
    port = node.port(lambda *msg: [asked(*msg[:-1]), node.snd(msg[-1], "answer", 1)])  # type: ignore[func-returns-value]
    assert node.cal(port, "question", 2, cb=log) is None
    assert asked == log == []
    settle(node)
    assert asked == [("question", 2)]
    assert log == [("answer", 1)]


def test_cal_runs_once_for_several_replies(node, log):
    port = node.port(lambda reply: [node.snd(reply, number) for number in range(3)] and None)
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert log == [(0,)]


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_cal_calls_back_with_nothing_after_the_timeout(node, log, timeout):
    node.cal(node.port(), "x", cb=log, timeout=timeout)
    assert log == []
    wait_for_timers(node, 0.005)
    assert log == [()]


def test_a_late_reply_is_discarded(node, log):
    replies: list[str] = []
    port = node.port(replies.append)
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    node.snd(replies[0], "late")
    settle(node)
    assert log == [()]


@pytest.mark.parametrize("which", ["dead", "never", "remote", "dying", "dies of the question"])
def test_cal_calls_back_with_nothing_when_the_port_died(node, dead, log, which):
    dying = node.port()
    node.kil(dying, "why")
    dies = node.port(lambda *_msg: 1 / 0)
    port = {"dying": dying, "dies of the question": dies}.get(which) or not_here(node, dead, which)
    node.cal(port, "x", cb=log)
    settle(node)
    assert log == [()]


@pytest.mark.parametrize("order", ["reply-first", "death-first"])
def test_cal_runs_once_also_when_reply_and_death_race(node, log, order):
    helper = node.port(lambda reply: node.snd(reply, "answer"))

    def answer(reply):
        if order == "reply-first":
            node.snd(reply, "answer")
        else:
            node.snd(helper, reply)
        return True

    node.cal(node.port(answer), cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert len(log) == 1
    if order == "reply-first":
        assert log == [("answer",)], "what the dead port sent before comes before its death"


def test_cal_runs_once_also_when_reply_and_timeout_race(node, log):
    for late in range(2):
        port = node.port(lambda reply: node.after(0.001, reply, "answer"))
        if late:
            node.cal(port, cb=log, timeout=0.001)
        else:
            node.cal(port, cb=log, timeout=0.0015)
        settle(node)
        spin(0.004)  # both timers are due in the same turn of the loop
        wait_for_timers(node, 0.004)
        assert len(log) == late + 1


def test_cal_leaves_nothing_behind(node, log):
    port = node.port(lambda *msg: node.snd(msg[-1]))
    silent = node.port()
    node.cal(port, cb=log, timeout=1)
    node.cal(silent, cb=log, timeout=0)
    wait_for_timers(node, 0.005)
    assert set(node._ports) == {port, silent}
    assert node._ports[port].monitors is None
    assert node._ports[silent].monitors is None


def test_a_cal_that_raises_leaves_nothing_behind(node, log, monkeypatch):
    port = node.port()

    def refuse(*_msg):
        raise LookupError

    monkeypatch.setattr(node, "snd", refuse)
    with pytest.raises(LookupError):
        node.cal(port, object(), cb=log, timeout=0)
    settle(node)
    assert set(node._ports) == {port}
    assert log == []


def test_cal_calls_back_also_when_somebody_kills_the_reply_port(node, log):
    port = node.port(lambda reply: node.kil(reply, "why"))
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert log == [()]


# --- syncal ---------------------------------------------------------------------------


def test_syncal_waits_for_the_answer(node):
    echo = node.port(lambda *msg: node.snd(msg[-1], *msg[:-1]))
    assert node.syncal(5, echo, "a", 1) == ("a", 1)
    assert node.syncal(None, echo) == ()


@pytest.mark.parametrize("timeout", [0, 0.001, -1])
def test_syncal_returns_nothing_after_the_timeout(node, timeout):
    assert node.syncal(timeout, node.port(), "x") == ()


@pytest.mark.parametrize("which", ["dead", "never", "remote", "dying", "dies of the question", "dies later"])
def test_syncal_returns_nothing_when_the_port_dies(node, dead, which):
    dying = node.port()
    node.kil(dying, "why")
    dies = node.port(lambda *_msg: 1 / 0)
    later = node.port(lambda *_msg: node.after(0.001, lambda: node.kil(later, "why")) and None)  # type: ignore[has-type]
    port = {"dying": dying, "dies of the question": dies, "dies later": later}.get(which) or not_here(node, dead, which)
    assert node.syncal(None, port, "x") == ()


def test_syncal_takes_the_answer_that_came_before_the_death(node):
    port = node.port(lambda reply: (node.snd(reply, "answer"), True)[1])
    assert node.syncal(5, port) == ("answer",)


def test_syncal_leaves_nothing_behind(node):
    port = node.port(lambda *msg: node.snd(msg[-1]))
    silent = node.port()
    node.syncal(5, port)
    node.syncal(0.001, silent)
    assert set(node._ports) == {port, silent}
    assert node._ports[port].monitors is None
    assert node._ports[silent].monitors is None


def test_a_late_answer_to_syncal_disturbs_nobody(node):
    replies: list[str] = []
    slow = node.port(replies.append)
    echo = node.port(lambda *msg: node.snd(msg[-1], "in time"))
    assert node.syncal(0.001, slow) == ()
    node.snd(replies[0], "late")
    assert node.syncal(5, echo) == ("in time",)


def test_syncal_does_not_touch_the_mailbox_of_the_port_it_runs_in(node, log):
    echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))

    def body():
        node.snd(SELF(), "mine")
        log(*node.syncal(5, echo))
        log(*receive())

    node.port_async(body)
    settle(node)
    assert log == [("answer",), ("mine",)]


@pytest.mark.parametrize(
    "how",
    [
        "handler",
        "own greenlet",
        "attached",
        "peval_async",
        "mon action",
        pytest.param("job right after"),
    ],
)
def test_syncal_raises_when_the_port_it_waits_in_is_killed(node, dead, log, how):
    silent = node.port()
    selves: list[str] = []

    def ask(*_reason):
        selves.append(SELF() or "none")
        try:
            log(*node.syncal(0.05, silent, "x"), "timed out")
        except PortKilled as kill:
            log("killed", *kill.reason)
            raise

    def attached():
        with node.attach():
            ask()

    greenlet = None
    match how:
        case "handler":
            in_port(node, ask)
        case "own greenlet":
            node.port_async(ask)
        case "attached":
            greenlet = gevent.spawn(attached)
        case "peval_async":
            greenlet = node.peval_async(node.port(), ask)
        case "mon action":
            victim = node.port()
            in_port(node, lambda: node.mon(victim, ask))
            node.kil(victim)
        case _:  # the runner that served the port runs its job next
            in_port(node, lambda: node.mon(dead, ask))
    wait_until(lambda: selves and node._ports[silent].monitors is not None, show=lambda: (selves, log))
    settle(node)
    node.kil(selves[0], "why")
    wait_until(lambda: log, show=lambda: log)
    if greenlet is not None:
        greenlet.join()
    assert log == [("killed", "why")]


def test_every_later_syncal_of_a_killed_port_raises_too(node, log):
    echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))

    def stubborn():
        for _ in range(3):
            try:
                Event().wait() if not log else log(*node.syncal(5, echo))
            except PortKilled as kill:
                log("killed", *kill.reason)

    port = in_port(node, stubborn)
    node.kil(port, "why")
    settle(node)
    assert log == [("killed", "why")] * 3


def test_a_foreign_timeout_passes_through_syncal(node):
    silent = node.port()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        node.syncal(5, silent)
    assert set(node._ports) == {silent}


def test_syncal_on_the_hub_is_refused_with_the_remedy(node):
    silent, errors = node.port(), []

    def ask():
        try:
            node.syncal(0.001, silent)
        except NoPortContextError as error:
            errors.append(str(error))

    on_hub(ask)
    assert "spawn a greenlet" in errors[0]


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
    assert port not in node._ports


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
            log("finally", SELF() in node._ports)

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
    assert one not in node._ports, "returning is a normal death"


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
    assert port not in node._ports


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
    wait_until(lambda: node._ports == {}, show=lambda: node._ports)
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
    """Be a response that is a generator with a port."""
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
    """The one that entered it goes on as if it had been closed there; for the port it is a normal death."""
    deaths: list[Log] = []

    def request():
        answering = node.port()
        node.serve(answering, hi=lambda: "hi")
        box = [streamed(node, deaths)]
        port = next(box[0])
        assert SELF() == port
        end(box)
        wait_until(lambda: port not in node._ports)
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
            wait_until(lambda index=index: ports[index] not in node._ports)
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
    assert node._ports == {}


# --- several nodes in one process -----------------------------------------------------------


def test_two_nodes_in_one_process_know_nothing_of_each_other(node, log):
    other = LocalNode()
    port = other.port(log)
    node.snd(port, "x")
    node.kil(port)
    with pytest.raises(NotLocalError, match=re.escape(node.NODE())):
        node.rcv(port, print)
    settle(node)
    settle(other)
    assert log == []
    assert port in other._ports


def test_a_handler_of_one_node_may_use_another(node, log):
    other = LocalNode()
    target = other.port(log)
    in_port(node, lambda: other.snd(target, SELF()))
    settle(other)
    [(sender,)] = log
    assert node.NODE(sender) == node.NODE()


def test_detaching_from_another_greenlet_wakes_who_waits_in_receive(node):
    attachments = []

    def wait():
        attachments.append(node.attach())
        receive()

    waiting = gevent.spawn(wait)
    wait_until(lambda: attachments and waiting.gr_frame is not None, within=2.0, show=lambda: attachments)
    attachments[0].detach()
    waiting.join(2.0)
    assert isinstance(waiting.value, gevent.GreenletExit)


def test_a_body_given_while_a_handler_receives_gets_what_the_handler_leaves(node):
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


def test_an_actor_spawned_and_sent_to_in_one_breath_gets_every_message(node, monkeypatch):
    got: list[Any] = []

    @node.actor
    def body():
        while True:
            got.append(receive())

    monkeypatch.setitem(spawning._spawnable, "test.body", body)
    port = node.spawn(node.NODE(), "test.body")
    for number in range(3):
        node.snd(port, number)
    settle(node)
    assert got == [(0,), (1,), (2,)]
    node.kil(port)


# --- what a review found --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["with", "by hand"])
def test_an_attached_greenlet_that_is_killed_dies_of_that(node, how):
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
    wait_until(lambda: node._ports == {}, show=lambda: node._ports)
    settle(node)
    assert deaths == [[("die", "GreenletExit")]]


def test_a_send_from_a_native_thread_wakes_the_hub(node):
    """And does not make the node that thread's, although it is the first to send."""
    got = gevent.event.Event()
    port = node.port(lambda *msg: got.set())
    sender = gevent.get_hub().threadpool.spawn(node.snd, port, "from afar")
    # The hub has nothing else to wake it before the timeout.
    assert got.wait(5.0)
    sender.get()
    node.kil(port)
