# SPDX-License-Identifier: MIT
"""The benchmarks run, on a small share of the work, beside their ceilings and beside another revision."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import beside_erlang
from tests.support.networking import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="only a clone has the benchmarks"),
]
in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone has other revisions")


def benchmarks(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--scale", "0.001", "--repeat", "1", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_row_has_figures_of_both_sides_and_a_ratio() -> None:
    machine, *found = lines(benchmarks("N5", "--json", "--side", "ours", "--side", "ceiling"))
    assert machine["kind"] == "machine"
    figures = {line["side"]: line["rate"] for line in found if line["kind"] == "figure"}
    assert set(figures) == {"ours", "ceiling"}
    assert any(line["kind"] == "ratio" for line in found)


@pytest.mark.skipif(not beside_erlang.is_installed(), reason="needs Erlang")
@pytest.mark.parametrize("row", ["L3", "N2"])
def test_row_is_measured_beside_erlang(row: str) -> None:
    _machine, *found = lines(benchmarks(row, "--json", "--side", "ours", "--side", "erlang"))
    assert {line["side"] for line in found if line["kind"] == "figure"} == {"ours", "erlang"}
    assert any(line["kind"] == "ratio" and "erlang" in line for line in found)


@in_git
def test_row_is_compared_with_another_revision() -> None:
    _machine, *found = lines(benchmarks("N2", "--compare", "HEAD", "--json"))
    assert [line["side"] for line in found if line["kind"] == "figure"] == ["ours", "before"]
    assert [(line["ours"], line["before"]) for line in found if line["kind"] == "ratio"] == [("snd", "snd")]


@in_git
def test_unknown_revision_is_refused() -> None:
    done = benchmarks("L1", "--compare", "no-such-revision")
    assert done.returncode == 2
    assert "no-such-revision" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("module", "side", "variant", "figure"),
    [
        ("s1_size", "ours", "4096", "rate"),
        ("s1_size", "ceiling", "4096", "rate"),
        ("s2_ports", "ours", "10", "rate"),
        ("s3_links", "ours", "3", "rate"),
        ("s4_load", "ours", "50", "p999"),
        ("s4_load", "ceiling", "50", "p999"),
        ("m1_memory", "ours", "monitored pair", "bytes_each"),
        ("m1_memory", "ours", "waiting port_async, resident", "bytes_each"),
        ("m1_memory", "ours", "link", "bytes_each"),
    ],
)
def test_program_of_a_curve_or_of_memory_gives_its_figure(module: str, side: str, variant: str, figure: str) -> None:
    command = [sys.executable, "-m", "benchmarks.one", module, side, variant, "2000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[figure] > 0


@pytest.mark.parametrize("step", ["calls", "decode", "send_remote"])
def test_step_whose_instructions_are_counted_runs(step: str) -> None:
    command = [sys.executable, "-m", "benchmarks.steps", step, "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
