# SPDX-License-Identifier: MIT
"""The page on performance shows what its run came to, and says where and with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.networking import ROOT

if not (ROOT / "benchmarks").is_dir():
    pytest.skip("only a clone has the benchmarks", allow_module_level=True)

from benchmarks import report
from benchmarks.report import Run

MACHINE = {
    "kind": "machine",
    "cpu": "a processor",
    "cpus": 2,
    "system": "Linux",
    "python": "CPython 3.11",
    "aemp_gevent": "abc pure Python",
    "gevent": "26.9",
    "gc": "default",
    "repeat": 3,
    "scale": 1.0,
}


def figure(row: str, side: str, variant: str, *runs: float, key: str = "rate", **more: Any) -> dict[str, Any]:
    return {
        "kind": "figure",
        "row": row,
        "side": side,
        "variant": variant,
        "unit": "messages/s",
        key: sorted(runs)[len(runs) // 2],
        f"{key}_runs": list(runs),
        **more,
    }


PERCENTILES = {"p50": 1e-4, "p90": 2e-4, "p99": 3e-4, "p999": 4e-4}

LINES = [
    MACHINE,
    figure("L1", "ours", "callback", 1.8e6, 2e6, 2.2e6),
    figure("L1", "compiled", "callback", 3e6, 3e6, 3e6),
    figure("L1", "ceiling", "deferred", 4e6),
    figure("L1", "erlang", "gen_server, off heap", 4e6),
    figure("L1", "pykka", "actor", 1e5, others_runs=[0.01, 0.02, 0.3]),
    figure("N1", "ours", "receive, free", 10_000, unit="network round trips/s"),
    figure("S1", "ours", "16", 3e5),
    figure("S2", "ours", "10", 1e6),
    figure("S2", "ceiling", "10", 2e6),
    figure("S3", "ours", "1", 2e5),
    figure("S4", "ours", "10", 1e4, **PERCENTILES),
    figure("S5", "ours", "alone", 700, **PERCENTILES),
    figure("M1", "ours", "idle port", 230.4, key="bytes_each"),
    figure("M1", "compiled", "idle port", 190.4, key="bytes_each"),
    {"kind": "step", "step": "callbacks", "what": "A round trip.", "instructions": 12_345, "build": "Python"},
    {"kind": "step", "step": "callbacks", "what": "A round trip.", "instructions": 2_345, "build": "compiled"},
]


def test_tables_have_figures_spreads_and_ratios() -> None:
    tables = report.tables(Run(LINES))
    machine = tables["machine"].replace("\n", " ")
    assert "a processor with 2 processors" in machine
    assert "aemp_gevent abc pure Python; gevent 26.9." in machine
    assert "Medians of 3 runs" in machine
    assert "2 % of one processor during the quieter half of the runs, and 30 % during the noisiest" in machine
    assert (
        "| L1 | 200 k messages to one callback port: callback "
        "| 2 M/s ±10 % | 3 M/s ±0 % | 4 M/s ±0 % | 4 M/s ±0 % | 0.50 | 0.75 |"
    ) in tables["rates"].splitlines()
    assert "100.0 µs ±0 % |  |  |  |  |  |" in tables["rates"]
    assert "| L1, callback | 3 M/s ±0 % | pykka | 100 k/s ±0 % | 30.00 |" in tables["others_beside"].splitlines()
    assert (
        "| a message to a handler in the same process | 2 M/s ±10 % | 3 M/s ±0 % | 4 M/s ±0 % |"
        in tables["summary"].splitlines()
    )
    assert "| idle port | 230 | 190 |" in tables["memory"].splitlines()
    assert "| alone | 0.10 ms | 0.30 ms |" in tables["waits"].splitlines()
    assert "| A round trip | 12,345 | 2,345 |" in tables["steps"].splitlines()


def test_only_what_is_between_the_marks_is_written() -> None:
    page = "before\n" + report.BEGIN.format("memory") + "old\n" + report.END + "after\n"
    written = report.written(page, Run(LINES))
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "| idle port | 230 | 190 |" in written
    assert "old" not in written
    assert report.written(written, Run(LINES)) == written


def test_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", exc_type=ImportError)
    monkeypatch.setattr(report, "PICTURES", tmp_path / "pictures")
    report.draw(Run(LINES))
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"bars.png", "size.png", "ports.png", "links.png", "latency.png"}
