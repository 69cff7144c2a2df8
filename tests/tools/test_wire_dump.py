# SPDX-License-Identifier: MIT
"""The dump tool: what it prints about nodes that are linked through it."""

from __future__ import annotations

import ast
import contextlib
import functools
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket

from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawListener, free_address, line_of, process
from tests.support.recordings import RECORDINGS
from tests.support.replay import StageOfA, StageOfB
from tests.test_replay import endpoint_of

PROGRAM = "import sys; from tools.wire_dump import main; sys.stderr = sys.stdout; main()"
SECRET = "the secret of the dumped"

LINE = re.compile(r" *\d+\.\d{3} #(\d+) ([<>-]) (.*)")


@contextlib.contextmanager
def dump(target: tuple[str, int]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a dump of one connection with a target, and the address to dial."""
    with process(PROGRAM, "{}:{}".format(*target), "--connections", "1") as child:
        first = line_of(child)
        assert first.startswith("dial 127.0.0.1:")
        yield child, first.split()[1]


def lines_of(child: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """Return the direction and the text of each line, up to the end."""
    found = []
    while not found or found[-1][1] != "connection over":
        match = LINE.fullmatch(line_of(child))
        assert match is not None
        found.append((match[2], match[3]))
    return found


def packets(lines: list[tuple[str, str]], framing: str) -> list[tuple[str, list[Any]]]:
    found = []
    for direction, text in lines:
        word, _, packet = text.partition(" ")
        if word == framing:
            found.append((direction, ast.literal_eval(packet.removesuffix(" (keep-alive)"))))
    return found


def vocabulary(sent: list[tuple[str, list[Any]]]) -> set[tuple[str, str, int]]:
    """Return each request with its direction and how many arguments it has had, at least."""
    return {(direction, packet[1], min(len(packet), 3)) for direction, packet in sent if packet[:1] == [""]}


@pytest.mark.slow
def test_what_our_nodes_say_has_the_vocabulary_of_the_recordings(make_node: MakeNode) -> None:
    recording = RECORDINGS["aemp202_json_find"]  # the one with most words
    a, b = make_node(None), make_node(None)
    a.configure(nodeid="a", binds=["127.0.0.1:0"], secret=SECRET)
    with dump(endpoint_of(a)) as (child, address):
        b.configure(nodeid="b", binds=[], secret=SECRET, seeds=[address])
        answering, asking = StageOfA(a, recording), StageOfB(b, recording)
        wait_until(lambda: a.node_is_up("b") and b.node_is_up("a"), within=WAIT)
        with answering.marked():
            for sent in recording.exchange():
                if sent.sender == "b":
                    asking.perform(sent.packet)
                    # The answers are compared elsewhere. What matters here is that it was handled before what follows.
                    assert b.syncal(10, a.NODE(), "time")
        # Our nodes watch what they spawn to its end, and a unique name for a while; so the recorded mon0 is not sent.
        a.reg(a.port(), "named")
        b.mon("a#named", lambda *reason: None).cancel()
        assert b.syncal(10, a.NODE(), "time")
        b.shutdown(1)
        lines = lines_of(child)
        assert answering.node is a

    recorded = [(">" if sent.sender == "b" else "<", sent.packet) for sent in recording.exchange()]
    dumped = packets(lines, "msgpack")
    # Between our nodes there is one word more, and they need none to make each other global. Beats fill silences, which
    # are long enough for them on a busy machine only.
    more = {(">", "bye", 2), *((direction, "beats", 3) for direction in "<>")}
    assert vocabulary(dumped) - more == vocabulary(recorded) - {(">", "g_slave", 2)}
    assert {(direction, packet[0]) for direction, packet in recorded if packet[0]} <= {
        (direction, packet[0]) for direction, packet in dumped
    }


@pytest.mark.slow
def test_the_handshake_is_shown_without_its_secrets(make_node: MakeNode) -> None:
    a, b = make_node(None), make_node(None)
    a.configure(nodeid="a", binds=["127.0.0.1:0"], secret=SECRET)
    with dump(endpoint_of(a)) as (child, address):
        b.configure(nodeid="b", binds=[], secret=SECRET, seeds=[address])
        wait_until(lambda: b.node_is_up("a"), within=WAIT)
        b.shutdown(1)
        lines = lines_of(child)
    for direction, node in ((">", "b"), ("<", "a")):
        said = [text for way, text in lines if way == direction]
        assert said[0].startswith(f"greeting: aemp;1;{node};hmac_sha3_512;msgpack,")
        assert said[1].startswith("nonce: ")
        assert said[2] == "auth: hmac_sha3_512;<128 characters>;msgpack"
        assert said[-1].startswith(("(connection lost", "(closed by this side"))
    assert SECRET not in repr(lines)


def dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.connect((host, int(port)))
    sock.settimeout(WAIT)
    return sock


def say_through(dumped: bytes, answer: bytes) -> list[tuple[str, str]]:
    """Return what the tool prints when these bytes and this answer pass through it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(RawListener())
        child, address = stack.enter_context(dump(listener.sock.getsockname()))
        near = stack.enter_context(contextlib.closing(dial(address)))
        far = stack.enter_context(contextlib.closing(listener.sock.accept()[0]))
        near.sendall(dumped)
        far.sendall(answer)
        for sock in (near, far):
            sock.shutdown(socket.SHUT_WR)
        got = [b"".join(iter(functools.partial(sock.recv, 65536), b"")) for sock in (far, near)]
        # Whatever it understands of it, it passes on all of it.
        assert got == [dumped, answer]
        return lines_of(child)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_are_decoded(name: str) -> None:
    recording = RECORDINGS[name]
    lines = say_through(recording.b.stream, recording.a.stream)
    if recording.is_readable:
        for direction, side, listed in ((">", recording.b, "b>a"), ("<", recording.a, "a>b")):
            shown = [packet for way, packet in packets(lines, side.framing) if way == direction]
            assert shown == recording.listed(listed)
    else:
        for direction in "><":
            assert (
                direction,
                "(the rest is encrypted (TLS); forwarding without decoding)",
            ) in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param(b"GET / HTTP/1.0\n\n", "does not speak aemp", id="no-greeting"),
        pytest.param(b"x" * 10_000, "not a greeting", id="no-line"),
        pytest.param(b"aemp;1;b;x;json\nN\ncleartext;7365637265;json\n[1,]", "not JSON", id="broken"),
        pytest.param(
            b"aemp;1;b;x;json\nN\ncleartext;7365637265;storable\n...", "cannot be decoded", id="unknown-framing"
        ),
        pytest.param(b"aemp;1;b;x;json\nN\x1b[2J\n", "N\\x1b[2J", id="escape-sequence"),
    ],
)
def test_what_it_does_not_understand_is_said_and_passes_on(said: bytes, shown: str) -> None:
    lines = say_through(said, b"aemp;1;a;x;json\nM\n")
    assert any(shown in text for direction, text in lines if direction == ">"), lines
    # With cleartext the token is the secret.
    assert "7365637265" not in repr(lines)
    assert "\x1b" not in "".join(text for _, text in lines)


@pytest.mark.slow
def test_target_that_cannot_be_reached_is_named() -> None:
    host, port = free_address().split(":")
    with dump((host, int(port))) as (child, address):
        with contextlib.closing(dial(address)) as near:
            assert near.recv(10) == b""
        assert "connection from" in line_of(child)
        assert f"cannot reach {host}:{port}" in line_of(child)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "text"),
    [
        pytest.param(["127.0.0.1:1", "--listen", "192.0.2.1:1"], "cannot listen at 192.0.2.1:1", id="not-ours"),
        pytest.param(["host:http"], "'http' is not a port number", id="no-port"),
        pytest.param(["unix:/x"], "give host:port", id="unix"),
    ],
)
def test_mistakes_are_named_in_a_line(args: list[str], text: str) -> None:
    with process(PROGRAM, *args) as child:
        said, _ = child.communicate(timeout=WAIT)
    assert child.returncode == 2
    assert text in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_port_alone_is_one_of_this_host() -> None:
    with process(PROGRAM, "4040", "--listen", "0") as child:
        assert re.fullmatch(r"dial 127\.0\.0\.1:\d+ instead of 127\.0\.0\.1:4040", line_of(child))
