# SPDX-License-Identifier: MIT
"""Clocks for tests of turns."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest


def use_clock(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """Make the scheduler ask this clock how long a turn lasts."""
    for name in ("scheduler", "pacing"):
        monkeypatch.setattr(import_module(f"aemp_gevent.ports.{name}"), "perf_counter", clock)
