# SPDX-License-Identifier: MIT
"""Samples of points that tests try: others in each run, with a message that says which one failed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from tests.support import striking, thoroughness
from tests.support.networking import ROOT
from tests.support.striking import strike_in_turn
from tests.support.thoroughness import sampled


def test_a_sample_differs_from_run_to_run_and_is_spread_over_all_points(monkeypatch):
    monkeypatch.setattr(thoroughness, "THOROUGH", False)
    samples = {tuple(sampled(range(1000), 11)) for _ in range(10)}
    assert len(samples) > 1
    for sample in samples:
        assert (sample[0], sample[-1], len(sample)) == (0, 999, 11)
        assert max(after - before for before, after in itertools.pairwise(sample)) <= 200
    assert sampled(range(11), 11) == range(11)


def test_a_thorough_sample_is_everything_or_as_much_as_is_asked_for(monkeypatch):
    monkeypatch.setattr(thoroughness, "THOROUGH", True)
    assert sampled(range(1000), 11) == range(1000)
    assert len(sampled(range(1000), 11, 101)) == 101
    assert sampled(range(50), 11, 101) == range(50)


def test_a_scene_that_fails_tells_where_it_was_struck_and_can_be_struck_there_again(monkeypatch):
    def play(point: int) -> None:
        played.append(point)
        assert point != 900

    played: list[int] = []
    monkeypatch.setattr(striking, "_AT", None)
    with pytest.raises(AssertionError, match="struck at point 900 of 900, with AEMP_STRIKE_AT=900 at no other"):
        strike_in_turn(play, 900, 30)
    assert played[0] == 1
    played.clear()
    monkeypatch.setattr(striking, "_AT", "28")
    strike_in_turn(play, 900)
    assert played == [28]


def test_all_processes_of_one_run_draw_the_same_samples() -> None:
    program = "from tests.support.thoroughness import sampled; print(sampled(range(1000), 11))"

    def drawn(run: str) -> bytes:
        environment = {**os.environ, "PYTEST_XDIST_TESTRUNUID": run, "AEMP_TEST_THOROUGH": ""}
        return subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)

    assert drawn("one") == drawn("one") != drawn("another")
