# SPDX-License-Identifier: MIT
"""The port in whose context code runs."""

from __future__ import annotations

import contextvars
import functools
import logging

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent.errors import DeadPortError, NodePortError, NoPortContextError, NotLocalError, ReceiverBusyError
from aemp_gevent.ports.context import SELF, current_port, port_context, psub, require_port, run_in
from aemp_gevent.ports.receive import receive
from tests.support.seams import ports_of
from tests.support.settling import PortLike, settle, wait_for_timers


def in_port(node, function):
    """Run a function in a handler of a new port; return the port's ID and what the function returned."""
    returned = []
    port = node.port(lambda: returned.append(function()) or None)  # type: ignore[func-returns-value]
    node.snd(port)
    settle(node)
    assert returned, "the function raised"
    return port, returned[0]


def deaths_of(node, port):
    deaths: list[tuple[object, ...]] = []
    node.mon(port, lambda *reason: deaths.append(reason))
    return deaths


# --- SELF ---------------------------------------------------------------------


def test_there_is_no_self_outside_any_port():
    assert SELF() is None
    assert current_port() is None


def test_self_is_the_port_in_every_kind_of_handler(node):
    seen = []
    note = lambda *_msg: seen.append(SELF())  # noqa: E731
    port = node.port(note)
    node.rcv(port, "tag", note)
    node.rcv(port, ["pattern"], note)
    for message in ((), ("tag",), ("pattern",)):
        node.snd(port, *message)
    settle(node)
    assert seen == [port, port, port]


def test_self_is_the_port_in_its_own_greenlet_even_after_it_blocked(node):
    seen = []
    go_on = Event()

    def body():
        seen.append(SELF())
        go_on.wait()
        seen.append(SELF())

    port = node.port_async(body)
    settle(node)
    in_port(node, SELF)  # another port used the scheduler meanwhile
    go_on.set()
    gevent.idle()
    assert seen == [port, port]


@pytest.mark.parametrize("arm", ["mon", "after", "cal", "cal-timeout"])
def test_self_in_a_callback_is_the_port_that_set_it_up(node, arm):
    seen = []
    victim = node.port(lambda *msg: node.snd(msg[-1]) if msg else True)
    silent = node.port()
    note = lambda *_args: seen.append(SELF())  # noqa: E731

    def set_up():
        match arm:
            case "mon":
                node.mon(victim, note)
            case "after":
                node.after(0, note)
            case "cal":
                node.cal(victim, "x", cb=note)
            case "cal-timeout":
                node.cal(silent, "x", cb=note, timeout=0)

    port, _ = in_port(node, set_up)
    node.snd(victim)
    wait_for_timers(node, 0.002)
    assert seen == [port]


@pytest.mark.parametrize("arm", ["mon", "after", "cal"])
def test_callback_has_no_self_when_no_port_set_it_up(node, arm):
    seen = []
    victim = node.port(lambda *msg: node.snd(msg[-1]) if msg else True)
    note = lambda *_args: seen.append(SELF())  # noqa: E731
    {"mon": node.mon, "after": lambda _port, cb: node.after(0, cb), "cal": lambda port, cb: node.cal(port, 1, cb=cb)}[
        arm
    ](victim, note)
    node.snd(victim)
    wait_for_timers(node, 0.002)
    assert seen == [None]


def test_a_greenlet_that_user_code_spawns_starts_without_a_port(node):
    seen = []
    note = lambda: seen.append(SELF())  # noqa: E731
    _, children = in_port(node, lambda: [gevent.spawn(note), gevent.spawn_later(0, note)])
    gevent.joinall(children)
    assert seen == [None, None]


@pytest.mark.parametrize("arm", ["mon", "after", "cal", "psub"])
def test_an_exception_in_a_callback_kills_the_port_that_set_it_up(node, arm, caplog):
    victim = node.port(lambda *msg: node.snd(msg[-1]) if msg else True)

    def fail(*_args):
        raise LookupError("mine")

    def set_up():
        match arm:
            case "mon":
                node.mon(victim, fail)
            case "after":
                node.after(0, fail)
            case "cal":
                node.cal(victim, "x", cb=fail)
            case "psub":
                gevent.spawn(psub(fail))

    port = node.port(set_up)
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    node.snd(victim)
    wait_for_timers(node, 0.002)
    assert deaths == [("die", "LookupError: mine")]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError]
    assert port in caplog.text


@pytest.mark.parametrize("arm", ["mon", "after", "cal"])
def test_an_exception_in_a_callback_without_a_port_is_logged_and_does_no_harm(node, arm, caplog):
    victim = node.port(lambda *msg: node.snd(msg[-1]) if msg else True)

    def fail(*_args):
        raise LookupError("mine")

    {"mon": node.mon, "after": lambda _port, cb: node.after(0, cb), "cal": lambda port, cb: node.cal(port, 1, cb=cb)}[
        arm
    ](victim, fail)
    node.snd(victim)
    wait_for_timers(node, 0.002)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "aemp_gevent"
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


# --- require_port, port_context, run_in ---------------------------------------


def test_a_call_that_needs_a_port_says_so_and_what_to_do():
    with pytest.raises(NoPortContextError, match=r"frob\(\) needs a port context.*'with attach\(\):'"):
        require_port("frob()")


def test_a_context_is_given_back_also_after_an_exception(node):
    port = ports_of(node)[node.port()]
    with pytest.raises(LookupError), port_context(port):
        assert current_port() is port
        raise LookupError
    assert current_port() is None


def test_a_borrowed_context_lets_pass_exceptions_that_are_not_errors(node):
    port = node.port()

    def time_out():
        raise gevent.Timeout

    with pytest.raises(gevent.Timeout):
        run_in(ports_of(node)[port], time_out)
    settle(node)
    assert port in ports_of(node)


# --- psub ---------------------------------------------------------------------


def test_a_psub_closure_runs_with_its_port_as_self_wherever_it_is_called(node):
    port, closure = in_port(node, lambda: psub(lambda *args, **kwargs: (SELF(), args, kwargs)))
    assert closure(1, k=2) == (port, (1,), {"k": 2})
    assert SELF() is None
    other, seen = in_port(node, lambda: (closure()[0], SELF()))
    assert seen == (port, other)
    assert gevent.spawn(closure).get() == (port, (), {})


def test_psub_is_also_a_decorator_and_keeps_the_name(node):
    def define():
        @psub
        def frob():
            """Frob it."""
            return SELF()

        return frob

    port, frob = in_port(node, define)
    assert frob() == port
    assert frob.__name__ == "frob"
    assert frob.__doc__ == "Frob it."


def test_psub_takes_any_callable(node):
    _, closure = in_port(node, lambda: psub(functools.partial(max, 3)))
    assert closure(7) == 7


def test_psub_outside_a_port_is_refused_with_the_remedy():
    with pytest.raises(NoPortContextError, match=r"psub\(\).*run it in a handler"):
        psub(print)


def test_an_exception_in_a_psub_closure_kills_its_port_and_not_the_caller(node):
    port, closure = in_port(node, lambda: psub(lambda: 1 / 0))
    handled = []
    node.rcv(port, lambda *msg: handled.append(msg))
    deaths = deaths_of(node, port)
    node.snd(port, "backlog")
    assert closure() is None
    assert deaths == []
    settle(node)
    assert deaths == [("die", "ZeroDivisionError: division by zero")]
    assert handled == []


def test_a_psub_closure_may_run_on_the_hub_and_fail_there(node, caplog):
    seen = []

    def run():
        seen.append((SELF(), getcurrent() is gevent.get_hub()))
        raise LookupError("on the hub")

    port, closure = in_port(node, lambda: psub(run))
    deaths = deaths_of(node, port)
    gevent.get_hub().loop.run_callback(closure)
    gevent.sleep(0)
    settle(node)
    assert seen == [(port, True)]
    assert deaths == [("die", "LookupError: on the hub")]
    assert "on the hub" in caplog.text


def test_a_psub_closure_runs_after_the_death_of_its_port_and_cannot_wait_there(node, caplog):
    with node.attach() as me:
        name = psub(SELF)
        sends = psub(lambda port: node.snd(port, SELF()))
        waits = psub(lambda: (receive(timeout=5), "not reached"))
        asks = psub(lambda port: (node.syncal(5, port), "not reached"))
        fails = psub(lambda: 1 / 0)
    assert me not in ports_of(node)
    assert name() == me
    with node.attach() as other:
        sends(other)
        assert receive(timeout=5) == (me,)
        assert waits() is None
        assert asks(other) is None
        assert fails() is None
        assert SELF() == other
        assert receive(timeout=0, default="alive") == "alive"
    assert "ZeroDivisionError" in caplog.text


def test_self_inside_a_psub_closure_survives_blocking(node):
    go_on = Event()
    port, closure = in_port(node, lambda: psub(lambda: (SELF(), go_on.wait(), SELF())))
    running = gevent.spawn(closure)
    gevent.idle()
    go_on.set()
    assert running.get() == (port, True, port)


# --- peval --------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [str, PortLike])
def test_peval_runs_a_function_now_in_a_ports_context_and_returns_its_value(node, wrap):
    port = node.port()
    assert node.peval(wrap(port), lambda *args, **kwargs: (SELF(), args, kwargs), 1, 2, k=3) == (port, (1, 2), {"k": 3})
    assert SELF() is None


def test_peval_inside_another_port_gives_the_context_back(node):
    other = node.port()
    port, seen = in_port(node, lambda: (node.peval(other, SELF), SELF()))
    assert seen == (other, port)


def test_an_exception_in_peval_kills_that_port_only(node):
    other = node.port()
    deaths = deaths_of(node, other)
    port, value = in_port(node, lambda: node.peval(other, lambda: 1 / 0))
    assert value is None
    assert deaths == [("die", "ZeroDivisionError: division by zero")]
    assert port in ports_of(node)


def test_monitors_set_up_in_peval_run_in_that_ports_context(node):
    port, victim, seen = node.port(), node.port(), []
    node.peval(port, node.mon, victim, lambda: seen.append(SELF()))
    node.kil(victim)
    settle(node)
    assert seen == [port]


def test_the_kill_of_a_port_that_waits_in_peval_does_not_kill_the_port_that_called_it(node):
    silent, other, seen = node.port(), node.port(), []
    port = node.port(lambda: seen.append(node.peval(other, node.syncal, 5, silent, "x")))
    deaths = deaths_of(node, port)
    node.snd(port)
    settle(node)
    node.kil(other, "why")
    settle(node)
    assert deaths == []
    assert seen == [None]


def test_receive_in_a_borrowed_context_is_refused_with_the_remedy(node):
    port = node.port()

    def borrow():
        with pytest.raises(ReceiverBusyError, match=r"only borrows its context.*one greenlet receives for one port"):
            receive(timeout=0)
        return "refused"

    assert node.peval(port, borrow) == "refused"
    assert node.peval_async(port, borrow).get() == "refused"
    assert port in ports_of(node)


# --- peval_async --------------------------------------------------------------


@pytest.mark.parametrize("wrap", [str, PortLike])
def test_peval_async_runs_a_second_greenlet_in_a_ports_context(node, wrap):
    seen, go_on, port = [], Event(), node.port()

    def run(*args):
        seen.append((SELF(), args))
        go_on.wait()
        seen.append(SELF())  # type: ignore[arg-type]

    greenlet = node.peval_async(wrap(port), run, 1, 2)
    assert seen == [], "it starts in a later turn"
    gevent.idle()
    assert seen == [(port, (1, 2))]
    go_on.set()
    greenlet.join()
    assert seen[1:] == [port]
    assert port in ports_of(node), "its end is not the port's"


def test_the_port_keeps_handling_messages_beside_its_second_greenlet(node):
    handled, go_on = [], Event()
    port = node.port(lambda *msg: handled.append(msg))
    greenlet = node.peval_async(port, go_on.wait)
    gevent.idle()
    node.snd(port, "x")
    settle(node)
    assert handled == [("x",)]
    go_on.set()
    greenlet.join()


def test_an_exception_in_the_second_greenlet_kills_the_port(node):
    port = node.port()
    deaths = deaths_of(node, port)
    greenlet = node.peval_async(port, lambda: 1 / 0)
    greenlet.join()
    settle(node)
    assert greenlet.successful(), "gevent is not told: the port died of it, that is all"
    assert deaths == [("die", "ZeroDivisionError: division by zero")]


@pytest.mark.parametrize("call", ["peval", "peval_async"])
@pytest.mark.parametrize(
    ("which", "error", "remedy"),
    [
        pytest.param("dead", DeadPortError, r"create one with port\(\)", id="dead"),
        pytest.param("node", NodePortError, "name a port of it", id="node-port"),
        pytest.param("remote", NotLocalError, "spawn a function there", id="remote"),
    ],
)
def test_only_a_living_local_port_lends_its_context(node, call, which, error, remedy):
    dead = node.port()
    node.kil(dead)
    settle(node)
    port = {"dead": dead, "node": node.NODE(), "remote": "elsewhere#p"}[which]
    with pytest.raises(error, match=rf"{call}\(\).*{remedy}"):
        getattr(node, call)(port, pytest.fail)


# --- contextvars --------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_what_one_ports_handler_sets_never_shows_in_anothers(node):
    seen = []
    setter = node.port(lambda: VARIABLE.set("mine") and None)  # type: ignore[truthy-bool]
    getter = node.port(lambda: seen.append(VARIABLE.get()))
    for _ in range(3):
        node.snd(setter)
        node.snd(getter)
    settle(node)
    assert seen == ["unset"] * 3
    assert VARIABLE.get() == "unset"


def test_handlers_and_callbacks_do_not_inherit_the_senders_context_variables(node):
    seen = []
    note = lambda *_args: seen.append(VARIABLE.get())  # noqa: E731
    port = node.port(note)

    def run():
        VARIABLE.set("the sender's")
        node.snd(port)
        node.after(0, note)
        node.mon("nowhere#p", note)
        node.port_async(note)
        wait_for_timers(node, 0.002)

    contextvars.copy_context().run(run)
    assert seen == ["unset"] * 4


def test_a_port_made_with_a_context_runs_its_handlers_in_it(node):
    seen = []

    def count():
        seen.append(VARIABLE.get())
        VARIABLE.set(f"after {len(seen)}")

    context = contextvars.copy_context()
    context.run(VARIABLE.set, "given")
    port = node.port(count, context=context)
    bystander = node.port(lambda: seen.append("bystander " + VARIABLE.get()))
    node.snd(port)
    settle(node)
    node.snd(bystander)
    node.snd(port)
    settle(node)
    assert seen == ["given", "bystander unset", "after 1"]
    assert context[VARIABLE] == "after 3"
    assert VARIABLE.get() == "unset"


def test_a_context_is_kept_while_a_handler_blocks(node):
    seen, go_on = [], Event()

    def block():
        VARIABLE.set("before")
        go_on.wait()
        seen.append(VARIABLE.get())

    node.snd(node.port(block))
    settle(node)
    node.snd(node.port(lambda: VARIABLE.set("other") and None))  # type: ignore[truthy-bool]
    settle(node)
    go_on.set()
    gevent.idle()
    assert seen == ["before"]
