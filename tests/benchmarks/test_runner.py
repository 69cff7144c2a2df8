# SPDX-License-Identifier: MIT
"""A run that other processes disturbed is taken again, where that is asked for."""

from __future__ import annotations

import pytest

from tests.support.networking import ROOT

if not (ROOT / "benchmarks").is_dir():
    pytest.skip("only a clone has the benchmarks", allow_module_level=True)

from benchmarks import runner
from benchmarks.quiet import TRIES
from benchmarks.rows import ROWS
from benchmarks.runner import Program


@pytest.mark.parametrize(
    ("shares", "quiet", "kept"),
    [
        pytest.param([0.0], True, 1, id="undisturbed"),
        pytest.param([0.9, 0.05], True, 2, id="disturbed once"),
        pytest.param([0.9, 0.5, 0.3, 0.4], True, 3, id="always disturbed"),
        pytest.param([0.9], False, 1, id="not asked for"),
        pytest.param([None], True, 1, id="unknown"),
    ],
)
def test_least_disturbed_run_counts(
    shares: list[float | None], quiet: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(shares) <= TRIES
    rates = iter(range(1, 100))
    left = iter(shares)

    class Others:
        def share(self) -> float | None:
            return next(left)

    monkeypatch.setattr(runner, "Others", Others)
    monkeypatch.setattr(runner, "wait_until_quiet", lambda: None)
    monkeypatch.setattr(runner, "run_once", lambda *_args: {"rate": next(rates)})
    program = Program("ours", "callback")
    runner.take_run(ROWS["L1"], program, 10, None, quiet=quiet)
    assert program.values("rate") == [kept]
    assert next(left, "none") == "none"
