# SPDX-License-Identifier: MIT
"""Text of others is short, on one line and harmless; and nothing in the package shows it in another way."""

from __future__ import annotations

import ast
from collections import deque, namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aemp_gevent
from aemp_gevent.runtime.logs import traceback_of
from aemp_gevent.runtime.quoting import LIMIT, escaped, quoted, said, worded

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.characters(categories=["C"]),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)
Pair = namedtuple("Pair", "one two")


class Word(str):
    """A text of another class, as port IDs that know more are."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain text, and äöü", "plain text, and äöü", id="plain"),
        pytest.param("bye\nCRITICAL forged", r"bye\nCRITICAL forged", id="line-end"),
        pytest.param("\r\t\x00\x7f", r"\r\t\x00\x7f", id="controls"),
        pytest.param("\x1b[31m\x9b31m", r"\x1b[31m\x9b31m", id="terminal-escapes"),
        pytest.param("\u202eabc\u2066", r"\u202eabc\u2066", id="marks-of-direction"),
        pytest.param("\u2028\u2029\x85", r"\u2028\u2029\x85", id="line-separators"),
        pytest.param("\udcff \U000e0001", r"\udcff \U000e0001", id="surrogate-and-tag"),
        pytest.param("x" * 200, "x" * (LIMIT - 1) + "…", id="long"),
        pytest.param("\n" * 200, r"\n" * 59 + "\\…", id="long-when-escaped"),
    ],
)
def test_text_is_escaped_and_cut(text: str, shown: str) -> None:
    assert escaped(text) == worded(text) == shown


def test_line_ends_and_full_length_are_kept_on_request() -> None:
    assert escaped("a\nb\x1b" * 100, None, "\n") == "a\nb\\x1b" * 100


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "it's",
        b"bytes",
        7,
        True,
        None,
        1.5,
        (),
        (1,),
        (1, "b"),
        [],
        [1, [2]],
        {},
        {"a": {1: 2}},
        deque([1]),
        Pair(1, 2),
        Word("word"),
        range(3),
        len,
    ],
    ids=str,
)
def test_short_values_are_shown_as_python_does(value: object) -> None:
    assert quoted(value) == repr(value)
    assert worded(value) == (value if isinstance(value, str) else repr(value))


@given(VALUES, st.integers(1, 300))
def test_everything_is_shown_in_a_short_printable_line(value: object, limit: int) -> None:
    for shown in (quoted(value, limit), worded(value, limit)):
        assert shown.isprintable()
        assert len(shown) <= limit


class Counting:
    shown = 0

    def __repr__(self) -> str:
        Counting.shown += 1
        return "<counted>"


@pytest.mark.parametrize("container", [list, tuple, deque])
def test_only_the_shown_part_of_a_value_is_written(container: Any) -> None:
    Counting.shown = 0
    assert len(quoted(container(Counting() for _ in range(10_000)))) == LIMIT
    assert Counting.shown < 20


@pytest.mark.parametrize(
    "value", ["\x1b" * 10**7, b"\x00" * 10**7, bytearray(10**7), 1 << 10**8], ids=["str", "bytes", "bytearray", "int"]
)
def test_large_values_are_cut_before_they_are_written(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def counting_repr(shown: Any) -> str:
        written.append(len(shown))
        return repr(shown)

    monkeypatch.setattr("aemp_gevent.runtime.quoting.repr", counting_repr, raising=False)
    assert len(quoted([value])) <= LIMIT
    assert not written or max(written) <= LIMIT + 1


def test_recursive_and_deep_values_are_cut() -> None:
    itself: list[Any] = []
    itself.append(itself)
    assert quoted(itself) == "[[[[[[…]]]]]]"


def test_failing_repr_is_shown_as_such() -> None:
    class Awful:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    assert quoted([1, Awful()]) == "[1, <Awful object, whose repr() fails>]"


# --- nothing else shows values ----------------------------------------------------------------

PACKAGE = Path(aemp_gevent.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

WRITES_VALUES = {
    "runtime/quoting.py": "this is where it is done",
    "settings/directory_address.py": "a __repr__",
    "cli/output.py": "data, in full: what JSON cannot say",
    "cli/shell.py": "data, in full: the value of an expression, as Python's prompt shows it",
    "cli/supervisor.py": "a key to compare with, never shown",
    "cli/wire_dump.py": "data, in full: packets of other framings",
    "testing/processes.py": "the repr of an object of ours",
}


def writings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.FormattedValue) and node.conversion in (ord("r"), ord("a")):
            yield f"{line}: !r in an f-string"
        elif isinstance(node, ast.Name) and node.id in ("repr", "ascii"):
            yield f"{line}: {node.id}()"
        elif isinstance(node, ast.Import) and any(name.name in ("reprlib", "pprint") for name in node.names):
            yield f"{line}: {node.names[0].name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "%r" in node.value.split():
            yield f"{line}: %r"


@pytest.mark.no_cover
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_values_are_shown_by_this_module_alone(source: Path) -> None:
    found = list(writings(ast.parse(source.read_text())))
    if str(source.relative_to(PACKAGE)) in WRITES_VALUES:
        assert found, "it need not be listed any more"
    else:
        assert not found, "use quoted() or worded(): they cut before they write, and escape"


def test_that_test_sees_them() -> None:
    code = 'f"{x!r}"; repr(x); import reprlib; log("%r is odd", x)'
    assert len(list(writings(ast.parse(code)))) == 4


@pytest.mark.parametrize(
    ("error", "said_of_it"),
    [
        pytest.param(KeyError("k"), "'k'", id="short-key"),
        pytest.param(ValueError("x" * 9000), "x" * 9000, id="its-own-text"),
        pytest.param(ValueError("a", 1), "('a', 1)", id="several"),
        pytest.param(FileNotFoundError(2, "No such file", "f"), "[Errno 2] No such file: 'f'", id="file"),
        pytest.param(ValueError(), "", id="nothing"),
    ],
)
def test_text_of_exceptions_is_that_of_str(error: BaseException, said_of_it: str) -> None:
    assert said(error) == str(error) == said_of_it


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KeyError("\x00" * 1_000_000), id="key"),
        pytest.param(KeyError(("\x00" * 1_000_000, 1)), id="key-of-several"),
        pytest.param(ValueError("why", "\x00" * 1_000_000), id="several"),
        pytest.param(OSError(2, "No such file", "\x00" * 1_000_000), id="file"),
    ],
)
def test_exceptions_with_long_arguments_are_cut_before_these_are_written(error: BaseException) -> None:
    assert len(str(error)) > 1_000_000
    assert len(said(error)) == 4000
    try:
        raise error
    except (LookupError, ValueError, OSError) as raised:
        shown = traceback_of(raised)
    assert len(shown) < 5000
    assert f"raise error\n{type(error).__name__}: " in shown
