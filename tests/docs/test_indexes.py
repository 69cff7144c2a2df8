# SPDX-License-Identifier: MIT
"""The tables of the pages are up to date, and name everything once."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import aemp_gevent
import aemp_gevent.errors
from tests.support.networking import ROOT

INDEXES: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "indexes.py"))
DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", INDEXES["WRITTEN"], ids=lambda page: page.name)
def test_page_is_up_to_date(page: Path) -> None:
    assert INDEXES["updated"](page) == page.read_text(), "run .venv/bin/python docs/indexes.py"


def test_every_public_name_stands_in_one_table() -> None:
    named = Counter(re.findall(r"^\| `(\w+)` \|", INDEXES["api_tables"](), re.MULTILINE))
    errors = {name for name in vars(aemp_gevent.errors) if name.endswith(("Error", "Timeout", "Died", "Killed"))}
    assert set(named) == (set(aemp_gevent.__all__) | errors) - {"__version__"}
    assert set(named.values()) == {1}


def test_every_row_says_something() -> None:
    for text in (INDEXES["api_tables"](), INDEXES["page_tables"]()):
        rows = re.findall(r"^\| [`\[].*? \| (.*) \|$", text, re.MULTILINE)
        assert len(rows) > 20
        assert all(len(row) > 10 and "``" not in row and ":meth:" not in row for row in rows), rows


def test_every_how_to_page_stands_in_one_table_and_in_the_side_bar() -> None:
    pages = sorted(page.stem for page in (DOCS / "howto").glob("*.md") if page.stem != "index")
    named = re.findall(r"\]\((.*?)\.md\)", INDEXES["page_tables"]())
    assert sorted(named) == pages
    toctree = (DOCS / "howto" / "index.md").read_text().partition("```{toctree}")[2]
    assert sorted(re.findall(r"^[a-z-]+$", toctree, re.MULTILINE)) == pages


def test_landing_page_groups_all_pages_by_kind() -> None:
    landing = (DOCS / "index.md").read_text()
    assert re.findall(r"^:caption: (.*)$", landing, re.MULTILINE) == ["Tutorial", "How-to", "Reference", "Explanation"]
    listed = re.findall(r"^((?:tutorial|howto|reference|explanation)/[a-z-]+)$", landing, re.MULTILINE)
    pages = [page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.glob("*/*.md")]
    assert sorted(listed) == sorted(page for page in pages if not page.startswith("howto/") or page == "howto/index")


def test_landing_page_names_only_calls_that_there_are() -> None:
    table = (DOCS / "index.md").read_text().partition("## Which call when")[2].partition("\n## ")[0]
    for called in re.findall(r"`@?([a-z_]+)[(`]", table):
        assert called in aemp_gevent.__all__, called
