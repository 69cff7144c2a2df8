# SPDX-License-Identifier: MIT
"""Write the tables of the page on performance and of the README, and draw the pictures, from one run's JSON lines.

    make compiled                            # for the columns of the compiled modules
    export AEMP_PURE_PYTHON=1
    python -m benchmarks L N S M --quiet --json > benchmarks/performance.jsonl
    python -m benchmarks.steps >> benchmarks/performance.jsonl
    AEMP_PURE_PYTHON=0 python -m benchmarks.steps >> benchmarks/performance.jsonl
    python -m benchmarks.report              # or make plots; the pictures need matplotlib

``--tables`` writes the tables only.
"""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import beside_erlang, builds, others
from benchmarks.measure import LATENCY_UNIT
from benchmarks.peer import ROOT
from benchmarks.rows import ROWS

FIGURES = ROOT / "benchmarks" / "performance.jsonl"
PAGES = (ROOT / "docs" / "explanation" / "performance.md", ROOT / "README.md")
PICTURES = ROOT / "docs" / "explanation" / "performance"

BEGIN = "<!-- from here on written by benchmarks/report.py: {} -->\n"
END = "<!-- to here -->\n"


@dataclass
class Measured:
    """What one program came to: the median of each figure, and its runs."""

    line: dict[str, Any]

    @property
    def rate(self) -> float:
        """Operations per second."""
        return float(self.line["rate"])

    def spread(self, key: str = "rate") -> float:
        """Return half of the difference between the best and the worst run, as a share of the median."""
        runs = self.line[f"{key}_runs"]
        return float((max(runs) - min(runs)) / 2 / self.line[key])

    @property
    def text(self) -> str:
        """The rate, or the time of a round trip, with its spread."""
        spread = f"±{100 * self.spread():.0f} %"
        if self.line["unit"] == LATENCY_UNIT:
            return f"{1e6 / self.rate:.1f} µs {spread}"
        factor, prefix = next(each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")) if self.rate >= each[0])
        unit = "B/s" if self.line["unit"] == "B/s" else "/s"
        return f"{self.rate / factor:.3g} {prefix}{unit} {spread}"


class Run:
    """The figures of one run.

    Args:
        lines: As ``python -m benchmarks --json`` prints them.
    """

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.machine = next(line for line in lines if line["kind"] == "machine")
        self.steps = [line for line in lines if line["kind"] == "step"]
        self._found = {
            (line["row"], line["side"], line["variant"]): Measured(line) for line in lines if line["kind"] == "figure"
        }

    @classmethod
    def read(cls, path: Path = FIGURES) -> Run:
        """Read a file of JSON lines."""
        return cls([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])

    def get(self, row: str, side: str, variant: str) -> Measured | None:
        """Return what a program came to, unless it was not run or failed."""
        return self._found.get((row, side, variant))

    def has(self, side: str) -> bool:
        """Return whether a side was measured."""
        return any(key[1] == side for key in self._found)

    def all(self) -> list[Measured]:
        """Return what all programs came to."""
        return list(self._found.values())

    def of(self, row: str, side: str) -> dict[str, Measured]:
        """Return what the programs of one side came to, by their variants."""
        return {key[2]: found for key, found in self._found.items() if key[:2] == (row, side)}

    def best(self, row: str, variant: str) -> Measured | None:
        """Return what ours came to: compiled, if that was measured."""
        return self.get(row, builds.SIDE, variant) or self.get(row, "ours", variant)

    def pairs(self, side: str) -> Iterator[tuple[str, str, Measured, Measured]]:
        """Yield the rows that were measured beside something else: the row, our variant, our best and theirs."""
        for name in ROWS:
            if side == "erlang":
                pairs = [(ours, theirs) for ours, theirs in beside_erlang.PAIRS.get(name, ()) if name != "S1"]
            else:
                pairs = [(ours, theirs) for ours, other, theirs in others.PAIRS.get(name, ()) if other == side]
            for ours, theirs in pairs:
                mine, other_one = self.best(name, ours), self.get(name, side, theirs)
                if mine is not None and other_one is not None:
                    yield name, ours, mine, other_one


# --- tables -------------------------------------------------------------------------


def tables(run: Run) -> dict[str, str]:
    """Return the parts of the pages that are written, by their names."""
    makers = (machine, rates, others_beside, memory, waits, steps, summary)
    return {maker.__name__: maker(run) for maker in makers}


def machine(run: Run) -> str:
    """Say where and with what the figures were taken."""
    found = dict(run.machine)
    cpu, cpus, system = (found.pop(key) for key in ("cpu", "cpus", "system"))
    python, ours, repeat = (found.pop(key) for key in ("python", "aemp_gevent", "repeat"))
    rest = ", ".join(f"{name} {found[name]}" for name in sorted(found) if name not in {"kind", "gc", "scale"})
    text = (
        f"{cpu} with {cpus} processors, {system}, {python}; aemp_gevent {ours}; {rest}. "
        f"Medians of {repeat} runs; ± is half of the difference between the best and the worst. {disturbance(run)}"
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def disturbance(run: Run) -> str:
    """Say how much others took of the processors meanwhile, if that was measured."""
    timed = (found.line for found in run.all() if "rate" in found.line)
    shares = sorted(share for line in timed for share in line.get("others_runs", ()))
    if not shares:
        return ""
    half, most = shares[len(shares) // 2], shares[-1]
    return (
        f"Other processes took at most {100 * half:.0f} % of one processor during the quieter half of the runs, "
        f"and {100 * most:.0f} % during the noisiest."
    )


def rates(run: Run) -> str:
    """Return the table of all rows beside bare gevent and Erlang."""
    head = "row", "work", "Python", "compiled", "bare gevent", "Erlang", "Python ÷ Erlang", "compiled ÷ Erlang"
    lines = [_cells(*head), _cells(*["---"] * len(head))]
    erlang = {(name, variant): theirs for name, variant, _mine, theirs in run.pairs("erlang")}
    for row in ROWS.values():
        if row.name[0] not in "LN":
            continue
        for variant, mine in run.of(row.name, "ours").items():
            if "rate" not in mine.line:
                continue
            compiled, bare = run.get(row.name, builds.SIDE, variant), _ceiling(run, row.name, variant)
            theirs = erlang.get((row.name, variant))
            ratios = (
                "" if each is None or theirs is None else f"{each.rate / theirs.rate:.2f}" for each in (mine, compiled)
            )
            texts = ("" if each is None else each.text for each in (mine, compiled, bare, theirs))
            lines.append(_cells(row.name, f"{row.work}: {variant}", *texts, *ratios))
    return "\n".join(lines) + "\n"


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ceiling(run: Run, name: str, variant: str) -> Measured | None:
    """Return the first ceiling that a variant of ours is measured beside."""
    pairs = importlib.import_module(f"benchmarks.{ROWS[name].module}").COMPARISONS
    return next((run.get(name, "ceiling", theirs) for ours, theirs in pairs if ours == variant), None)


def others_beside(run: Run) -> str:
    """Return the table of the rows that were measured beside other libraries."""
    lines = ["| row | ours | theirs | | ours ÷ theirs |", "| --- | --- | --- | --- | --- |"]
    for side in others.MODULES:
        for name, variant, mine, theirs in run.pairs(side):
            ratio = f"{mine.rate / theirs.rate:.2f}"
            lines.append(f"| {name}, {variant} | {mine.text} | {side} | {theirs.text} | {ratio} |")
    return "\n".join(lines) + "\n"


def memory(run: Run) -> str:
    """Return the table of what things take."""
    lines = ["| thing | bytes, Python | bytes, compiled |", "| --- | --- | --- |"]
    for variant, found in run.of("M1", "ours").items():
        sizes = (found, run.get("M1", builds.SIDE, variant))
        lines.append(_cells(variant, *("" if each is None else f"{each.line['bytes_each']:,.0f}" for each in sizes)))
    return "\n".join(lines) + "\n"


def waits(run: Run) -> str:
    """Return the table of how long small messages take beside large ones."""
    lines = ["| round trips | half within | 99 % within |", "| --- | --- | --- |"]
    for variant in run.of("S5", "ours"):
        found = run.best("S5", variant)
        if found is not None:
            lines.append(_cells(variant, *(f"{1e3 * found.line[key]:.2f} ms" for key in ("p50", "p99"))))
    return "\n".join(lines) + "\n"


def steps(run: Run) -> str:
    """Return the table of what a message costs step by step."""
    found: dict[str, dict[str, int]] = {}
    for step in run.steps:
        found.setdefault(step["what"].rstrip(".").replace("``", "`"), {})[step["build"]] = step["instructions"]
    lines = ["| step | Python | compiled |", "| --- | --- | --- |"]
    for what, counts in found.items():
        lines.append(_cells(what, *(f"{counts[key]:,}" if key in counts else "" for key in ("Python", "compiled"))))
    return "\n".join(lines) + "\n"


SUMMARY = {
    ("L1", "callback"): "a message to a handler in the same process",
    ("L3", "receive"): "a round trip of two greenlets in `receive`",
    ("L5", "resident"): "a new port",
    ("N1", "callback, one cpu"): "a round trip between two processes on one processor",
    ("N2", "snd"): "a small message to another process, of many",
    ("N4", "call"): "a call to another process, of 100 at a time",
}
"""The rows that the README shows."""


def summary(run: Run) -> str:
    """Return a table of some rows beside Erlang."""
    lines = ["| | Python | compiled | Erlang |", "| --- | --- | --- | --- |"]
    for name, variant, _mine, theirs in run.pairs("erlang"):
        if (name, variant) in SUMMARY:
            builds_ = (run.get(name, side, variant) for side in ("ours", builds.SIDE))
            texts = ("" if each is None else each.text for each in (*builds_, theirs))
            lines.append(_cells(SUMMARY[name, variant], *texts))
    return "\n".join(lines) + "\n"


def written(page: str, run: Run) -> str:
    """Return the page with its tables."""
    for name, text in tables(run).items():
        begin = BEGIN.format(name)
        before, found, rest = page.partition(begin)
        if found:
            page = f"{before}{begin}\n{text}\n{END}{rest.partition(END)[2]}"
    return page


# --- pictures -----------------------------------------------------------------------


LABELS = {
    "ours": "aemp_gevent",
    builds.SIDE: "aemp_gevent, compiled",
    "ceiling": "bare gevent",
    "erlang": "Erlang",
}


def draw(run: Run) -> None:
    """Draw the pictures as PNG. Needs matplotlib."""
    PICTURES.mkdir(exist_ok=True)
    _bars(run)
    _curves(run, "S1", "size", "bytes in a message", "MB/s", lambda size, rate: size * rate / 1e6, is_log=True)
    _curves(run, "S2", "ports", "ports", "million messages/s", lambda _ports, rate: rate / 1e6)
    _curves(run, "S3", "links", "links", "thousand messages/s", lambda _links, rate: rate / 1e3)
    _latencies(run)


def _figure(width: float = 8, height: float = 4.5) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, name: str) -> None:
    # Without the version of matplotlib, which would make the file differ.
    figure.savefig(PICTURES / f"{name}.png", dpi=100, metadata={"Software": None})


def _bars(run: Run) -> None:
    """Draw how fast others are, if ours is 1."""
    found: dict[str, dict[str, float]] = {}
    for side in ("erlang", *others.MODULES):
        for name, variant, mine, theirs in run.pairs(side):
            found.setdefault(f"{name} {variant}", {})[side] = theirs.rate / mine.rate
    figure, axis = _figure(height=1 + 0.4 * len(found))
    sides = [side for side in ("erlang", *others.MODULES) if any(side in bars for bars in found.values())]
    for place, side in enumerate(sides):
        points = [
            (number + 0.8 * (place - (len(sides) - 1) / 2) / len(sides), bars[side])
            for number, bars in enumerate(found.values())
            if side in bars
        ]
        axis.barh([y for y, _ in points], [ratio for _, ratio in points], 0.8 / len(sides), label=side)
    axis.axvline(1, color="black", label=LABELS[builds.SIDE if run.has(builds.SIDE) else "ours"])
    axis.set(xscale="log", xlabel="rate ÷ that of aemp_gevent in the same run", yticks=range(len(found)))
    axis.set_yticklabels(found, fontsize=8)
    axis.invert_yaxis()
    axis.legend(fontsize=8)
    _save(figure, "bars")


def _curves(run: Run, row: str, name: str, x: str, y: str, height: Any, *, is_log: bool = False) -> None:
    """Draw a rate against something, for each side that was measured, with the range of its runs."""
    figure, axis = _figure()
    for side, label in LABELS.items():
        points = sorted(
            (int(variant), found.line["rate_runs"], found.rate) for variant, found in run.of(row, side).items()
        )
        if points:
            xs = [point for point, _, _ in points]
            axis.plot(xs, [height(point, rate) for point, _, rate in points], marker="o", label=label)
            bounds = [[height(point, pick(runs)) for point, runs, _ in points] for pick in (min, max)]
            axis.fill_between(xs, *bounds, alpha=0.2)
    axis.set(xscale="log", xlabel=x, ylabel=y, **({"yscale": "log"} if is_log else {"ylim": (0, None)}))
    axis.legend(fontsize=8)
    _save(figure, name)


def _latencies(run: Run) -> None:
    """Draw the percentiles of request times against the load."""
    figure, axis = _figure()
    for side, style in (("ours", "-"), (builds.SIDE, "-."), ("ceiling", "--")):
        label = LABELS[side]
        found = sorted((int(variant), measured.line) for variant, measured in run.of("S4", side).items())
        for number, (key, name) in enumerate({"p50": "50 %", "p90": "90 %", "p99": "99 %", "p999": "99.9 %"}.items()):
            points = [(load, 1e3 * line[key]) for load, line in found if key in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, color=f"C{number}", marker="o", label=f"{label}, {name}")
    axis.set(yscale="log", xlabel="load, % of the possible rate", ylabel="ms until the answer")
    figure.legend(fontsize=8, loc="outside right upper", handlelength=5)  # long enough to show the dashes
    _save(figure, "latency")


def main() -> int:
    """Write the tables; draw the pictures unless ``--tables`` is given."""
    run = Run.read()
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8"), run), encoding="utf-8")
    if "--tables" not in sys.argv[1:]:
        draw(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
