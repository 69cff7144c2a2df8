# SPDX-License-Identifier: MIT
"""The recordings of two real Perl nodes, taken apart."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits

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
    def framing(self) -> str:
        """The framing of its packets."""
        return self.auth_line.split(b";")[2].decode()

    @property
    def packets(self) -> bytes:
        return self.rest.split(b"\n", 1)[1]

    @property
    def stream(self) -> bytes:
        return b"\n".join((self.line, self.nonce, self.rest))


@dataclass(frozen=True)
class Sent:
    """One packet of a recording."""

    sender: str
    packet: list[Any]
    raw: bytes


@dataclass(frozen=True)
class Recording:
    name: str
    secret: bytes
    a: Side
    b: Side
    echo: str
    """The port of a that answers."""
    chunks: tuple[tuple[str, bytes], ...]
    """The packets and their senders, in the order in which they were seen."""

    @property
    def is_readable(self) -> bool:
        """Whether more than the greetings can be read: it is not behind TLS."""
        return "tls" not in self.name

    @property
    def is_global(self) -> bool:
        """Whether b, too, is a global node."""
        return self.name.endswith("b_is_global")

    def listed(self, direction: str) -> list[list[object]]:
        """The packets of one direction as the .txt beside the recording has them."""
        found = []
        for row in (VECTORS / f"{self.name}.txt").read_text().splitlines():
            parts = row.split(None, 2)
            if len(parts) == 3 and parts[1] == direction and parts[2].startswith("["):
                text, is_cbor, _ = parts[2].partition("    <")
                found.append(_as_text(ast.literal_eval(text)) if is_cbor else json.loads(text))
        return found

    def exchange(self) -> Iterator[Sent]:
        """Every packet of both sides, in order; none that is behind TLS."""
        if not self.is_readable:
            return
        sides = {"a": self.a, "b": self.b}
        decoders = {node: FRAMINGS[side.framing].foreign_decoder(Limits(2**20)) for node, side in sides.items()}
        skip = {node: len(side.stream) - len(side.packets) for node, side in sides.items()}
        raw = {"a": b"", "b": b""}
        for node, data in self.chunks:
            skipped, skip[node] = min(skip[node], len(data)), max(0, skip[node] - len(data))
            for byte in data[skipped:]:
                raw[node] += bytes([byte])
                decoders[node].feed(bytes([byte]))
                for packet in decoders[node]:
                    yield Sent(node, packet, raw[node])
                    raw[node] = b""


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
    chunks = tuple((chunk["dir"][0], bytes.fromhex(chunk["hex"])) for chunk in raw["chunks"])
    return Recording(path.stem, raw["secret"].encode(), **sides, echo=raw["nodes"]["a"]["echo_port"], chunks=chunks)


RECORDINGS = {path.stem: _load(path) for path in sorted(VECTORS.glob("*.json"))}
