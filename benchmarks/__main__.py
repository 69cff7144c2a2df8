# SPDX-License-Identifier: MIT
"""The command line: choose rows, run them, print a table or JSON lines."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks import beside_erlang, builds, machine, others
from benchmarks.measure import LATENCY_UNIT
from benchmarks.revisions import checked_out
from benchmarks.rows import ROWS, Row
from benchmarks.runner import Program, measure

EPILOG = """\
examples:
  python -m benchmarks                        everything, medians of 5 (about two minutes)
  python -m benchmarks L1 N2                  two rows
  python -m benchmarks L --repeat 3           all local rows, medians of 3
  python -m benchmarks --scale 0.1            a tenth of the work: does it run at all?
  python -m benchmarks N1 --side ceiling      bare gevent only: needs no library
  python -m benchmarks L --side ours --side erlang    beside Erlang only, which must be installed
  python -m benchmarks L1 --compare HEAD~3    the library as it is, and as it was then, in turn
  python -m benchmarks --quiet                take runs again that other processes disturbed (Linux)
  python -m benchmarks --json > today.jsonl   one JSON object a line: machine, figure, ratio

reading it:
  ours, ceiling   medians; "~" marks one whose runs differ by more than 20 % of it
  ratio           ours / ceiling, higher is better; for memory ceiling / ours, likewise
  erlang, pyzmq … in place of a ceiling, where they are installed: in turn with ours
  compiled        the same: the library's compiled modules, if they were made and ours does not use them
  elsewhere       Erlang was measured, goal and floor (of pure Python) were set, on another day and machine:
                  never divide by them
More in benchmarks/README.md. No speed is asserted: the exit status says only whether every program ran.
"""
SIDES = ("ours", "ceiling", builds.SIDE, "erlang", *others.MODULES)
FIGURES = {"rate": True, "bytes_each": False, "p50": False, "p90": False, "p99": False, "p999": False}
"""What is printed, and whether more of it is better."""
PLAIN = ("rate", "bytes_each")
"""Those whose names need not be printed."""
WIDTHS = (4, 42, 11, 11, 7, 2, 24, 22, 0)


def main() -> int:
    """Run what the arguments ask for; 1 when a program failed, else 0."""
    options = parse()
    if options.compare is None:
        found = (
            *((builds.SIDE,) if builds.is_installed() else ()),
            *(("erlang",) if beside_erlang.is_installed() else ()),
        )
        sides = tuple(options.side or ("ours", "ceiling", *found, *others.installed()))
        return run(options, sides, None)
    try:
        with checked_out(options.compare) as before:
            return run(options, ("ours", "before"), before)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2


def run(options: argparse.Namespace, sides: tuple[str, ...], before: Path | None) -> int:
    """Run the rows and print their figures; 1 when a program failed, else 0."""
    header(options.json, options.repeat, options.scale, sides)
    failures: dict[str, str] = {}
    for row in options.rows:
        pairs = list(measure(row, sides, options.repeat, options.scale, before, quiet=options.quiet))
        if options.json:
            print_json(row, pairs)
        else:
            print_table(row, pairs)
        for program in (each for pair in pairs for each in pair):
            if program.error:
                failures[f"{row.name} {program.side} ({program.variant})"] = program.error
    for name, error in failures.items():
        print(f"FAILED {name}: {error}", file=sys.stderr)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    """Read the command line; ``rows`` becomes a list of ``Row``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run each row's program and its bare gevent ceiling in turn, and print their ratio.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", help=f"{' '.join(ROWS)}; L for all of a kind (default: L N)")
    parser.add_argument("--repeat", type=int, default=5, metavar="R", help="runs of each program (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="S", help="share of the full work (default 1)")
    help_ = "what to run; may be repeated (default: ours, the ceilings, and what else is installed)"
    parser.add_argument("--side", choices=SIDES, action="append", help=help_)
    parser.add_argument("--compare", metavar="REV", help="pair with the library of this git revision, in turn")
    parser.add_argument("--quiet", action="store_true", help="take a run again if other processes disturbed it")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--list", action="store_true", help="list rows, programs and variants, and exit")
    options = parser.parse_args()
    if options.repeat < 1 or options.scale <= 0:
        parser.error("--repeat and --scale must be positive")
    if options.compare is not None and options.side:
        parser.error("--compare runs ours of both revisions, and no --side")
    if options.list:
        list_rows()
        sys.exit(0)
    wanted = [name.upper() for name in options.rows] or ["L", "N"]
    unknown = [name for name in wanted if not any(row == name or row[0] == name for row in ROWS)]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (there are {', '.join(ROWS)})")
    options.rows = [row for row in ROWS.values() if row.name in wanted or row.name[0] in wanted]
    return options


def list_rows() -> None:
    """Print every row with the arguments that ``benchmarks.one`` takes, and those of ``benchmarks.beside_erlang``."""
    for row in ROWS.values():
        module = importlib.import_module(f"benchmarks.{row.module}")
        print(f"{row.name}  {row.module}: {row.work} (N = {module.N})")
        for index, side in enumerate(("ours", "ceiling")):
            variants = dict.fromkeys(pair[index] for pair in module.COMPARISONS)
            if hasattr(module, side):
                print(f"    {side}: {', '.join(map(repr, variants))}")
        if theirs := dict.fromkeys(theirs for _ours, theirs in beside_erlang.PAIRS.get(row.name, ())):
            print(f"    erlang: {', '.join(map(repr, theirs))}")


def header(as_json: bool, repeat: int, scale: float, sides: tuple[str, ...]) -> None:
    """Name the machine and the versions: a figure without them means nothing."""
    found = machine.describe(sides)
    if as_json:
        print(json.dumps({"kind": "machine", **found, "gc": "default", "repeat": repeat, "scale": scale}), flush=True)
        return
    print(f"{found.pop('cpu')}, {found.pop('cpus')} CPUs usable, {found.pop('system')}")
    print(f"{found.pop('python')}, {', '.join(f'{name} {version}' for name, version in found.items())}")
    print(f"medians of {repeat}, scale {scale:g}, garbage collector on with default thresholds, nothing monkey-patched")
    print()
    print_cells("", "", "this run:", "", "", "|", "elsewhere, another day:")
    others = "before" if "before" in sides else "ceiling"
    print_cells("row", f"ours / {others}", "ours", others, "ratio", "|", "Erlang/OTP 25", "goal", "floor, pure Python")


def print_json(row: Row, pairs: list[tuple[Program, Program]]) -> None:
    """Print a line for each program, then one for each ratio."""
    programs = {(each.side, each.variant): each for pair in pairs for each in pair}
    for program in programs.values():
        if not program.runs:
            continue
        keys = ("rate", "seconds", "others", *FIGURES)
        line: dict[str, object] = {"kind": "figure", "row": row.name, "side": program.side, "variant": program.variant}
        line |= program.runs[0] | {key: program.median(key) for key in keys if program.values(key)}
        line |= {f"{key}_runs": program.values(key) for key in (*FIGURES, "others") if program.values(key)}
        print(json.dumps(line), flush=True)
    for ours, ceiling in pairs:
        for key, ratio in ratios(ours, ceiling).items():
            line = {"kind": "ratio", "row": row.name, "of": key, "ours": ours.variant, ceiling.side: ceiling.variant}
            print(json.dumps(line | {"ratio": ratio}), flush=True)


def ratios(ours: Program, ceiling: Program) -> dict[str, float]:
    """Divide the medians that both have, such that more is better."""
    found = {}
    for key, more_is_better in FIGURES.items():
        mine, bare = ours.median(key), ceiling.median(key)
        if mine and bare:
            found[key] = mine / bare if more_is_better else bare / mine
    return found


def print_table(row: Row, pairs: list[tuple[Program, Program]]) -> None:
    """Print a line for each pair and kind of figure; what was measured elsewhere stands in the first."""
    elsewhere: tuple[str, ...] = (row.erlang, row.goal, row.floor)
    for ours, ceiling in pairs:
        found = ratios(ours, ceiling)
        keys = [key for key in FIGURES if ours.values(key) or ceiling.values(key)]
        for key in keys or ["rate"]:
            ratio = f"{found[key]:.2f}" if key in found else "-"
            beside = "" if ceiling.side in {"ceiling", "before"} else ceiling.side
            case = f"{ours.variant} / {f'{beside} {ceiling.variant}'.strip()}{'' if key in PLAIN else f' {key}'}"
            print_cells(row.name, case, cell(ours, key), cell(ceiling, key), ratio, "|", *elsewhere)
            elsewhere = ()


def print_cells(*cells: str) -> None:
    """Print the leading cells of a line of the table."""
    print("".join(text.ljust(width) for text, width in zip(cells, WIDTHS, strict=False)).rstrip(), flush=True)


def cell(program: Program, key: str) -> str:
    """Return a median as a short text, or why it is missing. What is counted is in the row's work (``--list``)."""
    median = program.median(key)
    if median is None:
        return "FAILED" if program.error else "skipped" if program.skipped else "-"
    values = program.values(key)
    noisy = "~" if max(values) - min(values) > 0.2 * abs(median) else ""
    if key == "bytes_each":
        return f"{noisy}{median:.0f} B"
    unit = program.runs[0].get("unit", "")
    if key != "rate":
        return f"{noisy}{1e6 * median:.0f} us"
    if unit == LATENCY_UNIT:
        return f"{noisy}{1e6 / median:.1f} us"
    factor, prefix = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if median >= pair[0]), (1.0, ""))
    return f"{noisy}{median / factor:.3g} {prefix}{'B/s' if unit == 'B/s' else '/s'}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
