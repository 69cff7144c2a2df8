# SPDX-License-Identifier: MIT
"""The outbox: packets that wait for a link, in their order, and answers that are not worth one."""

from __future__ import annotations

import pytest

from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.peers.outbox import Outbox, as_message, packets_in
from aemp_gevent.wire.limits import Limits

LIMITS = Limits(100, 10)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


def test_packets_come_out_in_the_order_in_which_they_were_put(outbox: Outbox) -> None:
    sizes = [outbox.put(["p", number], LIMITS) for number in range(3)]
    assert outbox.size == sum(sizes)
    taken = b"".join(outbox.take())
    assert list(packets_in(taken, with_calls=True)) == [["p", 0], ["p", 1], ["p", 2]]
    assert (outbox.size, outbox.packets) == (0, [])


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
    assert list(packets_in(outbox.packets[0], with_calls=True)) == [["p", "a message"]]
    assert not outbox.has_only_answers


def test_answers_are_forgotten_with_all_other_packets(outbox: Outbox) -> None:
    outbox.put(["", "answer"], LIMITS)
    outbox.mark_answers()
    outbox.clear()
    assert outbox.has_only_answers
    size = outbox.put(["p", 1], LIMITS)
    outbox.drop_answers()
    assert outbox.size == size


def test_other_programs_get_a_message_in_place_of_a_call(outbox: Outbox) -> None:
    outbox.put(["", "call", {"reply": "me#r"}, "p", "tag", 1], LIMITS)
    outbox.put(["p", "message"], LIMITS)
    found = list(packets_in(b"".join(outbox.take()), with_calls=False))
    assert found == [["p", "tag", 1, "me#r"], ["p", "message"]]
    assert as_message(["", "time", "me#r"]) == ["", "time", "me#r"]
