# SPDX-License-Identifier: MIT
"""The tables of the page on framings are correct."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "framings.md").read_text()
NAMES = {"IntEnum": IntEnum, "OrderedDict": OrderedDict, "datetime": datetime, "float": float}
REFUSED = "*refused*"


def rows(table: str) -> Iterator[list[str]]:
    """The cells of each row of a table of the page."""
    _, _, rest = PAGE.partition(f"test_framings.py: {table} -->\n\n")
    body, _, _ = rest.partition("\n\n")
    _, _, *lines = body.splitlines()
    for line in lines:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def literals(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def value_of(literal: str) -> Any:
    return eval(literal, {**NAMES, "__builtins__": {"bytearray": bytearray, "memoryview": memoryview}})


def read(framing: str, data: bytes, *, from_perl: bool) -> Any:
    decoder = (FRAMINGS[framing].foreign_decoder if from_perl else FRAMINGS[framing].decoder)(Limits(10**6))
    decoder.feed(data)
    ((_, value),) = decoder
    return value


VALUES = [
    pytest.param(framing, sent, arrives, id=f"{framing}-{sent}")
    for row in rows("the values table")
    for framing, cell in zip(("msgpack", "cbor", "json"), row[1:], strict=True)
    for sent, arrives in zip(
        literals(row[0]), [REFUSED] * len(literals(row[0])) if cell == REFUSED else literals(cell), strict=True
    )
]

PERL = [
    pytest.param(framing, wire, arrives, id=f"{framing}-{row[0]}")
    for row in rows("the Perl table")
    for framing, (wire, arrives) in (("cbor", row[1:3]), ("json", row[3:5]))
]


def test_the_page_lists_the_framings_in_the_order_in_which_they_are_offered() -> None:
    listed = [row for row in re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE) if row in FRAMINGS]
    assert listed == list(FRAMINGS)


@pytest.mark.parametrize(("framing", "sent", "arrives"), VALUES)
def test_a_value_arrives_as_the_page_says(framing: str, sent: str, arrives: str) -> None:
    encode = FRAMINGS[framing].encoder()
    if arrives == REFUSED:
        with pytest.raises(UnencodableMessageError, match="element 0"):
            encode(["p", value_of(sent)])
    else:
        # repr, because NaN is not equal to itself, and 1.0 is equal to 1.
        assert repr(read(framing, encode(["p", value_of(sent)]), from_perl=False)) == repr(value_of(arrives))


@pytest.mark.parametrize(("framing", "wire", "arrives"), PERL)
def test_what_perl_sends_arrives_as_the_page_says(framing: str, wire: str, arrives: str) -> None:
    (wire,), (arrives,) = literals(wire), literals(arrives)
    data = b"\x82\x41p" + bytes.fromhex(wire) if framing == "cbor" else f'["p",{wire}]'.encode()
    assert repr(read(framing, data, from_perl=True)) == repr(value_of(arrives))


def test_the_tables_are_found() -> None:
    assert len(VALUES) > 70
    assert len(PERL) > 20
