# SPDX-License-Identifier: MIT
"""The network in memory behaves like sockets, and breaks what a test asks it to break."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from greenlet import getcurrent

import aemp_gevent
from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import ListenError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.transport.connector import Connector, SocketConnector
from aemp_gevent.transport.transport import Sink, SocketTransport, Transport
from tests.support.helpers import turns, wait_until
from tests.support.networking import Deaths, Inbox
from tests.support.seams import request_host_of

BUFFER = 64 * 1024
PATIENT = {"heartbeat_interval": 5.0, "heartbeat_timeout": 30.0}
QUICK = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.3, "handshake_timeout": 0.3, "monitor_timeout": 1.0}


# --- a transport like a socket's: the same tests with both ------------------------------------


class Recorder(Sink):
    """A sink that keeps what it gets, and checks where that runs."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.data = b""
        self.news: list[str] = []
        self.rooms = 0
        transport.start(self)

    def _check(self) -> None:
        assert getcurrent() is gevent.get_hub(), "a sink was called in somebody's greenlet"

    def on_data(self, data: bytes | memoryview) -> None:
        self._check()
        assert not self.news, "bytes behind the end"
        self.data += data

    def on_end(self) -> None:
        self._check()
        self.news.append("end")

    def on_broken(self, why: str) -> None:
        self._check()
        self.news.append("broken")

    def on_room(self) -> None:
        self._check()
        self.rooms += 1


Pair = Callable[[], tuple[Transport, Transport]]


@contextlib.contextmanager
def carriers(kind: str) -> Iterator[tuple[Connector, Connector, Endpoint]]:
    if kind == "socket":
        yield SocketConnector(gevent.get_hub(), 30.0), SocketConnector(gevent.get_hub(), 30.0), Endpoint("127.0.0.1", 0)
        return
    with MemoryNetwork(buffer_bytes=BUFFER, split=0.5, jitter=0.001) as network:
        print(network)
        yield network.carrier("10.0.0.1:1"), network.carrier("10.0.0.2:1"), Endpoint("10.0.0.2", 0)


@pytest.fixture(params=["socket", "memory"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made: list[Any] = []
    with carriers(request.param) as (ours, theirs, endpoint):

        def make() -> tuple[Transport, Transport]:
            accepted: list[Transport] = []
            listening = theirs.listen(endpoint, accepted.append)
            listening.start()
            near = ours.dial([listening.endpoint], 5.0)
            wait_until(lambda: accepted)
            listening.close()
            made.extend((near, accepted[0]))
            return near, accepted[0]

        yield make
        for transport in made:
            transport.close()


def test_bytes_arrive_in_order_and_never_inside_write(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    sent = b""
    for number in range(500):
        piece = b"%d," % number
        near.transport.write(piece)
        sent += piece
        assert near.transport.buffered == len(sent) or number % 50 == 0
        if number % 50 == 49:
            wait_until(lambda: not near.transport.buffered)
            far.transport.write(b"x")
            sent, near_sent = b"", sent
            wait_until(lambda: far.data.endswith(near_sent))  # noqa: B023
    assert far.data == b"".join(b"%d," % number for number in range(500))
    wait_until(lambda: len(near.data) == 10)
    assert near.rooms
    assert (near.news, far.news) == ([], [])


def test_split_delivery_comes_in_pieces() -> None:
    with MemoryNetwork(3, split=1.0) as network:
        accepted: list[Transport] = []
        listening = network.carrier("10.0.0.2:1").listen(Endpoint("10.0.0.2", 1), accepted.append)
        listening.start()
        near = network.carrier("10.0.0.1:1").dial([listening.endpoint], 5.0)
        wait_until(lambda: accepted)
        pieces: list[bytes] = []
        far = Recorder(accepted[0])
        far.on_data = lambda data: pieces.append(bytes(data))  # type: ignore[method-assign]
        near.write(b"x" * 1000)
        wait_until(lambda: sum(map(len, pieces)) == 1000)
        assert len(pieces) > 3


def test_connection_has_a_latency_of_its_own() -> None:
    seed = next(seed for seed in range(100) if 0.05 < MemoryNetwork(seed, skew=0.2).draw_skew() < 0.1)
    with MemoryNetwork(seed, skew=0.2) as network:
        accepted: list[Transport] = []
        listening = network.carrier("10.0.0.2:1").listen(Endpoint("10.0.0.2", 1), accepted.append)
        listening.start()
        near = network.carrier("10.0.0.1:1").dial([listening.endpoint], 5.0)
        far = Recorder(wait_until(lambda: accepted)[0])
        began = monotonic()
        near.write(b"x")
        wait_until(lambda: far.data)
        assert monotonic() - began > 0.05


def test_half_closed_connection_still_carries_the_other_way(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    near.transport.write(b"last words")
    near.transport.finish()
    wait_until(lambda: far.news)
    assert (far.data, far.news) == (b"last words", ["end"])
    far.transport.write(b"answer")
    far.transport.finish()
    wait_until(lambda: near.news)
    assert (near.data, near.news) == (b"answer", ["end"])


def test_reader_that_pauses_fills_the_senders_buffer(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    far.transport.pause()
    count = 0
    # A kernel takes some megabytes.
    while not near.transport.buffered or count < 4 * BUFFER:
        near.transport.write(b"x" * 65536)
        count += 65536
        turns(3)
        assert count < 2**26
    waiting = near.transport.buffered
    turns(10)
    assert near.transport.buffered == waiting
    assert far.data == b""
    far.transport.resume()
    wait_until(lambda: len(far.data) == count)
    wait_until(lambda: not near.transport.buffered)


def test_abort_is_heard_as_a_reset(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    near.transport.abort()
    near.transport.abort()
    wait_until(lambda: far.news)
    assert far.news == ["broken"]
    assert near.news == [], "who ends the connection itself is not told"


def test_bytes_for_a_closed_end_are_answered_with_a_reset(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    near.transport.close()
    near.transport.close()
    wait_until(lambda: far.news)
    assert far.news == ["end"]

    def write() -> bool:
        far.transport.write(b"anybody there?")
        turns(2)
        return len(far.news) > 1

    wait_until(write)
    assert far.news == ["end", "broken"]


def test_node_that_crashed_before_it_read_anything_reads_nothing() -> None:
    with MemoryNetwork() as network:
        accepted: list[Transport] = []
        one, two = network.carrier("10.0.0.1:1"), network.carrier("10.0.0.2:1")
        listening = two.listen(Endpoint("10.0.0.2", 1), accepted.append)
        listening.start()
        near: Any = one.dial([listening.endpoint], 5.0)
        far = Recorder(accepted[0])
        far.transport.write(b"the beginning of a greeting")
        wait_until(lambda: near.incoming.has_unread)
        network.crash("10.0.0.1:1", silent=True)
        turns(3)
        far.transport.write(b"and its end")
        late = Recorder(near)
        wait_until(lambda: late.news)
        turns(3)
        assert (late.data, late.news) == (b"", ["broken"])


def test_end_closed_with_something_unread_is_heard_as_a_reset(pair: Pair) -> None:
    near, far = map(Recorder, pair())
    far.transport.pause()
    near.transport.write(b"unread")
    wait_until(lambda: near.rooms)
    wait_until(lambda: has_unread(far.transport))
    far.transport.close()
    wait_until(lambda: near.news)
    assert near.news == ["broken"]


def has_unread(transport: Any) -> bool:
    if isinstance(transport, SocketTransport):
        return bool(select.select([transport._socket], [], [], 0)[0])
    return bool(transport.incoming.has_unread)


@pytest.mark.parametrize("kind", ["socket", "memory"])
def test_dial_is_refused_where_nobody_listens(kind: str) -> None:
    with carriers(kind) as (ours, theirs, endpoint):
        listening = theirs.listen(endpoint, lambda transport: None)
        listening.close()
        with pytest.raises(OSError, match="refused"):
            ours.dial([listening.endpoint], 5.0)


@pytest.mark.parametrize("kind", ["socket", "memory"])
def test_endpoint_is_bound_only_once(kind: str) -> None:
    with carriers(kind) as (ours, theirs, endpoint):
        listening = theirs.listen(endpoint, lambda transport: None)
        with pytest.raises(ListenError, match="in use"):
            theirs.listen(listening.endpoint, lambda transport: None)
        listening.close()
        theirs.listen(listening.endpoint, lambda transport: None).close()


# --- nodes and faults -----------------------------------------------------------------------


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(split=0.2, latency=0.001, jitter=0.002) as made:
        print(made)
        yield made


def linked(network: MemoryNetwork, **settings: Any) -> tuple[Node, Node, Inbox, Deaths]:
    """Return two nodes with a link, a port of the second one, and the first one's monitor of it."""
    one, two = network.node(**settings), network.node(**settings)
    inbox, lost = Inbox(two), Deaths()
    one.mon(inbox, lost)
    one.snd(inbox, "first")
    wait_until(lambda: inbox.messages)
    return one, two, inbox, lost


def test_messages_arrive_in_order_however_they_are_cut(network: MemoryNetwork) -> None:
    one, _two, inbox, lost = linked(network, **PATIENT)
    for number in range(1000):
        one.snd(inbox, number)
        if number % 100 == 0:
            gevent.sleep(0.001)
    wait_until(lambda: len(inbox.messages) == 1001)
    assert [number for (number,) in inbox.messages[1:]] == list(range(1000))
    assert not lost.count


def test_cut_link_is_lost_for_both_and_made_again(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **PATIENT)
    lost_over_there = Deaths()
    two.mon(one.port(), lost_over_there)
    wait_until(two.up_nodes)
    network.delay(one, two, 10.0)
    one.snd(inbox, "under way")
    turns(3)
    assert network.cut(one, two) == 1
    assert lost.wait()[0] == "transport_error"
    assert lost_over_there.wait()[0] == "transport_error"
    network.heal()
    one.mon(inbox, lost)
    one.snd(inbox, "again")
    wait_until(lambda: len(inbox.messages) == 2)
    assert inbox.messages == [("first",), ("again",)]
    assert network.cut(one, "10.0.0.99:4040") == 0


def test_blocked_line_is_one_way_and_delivers_late(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **PATIENT)
    back = Inbox(one)
    network.block(one, two)
    for number in range(3):
        one.snd(inbox, number)
    two.snd(back, "the other way")
    wait_until(lambda: back.messages)
    assert inbox.messages == [("first",)]
    network.heal()
    wait_until(lambda: len(inbox.messages) == 4)
    assert inbox.messages == [("first",), (0,), (1,), (2,)]
    assert not lost.count


@pytest.mark.slow
def test_silence_of_a_blocked_line_is_noticed(network: MemoryNetwork) -> None:
    one, two, _inbox, lost = linked(network, **QUICK)
    network.block(two, one)
    assert "nothing received" in lost.wait()[2]


@pytest.mark.slow
def test_partition_separates_its_groups_and_nobody_else(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **QUICK)
    three = network.node(**QUICK)
    network.partition([one], [two, three.NODE()])
    assert "nothing received" in lost.wait()[2]
    one.mon(inbox, lost)
    wait_until(lambda: lost.count == 2)
    assert "timed out" in lost.wait()[2]
    three.snd(inbox, "same side")
    wait_until(lambda: len(inbox.messages) == 2)
    network.partition([three])
    echo = two.port(lambda reply: two.snd(reply, "one group again"))
    wait_until(lambda: one.syncal(0.1, echo))
    wait_until(lambda: not three.up_nodes())


def test_dial_that_waits_for_a_partition_is_made_when_that_heals(network: MemoryNetwork) -> None:
    one, two = network.node(), network.node()
    inbox, lost = Inbox(two), Deaths()
    network.partition([one])
    one.mon(inbox, lost)
    one.snd(inbox, "patience")
    wait_until(lambda: any(dial.is_lost for dial in network._dials))
    network.heal()
    wait_until(lambda: inbox.messages)
    assert not lost.count


def test_refused_dial_fires_monitors(network: MemoryNetwork) -> None:
    one, two = network.node(), network.node()
    inbox, lost = Inbox(two), Deaths()
    network.refuse(one, two)
    one.mon(inbox, lost)
    assert "refused" in lost.wait()[2]
    back = Inbox(one)
    two.snd(back, "the other way")
    wait_until(lambda: back.messages)
    one.snd(inbox, "over that link")
    wait_until(lambda: inbox.messages)


@pytest.mark.slow
def test_delay_is_that_of_one_pair(network: MemoryNetwork) -> None:
    one, two, three = (network.node(**PATIENT) for _ in range(3))
    for node in (two, three):
        node.reg(node.port(lambda reply, node=node: node.snd(reply, "pong")), "echo")

    def seconds(node: Node) -> float:
        began = monotonic()
        assert one.syncal(5.0, f"{node.NODE()}#echo") == ("pong",)
        return monotonic() - began

    seconds(two), seconds(three)
    network.delay(one, two, 0.1)
    assert seconds(two) >= 0.2 > seconds(three)
    network.heal()
    assert seconds(two) < 0.2
    network.cut(one, two)
    wait_until(lambda: two.NODE() not in one.up_nodes())
    network.delay(two, one, 0.0, dial=0.1)
    assert seconds(two) >= 0.1


def test_crashed_node_says_nothing_more_and_its_successor_is_another_one(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **PATIENT)
    ups: list[tuple[Any, ...]] = []
    one.mon_nodes(lambda *news: ups.append(news[:2]))
    back = Inbox(one)
    own = two.port()
    two.mon(own, lambda *reason: two.snd(back, "its last words"))
    two.snd(back, "never leaves")
    network.crash(two)
    assert lost.wait()[0] == "transport_error"
    assert request_host_of(two).find_port(own.partition("#")[2]) is None, "its ports live on"
    new = network.node(two.NODE(), **PATIENT)
    new.reg(new.port(lambda reply: new.snd(reply, "successor")), "who")
    assert one.syncal(5.0, f"{two.NODE()}#who") == ("successor",)
    assert ups == [(two.NODE(), False), (two.NODE(), True)]
    assert back.messages == []
    with pytest.raises(LookupError, match="no living node"):
        network.crash("10.0.0.99:4040")


@pytest.mark.slow
def test_node_that_crashed_in_silence_is_missed(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **QUICK)
    network.crash(two.NODE(), silent=True)
    assert "nothing received" in lost.wait()[2]
    one.mon(inbox, lost)
    wait_until(lambda: lost.count == 2)
    assert "timed out" in lost.wait()[2]
    network.heal()  # that does not put the plug in again
    new = network.node(two.NODE(), **QUICK)
    new.reg(new.port(lambda reply: new.snd(reply, "successor")), "who")
    wait_until(lambda: one.syncal(0.1, f"{two.NODE()}#who"))


def test_successor_resets_what_a_silent_crash_left_open(network: MemoryNetwork) -> None:
    one, two, inbox, lost = linked(network, **PATIENT)
    network.crash(two, silent=True)
    one.snd(inbox, "is not answered")
    turns(10)
    assert not lost.count
    network.node(two.NODE(), **PATIENT)
    assert "reset" in lost.wait()[2]


def test_sender_pauses_when_the_other_node_does_not_read() -> None:
    with MemoryNetwork(buffer_bytes=BUFFER) as network:
        one, two, inbox, _lost = linked(network, **PATIENT, high_water_bytes=BUFFER)
        network.block(one, two)
        sent: list[int] = []

        def send() -> None:
            for number in range(100):
                one.snd(inbox, number, "x" * 10_000)
                sent.append(number)

        sender = gevent.spawn(send)
        turns(20)
        assert BUFFER < 10_000 * len(sent) < 4 * BUFFER
        network.heal()
        sender.join(5.0)
        wait_until(lambda: len(inbox.messages) == 101)


def test_node_with_a_name_comes_by_its_carrier(network: MemoryNetwork) -> None:
    public = network.node()
    named = Node(carrier=network.carrier("backend"))
    named.configure(nodeid="backend", seeds=[public.NODE()], secret="a secret in memory")
    wait_until(lambda: public.up_nodes() == ["backend"])
    assert network.cut("backend", public) == 1
    wait_until(lambda: not public.up_nodes())
    network.crash("backend")
    named.shutdown(0)


def test_ids_are_made_up_or_kept(network: MemoryNetwork) -> None:
    one, two, three = network.node(), network.node("10.7.7.7:0"), network.node("10.7.7.7:1,[::1]:2")
    assert len({one.NODE(), two.NODE(), three.NODE()}) == 3
    assert two.NODE().startswith("10.7.7.7:")
    assert not two.NODE().endswith(":0")
    assert three.NODE() == "10.7.7.7:1,[::1]:2"
    inbox = Inbox(three)
    one.snd(inbox, "hello")
    wait_until(lambda: inbox.messages)
    with pytest.raises(ListenError):
        network.node("10.7.7.7:1")


def test_dice_come_from_the_seed() -> None:
    assert [MemoryNetwork(7).dice.random() for _ in range(2)] == [MemoryNetwork(7).dice.random()] * 2
    drawn = MemoryNetwork()
    assert f"seed={drawn.seed}," in repr(drawn)
    assert drawn.seed != MemoryNetwork().seed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param({"latency": -1}, "seconds", id="latency"),
        pytest.param({"jitter": -1}, "seconds", id="jitter"),
        pytest.param({"split": 2}, "probability", id="split"),
        pytest.param({"buffer_bytes": 0}, "at least 1", id="buffer"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MemoryNetwork(**arguments)


def test_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        MemoryNetwork().delay("a", "b", -1.0)


def test_closed_network_leaves_nothing(network: MemoryNetwork) -> None:
    _one, two, _inbox, lost = linked(network)
    network.close()
    assert lost.wait()[0] in {"shutdown", "transport_error"}
    assert not network._ends
    assert not network.addresses.listeners()
    network.close()
    assert aemp_gevent.default_node.up_nodes() == []
    assert two.up_nodes() == []
