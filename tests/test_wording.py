# SPDX-License-Identifier: MIT
"""Errors, logs, help texts, docstrings and the documentation are plain English: the worst habits stay out of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SOURCES = sorted([*(TOP / "aemp_gevent").rglob("*.py"), *(TOP / "aemp_command").rglob("*.py")])
# Not CHANGELOG.md, which quotes what was corrected.
PAGES = [TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted([*(TOP / "docs").rglob("*.md"), *(TOP / ".github").rglob("*.md")])

BAD = re.compile(
    r"\bis no (?!longer\b|more\b)|\b(?:is|are) none\b|\banew\b|\blest\b|\bshall\b|\bfor ever\b|\bwho may\b"
    r"|\banother one\?|\b(?:to|for|of|by|from) who\b"
)
ODD_IMPERATIVE = re.compile(r"(?:Let|Have|Be)\b")
THERE = re.compile(r"\b[Tt]here (?:is|are) (?:no|none)\b")


def faults(text: str) -> list[str]:
    return BAD.findall(THERE.sub("", text))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a module's strings, docstrings among them, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from enumerate(node.value.splitlines(), node.lineno)


@pytest.mark.slow
def test_texts_that_users_read_are_plain_english() -> None:
    assert len(SOURCES) > 50
    found = [
        f"{path.name}:{line}: {text}" for path in SOURCES for line, text in texts(path.read_text()) if faults(text)
    ]
    assert found == []


def first_lines(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield (ast.get_docstring(node) or "").partition("\n")[0]


def test_docstrings_begin_with_a_verb_that_says_what_is_done() -> None:
    lines = [(path.name, line) for path in SOURCES for line in first_lines(path.read_text())]
    assert len(lines) > 1000
    assert [(name, line) for name, line in lines if ODD_IMPERATIVE.match(line)] == []


@pytest.mark.parametrize("line", ["Let a port be in a group.", "Have another key.", "Be no more sure of anything."])
def test_odd_imperatives_are_found(line: str) -> None:
    assert ODD_IMPERATIVE.match(line)
    assert not ODD_IMPERATIVE.match("Become a node.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_pages_are_plain_english(page: Path) -> None:
    """Some are written from docstrings and from the help texts of the command."""
    lines = enumerate(page.read_text().splitlines(), 1)
    assert [f"{number}: {line}" for number, line in lines if faults(line)] == []


@pytest.mark.parametrize(
    "text", [" is no level: ", "it is none of ours", "read anew", "is its secret another one?", "the port of who asks"]
)
def test_bad_habits_are_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize("text", ["there is no port", "if there is none", "it is no longer up", "is not a level"])
def test_plain_texts_are_not(text: str) -> None:
    assert not faults(text)
