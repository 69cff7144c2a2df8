# SPDX-License-Identifier: MIT
"""The outbox: packets that wait for a link, in their order, and answers that are not worth one."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.outbox import Outbox, packets_in
from aemp_gevent.wire.limits import Limits

LIMITS = Limits(100, 10)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


def test_packets_come_out_in_the_order_in_which_they_were_put(outbox: Outbox) -> None:
    sizes = [outbox.put(["p", number], LIMITS) for number in range(3)]
    assert outbox.size == sum(sizes)
    taken = b"".join(outbox.take())
    assert list(packets_in(taken, with_calls=True, with_traces=True)) == [["p", 0], ["p", 1], ["p", 2]]
    assert (outbox.size, outbox.packets) == (0, [])


def test_a_large_packet_takes_only_its_own_memory(outbox: Outbox) -> None:
    text = "x" * 1_000_000
    tracemalloc.start()
    try:
        outbox.put(["p", text], Limits(2**26))
        assert len(text) < tracemalloc.get_traced_memory()[0] < len(text) + 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("packet", "error"), [(["p", "x" * 200], MessageTooLargeError), (["p", object()], UnencodableMessageError)]
)
def test_a_packet_that_is_refused_leaves_nothing_behind(
    outbox: Outbox, packet: list[object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        outbox.put(packet, LIMITS)
    assert (outbox.size, outbox.packets) == (0, [])


def test_only_the_answers_are_dropped(outbox: Outbox) -> None:
    outbox.put(["", "answer"], LIMITS)
    outbox.mark_answers()
    assert outbox.has_only_answers
    size = outbox.put(["p", "a message"], LIMITS)
    assert not outbox.has_only_answers
    outbox.drop_answers()
    assert outbox.size == size
    assert list(packets_in(outbox.packets[0], with_calls=True, with_traces=True)) == [["p", "a message"]]
    assert not outbox.has_only_answers


def test_answers_are_forgotten_with_all_other_packets(outbox: Outbox) -> None:
    outbox.put(["", "answer"], LIMITS)
    outbox.mark_answers()
    outbox.clear()
    assert outbox.has_only_answers
    size = outbox.put(["p", 1], LIMITS)
    outbox.drop_answers()
    assert outbox.size == size


TRACE = {"traceparent": "00"}
SPAWN_REQUEST = ["", "AnyEvent::MP::_spawn", "p", "f", 1]
TRACED_SPAWN = ["", "AnyEvent::MP::_spawn", "p", {"f": TRACE}, 1]
CALL_REQUEST = ["", "call", {"reply": "me#r", **TRACE}, "p", "tag", 1]


@pytest.mark.parametrize(
    ("kept", "with_calls", "with_traces", "sent"),
    [
        pytest.param(CALL_REQUEST, False, False, ["p", "tag", 1, "me#r"], id="call-to-another-program"),
        pytest.param(CALL_REQUEST, True, False, CALL_REQUEST, id="call-to-an-older-node"),
        pytest.param(["", "call", TRACE, "p", "tag"], True, True, ["", "call", TRACE, "p", "tag"], id="traced"),
        pytest.param(["", "call", TRACE, "p", "tag"], True, False, ["p", "tag"], id="traced-to-an-older-node"),
        pytest.param(["", "call", TRACE, "p", "tag"], False, False, ["p", "tag"], id="traced-to-another-program"),
        pytest.param(TRACED_SPAWN, True, True, TRACED_SPAWN, id="spawn"),
        pytest.param(TRACED_SPAWN, True, False, SPAWN_REQUEST, id="spawn-to-an-older-node"),
        pytest.param(SPAWN_REQUEST, False, False, SPAWN_REQUEST, id="spawn-without-a-trace"),
        pytest.param(["p", "message"], False, False, ["p", "message"], id="message"),
        pytest.param(["", "time", "me#r"], False, False, ["", "time", "me#r"], id="request"),
        pytest.param(["", "call"], False, False, ["", "call"], id="call-cut-off"),
        pytest.param(["", "call", 7, "p"], False, False, ["", "call", 7, "p"], id="call-without-a-header"),
        pytest.param(SPAWN_REQUEST[:2], False, False, SPAWN_REQUEST[:2], id="spawn-cut-off"),
    ],
)
def test_what_a_peer_cannot_read_is_left_out_of_what_was_kept(
    outbox: Outbox, kept: list[Any], with_calls: bool, with_traces: bool, sent: list[Any]
) -> None:
    outbox.put(kept, LIMITS)
    data = b"".join(outbox.take())
    assert list(packets_in(data, with_calls=with_calls, with_traces=with_traces)) == [sent]
