# SPDX-License-Identifier: MIT
"""Worlds of nodes with faults keep the promises, and one in which the library breaks one is found out."""

from __future__ import annotations

import pytest

import soak.memory
from aemp_gevent.remote import RemotePorts
from soak.memory import run


@pytest.mark.slow
def test_promises_are_kept_by_thirty_nodes_whatever_breaks() -> None:
    """A seed that failed is printed, with the ends of the logs; ``python -m soak.memory --seed`` runs it again."""
    figures = run(list(range(1, 11)), nodes=30, seconds=1.0, at_once=5)
    print(figures)
    assert not figures.failed
    assert not figures.greenlets_left
    # Otherwise nothing was put to the test.
    assert figures.counts["faults"] > 50
    assert figures.counts["Fired"] > 200
    assert figures.counts["Received"] > figures.counts["Sent"] / 2


@pytest.mark.slow
def test_broken_promise_shows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak.memory, "REST_SECONDS", 1.5)
    monkeypatch.setattr(RemotePorts, "all_lost", lambda self, reason, **how: None)
    figures = run([1, 2], nodes=10, seconds=0.7, at_once=2)
    assert figures.failed
    assert not figures.is_good
    printed = capsys.readouterr().out
    assert f"seed {figures.failed[0]}:" in printed
    assert any(f"  {rule}: " in printed for rule in ("holes", "monitors"))
    assert "Sent(" in printed
