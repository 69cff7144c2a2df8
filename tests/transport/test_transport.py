# SPDX-License-Identifier: MIT
"""The socket transport, over a pair of connected sockets."""

from __future__ import annotations

import gc
import itertools
import os
import select
import socket as std_socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from aemp_gevent import is_compiled
from aemp_gevent.transport import transport as transport_module
from aemp_gevent.transport.transport import LEAST_WRITE_BYTES, MANY_MESSAGES, WRITE_BYTES, SocketTransport
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.injecting import Injector, between_bytecodes


class Sink(transport_module.Sink):
    def __init__(self) -> None:
        self.data = b""
        self.reads = 0
        self.ends = 0
        self.broken: list[str] = []
        self.rooms = 0

    def on_data(self, data: bytes | memoryview) -> None:
        self.data += data
        self.reads += 1

    def on_end(self) -> None:
        self.ends += 1

    def on_broken(self, why: str) -> None:
        self.broken.append(why)

    def on_room(self) -> None:
        self.rooms += 1


@pytest.fixture
def pair() -> Iterator[tuple[SocketTransport, Sink, socket.socket]]:
    listener = socket.socket()  # not create_server(), which is the standard library's and blocks
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    near = socket.create_connection(listener.getsockname())
    far, _address = listener.accept()
    listener.close()
    far.settimeout(5)
    transport, sink = SocketTransport(near, gevent.get_hub(), bytearray(1000)), Sink()
    transport.start(sink)
    yield transport, sink, far
    transport.close()
    far.close()


Pair = tuple[SocketTransport, Sink, socket.socket]


def test_burst_is_written_in_one_piece(pair: Pair) -> None:
    transport, sink, far = pair
    for _ in range(100):
        transport.write(b"abc")
    assert transport.buffered == 300
    assert far.recv(1000) == b"abc" * 100
    assert transport.buffered == 0
    assert sink.rooms == 1


def test_reading_when_there_is_nothing_has_no_effect(pair: Pair) -> None:
    transport, sink, far = pair
    on_hub(transport._readable)
    assert (sink.data, sink.ends, sink.broken) == (b"", 0, [])
    far.send(b"abc")
    wait_until(lambda: sink.data == b"abc")


@pytest.mark.parametrize("size", [1, 4096, 4097, 30_000])
def test_a_read_of_any_size_is_handed_on_whole_and_unchanged_by_the_next(size: int) -> None:
    near, far = socket.socketpair()
    transport, reads = SocketTransport(near, gevent.get_hub(), bytearray(64 * 1024)), []
    sink = Sink()
    sink.on_data = lambda data: reads.append(bytes(data))  # type: ignore[method-assign]
    transport.start(sink)
    for letter in (b"a", b"b"):
        far.send(letter * size)
        wait_until(lambda: bool(reads) and reads[-1].endswith(letter))  # noqa: B023
    assert reads == [b"a" * size, b"b" * size]
    transport.close()
    far.close()


def test_small_messages_wait_while_the_system_takes_nothing(pair: Pair) -> None:
    transport, sink, far = pair
    written = bytearray()
    while not transport._awaits_room:
        piece = bytes([len(written) // 1000 % 256]) * 1000
        transport.write(piece)
        written += piece
        turns(1)
    assert transport.buffered
    got = bytearray()
    while len(got) < len(written):
        got += far.recv(1_000_000)
    assert (got, sink.broken) == (written, [])
    wait_until(lambda: not transport.buffered)


def test_compiled_code_makes_the_system_calls_itself_for_plain_sockets_and_small_writes(pair: Pair) -> None:
    """What is large is sent by Python's method, which lets other threads run meanwhile."""
    transport, _sink, far = pair
    assert transport._has_descriptor is (is_compiled and os.name != "nt")
    sent: list[int] = []
    send = transport._send_some

    def record(data: bytes) -> int:
        sent.append(len(data))
        return send(data)  # type: ignore[no-any-return]  # a method of a socket

    transport._send_some = record
    for size in (LEAST_WRITE_BYTES, LEAST_WRITE_BYTES + 1):
        transport.write(b"x" * size)
        wait_until(lambda: not transport.buffered)
        far.recv(2 * size)
    assert sent[-1:] == [LEAST_WRITE_BYTES + 1]
    assert len(sent) == (1 if transport._has_descriptor else 2)


class Scrambled(std_socket.socket):
    """A socket that does more than the system's calls, as those of TLS do."""

    def recv_into(self, buffer: Any, *args: Any) -> int:
        count = super().recv_into(buffer, *args)
        buffer[:count] = bytes(buffer[:count])[::-1]
        return count

    def send(self, data: Any, *args: Any) -> int:
        return super().send(bytes(data)[::-1], *args)


def test_the_methods_of_a_socket_that_does_more_than_the_system_calls_are_called() -> None:
    near, far = socket.socketpair()
    far.settimeout(5)
    scrambled: Any = Scrambled(near.family, near.type, 0, near.detach())
    transport, sink = SocketTransport(scrambled, gevent.get_hub(), bytearray(1000)), Sink()
    transport.start(sink)
    transport.write(b"abc")
    assert far.recv(100) == b"cba"
    far.send(b"123")
    wait_until(lambda: sink.data == b"321")
    transport.close()
    far.close()


@pytest.mark.parametrize("by", ["reading", "writing"])
def test_the_error_of_the_system_is_reported_in_its_words_and_once(pair: Pair, by: str) -> None:
    transport, sink, far = pair
    if by == "writing":
        transport.pause()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    if by == "writing":
        transport.write(b"x")
    wait_until(lambda: sink.broken)
    turns(3)
    assert sink.broken == ["Connection reset by peer"]
    assert transport.buffered == 0


@pytest.mark.parametrize("error", [InterruptedError, BlockingIOError])
def test_a_call_that_the_system_puts_off_is_made_again(pair: Pair, error: type[OSError]) -> None:
    transport, sink, far = pair
    transport._has_descriptor = False
    read, send = transport._receive_into, transport._send_some

    def put_off(*_args: object) -> int:
        transport._receive_into, transport._send_some = read, send
        raise error

    transport._receive_into = put_off
    far.send(b"to us")
    wait_until(lambda: sink.data == b"to us")
    transport._send_some = put_off
    transport.write(b"to them")
    assert far.recv(100) == b"to them"
    assert sink.broken == []


def test_what_is_written_after_the_end_does_not_reach_a_socket_that_got_the_same_descriptor(pair: Pair) -> None:
    transport, sink, far = pair
    descriptor = transport._descriptor
    others = std_socket.socketpair()
    transport.close()
    assert far.recv(100) == b""  # from here on the descriptor is free
    os.dup2(others[0].fileno(), descriptor)
    others[1].send(b"not for us")
    try:
        transport.write(b"not for them")
        on_hub(transport._readable)
        turns(3)
        others[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            others[1].recv(100)
        assert (sink.data, others[0].recv(100)) == (b"", b"not for us")
    finally:
        os.close(descriptor)
        for sock in others:
            sock.close()


def test_full_batch_leaves_before_the_loop_has_its_turn(pair: Pair) -> None:
    transport, sink, far = pair
    pieces = [bytes([number % 256]) * 1000 for number in range(100)]
    for piece in pieces:
        transport.write(piece)
    got = bytearray(far._sock.recv(100_000))  # at once, before the loop has its turn
    assert WRITE_BYTES <= len(got) < WRITE_BYTES + 1000
    assert transport.sent_writes == 66
    assert sink.rooms == 0  # which is for the hub
    while len(got) < 100_000:
        got += far.recv(100_000)
    assert got == b"".join(pieces)
    assert (transport.buffered, transport.sent_writes) == (0, 100)
    wait_until(lambda: sink.rooms)


def test_loop_looks_at_all_sockets_before_what_left_ahead_makes_room(pair: Pair) -> None:
    """Or else senders whose receivers keep up are never paused, and nothing is read meanwhile."""
    transport, sink, far = pair
    heard: list[str] = []
    sink.on_data = lambda _data: heard.append("data")  # type: ignore[method-assign]
    sink.on_room = lambda: heard.append("room")  # type: ignore[method-assign]
    far.sendall(b"x")
    assert select.select([transport._socket.fileno()], [], [], 5)[0], "it can be read"
    for _ in range(100):
        transport.write(b"x" * 1000)
    assert transport.sent == 0, "what has left counts as unsent until then"
    wait_until(lambda: "room" in heard)
    assert heard[0] == "data"
    assert (transport.sent, transport.buffered) == (100_000, 0)


def test_few_large_messages_wait_for_the_loop(pair: Pair) -> None:
    transport, _sink, far = pair
    for _ in range(50):
        transport.write(b"x" * WRITE_BYTES)
    assert transport.sent_writes == 0
    left = 50 * WRITE_BYTES
    while left:
        left -= len(far.recv(1_000_000))


def test_what_the_hub_writes_waits_for_the_loop(pair: Pair) -> None:
    transport, _sink, far = pair
    sent: list[int] = []

    def write() -> None:
        for _ in range(200):
            transport.write(b"x" * 1000)
        sent.append(transport.sent_writes)

    on_hub(write)
    assert sent == [0]
    left = 200_000
    while left:
        left -= len(far.recv(1_000_000))


def test_more_than_the_system_takes_waits_for_the_loop(pair: Pair) -> None:
    transport, _sink, far = pair
    piece = bytes(range(250)) * 16
    for _ in range(5000):
        transport.write(piece)
    assert 0 < transport.sent_writes < 5000
    assert transport.buffered == 5000 * len(piece)
    got = bytearray()
    while len(got) < 5000 * len(piece):
        got += far.recv(1_000_000)
    assert got == piece * 5000


def test_many_connections_with_much_to_send_have_smaller_batches() -> None:
    near, other = socket.socketpair()
    filling: set[Any] = set(range(2000))
    transport = SocketTransport(near, gevent.get_hub(), bytearray(1), filling)
    transport.start(Sink())
    for _ in range(MANY_MESSAGES):
        transport.write(b"x" * (LEAST_WRITE_BYTES // MANY_MESSAGES))
    assert transport not in filling
    transport.write(b"z")
    assert transport.sent_writes == MANY_MESSAGES
    assert transport in filling
    wait_until(lambda: transport not in filling)  # until it has much to send again
    assert not transport.buffered
    for _ in range(LEAST_WRITE_BYTES + 1):
        transport.write(b"x")
    assert transport in filling
    transport.close()
    assert transport not in filling
    other.close()


def test_reset_while_much_is_written_is_reported_by_the_loop(pair: Pair) -> None:
    transport, sink, far = pair
    transport.pause()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    for _ in range(200):
        transport.write(b"x" * 1000)
    assert sink.broken == []
    wait_until(lambda: sink.broken)
    turns(3)
    assert len(sink.broken) == 1


def test_reset_while_much_is_written_is_not_read_as_an_end(pair: Pair) -> None:
    """The system tells it once, and what is read afterwards is an end."""
    transport, sink, far = pair
    for _ in range(300):
        transport.write(b"x" * WRITE_BYTES)
    wait_until(lambda: transport._awaits_room)  # then the loop reads before it writes
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    for _ in range(200):
        transport.write(b"x" * 1000)
    wait_until(lambda: sink.broken or sink.ends)
    turns(3)
    assert (sink.broken, sink.ends) == (["Connection reset by peer"], 0)


def test_finalizers_that_write_neither_lose_nor_repeat_anything(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may run wherever an object is made."""
    for name in ("WRITE_BYTES", "LEAST_WRITE_BYTES"):
        monkeypatch.setattr(transport_module, name, 1)  # so that each write ends a batch
    transport, _sink, far = pair
    transport._batch_limit = 1
    written: list[bytes] = []

    def write() -> None:
        written.append(b"%08d" % len(written))
        transport.write(written[-1])

    class Writing:
        def __init__(self) -> None:
            self.me = self  # for the garbage collector

        def __del__(self) -> None:
            write()

    before = gc.get_threshold()
    try:
        for number in range(1000):
            Writing()
            gc.set_threshold(gc.get_count()[0] + number % 10)  # one of the next objects that are made
            write()
            gc.set_threshold(0)
            if not number % 10:
                turns(1)  # and then a write begins a batch
    finally:
        gc.set_threshold(*before)
    gc.collect()
    got = bytearray()
    while len(got) < 8 * len(written) or transport.buffered:
        got += far.recv(100_000)
    assert sorted(got[start : start + 8] for start in range(0, len(got), 8)) == sorted(written)


def test_what_a_finalizer_writes_while_waiting_for_room_ends_leaves(pair: Pair) -> None:
    """No later write takes it along, as there may be none for a long time."""
    transport, _sink, far = pair
    watcher = transport._writer

    class Watcher:
        start, close = watcher.start, watcher.close

        def stop(self) -> None:
            watcher.stop()
            if transport._awaits_room and not transport._closed:
                transport.write(b"end")

    transport._writer = Watcher()
    size = 10_000_000
    transport.write(bytes(size))
    got = 0
    while got < size + 3:
        got += len(far.recv(1_000_000))
    assert got == size + 3


@between_bytecodes
def test_what_a_signal_handler_writes_while_a_read_is_handled_leaves(pair: Pair) -> None:
    transport, sink, far = pair
    for number in itertools.count(1):
        chosen, reads = {number}, sink.reads
        traced = ("transport/transport.py",)
        with Injector(lambda: transport.write(b"x"), chosen.__contains__, traced=traced) as injector:
            far.send(b"?")
            wait_until(lambda reads=reads: sink.reads > reads)  # type: ignore[misc]
            turns(3)
        if not injector.fired:
            break
        assert far.recv(1000) == b"x"
    assert number > 1


def test_interrupt_of_a_write_ends_the_connection(pair: Pair) -> None:
    transport, sink, far = pair

    def interrupted(_data: bytes) -> int:
        raise KeyboardInterrupt

    transport._send_some = interrupted
    with pytest.raises(KeyboardInterrupt):
        for _ in range(200):
            transport.write(b"x" * 1000)
    for _ in range(200):  # nor does it try again: how much the system has is unknown
        transport.write(b"x" * 1000)
    wait_until(lambda: sink.broken)
    assert sink.broken == ["interrupted"]
    with pytest.raises(ConnectionResetError):
        far.recv(100)


def test_what_is_larger_than_all_buffers_arrives_whole(pair: Pair) -> None:
    transport, sink, far = pair
    data = bytes(range(256)) * 100_000
    transport.write(data)
    transport.write(b"end")
    wait_until(lambda: 0 < transport.buffered < len(data))
    got = bytearray()
    while len(got) < len(data) + 3:
        got += far.recv(1_000_000)
    assert got == data + b"end"
    wait_until(lambda: transport.buffered == 0)
    rooms = sink.rooms
    assert rooms > 1
    turns(3)
    assert sink.rooms == rooms  # it does not wait for room any more


def test_sockets_are_read_between_one_batch_and_the_next(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is always more to send, and the system takes all of it."""
    monkeypatch.setattr(transport_module, "WRITE_BYTES", 100)
    monkeypatch.setattr(transport_module, "LEAST_WRITE_BYTES", 100)
    transport, sink, far = pair
    transport._batch_limit = 100
    sent_before: list[int] = []

    def on_room() -> None:
        if transport.sent < 10_000:
            transport.write(bytes(100))

    def on_data(_data: bytes | memoryview) -> None:
        sent_before.append(transport.sent)

    sink.on_room, sink.on_data = on_room, on_data  # type: ignore[method-assign]
    far.sendall(b"x")
    assert select.select([transport._socket.fileno()], [], [], 5)[0], "it can be read"
    on_hub(lambda: [transport.write(bytes(100)) for _ in range(10)])
    wait_until(lambda: transport.sent >= 10_000 and not transport.buffered)
    assert sent_before[0] <= 200


def test_what_comes_is_read_in_pieces_of_the_buffer(pair: Pair) -> None:
    _transport, sink, far = pair
    far.sendall(b"x" * 2500)
    wait_until(lambda: len(sink.data) == 2500)
    assert sink.reads >= 3


def test_answers_to_what_was_read_leave_right_behind_it(pair: Pair) -> None:
    """In one piece, and without a callback of the loop, each of which costs every round trip."""
    transport, sink, far = pair
    loop: Any = gevent.get_hub().loop
    seen: list[bytes] = []

    def answer(_data: bytes | memoryview) -> None:
        loop.run_callback(lambda: seen.append(far._sock.recv(1000)))
        for _ in range(3):
            transport.write(b"abc")

    sink.on_data = answer  # type: ignore[method-assign]
    for _ in range(2):  # the first does not keep the second from leaving
        far.send(b"?")
        wait_until(lambda: bool(seen))
        assert (seen.pop(), transport.buffered) == (b"abc" * 3, 0)
    assert sink.rooms == 2


def test_what_is_written_after_a_read_without_an_answer_leaves(pair: Pair) -> None:
    transport, sink, far = pair
    far.send(b"?")
    wait_until(lambda: sink.data == b"?")
    transport.write(b"abc")
    assert far.recv(1000) == b"abc"


def test_what_was_written_before_a_read_leaves_once_with_the_answers(pair: Pair) -> None:
    transport, sink, far = pair
    sink.on_data = lambda _data: transport.write(b"answer")  # type: ignore[method-assign]

    def write_and_read() -> None:
        transport.write(b"written, ")
        transport._readable()

    far.send(b"?")
    on_hub(write_and_read)
    assert far.recv(1000) == b"written, answer"
    turns(1)
    assert sink.rooms == 1


def test_pause_and_resume(pair: Pair) -> None:
    transport, sink, far = pair
    transport.pause()
    far.sendall(b"hello")
    turns(10)
    assert sink.data == b""
    transport.resume()
    wait_until(lambda: sink.data == b"hello")


def test_end_of_the_other_side_leaves_ours_open(pair: Pair) -> None:
    transport, sink, far = pair
    far.sendall(b"bye")
    far.shutdown(1)
    wait_until(lambda: sink.ends)
    assert sink.data == b"bye"
    transport.write(b"not yet")
    assert far.recv(100) == b"not yet"
    turns(5)
    assert sink.ends == 1
    assert sink.broken == []


def test_finish_sends_what_is_left_and_still_reads(pair: Pair) -> None:
    transport, sink, far = pair
    transport.write(b"last")
    transport.finish()
    assert far.recv(100) == b"last"
    assert far.recv(100) == b""
    far.sendall(b"answer")
    wait_until(lambda: sink.data == b"answer")


def test_finish_with_nothing_to_send_is_an_end_at_once(pair: Pair) -> None:
    transport, _sink, far = pair
    transport.finish()
    assert far.recv(100) == b""


def test_abort_is_a_reset(pair: Pair) -> None:
    transport, sink, far = pair
    transport.write(b"never sent")
    transport.abort()
    transport.abort()
    with pytest.raises(ConnectionResetError):
        far.recv(100)
    assert sink.broken == []


def test_close_is_an_end_and_may_be_repeated(pair: Pair) -> None:
    transport, sink, far = pair
    transport.close()
    transport.close()
    transport.abort()
    transport.resume()
    for _ in range(100):
        transport.write(b"into the void" * 100)
    turns(3)
    assert far.recv(100) == b""
    assert sink.broken == []


def test_finish_after_a_reset_is_survived(pair: Pair) -> None:
    transport, sink, far = pair
    transport.pause()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    on_hub(transport.finish)
    transport.resume()
    wait_until(lambda: sink.broken or sink.ends)


def test_peer_address(pair: Pair) -> None:
    transport, _sink, far = pair
    assert transport.peer_address == "{}:{}".format(*far.getsockname())
    assert transport.peer_address in repr(transport)


def test_peer_address_of_other_kinds_of_sockets() -> None:
    one, two = socket.socketpair()
    gone = socket.socket()
    transports = [SocketTransport(sock, gevent.get_hub(), bytearray(1)) for sock in (one, gone)]
    assert [transport.peer_address for transport in transports] == ["unix:", "?"]
    for transport in transports:
        transport.close()
    two.close()


class Untunable(socket.socket):
    """A socket as macOS has it after a reset: options can no longer be set."""

    def setsockopt(self, *_args: object) -> None:  # type: ignore[override]
        raise OSError(22, "Invalid argument")


def test_reset_before_the_options_are_set_is_survived() -> None:
    transport = SocketTransport(Untunable(), gevent.get_hub(), bytearray(1))
    assert transport.peer_address == "?"
    transport.close()
