# SPDX-License-Identifier: MIT
"""Calls that the event loop makes."""

from __future__ import annotations

import gc
import weakref

import pytest

from aemp_gevent.hubcalls import hub_call


def test_what_strikes_a_call_is_reported_and_the_call_is_asked_for_again():
    seen: list[object] = []

    def call() -> None:
        seen.append("call")
        if len(seen) == 1:
            raise KeyboardInterrupt

    made = hub_call(call, lambda: seen.append("again"), seen.append)
    made()
    made()
    assert seen[:2] == ["call", "again"]
    assert isinstance(seen[2], KeyboardInterrupt)
    assert seen[3:] == ["call"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, StopIteration, GeneratorExit])
def test_a_second_strike_during_the_report_does_not_end_the_calls(error):
    seen: list[str] = []

    def call() -> None:
        seen.append("call")
        if len(seen) == 1:
            raise MemoryError

    def report(_: BaseException) -> None:
        raise error

    made = hub_call(call, lambda: seen.append("again"), report)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        made()
    assert seen == ["call", "again"]
    made()
    made()
    assert seen == ["call", "again", "call", "call"]


def test_a_call_that_nobody_refers_to_any_more_goes_away():
    class Owner:
        def call(self) -> None:
            pass

    owner = Owner()
    owner.made = hub_call(owner.call, owner.call, id)  # type: ignore[attr-defined]
    owner.made()  # type: ignore[attr-defined]
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
