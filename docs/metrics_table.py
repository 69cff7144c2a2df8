# SPDX-License-Identifier: MIT
"""Write the tables of metrics into their reference page. A test checks that they are up to date."""

from __future__ import annotations

from pathlib import Path

from aemp_gevent.contrib.prometheus import MISSING, MISSING_TEXT
from aemp_gevent.node.figures import METRICS, Metric

PAGE = Path(__file__).parent / "reference" / "metrics.md"
BEGIN = "<!-- from here on written by docs/metrics_table.py -->\n"
END = "<!-- to here -->\n"


def _of_several(metric: Metric) -> str:
    if metric.of_process:
        return "the sum, each process once"
    return "the largest" if metric.largest else "the sum"


def table() -> str:
    """Return the metrics as Markdown."""
    lines = ["| metric | kind | labels | says | of several nodes |", "| --- | --- | --- | --- | --- |"]
    for name, metric in METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {metric.text} | {_of_several(metric)} |")
    lines.append(f"| `{MISSING}` | gauge | | {MISSING_TEXT} | |")
    lines += ["", "The buckets of the histograms:", "", "| metric | upper bounds |", "| --- | --- |"]
    for name, metric in METRICS.items():
        if metric.buckets:
            lines.append(f"| `{name}` | {', '.join(f'{bound:g}' for bound in metric.buckets)} |")
    return "\n".join(lines)


def updated(page: str) -> str:
    """Return the page with the tables as they are to be."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
