# SPDX-License-Identifier: MIT
"""The hub's thread: timers and calls on the hub, and the refusal of other native threads."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from aemp_gevent.errors import WrongThreadError
from aemp_gevent.ports.hub_thread import HubThread
from tests.support.helpers import turns, wait_until
from tests.support.native import threading


@pytest.fixture
def here() -> HubThread:
    """A hub's thread whose hub is known."""
    here = HubThread()
    assert here.hub is gevent.get_hub()
    return here


def in_another_thread(call: Any, *args: Any) -> list[BaseException]:
    """Make a call in another native thread; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_no_thread_is_foreign_before_the_hub_is_known() -> None:
    here = HubThread()
    assert not here.is_foreign and in_another_thread(here.check_thread, "call()") == []


def test_a_call_in_another_thread_is_refused_by_its_name(here: HubThread) -> None:
    here.check_thread("call()")
    (error,) = in_another_thread(here.check_thread, "call()")
    assert isinstance(error, WrongThreadError) and "call()" in str(error)


def test_a_call_that_another_thread_hands_over_is_made_on_the_hub(here: HubThread) -> None:
    made: list[object] = []
    assert in_another_thread(here.call_on_hub, lambda: made.append(gevent.getcurrent())) == []
    wait_until(lambda: made)
    assert made == [here.hub]


def test_the_ports_belong_to_the_thread_that_first_set_off_a_timer() -> None:
    here = HubThread()
    timer = here.start_timer(60, print)
    (error,) = in_another_thread(here.check_thread, "call()")
    assert isinstance(error, WrongThreadError)
    here.end_timer(timer)


def test_a_timer_calls_once_unless_it_is_ended(here: HubThread) -> None:
    made: list[str] = []
    ended = here.start_timer(0, made.append, "ended")
    here.start_timer(0, made.append, "due")
    for _ in range(2):
        here.end_timer(ended)
    wait_until(lambda: made)
    turns(3)
    assert made == ["due"] and not here.timers


def test_all_timers_are_ended_at_once(here: HubThread) -> None:
    made: list[int] = []
    for number in range(3):
        here.start_timer(0, made.append, number)
    here.end_all_timers()
    turns(3)
    assert made == [] and not here.timers


def test_the_end_of_a_block_is_left_to_the_hub_in_another_thread(here: HubThread) -> None:
    ended: list[object] = []
    here.leave(lambda: ended.append(gevent.getcurrent()))
    assert ended == [gevent.getcurrent()]
    assert in_another_thread(here.leave, lambda: ended.append(gevent.getcurrent())) == []
    wait_until(lambda: len(ended) == 2)
    assert ended[1] is here.hub
