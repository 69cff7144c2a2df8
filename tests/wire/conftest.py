# SPDX-License-Identifier: MIT
"""The recordings of two real Perl nodes, and ways to cut a stream of bytes."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True)
class Side:
    """What one node of a recording sent."""

    node: str
    line: bytes
    nonce: bytes
    rest: bytes

    @property
    def lines(self) -> tuple[bytes, bytes]:
        return self.line, self.nonce

    @property
    def auth_line(self) -> bytes:
        return self.rest.split(b"\n", 1)[0]

    @property
    def packets(self) -> bytes:
        return self.rest.split(b"\n", 1)[1]

    @property
    def stream(self) -> bytes:
        return b"\n".join((self.line, self.nonce, self.rest))


@dataclass(frozen=True)
class Recording:
    name: str
    secret: bytes
    a: Side
    b: Side

    def listed(self, direction: str) -> list[list[object]]:
        """The packets of one direction as the .txt beside the recording has them."""
        found = []
        for row in (VECTORS / f"{self.name}.txt").read_text().splitlines():
            parts = row.split(None, 2)
            if len(parts) == 3 and parts[1] == direction and parts[2].startswith("["):
                text, is_cbor, _ = parts[2].partition("    <")
                found.append(_as_text(ast.literal_eval(text)) if is_cbor else json.loads(text))
        return found


def _as_text(value: Any) -> Any:
    """Byte strings as what they mean in Perl."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [_as_text(element) for element in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(element) for key, element in value.items()}
    return value


def _load(path: Path) -> Recording:
    raw = json.loads(path.read_text())
    sides = {}
    for node, key in (("a", "a_to_b_hex"), ("b", "b_to_a_hex")):
        sides[node] = Side(node, *bytes.fromhex(raw[key]).split(b"\n", 2))
    return Recording(path.stem, raw["secret"].encode(), **sides)


RECORDINGS = {path.stem: _load(path) for path in sorted(VECTORS.glob("*.json"))}


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def in_sevens(data: bytes) -> Iterator[bytes]:
    for index in range(0, len(data), 7):
        yield data[index : index + 7]


@pytest.fixture(params=[whole, byte_by_byte, in_sevens])
def cut(request: pytest.FixtureRequest) -> Callable[[bytes], Iterator[bytes]]:
    """A way to cut a stream; tests with it run once for each."""
    way: Callable[[bytes], Iterator[bytes]] = request.param
    return way


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``recording``: all of them; ``plain_``: those without TLS; ``json_``, ``cbor_``: those in this framing."""
    plain = [name for name in RECORDINGS if "tls" not in name]
    for fixture, names in {
        "recording": list(RECORDINGS),
        "plain_recording": plain,
        "json_recording": [name for name in plain if "json" in name],
        "cbor_recording": [name for name in plain if "json" not in name],
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [pytest.param(RECORDINGS[name], id=name) for name in names])
