# SPDX-License-Identifier: MIT
"""Fixtures of the tests of ports."""

from __future__ import annotations

import itertools
from importlib import import_module
from typing import Any

import pytest

from aemp_gevent.ports.pacing import CREDIT, SLICE
from aemp_gevent.ports.runner import Runner
from tests.ports.logs import Log
from tests.support.clocks import use_clock

scheduler_module = import_module("aemp_gevent.ports.scheduler")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock that advances a millisecond a look: turns are then counted in messages, whatever the machine does."""
    ticks = itertools.count(1)
    use_clock(monkeypatch, lambda: next(ticks) * 0.001)
    return CREDIT * 5 + SLICE * 2  # the most messages one turn can have: five looks, and the slice it ends in


@pytest.fixture
def runners(monkeypatch):
    """Every runner that is made."""
    made: list[Runner] = []

    class CountedRunner(Runner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(scheduler_module, "_make_runner", CountedRunner)
    return made
