# SPDX-License-Identifier: MIT
"""The injector of the tests, which interrupts the library anywhere: when it is over it does nothing more."""

from __future__ import annotations

from aemp_gevent.runtime.hub_calls import hub_call
from tests.support.injecting import Injector, strike_points


def nothing(*_args: object) -> None:
    """Do nothing."""


def test_an_injector_that_is_over_acts_no_more_though_frames_that_it_traced_live_on():
    """The hub's doorbell is such a frame: an interrupt for a point that one test did not reach ended a later test."""
    call = hub_call(nothing, nothing, nothing)
    acted: list[bool] = []
    is_over = False
    with Injector(lambda: acted.append(is_over), lambda _: is_over, strike_points, ("runtime/hub_calls.py",)) as former:
        call()
    assert former.count > 0
    is_over = True
    with Injector(nothing, lambda _: False, strike_points, ("ports/patterns.py",)):
        call()
    assert acted == []
