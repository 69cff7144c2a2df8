# SPDX-License-Identifier: MIT
"""Blocking receive: what it returns, in which order, what stays queued, and how it fails."""

from __future__ import annotations

import inspect
import itertools
import os
import random
import re
from collections import deque
from time import monotonic
from typing import Any

import gevent
import gevent.event
import pytest

from aemp_gevent.errors import NoPortContextError, PortKilled, ReceiverBusyError, ReceiveTimeout, RemoteError
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.pacing import CREDIT, TURN_SECONDS
from aemp_gevent.ports.patterns import any_
from aemp_gevent.ports.port import activate
from aemp_gevent.ports.receive import get, get_cond, receive
from tests.support.clocks import use_clock
from tests.support.helpers import turns, wait_until
from tests.support.native import sleep
from tests.support.settling import settle


@pytest.fixture
def me(node):
    """The port of the greenlet that runs the test."""
    with node.attach() as port:
        yield port


@pytest.fixture
def log() -> list[Any]:
    return []


def send_all(node, port, messages):
    for message in messages:
        node.snd(port, *message)


def rest() -> list[Any]:
    """Return what is still queued."""
    found = []
    while (message := receive(timeout=0, default=None)) is not None:
        found.append(message)
    return found


# --- which message ----------------------------------------------------------------

QUEUED = [("a", 1), (2, "b"), ("c",), (), ("a", 3), ("c", re)]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        pytest.param((), ("a", 1), id="none-is-any"),
        pytest.param(("c",), ("c",), id="tag"),
        pytest.param(("c", "a"), ("a", 1), id="first-message-not-first-pattern"),
        pytest.param((["a", 3],), ("a", 3), id="elements"),
        pytest.param((["a"],), ("a", 1), id="longer-than-the-pattern"),
        pytest.param(([],), ("a", 1), id="empty-pattern"),
        pytest.param(([any_, str],), (2, "b"), id="any-and-type"),
        pytest.param((int,), (2, "b"), id="type"),
        pytest.param(([re.compile("^c")],), ("c",), id="regex"),
        pytest.param(([lambda element: element == "c", any_],), ("c", re), id="element-predicate"),
        pytest.param((lambda *message: len(message) == 0,), (), id="predicate"),
        pytest.param(("never", int, ["x"]), (2, "b"), id="mixed"),
    ],
)
@pytest.mark.parametrize("timeout", [None, 0, 5])
def test_the_first_message_that_matches_is_taken_and_the_others_stay_in_order(node, me, patterns, wanted, timeout):
    send_all(node, me, QUEUED)
    assert receive(*patterns, timeout=timeout) == wanted
    left = list(QUEUED)
    left.remove(wanted)
    assert rest() == left


class Array:
    """Behaves as numpy's arrays do: comparing gives an array, which is neither true nor false."""

    __hash__ = None

    def __eq__(self, other):
        return Array()

    def __bool__(self):
        raise ValueError("The truth value of an array with more than one element is ambiguous")


def test_arrays_in_messages_make_neither_receive_nor_handlers_raise(node, me, log):
    odd = Array()
    node.snd(me, odd)
    node.snd(me, "tag", odd)
    node.snd(me, "tag", 1)
    assert receive(["tag", 1], timeout=0) == ("tag", 1)
    assert receive("tag", timeout=0)[1] is odd
    assert receive("tag", timeout=0, default=None) is None
    assert receive(timeout=0)[0] is odd
    died = []
    port = node.rcv(node.port(), ["move", 5], lambda *message: log.append(message), move=log.append)
    node.mon(port, lambda *reason: died.append(reason))
    for message in (("move", odd), (odd,), ("move", 5)):
        node.snd(port, *message)
    wait_until(lambda: len(log) == 3)
    assert not died
    assert log[0] is odd
    assert log[1:] == [5, ("move", 5)]


def test_a_call_that_is_refused_with_an_array_fails_and_does_not_hang(node):
    refusing = node.port(lambda *message: node.kil(message[-1], Array()))
    with pytest.raises(RemoteError):
        node.call(refusing, "tag", timeout=5)
    with pytest.raises(RemoteError):
        node.call_async(refusing, "tag").get(timeout=5)


def test_what_comes_later_is_waited_for_and_what_does_not_match_is_left(node, me):
    def sender():
        for message in QUEUED:
            turns(1)
            node.snd(me, *message)

    sending = gevent.spawn(sender)
    assert receive(["a", 3]) == ("a", 3)
    sending.join()
    assert rest() == [("a", 1), (2, "b"), ("c",), (), ("c", re)]


def test_the_message_is_the_very_tuple_of_objects_that_was_sent(node, me):
    thing = object()
    node.snd(me, thing)
    message = receive()
    assert message[0] is thing
    assert type(message) is tuple


def test_get_returns_the_rest_of_the_message(node, me):
    send_all(node, me, QUEUED)
    assert get("a") == (1,)
    assert get("c") == ()
    assert get("a", timeout=0) == (3,)
    assert rest() == [(2, "b"), (), ("c", re)]


def test_get_cond_returns_the_whole_message_for_which_the_predicate_is_true(node, me):
    send_all(node, me, QUEUED)
    assert get_cond(lambda *message: message[-1:] == (3,)) == ("a", 3)
    assert rest()[0] == ("a", 1)


def test_a_truthy_result_of_a_predicate_is_enough(node, me):
    node.snd(me, 1)
    assert receive(lambda *message: [0]) == (1,)


def test_an_invalid_pattern_is_refused(me):
    with pytest.raises(TypeError, match="is not a pattern"):
        receive(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not a pattern"):
        receive("tag", None)  # type: ignore[arg-type]


# --- timeouts ----------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.001])
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda timeout: receive(timeout=timeout), id="receive"),
        pytest.param(lambda timeout: receive("tag", timeout=timeout), id="by-tag"),
        pytest.param(lambda timeout: get("tag", timeout=timeout), id="get"),
        pytest.param(lambda timeout: get_cond(lambda *_: True, timeout=timeout), id="get_cond"),
    ],
)
def test_a_timeout_of_nothing_or_less_polls_without_switching(node, me, log, call, timeout):
    gevent.get_hub().loop.run_callback(log.append, "switched")
    with pytest.raises(ReceiveTimeout):
        call(timeout)
    node.snd(me, "tag")
    call(timeout)
    assert log == []
    turns(1)


@pytest.mark.parametrize(
    "call", [lambda: receive(timeout=0.001), lambda: get("tag", 0.001), lambda: get_cond(bool, 0.001)]
)
def test_a_timeout_is_a_timeout_error_that_knows_how_long(me, call):
    with pytest.raises(ReceiveTimeout, match=re.escape("0.001 s")) as caught:
        call()
    assert caught.value.timeout == 0.001
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
@pytest.mark.parametrize("default", [None, (), ReceiveTimeout])
def test_a_default_is_returned_instead(me, timeout, default):
    assert receive(timeout=timeout, default=default) is default
    assert receive("tag", timeout=timeout, default=default) is default


def test_the_text_that_is_shown_as_the_default_is_a_text_like_any_other(node, me):
    shown = inspect.signature(receive).parameters["default"].default
    text = "".join(shown)
    assert receive(timeout=0, default=text) is text
    assert receive(text, timeout=0, default=None) is None
    node.snd(me, text, 1)
    assert receive(text, timeout=0) == (text, 1)


def test_arguments_that_receive_does_not_take_are_refused(me):
    for name in ("pattern", "patterns", "others", "limit"):
        with pytest.raises(TypeError, match=rf"receive\(\) got an unexpected keyword argument '{name}'"):
            receive(**{name: "tag"})
    with pytest.raises(TypeError, match="None is not a pattern"):
        receive(None, timeout=0)


def test_a_default_does_not_hide_other_errors(node, me):
    node.snd(me, "message")
    with pytest.raises(ReceiveTimeout):  # from the predicate, but not our timeout
        receive(lambda *_: receive("never", timeout=0), timeout=5)
    with pytest.raises(ZeroDivisionError):
        receive(lambda *_: 1 / 0, timeout=0, default=None)


def test_messages_that_do_not_match_do_not_prolong_the_timeout(node, me):
    started = monotonic()

    def sender():
        while monotonic() - started < 5 and not done:
            node.snd(me, "other")
            gevent.sleep(0)

    done: list[bool] = []
    sending = gevent.spawn(sender)
    with pytest.raises(ReceiveTimeout):
        receive("wanted", timeout=0.02)
    done.append(True)
    sending.join()
    assert monotonic() - started < 2.5
    assert receive() == ("other",)


@pytest.mark.parametrize("is_served", [False, True])
def test_looks_that_end_turns_do_not_prolong_the_timeout(node, me, log, monkeypatch, is_served):
    """While each look ended a turn and caused one more message, receive never came to the end of the mailbox."""
    clock = itertools.count(1.0, 2 * TURN_SECONDS)
    use_clock(monkeypatch, lambda: next(clock))  # each look at the clock ends a turn

    def cause_another(*msg):
        log.append(msg)
        if len(log) < 1000:
            node.snd(me, "noise")

    if is_served:
        node.rcv(me, "noise", cause_another)
    node.snd(me, "noise")
    with pytest.raises(ReceiveTimeout):
        receive("wanted" if is_served else cause_another, timeout=1e-6)
    assert len(log) < 10 * CREDIT


def test_handlers_that_block_do_not_prolong_the_timeout(node, log):
    """While another port runs meanwhile, each begins a new turn, so that none is ever over."""
    other = node.port(lambda: None)
    ended: list[Any] = []

    def body():
        rcv_here(node, SELF())
        node.snd(SELF(), "x")
        ended.append(receive("wanted", timeout=0.02, default="timeout"))

    def rcv_here(node, port):
        def block():
            log.append("x")
            if len(log) < 2000:
                node.snd(port, "x")
                node.snd(other)
            gevent.sleep(0.001)

        node.rcv(port, "x", block)

    node.port_async(body)
    wait_until(lambda: ended, within=10)
    assert ended == ["timeout"]
    assert len(log) < 1000


@pytest.mark.parametrize("how", ["handler", "predicate"])
def test_timeout_counts_from_the_call_although_receive_waited_first(node, log, how):
    ended: list[Any] = []

    def next_one(*_msg):
        log.append("noise")
        if len(log) < 2000:
            node.snd(port, "noise")
        gevent.sleep(0.001)
        return False

    def body():
        if how == "handler":
            node.rcv(SELF(), "noise", next_one)
        wanted = "wanted" if how == "handler" else next_one
        ended.append(receive(wanted, timeout=0.5, default="timeout"))

    port = node.port_async(body)
    gevent.spawn_later(0.45, node.snd, port, "noise")
    wait_until(lambda: ended, within=10)
    assert ended == ["timeout"]
    assert len(log) < 250, "a millisecond each"


@pytest.mark.parametrize("seconds", [599.99, 900.0])
def test_time_that_a_handler_took_is_part_of_the_timeout(node, monkeypatch, seconds):
    now = [0.0]
    ended: list[Any] = []
    monkeypatch.setattr("aemp_gevent.ports.receiving.monotonic", lambda: now[0])

    def take_long():
        now[0] = seconds

    def body():
        node.rcv(SELF(), "slow", take_long)
        ended.append(receive("wanted", timeout=600, default="timeout"))

    node.snd(node.port_async(body), "slow")
    wait_until(lambda: ended)
    assert ended == ["timeout"]


def test_what_a_timer_sends_before_the_timeout_is_received(node):
    """Although the loop had no time for either while predicates ran."""
    received: list[Any] = []

    def is_wanted(tag):
        sleep(0.03)
        return tag == "wanted"

    def body():
        timer = gevent.get_hub().loop.timer(0.095)
        timer.start(lambda: node.snd(port, "wanted"), update=True)
        received.append(receive(is_wanted, timeout=0.1, default="timeout"))
        timer.close()

    port = node.port_async(body)
    for _ in range(8):
        node.snd(port, "noise")
    wait_until(lambda: received)
    assert received == [("wanted",)]


@pytest.fixture
def two_sockets(node):
    """Two pipes, and a function that starts to read them: into one receiver each, which run at once."""
    pipes = [os.pipe(), os.pipe()]
    watchers = [gevent.get_hub().loop.io(reading, 1) for reading, _writing in pipes]

    def read(reading, receiver):
        os.read(reading, 1)
        node.snd(receiver, "wanted")
        node.scheduler.pump()  # as a link does

    def start(*receivers):
        for watcher, (reading, _writing), receiver in zip(watchers, pipes, receivers, strict=True):
            watcher.start(read, reading, receiver)

    yield [writing for _reading, writing in pipes], start
    for watcher in watchers:
        watcher.stop()
        watcher.close()
    for end in itertools.chain(*pipes):
        os.close(end)


def in_some_order(port, other, is_first):
    return (port, other) if is_first else (other, port)


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_what_came_by_a_socket_before_the_timeout_is_received_although_noise_never_ends(
    node, log, two_sockets, waits_first, is_first
):
    """Although the loop calls timers first of all that is due."""
    writing, start = two_sockets
    received: list[Any] = []

    def is_wanted(tag):
        if tag == "noise":
            log.append(tag)
            if len(log) == 1:
                for end in writing:
                    os.write(end, b"x")
            if len(log) < 100:
                node.snd(port, "noise")
            sleep(0.1)
        return tag == "wanted"

    port = node.port_async(lambda: received.append(receive(is_wanted, timeout=0.05, default="timeout")))
    start(*in_some_order(port, node.port(lambda tag: None), is_first))
    if waits_first:
        gevent.sleep(0.01)
    node.snd(port, "noise")
    wait_until(lambda: received, within=20)
    assert received == [("wanted",)]


@pytest.mark.parametrize("is_first", [False, True])
def test_what_each_of_two_sockets_brought_before_the_timeout_is_received(node, monkeypatch, two_sockets, is_first):
    """Although the other one's callback runs ports before."""
    writing, start = two_sockets
    now = [0.0]
    received: list[Any] = []
    monkeypatch.setattr("aemp_gevent.ports.receiving.monotonic", lambda: now[0])

    def is_wanted(tag):
        if tag == "slow":
            for end in writing:
                os.write(end, b"x")
            now[0] = 600.0
        return tag == "wanted"

    port = node.port_async(lambda: received.append(receive(is_wanted, timeout=600, default="timeout")))
    start(*in_some_order(port, node.port(lambda tag: None), is_first))
    node.snd(port, "quick")  # so that receive, which looks at the turn after the first message, does not after the next
    node.snd(port, "slow")
    wait_until(lambda: received)
    assert received == [("wanted",)]


@pytest.mark.parametrize("is_first", [False, True])
def test_what_each_of_two_sockets_brought_while_another_port_outlasted_the_timeout_is_received(
    node, two_sockets, is_first
):
    writing, start = two_sockets
    received: list[Any] = []

    def body():
        for end in writing:
            os.write(end, b"x")
        received.append(receive("wanted", timeout=0.05, default="timeout"))

    port = node.port_async(body)
    start(*in_some_order(port, node.port(lambda tag: None), is_first))
    node.snd(node.port(lambda tag: sleep(0.1)), "slow")  # runs before the loop looks at sockets again
    wait_until(lambda: received)
    assert received == [("wanted",)]


@pytest.mark.parametrize("timeout", [0, 0.02])
@pytest.mark.parametrize("how", ["handler", "predicate", "predicate that receives"])
def test_code_that_always_sends_one_more_message_prolongs_no_timeout(node, log, how, timeout):
    ended: list[Any] = []

    def next_one(*_msg):
        log.append("noise")
        assert len(log) < 1_000_000
        if how == "predicate that receives":
            receive(timeout=0)
        node.snd(SELF(), "noise")
        return how == "predicate that receives"

    def body():
        if how == "handler":
            node.rcv(SELF(), "noise", next_one)
        node.snd(SELF(), "noise")
        ended.append(receive("wanted" if how == "handler" else next_one, timeout=timeout, default="timeout"))

    node.port_async(body)
    wait_until(lambda: ended, within=20)
    assert ended == ["timeout"]


def test_port_that_is_killed_while_a_predicate_outlasts_the_timeout_dies(node):
    died: list[Any] = []

    def kill_and_take_long():
        node.kil(SELF(), "killed")
        sleep(0.05)

    port = node.port_async(lambda: receive(kill_and_take_long, timeout=0.02))
    node.mon(port, lambda *reason: died.append(reason))
    node.snd(port)
    wait_until(lambda: died)
    assert died == [("killed",)]


@pytest.mark.parametrize("quick_ones", range(0, 8, 2))
def test_port_that_is_killed_while_receive_gives_way_ends_at_the_latest_when_it_blocks(node, quick_ones):
    died: list[Any] = []

    def is_wanted(tag):
        if tag == "slow":
            sleep(0.05)
        return tag == "wanted"

    def body():
        receive(is_wanted, timeout=0.03)
        gevent.event.Event().wait()

    port = node.port_async(body)
    node.mon(port, lambda *reason: died.append(reason))
    for _ in range(quick_ones):
        node.snd(port, "quick")
    node.snd(port, "slow")
    timer = gevent.get_hub().loop.timer(0.02)
    timer.start(lambda: (node.snd(port, "wanted"), node.kil(port, "killed")))
    wait_until(lambda: died)
    timer.close()
    assert died == [("killed",)]


def test_poll_that_leaves_messages_lets_a_kill_wait_for_them(node, log):
    def send_and_kill():
        node.snd(SELF(), "last")
        node.kil(SELF(), "killed")

    def body():
        node.rcv(SELF(), "first", send_and_kill)
        node.snd(SELF(), "first")
        log.append(receive("last", timeout=0, default="timeout"))
        log.append(receive("last", timeout=0))

    node.port_async(body)
    wait_until(lambda: len(log) == 2)
    assert log == ["timeout", ("last",)]


class StrikeError(Exception):
    pass


@pytest.mark.parametrize("how", ["message", "timeout", "predicate raises", "foreign timeout"])
def test_timers_end_with_the_receive(node, how):
    ended: list[Any] = []

    def look(tag):
        sleep(0.01)
        if tag == "strike":
            raise StrikeError
        return tag == "wanted"

    def body():
        for _ in range(3):
            node.snd(SELF(), "noise")
        if how in {"message", "predicate raises"}:
            node.after(0.1, node.snd, SELF(), "wanted" if how == "message" else "strike")
        try:
            with gevent.Timeout(0.1 if how == "foreign timeout" else None, StrikeError):
                ended.append(receive(look, timeout=0.02 if how == "timeout" else 600, default="timeout"))
        except StrikeError:
            ended.append("struck")

    node.port_async(body)
    wait_until(lambda: ended)
    assert ended == [{"message": ("wanted",), "timeout": "timeout"}.get(how, "struck")]
    assert not node.scheduler.timers


def test_all_that_was_there_is_looked_at_although_a_predicate_received(node):
    received: list[Any] = []

    def is_wanted(tag):
        if tag == "receive":
            for _ in range(5):
                receive("first", timeout=0)
        if tag in {"slow", "receive"}:
            sleep(0.06)
        return tag == "wanted"

    port = node.port_async(lambda: received.append(receive(is_wanted, timeout=0.05, default="timeout")))
    for tag in [*["first"] * 5, "slow", "receive", "noise", "noise", "wanted"]:
        node.snd(port, tag)
    wait_until(lambda: received)
    assert received == [("wanted",)]


def test_what_came_in_time_is_looked_at_after_the_timeout(node, me, monkeypatch):
    clock = itertools.count(1.0, 2 * TURN_SECONDS)
    use_clock(monkeypatch, lambda: next(clock))
    send_all(node, me, [("noise",)] * 100)
    node.snd(me, "wanted")
    assert receive("wanted", timeout=1e-6) == ("wanted",)


def test_a_receive_after_a_timeout_starts_afresh(node, me):
    with pytest.raises(ReceiveTimeout):
        receive("tag", timeout=0.001)
    gevent.get_hub().loop.run_callback(lambda: node.snd(me, "tag"))
    assert receive("tag", timeout=5) == ("tag",)


def test_an_infinite_timeout_waits_forever(node, me):
    gevent.get_hub().loop.run_callback(lambda: node.snd(me, "tag"))
    assert receive(timeout=float("inf")) == ("tag",)


# --- predicates that do things -------------------------------------------------------


def test_a_predicate_that_raises_raises_here_and_the_message_stays(node, me):
    send_all(node, me, QUEUED)

    def picky(*message):
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            receive(picky)
    assert rest() == QUEUED


def test_a_predicate_that_raises_in_a_greenlet_of_its_own_can_be_caught(node, log):
    def body():
        try:
            receive(lambda *_: 1 / 0)
        except ZeroDivisionError:
            log.append(receive())

    node.snd(node.port_async(body), "message")
    settle(node)
    assert log == [("message",)]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_predicate_that_receives_makes_receive_neither_skip_nor_repeat(node, me, log, accepted):
    """Trap "predicate shifts the mailbox": here it takes an earlier message, and then says yes or no."""
    send_all(node, me, [("a",), ("b",), ("c",)])

    def picky(tag):
        log.append(tag)
        if tag == "b":
            receive("a", timeout=0, default=None)
            return accepted
        return tag == "c"

    assert receive(picky, timeout=0) == (("b",) if accepted else ("c",))
    assert rest() == ([("c",)] if accepted else [("b",)])


@pytest.mark.parametrize("accepted", [True, False])
def test_a_predicate_that_takes_the_very_message_it_judges(node, me, accepted):
    send_all(node, me, [("a",), ("b",)])

    def greedy(tag):
        if tag == "a":
            receive("a")
            return accepted
        return tag == "b"

    assert receive(greedy, timeout=0) == ("b",)
    assert rest() == []


@pytest.mark.parametrize("also_itself", [False, True], ids=["others", "itself-too"])
@pytest.mark.parametrize("seed", range(20))
def test_predicates_that_receive_keep_their_verdicts_and_are_asked_once(node, me, seed, also_itself):
    """Whatever a predicate takes: it is asked once about each message, and nothing is lost, doubled or moved."""
    dice = random.Random(seed)
    sent = [(dice.choice("abc"), number) for number in range(30)]
    send_all(node, me, sent)
    taken: list[Any] = []
    while len(taken) < len(sent) / 2:
        asked: list[Any] = []
        verdicts: dict[Any, bool] = {}

        def greedy(*message, asked=asked, verdicts=verdicts):
            asked.append(message)
            assert message not in taken
            if dice.random() < 0.3:
                wanted = message if also_itself and dice.random() < 0.3 else dice.choice("abc")
                others = [list(wanted)] if wanted is message else [lambda tag, *_: tag == wanted and message[1:] != _]
                found = receive(*others, timeout=0, default=None)
                taken.extend(filter(None, [found]))
            verdicts[message] = dice.random() < 0.1 and message not in taken
            return verdicts[message]

        found = receive(greedy, timeout=0, default=None)
        assert len(set(asked)) == len(asked)
        if found is not None:
            assert verdicts[found]
            taken.append(found)
    left = rest()
    assert sorted(taken + left) == sorted(sent)
    assert left == [message for message in sent if message not in taken]


def test_messages_that_handlers_leave_are_judged_once(node, log):
    def body():
        node.rcv(SELF(), handled=lambda *_: None)
        receive(lambda *message: log.append(message), timeout=0, default=None)

    port = node.port_async(body)
    send_all(node, port, [("a",), ("handled",), ("b",), ("handled",), ("c",)])
    settle(node)
    assert log == [("a",), ("b",), ("c",)]


class CountingInbox(deque):
    """Counts the steps that it takes to find its messages: blocks walked through, and messages passed."""

    steps = 0

    def __getitem__(self, index):
        self.steps += 1 + min(index, len(self) - index) // 64
        return super().__getitem__(index)

    def __iter__(self):
        for message in super().__iter__():
            self.steps += 1
            yield message


@pytest.mark.parametrize("burst", [1, 5_000], ids=["one-by-one", "in-bursts"])
def test_looking_through_a_long_mailbox_takes_steps_in_proportion_to_its_length(node, me, burst):
    port = node.scheduler.ports[me]
    activate(port).inbox = port.mailbox = inbox = CountingInbox(("noise", number) for number in range(30_000))
    more = [burst] * 4

    def sender():
        while more:
            send_all(node, me, [("noise",)] * more.pop())
            gevent.sleep(0)
        node.snd(me, "wanted")

    gevent.spawn(sender)
    assert receive("wanted", timeout=10) == ("wanted",)
    assert inbox.steps < 5 * len(inbox)


@pytest.mark.parametrize("timeout", [None, 5, 0])
def test_looking_through_a_long_mailbox_gives_way_unless_it_polls(node, me, log, monkeypatch, timeout):
    clock = itertools.count(1.0, TURN_SECONDS / 3)
    use_clock(monkeypatch, lambda: next(clock))  # a look at the clock takes a third of a turn
    send_all(node, me, [("noise",)] * 20 * CREDIT)
    node.snd(me, "wanted")
    gevent.spawn(log.append, "another greenlet")
    assert receive("wanted", timeout=timeout) == ("wanted",)
    assert log == ([] if timeout == 0 else ["another greenlet"])


def test_a_predicate_that_empties_the_mailbox_waits_for_more(node, me):
    send_all(node, me, [("a",), ("b",)])

    def empties(tag):
        rest()
        return tag == "c"

    gevent.get_hub().loop.run_callback(lambda: node.snd(me, "c"))

    def takes_c(tag):
        return tag == "c" or bool(rest())

    assert receive(takes_c, timeout=5) == ("c",)


def test_a_predicate_may_send_to_its_own_port_and_what_it_sends_is_seen(node, me):
    node.snd(me, "first")

    def sends(tag):
        if tag == "first":
            node.snd(me, "second")
        return tag == "second"

    assert receive(sends, timeout=5) == ("second",)


# --- handlers in receive --------------------------------------------------------------


def test_handlers_are_served_in_order_and_receive_sees_what_they_leave(node, log):
    def body():
        node.rcv(
            SELF(), "tag", lambda *rest: log.append(("handler", *rest)), [int], lambda *msg: log.append(("int", *msg))
        )
        log.append(receive())
        log.append(receive("y"))

    port = node.port_async(body)
    send_all(node, port, [("tag", 1), (7,), ("x",), ("tag", 2), ("y",), ("tag", 3)])
    settle(node)
    assert log == [("handler", 1), ("int", 7), ("x",), ("handler", 2), ("y",)]


def test_handlers_are_served_in_the_ports_greenlet_while_it_waits(node, log):
    def body():
        own.append(gevent.getcurrent())
        node.rcv(SELF(), "tag", lambda: log.append((gevent.getcurrent() is own[0], SELF())))
        receive("never")

    own: list[Any] = []
    port = node.port_async(body)
    settle(node)
    node.snd(port, "tag")
    settle(node)
    assert log == [(True, port)]


def test_handlers_are_not_served_outside_receive(node, log):
    event = gevent.event.Event()

    def body():
        node.rcv(SELF(), "tag", lambda: log.append("handler"))
        event.wait()
        log.append("body")
        receive(timeout=0, default=None)

    node.snd(node.port_async(body), "tag")
    settle(node)
    assert log == []
    event.set()
    settle(node)
    wait_until(lambda: len(log) == 2, show=lambda: log)
    assert log == ["body", "handler"]


def test_a_handler_registered_while_receive_waits_is_served(node, log):
    port = node.port_async(lambda: receive("never"))
    settle(node)
    node.rcv(port, "tag", lambda: log.append("handler"))
    node.snd(port, "tag")
    settle(node)
    assert log == ["handler"]


def test_a_handler_may_receive_from_its_ports_mailbox_and_no_handler_is_served_meanwhile(node, log):
    def handler():
        log.append("in")
        log.append(receive("answer"))
        log.append(receive())
        log.append("out")

    def body():
        node.rcv(SELF(), "tag", handler, "other", lambda: log.append("other handler"))
        log.append(receive("last"))

    port = node.port_async(body)
    send_all(node, port, [("tag",), ("other",), ("skipped",), ("answer",), ("other",), ("last",)])
    settle(node)
    assert log == ["in", ("answer",), ("other",), "out", "other handler", ("last",)]


def test_a_callback_may_receive_and_the_messages_it_leaves_come_to_it_later(node, log):
    def callback(*message):
        log.append(("callback", *message))
        if message == ("ask",):
            log.append(("received", *receive("answer")))

    port = node.port(callback)
    send_all(node, port, [("ask",), ("early",)])
    settle(node)
    send_all(node, port, [("answer",), ("late",)])
    settle(node)
    assert log == [("callback", "ask"), ("received", "answer"), ("callback", "early"), ("callback", "late")]


def test_an_exception_in_a_handler_inside_receive_kills_the_port_at_once(node, log):
    def fails():
        raise ZeroDivisionError

    def body():
        node.rcv(SELF(), "tag", fails)
        try:
            receive()
        except PortKilled as killed:
            log.append(killed.reason)
            log.append(type(killed.__cause__))
            raise

    port = node.port_async(body)
    node.mon(port, lambda *reason: log.append(("died", *reason)))
    send_all(node, port, [("tag",), ("dropped",)])
    settle(node)
    assert log == [("die", "ZeroDivisionError"), ZeroDivisionError, ("died", "die", "ZeroDivisionError")]


def test_an_exception_in_the_predicate_of_a_handlers_pattern_kills_the_port_as_in_any_handler(node, log):
    def body():
        node.rcv(SELF(), [lambda _element: 1 / 0], log.append)
        with pytest.raises(PortKilled):
            receive()

    port = node.port_async(body)
    node.mon(port, lambda *reason: log.append(reason))
    node.snd(port, "message")
    settle(node)
    assert log == [("die", "ZeroDivisionError: division by zero")]


@pytest.mark.parametrize("matches", [True, False])
def test_the_predicate_of_a_handlers_pattern_may_receive(node, log, matches):
    """It shortens the mailbox under the receive that asked it, whatever it then answers."""

    def greedy(element):
        if element == "c":
            log.extend(receive(timeout=0, default=None) for _ in range(2))
            return matches
        return False

    def body():
        node.rcv(SELF(), [greedy], lambda *message: log.append(("handler", *message)))
        log.append(receive("d"))

    port = node.port_async(body)
    send_all(node, port, [("a",), ("b",), ("c",)])
    settle(node)
    node.snd(port, "d")
    settle(node)
    seen = [entry for entry in log if entry is not None]
    assert seen[:2] == [("a",), ("b",)]
    assert seen[-1] == ("d",)
    assert seen.count(("c",)) + seen.count(("handler", "c")) <= 1


def test_a_handler_that_returns_true_is_removed_in_receive_too(node, log):
    def body():
        node.rcv(SELF(), "tag", lambda *rest: not log.append(("handler", *rest)))
        log.append(receive("tag"))

    send_all(node, node.port_async(body), [("tag", 1), ("tag", 2)])
    settle(node)
    assert log == [("handler", 1), ("tag", 2)]


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [receive, lambda: get("tag"), lambda: get_cond(bool)], ids=["receive", "get", "get_cond"]
)
def test_outside_a_port_there_is_nothing_to_receive(call):
    with pytest.raises(NoPortContextError, match=r"(receive|get|get_cond)\(\)"):
        call()


def test_a_child_greenlet_does_not_receive_for_its_parent(node, me, log):
    def child():
        with pytest.raises(NoPortContextError):
            receive()
        log.append("refused")

    gevent.spawn(child).join()
    assert log == ["refused"]


@pytest.mark.parametrize("state", ["waiting", "blocked", "idle"])
def test_only_the_ports_own_greenlet_receives_for_it(node, log, state):
    event = gevent.event.Event()
    port = node.port() if state == "idle" else node.port_async(receive if state == "waiting" else event.wait)
    settle(node)

    def intrude():
        with pytest.raises(ReceiverBusyError, match=re.escape(port)):
            receive()
        with pytest.raises(ReceiverBusyError):
            receive("tag", timeout=0, default=None)
        log.append("refused")

    node.peval(port, intrude)
    node.peval_async(port, intrude).join()
    assert log == ["refused"] * 2
    event.set()
    settle(node)


def test_a_handler_inside_peval_of_another_port_does_not_receive_for_that(node, log):
    other = node.port()

    def intrude():
        with pytest.raises(ReceiverBusyError):
            receive()
        log.append("refused")

    node.snd(node.port(lambda: node.peval(other, intrude)))
    settle(node)
    assert log == ["refused"]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(receive, id="receive"),
        pytest.param(lambda: receive("tag"), id="by-tag"),
        pytest.param(lambda: receive(timeout=0, default=None), id="poll"),
        pytest.param(lambda: get("tag", timeout=1), id="get"),
        pytest.param(lambda: get_cond(bool, timeout=1), id="get_cond"),
    ],
)
def test_a_killed_port_raises_in_every_later_receive(node, log, call):
    def body():
        for _ in range(3):
            try:
                call()
            except PortKilled as killed:
                log.append(killed.reason)

    port = node.port_async(body)
    node.kil(node.port_async(lambda: None))
    settle(node)
    if not log:
        node.kil(port, "reason", 1)
    settle(node)
    assert [reason for reason in log if reason] == [("reason", 1)] * len(log)


def test_except_exception_does_not_catch_port_killed(node, log):
    def body():
        try:
            receive()
        except Exception:  # noqa: BLE001
            log.append("swallowed")
        finally:
            log.append("finally")

    port = node.port_async(body)
    settle(node)
    node.kil(port, "reason")
    settle(node)
    assert log == ["finally"]


def test_messages_from_before_a_kill_are_still_received_and_later_ones_are_not(node, log):
    event = gevent.event.Event()

    def body():
        me = SELF()
        send_all(node, me, [("a",), ("b",)])
        node.kil(me, "reason")
        node.snd(me, "c")
        log.append(receive("b"))
        log.append(receive())
        try:
            receive(timeout=0)
        except PortKilled as killed:
            log.append(killed.reason)

    node.port_async(body)
    event.set()
    settle(node)
    assert log == [("b",), ("a",), ("reason",)]


def test_a_kill_does_not_wait_for_messages_that_nothing_receives(node, log):
    port = node.port_async(receive, "wanted")
    node.mon(port, lambda *reason: log.append(reason))
    node.snd(port, "unwanted")
    settle(node)
    node.kil(port, "reason")
    settle(node)
    assert log == [("reason",)]
