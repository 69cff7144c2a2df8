# SPDX-License-Identifier: MIT
"""The dashboard and the alerts name only metrics and labels that exist, and the pages say everything about them."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from aemp_gevent.node.figures import METRICS
from tests.support.networking import ROOT

pytest.importorskip("prometheus_client", reason="the extra 'prometheus' is not installed")

from aemp_gevent.contrib.prometheus import MISSING

FOLDER = ROOT / "docs" / "howto" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "howto" / "monitor-in-production.md").read_text()

_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "gaugehistogram": ("_bucket", "_gcount", "_gsum")}


def series() -> dict[str, set[str]]:
    """Return the labels of each series that Prometheus has, besides its own."""
    found: dict[str, set[str]] = {MISSING: set()}
    for name, metric in METRICS.items():
        for suffix in _SUFFIXES.get(metric.kind, ("",)):
            found[name + suffix] = {*metric.labels, *(("le",) if suffix == "_bucket" else ())}
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in RULES]


@pytest.mark.parametrize("expression", expressions())
def test_metrics_and_labels_of_expressions_exist(expression: str) -> None:
    known = series()
    named = re.findall(r"\baemp_\w+", expression)
    assert named
    assert set(named) <= set(known)
    own = {"job", "instance"}.union(*(known[name] for name in named))
    labels = re.findall(r"(\w+)\s*(?:=~|!=|=)\"", expression)
    for group in re.findall(r"by \(([^)]*)\)", expression):
        labels += [label.strip() for label in group.split(",")]
    assert set(labels) <= own


def test_dashboard_shows_every_metric() -> None:
    text = " ".join(expressions())
    unseen = {"aemp_links", "aemp_uptime_seconds", "aemp_loop_blocks_total"}  # other figures say the same
    assert {name for name in METRICS if name not in text} == unseen


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_is_on_the_page_and_says_what_happened(rule: dict[str, Any]) -> None:
    assert f"\n| `{rule['alert']}` |" in PAGE
    used = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
    own = {"job"}.union(*(labels for name, labels in series().items() if name in rule["expr"]))
    assert set(used) <= own
    assert rule["labels"]["severity"] in {"warning", "critical"}


def test_page_names_no_other_alerts() -> None:
    assert set(re.findall(r"`(Aemp\w+)`", PAGE)) == {rule["alert"] for rule in RULES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_accepts_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", FOLDER / "rules.yaml"], check=True, timeout=60)


def test_page_of_metrics_is_up_to_date() -> None:
    table = runpy.run_path(str(ROOT / "docs" / "metrics_table.py"))
    page = table["PAGE"].read_text()
    assert page == table["updated"](page), "run .venv/bin/python docs/metrics_table.py"
