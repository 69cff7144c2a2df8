# SPDX-License-Identifier: MIT
"""Schemas of servers, and whether a new version of a class can be used by nodes with the old one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest

from aemp_gevent.otp import Server, assert_compatible, call, cast, schema
from tests.otp.carts import Cart

msgspec = pytest.importorskip("msgspec")


@dataclass
class Node:
    """A type that has itself inside."""

    value: int
    inner: list[Node] = field(default_factory=list)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Shade(Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


def server(kind: Any = int, result: Any = int, *, default: bool = False) -> type[Server]:
    """A class with one method, of these types."""

    def ask(self, thing=None):
        return thing

    if not default:

        def ask(self, thing):
            return thing

    ask.__annotations__ = {"thing": kind, "return": result}
    return type("Shop", (Server,), {"ask": call(ask)})


def compare(tmp_path: Path, old: type[Server], new: type[Server]) -> str:
    """Return what is incompatible."""
    former = tmp_path / "former.json"
    former.write_text(schema(old))
    try:
        assert_compatible(new, former)
    except AssertionError as error:
        return str(error).partition(":\n")[2]
    return ""


def test_a_schema_has_the_methods_with_their_arguments_and_results():
    found = json.loads(schema(Cart))
    assert found["server"] == "Cart"
    assert found["methods"]["add"] == {
        "kind": "call",
        "parameters": [
            {"name": "item", "required": True, "schema": {"type": "string"}},
            {"name": "count", "required": False, "schema": {"type": "integer"}},
        ],
        "result": {"type": "integer"},
    }
    assert found["methods"]["forget"]["kind"] == "cast"
    assert found["methods"]["add_all"]["more"] == {"type": "string"}
    assert found["methods"]["price"]["result"] == {"type": "integer"}
    assert schema(Cart) == schema(Cart)


def test_a_class_is_compatible_with_itself(tmp_path):
    assert compare(tmp_path, Cart, Cart) == ""
    for kind in (Node, Colour, tuple[int, str], dict[str, list[int]], Cart, Any, int | None):
        assert compare(tmp_path, server(kind, kind), server(kind, kind)) == ""


def fields(**kinds: Any) -> Any:
    """A dataclass; a kind in a tuple has a default."""
    return make_dataclass(
        "Thing",
        [
            (name, kind[0], field(default=None)) if isinstance(kind, tuple) else (name, kind)
            for name, kind in kinds.items()
        ],
        kw_only=True,
    )


GT0, GT5 = Annotated[int, msgspec.Meta(gt=0)], Annotated[int, msgspec.Meta(gt=5)]

ALSO_COMPATIBLE = [(fields(a=int), fields(a=int, b=(int,)))]
"""Fields that are not known are ignored."""

GE0, GE6 = Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=6)]
SHORT, LONG = Annotated[str, msgspec.Meta(max_length=3)], Annotated[str, msgspec.Meta(max_length=6)]


class Pair(NamedTuple):
    one: int
    two: int


class Triple(NamedTuple):
    one: int
    two: int
    three: int = 0


class Rows(msgspec.Struct, array_like=True):
    one: int


class MoreRows(msgspec.Struct, array_like=True):
    one: int
    two: int = 0


ALSO_COMPATIBLE.append((Rows, MoreRows))

WIDER = [
    (GT5, GE0),
    (GE6, GT0),
    (Literal[5], GE0),
    (Literal["abc"], SHORT),
    (SHORT, LONG),
    (Literal["a", None], str | None),  # noqa: PYI061
    (Literal[1, "a", None], int | str | None),  # noqa: PYI061
    (Annotated[int, msgspec.Meta(multiple_of=4)], Annotated[int, msgspec.Meta(multiple_of=2)]),
    (Literal[4], Annotated[int, msgspec.Meta(multiple_of=2)]),
    (float, Decimal),
    (datetime, str),
    (dict[Colour, int], dict[str, int]),
    (dict[int, int], dict[float, int]),
    (Pair, Triple),
    (Pair, list[int]),
    (int, float),
    (int, int | None),
    (int, Any),
    (int, int | str),
    (int | None, int | None | str),
    (Colour, Shade),
    (Colour, str),
    (Literal["a"], Literal["a", "b"]),
    (list[int], list[float]),
    (tuple[int, int], list[int]),
    (dict[str, int], dict[str, float]),
    (GT5, GT0),
    (GT0, int),
    (fields(a=int), fields(a=float)),
    *ALSO_COMPATIBLE,
    (fields(a=int, b=int), fields(a=int)),
    (fields(a=int), fields(a=(int,))),
    (Node, Any),
    (Cart, Any),
]


@pytest.mark.parametrize(("narrow", "wide"), WIDER, ids=str)
def test_arguments_may_become_wider_and_results_narrower_and_not_the_other_way(tmp_path, narrow, wide):
    assert compare(tmp_path, server(narrow), server(wide)) == ""
    if (narrow, wide) not in ALSO_COMPATIBLE:
        assert "ask: the argument 'thing' is narrower: " in compare(tmp_path, server(wide), server(narrow))
    assert compare(tmp_path, server(int, wide), server(int, narrow)) == ""


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (float, int, '{"type": "number"} is not {"type": "integer"}'),
        (str, Colour, '{"type": "string"} is more than {"enum": ["blue", "red"]}'),
        (Shade, Colour, "'green' is not in"),
        (list[float], list[int], '{"type": "number"} is not {"type": "integer"}'),
        (list[int], tuple[int, int], "minItems is 2"),
        (fields(a=int), fields(a=int, b=int), "the field 'b' is required"),
        (fields(a=float), fields(a=int), "the field 'a': "),
        (int, GT0, "exclusiveMinimum is 0"),
        (GT0, GT5, "exclusiveMinimum is 5, and was 0"),
        (int | None, int, '{"type": "null"} is not {"type": "integer"}'),
        (Any, int, '{} is not {"type": "integer"}'),
        (str, Cart, "format is 'port'"),
        (str, datetime, "format is 'date-time'"),
        (str, time, "format is 'time'"),
        (GE0, GT0, "exclusiveMinimum is 0"),
        (Triple, Pair, "maxItems is 2, and was 3"),
    ],
    ids=str,
)
def test_what_becomes_narrower_is_named(tmp_path, old, new, text):
    assert text in compare(tmp_path, server(old), server(new))
    assert compare(tmp_path, server(int, old), server(int, new)) == ""
    assert f"ask: the result is wider: {text}" in compare(tmp_path, server(int, new), server(int, old))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (bytes, str, '"contentEncoding": "base64"} is not {"type": "string"}'),
        (str, bytes, '{"type": "string"} is not {"type": "string", "contentEncoding": "base64"}'),
        (dict[int, str], dict[str, str], 'its keys: {"type": "integer"} is not {"type": "string"}'),
        (dict[str, str], dict[int, str], 'its keys: {"type": "string"} is not {"type": "integer"}'),
        (Literal[-5, 5], GE0, '-5 is not in {"type": "integer", "minimum": 0}'),
        (Literal["abcdef", "a"], SHORT, '\'abcdef\' is not in {"type": "string", "maxLength": 3}'),
        (Literal[True], Literal[1], 'True is not in {"enum": [1]}'),
        (Literal[3], Annotated[int, msgspec.Meta(multiple_of=2)], "3 is not in"),
    ],
    ids=str,
)
def test_what_becomes_another_is_named(tmp_path, old, new, text):
    assert text in compare(tmp_path, server(old), server(new))
    assert text in compare(tmp_path, server(int, new), server(int, old))


class Old(Server):
    @call
    def gone(self) -> None: ...

    @call
    def asked(self) -> None: ...

    @call
    def fewer(self, one: int, two: int) -> None: ...

    @call
    def more(self, one: int) -> None: ...

    @call
    def default(self, one: int = 1) -> None: ...

    @call
    def some(self, *rest: int) -> None: ...

    @call
    def narrower(self, *rest: int) -> None: ...

    @call
    def fine(self, one: int) -> int: ...


class New(Server):
    @cast
    def asked(self) -> None: ...

    @call
    def fewer(self, one: int) -> None: ...

    @call
    def more(self, one: int, two: int) -> None: ...

    @call
    def default(self, one: int) -> None: ...

    @call
    def some(self, one: int = 0) -> None: ...

    @call
    def narrower(self, first: str = "", *rest: str) -> None: ...

    @call
    def fine(self, renamed: float, two: int = 2, *rest: int) -> int: ...

    @call
    def new(self, thing: Node) -> Node: ...


def test_all_differences_that_matter_are_listed(tmp_path):
    assert compare(tmp_path, Old, New).splitlines() == [
        "- asked: was a call, and is a cast",
        "- default: the argument 'one' has no default any more",
        "- fewer: the argument 'two' was removed",
        "- gone: was removed",
        "- more: the new argument 'two' has no default",
        '- narrower: its further arguments are narrower: {"type": "integer"} is not {"type": "string"}',
        '- narrower: its further arguments are narrower: {"type": "integer"} is not {"type": "string"}',
        "- some: it does not take any number of arguments any more",
    ]


def test_types_that_have_themselves_inside_are_compared(tmp_path):
    text = schema(server(Node)).replace('"integer"', '"number"')
    former = tmp_path / "wider.json"
    former.write_text(text)
    with pytest.raises(AssertionError, match="the argument 'thing' is narrower: the field 'value'"):
        assert_compatible(server(Node), former)


@dataclass
class Chain:
    value: int
    after: Chain | None = None


@dataclass
class LongChain:
    value: float
    after: LongChain | None = None


@dataclass
class Branch:
    parts: list[Branch]
    parent: Branch | None = None


@pytest.mark.parametrize("kind", [Chain, Branch])
def test_optional_parts_may_be_of_the_type_itself(tmp_path, kind):
    assert compare(tmp_path, server(kind, kind), server(kind, kind)) == ""
    assert compare(tmp_path, server(Chain), server(LongChain)) == ""
    assert "the field 'value'" in compare(tmp_path, server(LongChain), server(Chain))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"methods": 5}'])
def test_a_file_without_a_schema_is_refused(tmp_path, text):
    former = tmp_path / "former.json"
    former.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{former} does not have what schema() returns")):
        assert_compatible(Cart, former)


def test_what_has_no_schema_is_refused():
    with pytest.raises(TypeError, match="takes a class of servers, not <class 'int'>"):
        schema(int)
    with pytest.raises(TypeError, match="cannot travel"):
        schema(server(Path))
