# SPDX-License-Identifier: MIT
"""What the dump understands, byte by byte, and that it carries all of it. What the program prints: ``tests/tools``."""

from __future__ import annotations

import ast
import contextlib

import gevent
import pytest
from gevent import socket

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.cli.wire_dump import Dump, Side
from aemp_gevent.wire.framing import FRAMINGS
from tests.support.helpers import wait_until
from tests.support.recordings import RECORDINGS

READABLE = [name for name in RECORDINGS if RECORDINGS[name].is_readable]


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", READABLE)
def test_recordings_are_understood_however_they_are_cut(name: str, size: int) -> None:
    recording = RECORDINGS[name]
    said: dict[str, list[str]] = {">": [], "<": []}
    sides = {way: Side(way, lambda way, text: said[way].append(text)) for way in said}
    sides[">"].opposite, sides["<"].opposite = sides["<"], sides[">"]
    streams = {">": recording.b.stream, "<": recording.a.stream}
    for start in range(0, max(map(len, streams.values())), size):
        for way, side in sides.items():
            side.feed(streams[way][start : start + size])
            sides["<" if way == ">" else ">"].feed(b"")
    for way, side, listed in ((">", recording.b, "b>a"), ("<", recording.a, "a>b")):
        assert said[way][0].startswith("greeting: aemp;")
        assert said[way][1].startswith("nonce: ")
        packets = [text.partition(" ")[2].removesuffix(" (keep-alive)") for text in said[way][3:]]
        assert [ast.literal_eval(packet) for packet in packets] == recording.listed(listed)
        assert all(text.partition(" ")[0] == side.framing for text in said[way][3:])


def test_packets_in_fragments_are_put_together() -> None:
    said: list[str] = []
    side, other = Side(">", lambda _way, text: said.append(text)), Side("<", lambda *_: None)
    side.opposite, other.opposite = other, side
    greeting = b"aemp;1;%s;hmac_sha3_512;msgpack;provider=aemp_gevent-0;fragments=1\nnonce\n"
    other.feed(greeting % b"b")
    encode = FRAMINGS["msgpack"].encoder()
    data = encode(["p", "in two"])
    pieces = b"".join(map(encode, ([None, data[:3]], ["q", "between"], [None, data[3:]], [None, b""])))
    side.feed(greeting % b"a" + b"hmac_sha3_512;0;msgpack\n" + pieces)
    assert [text.removeprefix("msgpack ") for text in said[3:]] == [
        "(fragment of 3 bytes)",
        "['q', 'between']",
        f"(fragment of {len(data) - 3} bytes) which completes ['p', 'in two']",
        "(the peer sent an empty fragment; forwarding without decoding)",
    ]


def test_both_directions_are_carried_to_their_ends() -> None:
    lines: list[str] = []
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        target = Endpoint("127.0.0.1", listener.getsockname()[1])
        dump = Dump(target, Endpoint("127.0.0.1", 0), lines.append)
        serving = gevent.spawn(dump.serve, 1)
        with contextlib.closing(socket.create_connection((dump.endpoint.host, dump.endpoint.port))) as near:
            far = listener.accept()[0]
            with contextlib.closing(far):
                near.sendall(b"GET / HTTP/1.0\n\n")
                far.sendall(b"x" * 10_000)
                for sock in (near, far):
                    sock.shutdown(socket.SHUT_WR)
                for sock, wanted in ((far, 16), (near, 10_000)):
                    got = b""
                    while data := sock.recv(65536):
                        got += data
                    assert len(got) == wanted
        serving.get(timeout=10)
    wait_until(lambda: "connection over" in lines[-1], show=lambda: lines)
    assert any("does not speak aemp" in line for line in lines)
    assert any("is not a greeting" in line for line in lines)
    assert sum("closed by this side" in line for line in lines) == 2


def test_target_that_is_not_there_is_said() -> None:
    lines: list[str] = []
    dump = Dump(Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 0), lines.append)
    serving = gevent.spawn(dump.serve, 1)
    with contextlib.closing(socket.create_connection((dump.endpoint.host, dump.endpoint.port))) as near:
        assert near.recv(1) == b""
    serving.get(timeout=10)
    assert "cannot reach 127.0.0.1:1" in lines[-1]
