# SPDX-License-Identifier: MIT
"""Handlers and names of ports: what rcv and reg promise."""

from __future__ import annotations

import pytest

from aemp_gevent.errors import (
    InvalidPortError,
    NoPortContextError,
    PortExistsError,
)
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.patterns import any_
from tests.node.local import NOT_HERE, Log, deaths_of, in_port, not_here
from tests.support.seams import ports_of
from tests.support.settling import settle

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
    assert port in ports_of(node)


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
    port = ports_of(node)[node.port()]
    default = port.default
    with pytest.raises(TypeError):
        node.rcv(port.id, *args)
    assert port.default is default
    assert port.cell.handlers is None


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


def test_a_monitor_by_name_stays_with_the_current_holder(node):
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
def test_a_name_that_cannot_be_in_a_port_id_is_refused_with_advice(node, name):
    with pytest.raises(InvalidPortError, match="is not a port ID"):
        node.reg(node.port(), name)
