# SPDX-License-Identifier: MIT
"""The page on the architecture shows the folders as the import contracts order them."""

from __future__ import annotations

import ast
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.networking import ROOT

ARCHITECTURE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
REMEDY = "run .venv/bin/python docs/architecture.py"


@pytest.mark.slow
def test_page_is_up_to_date() -> None:
    assert ARCHITECTURE["PAGE"].read_text() == ARCHITECTURE["updated"](), REMEDY


def test_picture_is_up_to_date() -> None:
    assert ARCHITECTURE["PICTURE"].read_text() == ARCHITECTURE["draw"](), REMEDY


def test_every_folder_and_top_module_stands_on_one_floor() -> None:
    named = [name for floor in ARCHITECTURE["floors"]() for name in floor]
    package = ROOT / "aemp_gevent"
    present = {path.parent.name for path in package.glob("*/__init__.py")}
    present |= {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert sorted(named) == sorted(present)


def test_every_folder_says_in_one_line_what_lives_there() -> None:
    package: Path = ROOT / "aemp_gevent"
    for folder in [path.parent for path in package.rglob("__init__.py") if path.parent != package]:
        text = ARCHITECTURE["sentence"](folder)
        assert text.endswith("."), folder
        assert len(text) < 130, folder


@pytest.mark.no_cover
@pytest.mark.slow
def test_no_two_classes_have_the_same_name() -> None:
    """Not even with and without an underscore, or inside others: a word means one thing in all folders."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in (ROOT / "aemp_gevent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.strip("_")].append(str(path.relative_to(ROOT)))
    assert len(found) > 300
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_every_module_that_the_page_recommends_exists() -> None:
    _, _, text = ARCHITECTURE["PAGE"].read_text().partition(ARCHITECTURE["END"])
    named = re.findall(r"`(\w+/\w+\.py)`", text)
    assert len(named) > 4
    assert [name for name in named if not (ROOT / "aemp_gevent" / name).exists()] == []
