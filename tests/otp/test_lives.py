# SPDX-License-Identifier: MIT
"""A server's life: messages that are not for its methods, idle times, and the end."""

from __future__ import annotations

import gc
from time import monotonic

import gevent
import pytest
from gevent.event import AsyncResult

from aemp_gevent import SELF, receive
from aemp_gevent.errors import CallTimeout, PortDied, PortKilled, RemoteError
from aemp_gevent.otp import Server, call, cast, whereis
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.helpers import Proxy, turns
from tests.support.networking import WAIT


class Noted(Server):
    """Notes what happens to it in a list of the test."""

    def init(self, notes: list[object], idle_after: float | None = None) -> None:
        self.notes = notes
        self.idle_after = idle_after

    @call
    def ask(self) -> str:
        return "answer"

    @call
    def end(self, *reason: str) -> str:
        self.stop(*reason)
        return "ending"

    @cast
    def crash(self, text: str) -> None:
        raise ValueError(text)

    @cast
    def block(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def info(self, *msg: object) -> None:
        if msg == ("crash",):
            raise ValueError("in info")
        self.notes.append(("info", *msg))

    def idle(self) -> None:
        self.notes.append("idle")

    def terminate(self, reason: tuple[object, ...]) -> None:
        self.notes.append(("terminate", reason, SELF() is not None))


# --- messages ---


def test_other_messages_go_to_info(node):
    notes = []
    server = Noted.start(notes)
    for message in [("unknown", 1), (5,), (["a list"],), ({},), ()]:
        node.snd(server, *message)
    server.ask()
    assert notes == [("info", "unknown", 1), ("info", 5), ("info", ["a list"]), ("info", {}), ("info",)]


@pytest.mark.parametrize("begin", [(), ("unknown",)], ids=["tag", "end"])
def test_a_proxy_in_another_message_is_not_looked_into(node, begin):
    class Incurious(Noted):
        def info(self, *msg: object) -> None:
            self.notes.append(msg)

    notes = []
    server = Incurious.start(notes, 30)
    node.snd(server, *begin, Proxy())
    assert server.ask() == "answer"
    assert [type(note[-1]) for note in notes] == [Proxy]


def test_a_death_that_the_server_monitors_goes_to_info(node):
    notes = []
    server = Noted.start(notes)
    other = node.port()
    node.mon(other, server, "gone", other)
    node.kil(other, "why")
    wait_until(lambda: notes, within=WAIT)
    assert notes == [("info", "gone", other, "why")]


def test_unknown_calls_fail_and_do_not_go_to_info(node):
    notes = []
    server = Noted.start(notes)
    with pytest.raises(
        RemoteError, match=r"Noted has no method marked @call that is named 'aks'; did you mean 'ask'\?"
    ):
        node.call(server, "aks")
    assert notes == []


def test_a_server_without_info_logs_and_discards_what_it_does_not_know(node, caplog):
    cart = Cart.start("ada")
    node.snd(cart, "forgot", "apple")
    assert cart.add("apple") == 1
    [record] = caplog.records
    assert "discarded ('forgot', 'apple'): it has no such @cast; did you mean 'forget'?" in record.getMessage()


def test_unknown_requests_to_the_server_itself_do_nothing(node):
    cart = Cart.start("ada")
    for request in [
        ("aemp_otp",),
        ("aemp_otp", 5),
        ("aemp_otp", ["list"]),
        ("aemp_otp", "ready"),
        ("aemp_otp", "idle"),
    ]:
        node.snd(cart, *request)
    with pytest.raises(RemoteError, match="'nonsense' is not a request to a server"):
        node.call(cart, "aemp_otp", "nonsense")
    assert cart.add("apple") == 1


@pytest.mark.parametrize(
    "names", [[""], ["a b#c"], [None, ""], ["x" * 100_000], [{}], [None, {"a": 1}], [b"\xff"], [None, None]]
)
def test_names_that_cannot_be_are_refused_and_harm_nobody(make_node, names):
    here, there = make_node(), make_node()
    with here.attach():
        cart = Cart.start("ada")
    result = there.call_async(cart, "aemp_otp", "ready", *names)
    result.wait(timeout=WAIT)
    assert (result.value is True) == (names == [None, None])
    assert Cart.at(cart, node=there).add("apple") == 1
    here.kil(cart)


def test_only_nodes_that_may_kill_ports_or_have_spawned_a_server_stop_and_name_it(make_node):
    here = make_node(rules=[{"peer": "*", "kill": False}])
    there = make_node()
    with here.attach():
        cart = Cart.start("ada")
    for request in [("ready", "name"), ("ready", None, "name"), ("stop",), ("stop", "reason")]:
        with pytest.raises(RemoteError, match="only nodes that may kill ports here, or that have spawned it"):
            there.call(cart, "aemp_otp", *request)
        there.snd(cart, "aemp_otp", *request)
    with pytest.raises(RemoteError, match="only nodes that may kill"):
        Cart.at(cart, node=there).stop()
    assert Cart.at(cart, node=there).add("apple") == 1
    with there.attach():
        spawned = Cart.start("eve", node=here.NODE(), name="spawned")
        with pytest.raises(RemoteError, match="a server is given its names once"):
            there.call(spawned, "aemp_otp", "ready", "other")
        spawned.stop()
    assert whereis("spawned", node=here) is None
    here.kil(cart)


def test_stop_within_a_timeout_of_the_caller_lets_that_pass(node):
    cart = Cart.start("ada")
    waits = cart.async_.wait(0.1)
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as limit:
        cart.stop()
    assert raised.value is limit
    assert waits.get(timeout=WAIT) == "waited"


def test_stops_that_time_out_leave_nothing(make_node):
    here, there = make_node(), make_node()
    with here.attach():
        cart = Cart.start("ada")
    waits = cart.async_.wait(3600, timeout=None)
    peer = Cart.at(cart, node=there)

    def stop_in_vain(times: int) -> int:
        for _ in range(times):
            with pytest.raises(CallTimeout, match="did not answer 'stop'"):
                peer.stop(timeout=0.001)
        turns(5)
        gc.collect()
        return sum(isinstance(thing, AsyncResult) for thing in gc.get_objects())

    before = stop_in_vain(5)
    assert stop_in_vain(50) < before + 10
    here.kil(cart)
    waits.wait(timeout=WAIT)


# --- idle times ---


def test_idle_is_called_after_each_time_without_messages(node):
    notes = []
    Noted.start(notes, 0.001)
    wait_until(lambda: len(notes) >= 3, within=WAIT)
    assert set(notes) == {"idle"}


def test_messages_delay_idle(node):
    class Clocked(Noted):
        def idle(self) -> None:
            self.notes.append(monotonic() - self.notes[-1])
            self.idle_after = None

        @call
        def touch(self) -> None:
            self.notes.append(monotonic())

    notes = []
    server = Clocked.start(notes, 0.1)
    for _ in range(5):
        server.touch()
        gevent.sleep(0.03)
    wait_until(lambda: len(notes) == 6, within=WAIT)
    assert notes[-1] >= 0.1


def test_a_class_may_say_that_it_idles_and_a_wrong_time_is_refused(node):
    class Lazy(Noted):
        idle_after = 0.001

        def init(self, notes: list[object]) -> None:
            self.notes = notes

    notes = []
    Lazy.start(notes)
    wait_until(lambda: notes, within=WAIT)
    with pytest.raises(Exception, match=r"Noted.idle_after: idle_after must be a number of seconds"):
        Noted.start([], "soon")


# --- the end ---


@pytest.mark.parametrize("reason", [(), ("why", 5)])
def test_stop_ends_the_server_after_the_messages_that_it_has(node, reason):
    notes = []
    server = Noted.start(notes)
    death = death_of(server, node=node)
    node.snd(server, "before")
    server.stop(*reason)
    assert death.get(timeout=WAIT) == reason
    assert notes == [("info", "before"), ("terminate", reason, True)]


def test_a_server_that_stops_itself_answers_first_and_discards_the_rest(node):
    notes = []
    server = Noted.start(notes)
    death = death_of(server, node=node)
    node.snd(server, "block", 0.001)
    ending, later = server.async_.end("why"), server.async_.ask()
    node.snd(server, "after")
    assert ending.get(timeout=WAIT) == "ending"
    with pytest.raises(PortDied, match="why"):
        later.get(timeout=WAIT)
    assert death.get(timeout=WAIT) == ("why",)
    assert notes == [("terminate", ("why",), True)]


def test_a_server_can_stop_itself_outside_of_its_messages(node):
    class Clock(Noted):
        def init(self, notes: list[object]) -> None:
            self.notes = notes
            node.after(0.001, self.stop, "time is up")

    notes = []
    assert death_of(Clock.start(notes), node=node).get(timeout=WAIT) == ("time is up",)
    assert notes == [("terminate", ("time is up",), True)]


@pytest.mark.parametrize("message", [("crash", "text"), ("crash",)], ids=["cast", "info"])
def test_an_exception_ends_the_server_after_terminate(node, message):
    notes = []
    server = Noted.start(notes)
    death = death_of(server, node=node)
    node.snd(server, *(message if len(message) == 2 else ("crash", "in info")))
    assert death.get(timeout=WAIT) == ("die", f"ValueError: {message[-1] if len(message) == 2 else 'in info'}")
    [(_, reason, in_port)] = notes
    assert reason[0] == "die"
    assert in_port


@pytest.mark.parametrize("blocked", [False, True])
def test_terminate_runs_after_a_kill_outside_of_the_port(node, blocked):
    notes = []
    server = Noted.start(notes)
    if blocked:
        server.block(WAIT)
        turns(2)
    node.kil(server, "killed")
    wait_until(lambda: notes, within=WAIT)
    turns(3)
    assert notes == [("terminate", ("killed",), False)]


def test_terminate_runs_once_when_a_killed_method_raises_something_else(node):
    class Stubborn(Noted):
        @cast
        def block(self, seconds: float) -> None:
            try:
                gevent.sleep(seconds)
            except PortKilled:
                gevent.sleep(0.01)
                self.notes.append("raising")
                raise ValueError("not killed") from None

    notes = []
    server = Stubborn.start(notes)
    server.block(WAIT)
    turns(2)
    node.kil(server, "killed")
    wait_until(lambda: len(notes) == 2, within=WAIT)
    turns(3)
    assert notes == [("terminate", ("killed",), False), "raising"]


def test_terminate_runs_when_a_foreign_timeout_ends_the_server(node):
    class Impatient(Noted):
        @cast
        def hurry(self) -> None:
            gevent.Timeout(0.001).start()
            gevent.sleep(WAIT)

    notes = []
    server = Impatient.start(notes)
    server.hurry()
    wait_until(lambda: notes, within=WAIT)
    assert notes == [("terminate", ("die", "Timeout: 0.001 seconds"), False)]


def test_terminate_that_takes_too_long_is_interrupted_and_logged(node, caplog):
    class Slow(Server):
        terminate_timeout = 0.01

        def terminate(self, reason: tuple[object, ...]) -> None:
            gevent.sleep(WAIT)

    server = Slow.start()
    server.stop("why")
    [record] = caplog.records
    assert record.getMessage() == f"Slow {server}: terminate(('why',)) was interrupted after 0.01 s"


def test_terminate_that_raises_is_logged_and_the_reason_stays(node, caplog):
    class Clumsy(Server):
        def terminate(self, reason: tuple[object, ...]) -> None:
            raise ValueError("in terminate")

    server = Clumsy.start()
    death = death_of(server, node=node)
    server.stop("why")
    assert death.get(timeout=WAIT) == ("why",)
    [record] = caplog.records
    assert "terminate(('why',)) failed" in record.getMessage()


def test_stop_that_waits_too_long_says_so_and_the_server_still_stops(node):
    notes = []
    server = Noted.start(notes)
    server.block(0.1)
    with pytest.raises(CallTimeout, match=r"did not answer 'stop' within 0\.01 s"):
        server.stop(timeout=0.01)
    assert death_of(server, node=node).get(timeout=WAIT) == ()


def test_a_server_may_receive_in_its_methods_from_its_own_mailbox(node):
    class Asking(Server):
        @call
        def ask(self, other: str) -> object:
            node.snd(other, "question", SELF())
            return receive("reply", timeout=WAIT)[1]

    asking = Asking.start()
    other = node.port(lambda tag, back: node.snd(back, "reply", 42))
    assert asking.ask(other) == 42
