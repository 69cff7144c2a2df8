# SPDX-License-Identifier: MIT
"""Every fault of the proxy, byte by byte, with plain sockets on both sides."""

from __future__ import annotations

import gc
import logging
import random
from time import monotonic

import gevent
import pytest
from gevent import socket

from aemp_gevent.errors import InvalidNoderefError, ListenError
from aemp_gevent.testing import Proxy, ProxyError
from aemp_gevent.testing.flow import HELD_BYTES
from tests.support.helpers import turns, wait_until
from tests.testing.conftest import Line, MakeLine, exactly, to_the_end, was_reset

TEXT = bytes(range(256)) * 40


def silent(sock: socket.socket) -> bool:
    """Whether nothing comes while everything that is under way has time to arrive, the end of the stream included."""
    sock.settimeout(0.05)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5.0)
    return False


# --- without faults ---------------------------------------------------------------------


def test_bytes_pass_in_both_directions(line: Line) -> None:
    client, server = line.connect()
    client.sendall(TEXT)
    assert exactly(server, len(TEXT)) == TEXT
    server.sendall(TEXT[::-1])
    assert exactly(client, len(TEXT)) == TEXT[::-1]
    (connection,) = line.proxy.connections
    assert (connection.bytes_in, connection.bytes_out, connection.held) == (len(TEXT), len(TEXT), 0)
    assert repr(connection) == "<Connection 0 of no node, 10240 in, 10240 out>"


def test_one_direction_may_end_before_the_other(line: Line) -> None:
    client, server = line.connect()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert to_the_end(server) == b"question"
    server.sendall(b"answer")
    assert exactly(client, 6) == b"answer"
    assert len(line.proxy.connections) == 1
    server.close()
    assert to_the_end(client) == b""
    wait_until(lambda: not line.proxy.connections)


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_of_one_side_resets_the_other(line: Line, side: str) -> None:
    client, server = line.connect()
    one, other = (client, server) if side == "client" else (server, client)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()
    assert was_reset(other)
    wait_until(lambda: not line.proxy.connections)


def test_writing_to_a_side_that_is_gone_resets_the_writer(line: Line) -> None:
    client, server = line.connect()
    server.close()
    assert to_the_end(client) == b""  # in order, so far

    def fails() -> bool:
        try:
            client.sendall(b"anybody there?")
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False

    wait_until(fails)
    wait_until(lambda: not line.proxy.connections)


@pytest.mark.slow
def test_sender_has_to_wait_for_the_reader(line: Line) -> None:
    client, server = line.connect()
    client.settimeout(0.2)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 2**26:
            sent += client.send(bytes(2**16))
    (connection,) = line.proxy.connections
    assert HELD_BYTES <= connection.held <= HELD_BYTES + 2**16
    exactly(server, sent)
    assert connection.held == 0


def test_target_can_be_set_later(make_line: MakeLine) -> None:
    line = make_line()
    target, line.proxy.target = line.proxy.target, None
    assert "nowhere yet" in repr(line.proxy)
    assert line.is_refused()
    line.proxy.target = target
    client, server = line.connect()
    client.sendall(b"now")
    assert exactly(server, 3) == b"now"


def test_target_that_is_down_is_a_reset_and_a_warning(caplog: pytest.LogCaptureFixture, line: Line) -> None:
    line._listener.close()
    assert line.is_refused()
    assert f"cannot reach its target {line.proxy.target}: " in caplog.text
    assert "Connection refused" in caplog.text


def test_closed_proxy_resets_its_connections_and_listens_no_more(line: Line) -> None:
    client, server = line.connect()
    never_served = line.dial_at_once()
    assert len(line.proxy.connections) == 2
    line.proxy.close()
    line.proxy.close()
    assert was_reset(client)
    assert was_reset(server)
    with pytest.raises(ConnectionResetError):
        never_served.recv(1)
    with pytest.raises(ConnectionRefusedError):
        line.dial()


def test_proxy_that_is_not_started_has_no_address() -> None:
    proxy = Proxy("127.0.0.1:1")
    with pytest.raises(ProxyError, match="call start"):
        _ = proxy.address
    proxy.close()


def test_address_in_use_is_reported(line: Line) -> None:
    with pytest.raises(ListenError):
        Proxy(listen=line.proxy.address).start()


@pytest.mark.parametrize("option", ["target", "listen"])
def test_invalid_endpoint_is_refused(option: str) -> None:
    with pytest.raises(InvalidNoderefError):
        Proxy(**{option: "127.0.0.1:http"})


# --- delay and throttle -----------------------------------------------------------------


@pytest.mark.slow
def test_delay_lets_bytes_arrive_late_and_in_order(line: Line) -> None:
    client, server = line.connect()
    line.proxy.delay(0.1, jitter=0.05)
    start = monotonic()
    for number in range(20):
        client.sendall(b"%02d" % number)
        gevent.sleep(0.001)
    assert exactly(server, 40) == b"".join(b"%02d" % number for number in range(20))
    took = monotonic() - start
    assert 0.1 <= took < 1.0, "each one was delayed behind the others" if took > 1 else "not delayed"
    server.sendall(b"!")
    start = monotonic()
    exactly(client, 1)
    assert monotonic() - start >= 0.1
    line.proxy.delay(0)
    start = monotonic()
    client.sendall(b"?")
    exactly(server, 1)
    assert monotonic() - start < 0.1


def test_delay_of_one_direction_spares_the_other(line: Line) -> None:
    line.proxy.delay(0.2, direction="out")
    client, server = line.connect()
    start = monotonic()
    client.sendall(b"x")
    exactly(server, 1)
    assert monotonic() - start < 0.2
    server.sendall(b"x")
    exactly(client, 1)
    assert monotonic() - start >= 0.2


def test_end_of_the_stream_is_delayed_too(line: Line) -> None:
    line.proxy.delay(0.1)
    client, server = line.connect()
    start = monotonic()
    client.close()
    assert to_the_end(server) == b""
    assert monotonic() - start >= 0.1


@pytest.mark.slow
def test_throttle_keeps_the_rate(line: Line) -> None:
    client, server = line.connect()
    line.proxy.throttle(100_000)
    start = monotonic()
    client.sendall(bytes(40_000))
    exactly(server, 40_000)
    took = monotonic() - start
    assert 0.3 <= took < 1.2, "40 kB at 100 kB/s take 0.4 s"


def test_fault_that_makes_wait_long_ends_at_once(line: Line) -> None:
    client, server = line.connect()
    line.proxy.throttle(1)
    line.proxy.delay(60)
    client.sendall(TEXT)
    assert silent(server)
    line.proxy.heal()
    assert exactly(server, len(TEXT)) == TEXT


# --- split and corrupt ------------------------------------------------------------------


def pieces(sock: socket.socket, count: int) -> list[int]:
    """Return the sizes of the reads that so many bytes come in."""
    sizes: list[int] = []
    while sum(sizes) < count:
        sizes.append(len(sock.recv(65536)))
        assert sizes[-1]
    return sizes


def test_split_sends_small_pieces_and_loses_nothing(line: Line) -> None:
    line.proxy.split(7)
    client, server = line.connect()
    client.sendall(TEXT)
    got = [server.recv(65536)]
    while sum(map(len, got)) < len(TEXT):
        got.append(server.recv(65536))
    assert b"".join(got) == TEXT
    # The system may join some on the way.
    assert len(got) > len(TEXT) / 7 / 2
    assert len(set(map(len, got))) > 1


def corrupted(line: Line, feed: int) -> list[int]:
    """Send the text in steps of ``feed`` bytes; return which bytes were changed."""
    client, server = line.connect()
    got = b""
    for start in range(0, len(TEXT), feed):
        client.sendall(TEXT[start : start + feed])
        got += exactly(server, len(TEXT[start : start + feed]))
    assert len(got) == len(TEXT)
    client.close()
    return [place for place, (was, is_) in enumerate(zip(TEXT, got, strict=True)) if was != is_]


def test_corrupt_changes_the_bytes_that_the_seed_says_however_they_are_sent(make_line: MakeLine) -> None:
    runs = []
    for feed in (100, 1000, len(TEXT)):
        line = make_line(seed=42)
        line.proxy.corrupt(0.01)
        runs.append((corrupted(line, feed), corrupted(line, feed)))
    (first, second), *others = runs
    assert others == [(first, second)] * 2
    assert first != second, "two connections have the same faults"
    assert 50 < len(first) < 200
    line = make_line(seed=43)
    line.proxy.corrupt(0.01)
    assert corrupted(line, 1000) != first


def test_corrupt_with_certainty_changes_every_byte(line: Line) -> None:
    line.proxy.corrupt(1)
    assert corrupted(line, 1000) == list(range(len(TEXT)))


def test_corrupt_changes_the_given_byte(line: Line) -> None:
    client, server = line.connect()
    client.sendall(b"before")
    exactly(server, 6)
    line.proxy.corrupt(at=3, direction="in")
    client.sendall(b"abcdefg" * 10)
    got = exactly(server, 70)
    assert got[:3] == b"abc"
    assert got[3:4] != b"d"
    assert got[4:] == (b"abcdefg" * 10)[4:], "more than one"
    server.sendall(b"abcdefg")
    assert exactly(client, 7) == b"abcdefg"


# --- cut and reset ----------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 1000, 10_000])
def test_cut_closes_in_order_after_exactly_so_many_bytes(line: Line, after: int) -> None:
    client, server = line.connect()
    client.sendall(b"before")
    exactly(server, 6)
    line.proxy.cut(after=after, direction="in")
    client.sendall(TEXT)
    assert to_the_end(server) == TEXT[:after]
    # Nothing reads what it sends now, and still no reset comes.
    client.sendall(TEXT)
    assert to_the_end(client) == b""
    assert line.proxy.connections == []


def test_cut_counts_each_connection_to_come_from_its_start(line: Line) -> None:
    line.proxy.cut(after=5, direction="out")
    for _ in range(2):
        client, server = line.connect()
        client.sendall(TEXT)
        assert exactly(server, len(TEXT)) == TEXT
        server.sendall(b"0123456789")
        assert to_the_end(client) == b"01234"


def test_cut_now_is_for_the_connections_there_are(line: Line) -> None:
    client, server = line.connect()
    hasty = line.dial_at_once()
    line.proxy.cut()
    assert line.proxy.connections == []
    assert to_the_end(client) == to_the_end(server) == hasty.recv(1) == b""
    line.accept()
    client, server = line.connect()
    client.sendall(b"x")
    assert exactly(server, 1) == b"x"


def test_reset_is_seen_by_both_sides_at_once(line: Line) -> None:
    (client, server), (client2, server2) = line.connect(), line.connect()
    line.proxy.reset()
    assert line.proxy.connections == []
    for sock in (client, server, client2, server2):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_reset_after_so_many_bytes_lets_no_more_pass(line: Line) -> None:
    line.proxy.reset(after=1000, direction="in")
    client, server = line.connect()
    (connection,) = line.proxy.connections
    client.sendall(TEXT)
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += server.recv(65536)
    assert TEXT[:1000].startswith(got)
    assert was_reset(client)
    assert connection.bytes_in == 1000


# --- blackhole, refuse, heal ------------------------------------------------------------


@pytest.mark.parametrize("swallow", [False, True])
def test_blackhole_of_one_direction_lets_the_other_pass(line: Line, swallow: bool) -> None:
    client, server = line.connect()
    line.proxy.blackhole("in", swallow=swallow)
    client.sendall(b"lost?")
    server.sendall(b"heard")
    assert exactly(client, 5) == b"heard"
    assert silent(server)


def test_blackhole_holds_for_new_connections_which_are_accepted(line: Line) -> None:
    line.proxy.blackhole()
    client, server = line.connect()
    client.sendall(b"x")
    server.sendall(b"x")
    assert silent(client)
    assert silent(server)


def test_stalled_connection_continues_where_it_stopped(line: Line) -> None:
    client, server = line.connect()
    line.proxy.blackhole()
    client.sendall(TEXT)
    client.close()
    server.sendall(b"x")
    assert silent(server), "data or the end of the connection passed"
    line.proxy.heal()
    assert exactly(server, len(TEXT)) == TEXT


@pytest.mark.slow
def test_stalled_sender_has_to_wait_in_the_end(line: Line) -> None:
    client, server = line.connect()
    line.proxy.blackhole("in")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(2**26))
    (connection,) = line.proxy.connections
    assert connection.held <= HELD_BYTES + 2**16


def test_swallowing_takes_everything_and_healing_resets_who_lost_something(line: Line) -> None:
    loser, losing_server = line.connect()
    other, other_server = line.connect()
    other.sendall(b"x")
    exactly(other_server, 1)
    line.proxy.blackhole("in", swallow=True)
    loser.sendall(bytes(2**24))  # does not wait
    assert silent(losing_server)
    assert all(connection.held < 2**21 for connection in line.proxy.connections)
    line.proxy.heal()
    assert was_reset(loser)
    assert was_reset(losing_server)
    other.sendall(b"still")
    assert exactly(other_server, 5) == b"still"


def test_swallowed_end_counts_as_lost(line: Line) -> None:
    client, server = line.connect()
    line.proxy.blackhole("in", swallow=True)
    client.shutdown(socket.SHUT_WR)
    assert silent(server)
    line.proxy.heal()
    assert was_reset(server)


def test_refuse_resets_new_connections_and_spares_old_ones(line: Line) -> None:
    client, server = line.connect()
    hasty = line.dial_at_once()
    line.proxy.refuse()
    assert line.is_refused()
    hasty.sendall(b"before")
    assert exactly(line.accept(), 6) == b"before"
    client.sendall(b"x")
    assert exactly(server, 1) == b"x"
    line.proxy.heal()
    _client, server = line.connect()
    _client.sendall(b"y")
    assert exactly(server, 1) == b"y"


def test_faults_add_up_and_the_latest_of_a_kind_counts(line: Line) -> None:
    line.proxy.cut(after=3, direction="in")
    line.proxy.corrupt(at=0, direction="in")
    line.proxy.cut(after=10, direction="in")
    client, server = line.connect()
    client.sendall(TEXT)
    got = to_the_end(server)
    assert len(got) == 10
    assert got[0] != TEXT[0]
    assert got[1:] == TEXT[1:10]
    line.proxy.heal()
    line.proxy.cut(after=3, direction="in")
    line.proxy.cut(after=10)
    line.proxy.cut(after=3, direction="in")
    client, server = line.connect()
    client.sendall(TEXT)
    assert to_the_end(server) == TEXT[:3]


def test_faults_that_are_set_again_and_again_are_kept_once(line: Line) -> None:
    for _ in range(100):
        line.proxy.delay(0, nodes=["one", "two"])
        line.proxy.delay(0)
    assert len(line.proxy._rules) == 2


# --- for some nodes only ----------------------------------------------------------------

GREETING = b"aemp;1;%s;hmac_sha3_512;msgpack;mproto=1\r\n"


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param("bad", id="one"),
        pytest.param(["bad", "worse"], id="several"),
        pytest.param(lambda node: node.startswith("b"), id="predicate"),
    ],
)
def test_fault_for_some_nodes_spares_the_others(line: Line, nodes: object) -> None:
    before, before_server = line.connect()
    before.sendall(GREETING % b"bad")
    exactly(before_server, len(GREETING % b"bad"))
    line.proxy.blackhole("out", nodes=nodes)  # type: ignore[arg-type]
    after, after_server = line.connect()
    good, good_server = line.connect()
    no_node, no_node_server = line.connect()
    for server in (before_server, after_server, good_server, no_node_server):
        server.sendall(b"hello")
    assert silent(no_node), "before it is known who that is"
    for client, greeting in (
        (after, GREETING % b"bad"),
        (good, GREETING % b"good"),
        (no_node, b"GET / HTTP/1.0\r\n"),
    ):
        client.sendall(greeting[:7])
        turns(10)
        client.sendall(greeting[7:])
    assert exactly(good, 5) == exactly(no_node, 5) == b"hello"
    assert silent(before)
    assert silent(after)
    assert [connection.node for connection in line.proxy.connections] == ["bad", "bad", "good", None]
    assert repr(line.proxy.connections[0]).startswith("<Connection 0 of bad, ")


def test_stranger_who_sends_no_line_is_let_through_in_the_end(line: Line) -> None:
    line.proxy.delay(60, nodes="bad")
    client, server = line.connect()
    client.sendall(bytes(5000))
    exactly(server, 5000)
    client, server = line.connect()
    client.sendall(b"aemp")
    assert silent(server)
    client.shutdown(socket.SHUT_WR)
    assert to_the_end(server) == b"aemp"


def test_latest_fault_counts_whether_it_is_for_some_or_for_all(line: Line) -> None:
    line.proxy.cut(after=100, nodes="bad", direction="out")
    line.proxy.cut(after=7, direction="out")
    client, server = line.connect()
    client.sendall(GREETING % b"bad")
    server.sendall(TEXT)
    assert to_the_end(client) == TEXT[:7]


def test_bytes_are_counted_from_the_start_of_a_connection_that_greets_late(line: Line) -> None:
    line.proxy.cut(after=10, direction="out")
    client, server = line.connect()
    server.sendall(b"01234")
    exactly(client, 5)
    client.sendall(GREETING % b"some")
    exactly(server, 10)
    server.sendall(TEXT)
    assert to_the_end(client) == TEXT[:5]


def test_refuse_of_some_nodes_resets_them_when_they_greet(line: Line) -> None:
    line.proxy.refuse(nodes="bad")
    bad, _server = line.connect()
    good, good_server = line.connect()
    bad.sendall(GREETING % b"bad")
    good.sendall(GREETING % b"good")
    assert was_reset(bad)
    exactly(good_server, len(GREETING % b"good"))


def test_ending_connections_now_can_be_for_some_nodes(line: Line) -> None:
    bad, bad_server = line.connect()
    good, good_server = line.connect()
    for client, server, greeting in ((bad, bad_server, GREETING % b"bad"), (good, good_server, GREETING % b"good")):
        client.sendall(greeting)
        exactly(server, len(greeting))
    line.proxy.reset(nodes="bad")
    assert was_reset(bad_server)
    good_server.sendall(b"x")
    assert exactly(good, 1) == b"x"


# --- the seed ---------------------------------------------------------------------------


def test_seed_that_nobody_gave_is_logged_once_chance_plays_a_part(
    make_line: MakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = make_line().proxy
    assert proxy.seed != make_line().proxy.seed
    assert f"seed={proxy.seed!r}" in repr(proxy)
    proxy.delay(0.1)
    proxy.cut(after=10**9)
    assert caplog.records == []
    proxy.split(10)
    proxy.corrupt(0.5)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"seed={proxy.seed!r}" in record.getMessage()


def test_given_seed_is_not_news(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.proxy.split(10)
    assert caplog.records == []
    assert line.proxy.seed == 1


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        pytest.param("delay", (-1,), {}, id="delay-negative"),
        pytest.param("delay", ("1",), {}, id="delay-text"),
        pytest.param("delay", (1, -1), {}, id="jitter-negative"),
        pytest.param("delay", (float("nan"),), {}, id="delay-nan"),
        pytest.param("delay", (1,), {"direction": "up"}, id="direction"),
        pytest.param("throttle", (0,), {}, id="throttle-nothing"),
        pytest.param("split", (0,), {}, id="split-nothing"),
        pytest.param("split", (1.5,), {}, id="split-fraction"),
        pytest.param("corrupt", (), {}, id="corrupt-what"),
        pytest.param("corrupt", (0.1,), {"at": 1}, id="corrupt-both"),
        pytest.param("corrupt", (0,), {}, id="corrupt-never"),
        pytest.param("corrupt", (1.1,), {}, id="corrupt-more-than-all"),
        pytest.param("corrupt", (), {"at": -1}, id="corrupt-past"),
        pytest.param("cut", (), {"after": -1}, id="cut-past"),
        pytest.param("reset", (), {"after": 0.5}, id="reset-fraction"),
        pytest.param("blackhole", ("sideways",), {}, id="blackhole-direction"),
    ],
)
def test_nonsense_is_refused(line: Line, method: str, args: tuple[object, ...], options: dict[str, object]) -> None:
    with pytest.raises(ProxyError):
        getattr(line.proxy, method)(*args, **options)
    assert line.proxy._rules == {}


# --- nothing is left over ---------------------------------------------------------------


def test_connections_leave_nothing_behind(line: Line) -> None:
    """However they end, and whatever is under way."""
    dice = random.Random(5)
    for _ in range(30):
        client, server = line.connect()
        client.sendall(TEXT)
        dice.choice([client.close, server.close, line.proxy.reset, line.proxy.cut, lambda: None])()
        client.close()
        server.close()
    wait_until(lambda: not line.proxy.connections and not line.proxy._served, show=lambda: line.proxy.connections)
    gc.collect()
