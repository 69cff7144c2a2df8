# SPDX-License-Identifier: MIT
"""Large packets in fragments: whatever is sent between them, each port's messages stay in order and whole."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.addresses.ids import is_unique_name
from aemp_gevent.errors import FramingError
from aemp_gevent.wire import fragments
from aemp_gevent.wire.fragments import (
    FRAGMENT_BYTES,
    WHOLE_BYTES,
    Assembler,
    Backlog,
    Order,
    WideOrder,
    goes_whole,
    head_of,
)
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.framing_msgpack import MsgpackDecoder
from aemp_gevent.wire.limits import UNCOUNTED_BYTES, Limits
from tests.support.networking import UNIQUE

encode = FRAMINGS["msgpack"].encoder()
LIMITS = Limits(2**20)

P, Q, R = (UNIQUE + digit for digit in "123")
"""Names of ports, which have no other names of this kind."""


def order_of(head: list[Any]) -> Order:
    return fragments.order_of(head, is_unique_name)


def fragment(data: bytes) -> list[Any]:
    """Return what comes behind the nil."""
    return [data]


def read(stream: bytes, limits: Limits = LIMITS) -> list[list[Any]]:
    """Return the packets of a stream, those in fragments put together."""
    assembler, decoder = Assembler(limits), FRAMINGS["msgpack"].decoder(limits)
    decoder.feed(stream)
    packets = [assembler.feed(packet[1:]) if packet[:1] == [None] else packet for packet in decoder]
    assert not assembler.unfinished
    return [packet for packet in packets if packet is not None]


# --- the order of packets -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "order"),
    [
        pytest.param([P, 1], P, id="message"),
        pytest.param(["name", 1], WideOrder.CHOSEN_NAME, id="message-to-a-name"),
        pytest.param(["", "kil1", "name"], WideOrder.CHOSEN_NAME, id="kil1-of-a-name"),
        pytest.param(["", "call", {"reply": "n#r"}, "name", "tag"], WideOrder.CHOSEN_NAME, id="call-of-a-name"),
        pytest.param(["", "mon1", P], WideOrder.AT_ONCE, id="mon1"),
        pytest.param(["", "mon0", P], WideOrder.AT_ONCE, id="mon0"),
        pytest.param(["", "kil1", P, "reason"], P, id="kil1"),
        pytest.param(["", "AnyEvent::MP::_spawn", P, "f"], WideOrder.AT_ONCE, id="spawn"),
        pytest.param(["", "call", {"reply": "n#r"}, P, "tag"], P, id="call"),
        pytest.param(["", "call", ["#r", None], P, "tag"], P, id="call-with-short-header"),
        pytest.param(["", "kil0", P, "reason"], WideOrder.BEHIND_ALL, id="kil0"),
        pytest.param(["", "bye"], WideOrder.BEHIND_ALL, id="bye"),
        pytest.param(["", "via", "a", "b", [P]], ("a", "b"), id="via"),
        pytest.param(["", "g_upd", "f", {}, []], "", id="directory"),
        pytest.param(["", "relay", "n#p", 1], "", id="relay"),
        pytest.param([""], "", id="nothing"),
        pytest.param([], "", id="heartbeat"),
        pytest.param(["", "kil1", [1]], "", id="no-name"),
        pytest.param(["", "kil1"], "", id="no-argument"),
        pytest.param(["", "call", {}], "", id="no-port"),
        pytest.param(["", "via", {}, "b", []], "", id="no-node"),
        pytest.param(["", ["x"], "b"], "", id="no-request"),
    ],
)
def test_packets_of_one_port_have_one_order(packet: list[Any], order: object) -> None:
    assert order_of(packet) == order
    assert order_of(head_of(encode(packet))) == order
    if packet:
        assert order_of(head_of(encode([*packet, bytes(200_000)]))) == order_of([*packet, b""])


def test_head_behind_a_long_header_is_found() -> None:
    packet = ["", "call", {"chain": ["n#" + "x" * 1000] * 100}, P, "tag"]
    assert order_of(head_of(encode(packet))) == P


def test_head_of_a_message_is_its_name_and_nothing_else_is_decoded() -> None:
    assert head_of(encode([P, bytes(200_000), [1, 2]])) == [P]


# --- the backlog ---------------------------------------------------------------------------------


def take(backlog: Backlog) -> tuple[bytes, bool]:
    """Return the next bytes, and whether these complete a packet."""
    written: list[bytes] = []
    is_last = backlog.take(written.append)
    [piece] = written
    return piece, is_last


def leave(backlog: Backlog) -> bytes:
    data = b""
    while backlog.packets:
        expected = backlog.size
        piece, _is_last = take(backlog)
        assert backlog.size == expected - len(piece)
        data += piece
    assert backlog.size == 0
    return data


@pytest.mark.parametrize("size", [WHOLE_BYTES + 1, 2 * FRAGMENT_BYTES - 1, 2 * FRAGMENT_BYTES, 2 * FRAGMENT_BYTES + 1])
def test_large_packet_leaves_in_fragments(size: int) -> None:
    packet = [P, bytes(size - len(encode([P, bytes(size)])) + size)]
    data = encode(packet)
    assert len(data) == size
    backlog = Backlog()
    backlog.put(P, data)
    promised = backlog.size
    pieces = []
    while backlog.packets:
        pieces.append(take(backlog))
    assert [is_last for _piece, is_last in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(len(piece) <= FRAGMENT_BYTES + 7 for piece, _is_last in pieces)
    assert FRAGMENT_BYTES + 7 < 65_483, "one is more than a TCP segment within a host holds"
    stream = b"".join(piece for piece, _is_last in pieces)
    assert len(stream) == promised
    assert read(stream) == [packet]


def test_packet_of_64_kib_and_its_name_leaves_whole() -> None:
    data = encode(["a name", "tag", bytes(64 * 1024)])
    backlog = Backlog()
    backlog.put("a name", data)
    assert take(backlog) == (data, True)


def test_what_waits_holds_up_its_own_order_and_no_other() -> None:
    backlog = Backlog()
    assert not backlog.holds_up(P)
    assert not backlog.holds_up(WideOrder.BEHIND_ALL)
    backlog.put(P, bytes(WHOLE_BYTES + 1))
    backlog.put(P, b"small")
    assert backlog.holds_up(P)
    assert backlog.holds_up(WideOrder.BEHIND_ALL)
    assert not backlog.holds_up(Q)
    while len(backlog.packets) == 2:
        take(backlog)
    assert backlog.holds_up(P), "the small one is still here"
    take(backlog)
    assert not backlog.holds_up(P)
    assert not backlog.holds_up(WideOrder.BEHIND_ALL)


def test_what_is_for_a_chosen_name_waits_for_all_and_all_ports_wait_for_it() -> None:
    backlog = Backlog()
    assert not backlog.holds_up(WideOrder.CHOSEN_NAME)
    backlog.put(P, bytes(WHOLE_BYTES + 1))
    assert backlog.holds_up(WideOrder.CHOSEN_NAME)
    assert not backlog.holds_up(Q)
    backlog.put(WideOrder.CHOSEN_NAME, b"small")
    assert backlog.holds_up(Q)
    for order in ("", ("a", "b"), WideOrder.AT_ONCE):
        assert not backlog.holds_up(order), "that is not for a port that there is"
    leave(backlog)
    assert not backlog.holds_up(Q)


def test_large_spawn_goes_whole_but_not_through_other_nodes() -> None:
    """Where everything on the same route waits for it."""
    spawn = ["", "AnyEvent::MP::_spawn", P, "function"]
    assert goes_whole(order_of(spawn), 2 * WHOLE_BYTES)
    wrapped = order_of(["", "via", "a", "b", spawn])
    assert not goes_whole(wrapped, 2 * WHOLE_BYTES)
    assert wrapped == order_of(["", "via", "a", "b", [Q, "this port is there", P]])


def test_what_is_just_being_written_holds_up_its_order_still() -> None:
    """A finalizer may send then."""
    backlog = Backlog()
    for data in (b"small", bytes(WHOLE_BYTES + 1)):
        backlog.put(P, data)
    held_up: list[bool] = []
    while backlog.packets:
        backlog.take(lambda _piece: held_up.append(backlog.holds_up(P)))
    assert held_up == [True] * 3
    assert not backlog.holds_up(P)


def test_backlog_may_be_dropped_while_it_is_written() -> None:
    backlog = Backlog()
    backlog.put(P, bytes(WHOLE_BYTES + 1))
    backlog.take(lambda _piece: backlog.clear())
    assert not backlog.packets
    assert backlog.size == 0


PORTS = {P: P, Q: Q, R: R, "name": P, "another": Q}
"""The ports, by names that they have."""

SENT = st.tuples(st.sampled_from(list(PORTS)), st.integers(0, 400))
"""A name, and how large the message is."""


@given(st.lists(st.one_of(SENT, st.just("died"), st.just("room")), max_size=40))
def test_each_port_gets_its_messages_in_order_whatever_passes(steps: list[Any]) -> None:
    """As a link does it: what need not wait is written at once, and the rest whenever there is room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fragments, "FRAGMENT_BYTES", 50)
        patch.setattr(fragments, "WHOLE_BYTES", 70)
        backlog, stream = Backlog(), b""
        sent: dict[str, list[Any]] = defaultdict(list)
        all_before: list[set[Any]] = []  # for each death, what was sent before
        number = 0
        for step in steps:
            number += 1
            if step == "room":
                stream += take(backlog)[0] if backlog.packets else b""
                continue
            if step == "died":
                packet = ["", "kil0", number]
                all_before.append({entry for entries in sent.values() for entry in entries})
            else:
                name, size = step
                packet = [name, number, "x" * size]
                sent[PORTS[name]].append(number)
            data, order = encode(packet), order_of(packet)
            if len(data) > fragments.WHOLE_BYTES or backlog.holds_up(order):
                backlog.put(order, data)
            else:
                stream += data
        stream += leave(backlog)
        arrived: dict[str, list[Any]] = defaultdict(list)
        seen: set[Any] = set()
        for packet in read(stream):
            if packet[0]:
                arrived[PORTS[packet[0]]].append(packet[1])
                seen.add(packet[1])
            else:
                assert all_before.pop(0) <= seen, "the news of a death came before what was sent earlier"
        assert arrived == sent
        assert not all_before


# --- putting together ------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(), st.text(), st.lists(st.none())), max_size=30), st.data())
def test_packet_is_the_same_however_it_is_cut(message: list[Any], data: st.DataObject) -> None:
    packet = ["p", *(value if not isinstance(value, int) else value % 2**60 for value in message)]
    encoded = encode(packet)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(encoded)), max_size=10)) | {len(encoded)})
    assembler = Assembler(LIMITS)
    done = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        before = assembler.unfinished
        done.append(assembler.feed(fragment(encoded[begin:end])))
        assert assembler.unfinished > before or done[-1] is not None
    assert done == [None] * (len(cuts) - 1) + [packet]
    assert not assembler.unfinished
    assert assembler.feed(fragment(encode(["q"]))) == ["q"], "it is ready for the next"


def test_large_list_in_fragments_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those are decoded with checks, from their beginning, when the peer sends the first; and later at once."""
    retries: list[Exception] = []

    class Counting(MsgpackDecoder):  # methods of compiled classes cannot be replaced
        def retry(self, error: Exception) -> Iterator[Any]:
            retries.append(error)
            return super().retry(error)

    monkeypatch.setattr(fragments, "MsgpackDecoder", Counting)
    packet = ["p", list(range(5000)), dict.fromkeys(range(2000))]
    encoded = encode(packet)
    assembler = Assembler(LIMITS)
    for _ in range(3):
        for begin in range(0, len(encoded), 1000):
            whole = assembler.feed(fragment(encoded[begin : begin + 1000]))
        assert whole == packet
        assert len(retries) == 2


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param([[]], "a fragment with 0 elements", id="nothing"),
        pytest.param([[b"\x91", 1]], "a fragment with 2 elements", id="two"),
        pytest.param([["\x91"]], "instead of bytes", id="text"),
        pytest.param([[b""]], "an empty fragment", id="empty"),
        pytest.param([[encode(["p", 1]) + b"\x91"]], "does not end where its packet ends", id="more-behind"),
        pytest.param([[encode(["p", 1]) * 2]], "does not end where its packet ends", id="two-packets"),
        pytest.param([[b"\x92\xa1p"], [b"\x01\xa1"]], "does not end where its packet ends", id="more-behind-the-last"),
        pytest.param([[encode([None, encode(["p"])])]], "whose port name is", id="fragment-in-a-fragment"),
        pytest.param([[b"\x90"]], "a heartbeat as a fragment", id="heartbeat"),
        pytest.param([[b"\x01"]], "instead of an array", id="number"),
        pytest.param([[b"\x91"], [b"\xc1"]], "not msgpack", id="no-msgpack"),
    ],
)
def test_wrong_fragment_is_refused(sent: list[list[Any]], why: str) -> None:
    assembler = Assembler(LIMITS)
    for piece in sent[:-1]:
        assert assembler.feed(piece) is None
    with pytest.raises(FramingError) as caught:
        assembler.feed(sent[-1])
    assert why in str(caught.value)


def test_elements_are_counted_across_fragments() -> None:
    limits = Limits(2**20, 300_000)
    encoded = encode(["p", *([None] * 400_000)])
    assembler = Assembler(limits)
    with pytest.raises(FramingError, match="300000"):
        for begin in range(0, len(encoded), 50_000):
            assembler.feed([encoded[begin : begin + 50_000]])


def feed_all(assembler: Assembler, encoded: bytes) -> list[Any]:
    for begin in range(0, len(encoded), FRAGMENT_BYTES):
        whole = assembler.feed(fragment(encoded[begin : begin + FRAGMENT_BYTES]))
    assert whole is not None
    return whole


@pytest.mark.parametrize("size", [1_000_000, 3_000_000], ids=["counted-at-its-end", "counted-before"])
def test_memory_is_used_for_one_packet_after_the_other(size: int) -> None:
    """Besides that of what is in it: new memory for each would take longer than all else."""
    assembler, encoded = Assembler(Limits(2**26)), encode([P, bytes(size)])
    tracemalloc.start()
    try:
        feed_all(assembler, encoded)
        for _ in range(3):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            feed_all(assembler, encoded)
            assert tracemalloc.get_traced_memory()[1] - before < size + UNCOUNTED_BYTES + 2 * FRAGMENT_BYTES
    finally:
        tracemalloc.stop()


def test_memory_is_given_back() -> None:
    size = 1_000_000
    assembler, encoded = Assembler(LIMITS), encode([P, list(range(1000)), bytes(size)])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        def used() -> int:
            return tracemalloc.get_traced_memory()[0] - before

        for _ in range(2):
            feed_all(assembler, encoded)
            assert used() > size
            assembler.rest()
            assert used() < 100_000
        assembler.feed(fragment(encoded[:500_000]))
        assembler.rest()
        assert assembler.feed(fragment(encoded[500_000:])) is not None, "a packet that is not complete is kept"
    finally:
        tracemalloc.stop()


def test_many_packets_in_one_fragment_do_not_become_objects() -> None:
    assembler = Assembler(Limits(2**26))
    piece = b"\x90" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(FramingError, match="does not end where its packet ends"):
            assembler.feed(fragment(piece))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000, "each byte became a list of 56 bytes"
    finally:
        tracemalloc.stop()


def test_endless_packet_is_refused_at_the_limit() -> None:
    limits = Limits(10_000)
    assembler = Assembler(limits)
    fed = 0
    with pytest.raises(FramingError, match="more than 10000 bytes"):
        assembler.feed([b"\x92\xa1p\xc6\x7f\xff\xff\xff"])
        while fed < 20_000:
            assembler.feed([bytes(100)])
            fed += 100
    assert fed <= 10_000
