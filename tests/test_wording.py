# SPDX-License-Identifier: MIT
"""Everything that is written for people is plain English: the worst habits stay out of it.

That is texts of the library, docstrings, comments, names of functions, ids of test cases, and pages.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parents[1]
LIBRARY = ("aemp_gevent", "aemp_command")  # users read their strings, too
FOLDERS = (*LIBRARY, "tests", "soak", "fuzz", "benchmarks", "examples", "tools", "docs")
SOURCES = sorted(path for folder in FOLDERS for path in (TOP / folder).rglob("*.py"))
PAGES = sorted(
    [
        *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(TOP / name for name in ("Makefile", "pyproject.toml", "setup.cfg", ".pre-commit-config.yaml", ".ci/run")),
        *(path for folder in FOLDERS for path in (TOP / folder).rglob("*.md")),
        *(path for folder in FOLDERS for path in (TOP / folder).rglob("*.sh")),
        *(TOP / ".github").rglob("*.md"),
    ]
)

EXCEPTIONS = {
    "CHANGELOG.md": "quotes what was corrected",
    "tests/test_wording.py": "lists the habits, with an example of each",
}


class Habit(NamedTuple):
    pattern: str
    better: str
    example: str


HABITS = (
    Habit(
        r"(?<!here )\b(?:is|are|was|were) (?:no|(?-i:none))\b(?! longer| more)",
        "is not a, cannot be a",
        "it is no node",
    ),
    Habit(r"\banew\b", "again", "it is read anew"),
    Habit(r"\blest\b", "so that … not", "closed, lest it leak"),
    Habit(r"\bshall\b", "must, will", "what shall be sent"),
    Habit(r"\bfor ever\b", "forever", "it waits for ever"),
    Habit(r"\bfor good\b", "permanently", "the node is gone for good"),
    Habit(r"\bwhence\b|\bhenceforth\b", "from which, from now on", "the address whence it came"),
    Habit(r"\bstead\b|\bnought\b|\bto and fro\b", "instead of it, nothing, back and forth", "it runs in its stead"),
    Habit(r"\bso long as\b", "while, as long as", "so long as it runs"),
    Habit(r"\bwho may\b|\b(?:to|for|of|by|from|with) who\b(?!m)", "name the subject", "it goes to who asked"),
    Habit(r"\bwhoever\b", "name the subject", "run by whoever called it"),
    Habit(r"^(?:##+|# ---) (?:who|whose)\b", "a noun: Access, The current port", "## Who gets in"),
    Habit(r"\banother one\?", "a different …?", "is its secret another one?"),
    Habit(r"\bhangs on\b|\bbecomes of\b|\bbrought about\b", "depends on, happens to, caused", "what becomes of it"),
    Habit(r"\btold off\b|\b(?:is|are) told\b", "is notified, is informed", "the port is told the end"),
    Habit(r"\bwhat (?:\w+ ){1,2}(?:said|tells?|told)\b", "the text, the report", "what the peer told"),
    Habit(r"\bby way of\b|\bdoes without\b", "through, does not need", "sent by way of the master"),
    Habit(r"\bgo(?:es)? on\b", "continue, keep running", "everybody else goes on"),
    Habit(r"\bhis\b", "its: nodes and peers are things", "up on his side"),
    Habit(r"\breview found\b", "the subject of the tests", "# --- what a review found"),
)
BAD = re.compile("|".join(habit.pattern for habit in HABITS), re.MULTILINE | re.IGNORECASE)
# Docstrings begin with what is done: "Add a port to a group", "Change the key".
ODD_BEGINNING = re.compile(r'^ *"""(?:Let|Have|Be|Do no|Tell|Hear|Who|Whose)\b.*', re.MULTILINE)


def faults(text: str) -> list[str]:
    """Return the bad habits in a text, also where they are broken by the end of a line or are parts of a name."""
    return [match[0] for match in BAD.finditer(re.sub(r" *\n *(?:# )?(?=\w)|[_-](?=\w)", " ", text))]


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield comments, as one text what stands on consecutive lines."""
    first, texts = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if texts and token.start[0] != first + len(texts):
                yield first, "\n".join(texts)
                texts = []
            first = first if texts else token.start[0]
            texts.append(token.string)
    if texts:
        yield first, "\n".join(texts)


def strings(source: str, with_all: bool) -> Iterator[tuple[int, str]]:
    """Yield docstrings, and what else stands alone as a string; or all strings."""
    for node in ast.walk(ast.parse(source)):
        if with_all or isinstance(node, ast.Expr):
            constant = node if with_all else node.value  # type: ignore[attr-defined]
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant.lineno, constant.value


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yield names of functions and classes, and ids of parametrized test cases."""
    for number, line in enumerate(source.splitlines(), 1):
        for found in re.finditer(r'\b(?:def|class) (\w+)|\bid="([^"]+)"', line):
            yield number, found[1] or found[2]


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    for found in re.finditer(r"(?:.+\n?)+", page):
        yield page.count("\n", 0, found.start()) + 1, found[0].strip()


@cache
def found_in(path: Path) -> list[str]:
    """Return the places of bad habits in a file."""
    source = path.read_text()
    # Most files are done with here: parsing all of them would take seconds.
    if not faults(source) or path.relative_to(TOP).as_posix() in EXCEPTIONS:
        return []
    if path.suffix == ".py":
        in_library = path.relative_to(TOP).parts[0] in LIBRARY
        texts = chain(strings(source, with_all=in_library), comments(source), names(source))
    else:
        texts = paragraphs(source)
    return [f"{path.relative_to(TOP)}:{number}: {fault}: {text}" for number, text in texts for fault in faults(text)]


@pytest.mark.slow
@pytest.mark.parametrize("paths", [SOURCES, PAGES], ids=["sources", "pages"])
def test_everything_is_plain_english(paths: list[Path]) -> None:
    """Texts, docstrings, comments, names and pages; docs pages are partly written from them."""
    assert len(paths) > 60
    assert [place for path in paths for place in found_in(path)] == []


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_needed(name: str) -> None:
    assert faults((TOP / name).read_text())


def test_docstrings_begin_with_a_verb_that_says_what_is_done() -> None:
    found = [f"{path.name}: {line}" for path in SOURCES for line in ODD_BEGINNING.findall(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "line", ["Let a port be in a group.", "Have another key.", "Be no more sure of anything.", "Who calls whom."]
)
def test_odd_beginnings_are_found(line: str) -> None:
    assert ODD_BEGINNING.search(f'def f():\n    """{line}"""')
    assert not ODD_BEGINNING.search(f'def f():\n    """Become a node. {line}"""')


@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.example)
def test_habits_are_found(habit: Habit) -> None:
    """Each only by its own pattern; and its better words are better."""
    others = "|".join(other.pattern for other in HABITS if other is not habit)
    assert faults(habit.example)
    assert not re.search(others, habit.example, re.MULTILINE | re.IGNORECASE)
    assert not faults(habit.better)


@pytest.mark.parametrize(
    "text",
    ["there is no port", "Here are no ports", "if there is none", "it is no longer up", "is not a level", "X is None"],
)
def test_plain_texts_are_not(text: str) -> None:
    assert not faults(text)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param('"""It is read\nanew."""', id="docstring"),
        pytest.param("x = 1  # it is read anew", id="comment"),
        pytest.param("x = 1\n# It is read for\n# ever.", id="comment-of-two-lines"),
        pytest.param("def test_it_is_read_anew(): pass", id="name"),
        pytest.param('pytest.param(1, id="read-anew")', id="test-case"),
    ],
)
def test_sources_are_read_where_people_read_them(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TOP", tmp_path)
    path = tmp_path / "tests" / "test_it.py"
    path.parent.mkdir()
    path.write_text(f"import pytest\n\n{source}\n")
    assert len(found_in(path)) == 1
    path.with_name("code.py").write_text("peer.send('x', anew)\n")
    assert found_in(path.with_name("code.py")) == []


@pytest.mark.parametrize(("folder", "count"), [("aemp_gevent", 1), ("tests", 0)])
def test_strings_of_the_library_are_read_as_well(
    folder: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TOP", tmp_path)
    path = tmp_path / folder / "code.py"
    path.parent.mkdir()
    path.write_text("raise ValueError('it is read anew')\n")
    assert len(found_in(path)) == count


def test_lines_of_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TOP", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nThe node is gone for\ngood.\n")
    assert found_in(page) == ["page.md:3: for good: The node is gone for\ngood."]
