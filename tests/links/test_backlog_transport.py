# SPDX-License-Identifier: MIT
"""How what waits is handed to the connection: a fragment at a time, and not too rarely."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.links.backlog_transport import AHEAD_BYTES, BacklogTransport
from aemp_gevent.transport.transport import Sink
from aemp_gevent.wire.fragments import FRAGMENT_BYTES

LARGE = bytes(10 * FRAGMENT_BYTES)


class Inner:
    """A connection that sends as much as a test says."""

    peer_address = "127.0.0.1:9"
    round_trip = 0.5

    def __init__(self) -> None:
        self.buffered = self.sent = self.sent_writes = 0
        self.written: list[bytes] = []
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.buffered += len(data)
        self.sent_writes += 1

    def send(self, size: int) -> None:
        self.buffered -= size
        self.sent += size

    def start(self, sink: Sink) -> None:
        self.calls.append(("start", sink))

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def finish(self) -> None:
        self.calls.append("finish")

    def close(self, last_words: bytes = b"") -> None:
        self.calls.append(("close", last_words))

    def abort(self) -> None:
        self.calls.append("abort")

    def abandon(self, *, watching: bool) -> None:
        self.calls.append(("abandon", watching))


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def transport(inner: Inner) -> BacklogTransport:
    transport = BacklogTransport(inner)
    transport.backlog.put("p", LARGE)
    return transport


def test_next_fragment_is_handed_over_when_the_one_before_has_left(inner: Inner, transport: BacklogTransport) -> None:
    promised = transport.buffered
    assert transport.feed() == 1
    assert transport.feed() == 0
    assert len(inner.written) == 1
    for count in range(2, 10):
        inner.send(inner.buffered)
        assert transport.feed() == 1
        assert len(inner.written) == count
        assert transport.sent + transport.buffered == promised
    inner.send(inner.buffered)
    assert transport.feed() == 0, "the last one completes the packet"
    assert len(inner.written) == 10
    assert not transport.backlog.packets


def test_what_passes_gets_half_of_the_line(inner: Inner, transport: BacklogTransport) -> None:
    """Though there is always more of it than a fragment would wait for."""
    transport.feed()
    for _ in range(9):
        assert transport.backlog.packets
        transport.write(bytes(AHEAD_BYTES))
        transport.write(bytes(AHEAD_BYTES))
        inner.send(AHEAD_BYTES)
        transport.feed()
    assert not transport.backlog.packets


def test_packets_that_waited_leave_whole_behind_it(inner: Inner, transport: BacklogTransport) -> None:
    transport.backlog.put("p", b"one")
    transport.backlog.put(None, b"two")
    while transport.backlog.packets:
        transport.feed()
        inner.send(inner.buffered)
    assert inner.written[10:] == [b"one", b"two"]


@pytest.mark.parametrize("end", ["close", "abort", "abandon"])
def test_nothing_is_left_at_the_end(inner: Inner, transport: BacklogTransport, end: str) -> None:
    transport.feed()
    options = {"watching": True} if end == "abandon" else {}
    getattr(transport, end)(**options)
    assert not transport.backlog.packets
    assert transport.buffered == inner.buffered
    assert inner.calls == [{"close": ("close", b""), "abort": "abort", "abandon": ("abandon", True)}[end]]


def test_finishing_waits_for_what_is_left(inner: Inner, transport: BacklogTransport) -> None:
    transport.finish()
    assert transport.is_finishing
    assert inner.calls == []


def test_all_else_is_the_connections(inner: Inner, transport: BacklogTransport) -> None:
    transport.pause()
    transport.resume()
    assert inner.calls == ["pause", "resume"]
    assert (transport.peer_address, transport.round_trip) == ("127.0.0.1:9", 0.5)
    assert transport.sent_writes == 0
