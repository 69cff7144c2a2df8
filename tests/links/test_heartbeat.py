# SPDX-License-Identifier: MIT
"""Links that fall silent: they are probed, found alive or given up; and programs that were only busy."""

from __future__ import annotations

import gc
import logging
import math
import subprocess
import sys
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent import socket

from aemp_gevent.node.node import Node
from aemp_gevent.runtime import loop_watch as loopwatch
from aemp_gevent.runtime.loop_watch import LoopWatch, watch_loop
from tests.support.helpers import lateness, wait_until
from tests.support.native import sleep, threading
from tests.support.networking import OUR_PROVIDER, WAIT, Deaths, Inbox, MakeNode, RawPeer
from tests.support.seams import network_of

QUICK = {"heartbeat_interval": 0.06, "heartbeat_timeout": 0.3, "monitor_timeout": 0.4}


def ours(heartbeat: float | str = 15) -> tuple[tuple[str, str], ...]:
    """Return what a peer of ours adds to its greeting."""
    return (*OUR_PROVIDER, ("heartbeat", str(heartbeat)))


def watched(node: Node, peer: RawPeer) -> Deaths:
    """Monitor a port of the peer, which notes it."""
    died = Deaths()
    node.mon(f"{peer.name}#p", died)
    assert peer.packet() == ["", "mon1", "p"]
    return died


def keep_alives(peer: RawPeer, seconds: float, enough: int = 1000) -> int:
    """Return how many keep-alives came within that time, or until there were enough, and that nothing else did."""
    got: list[list[object]] = []
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0 and len(got) < enough:
        peer.sock.settimeout(left)
        try:
            peer._feed(peer._read())
        except socket.timeout:
            break
        got += peer._packets
        peer._packets.clear()
    assert all(packet == [] for packet in got), got
    return len(got)


def test_greeting_names_the_timeout(make_node: MakeNode) -> None:
    with RawPeer.dial(make_node()) as peer:
        assert peer.greet().heartbeat == 15
    with RawPeer.dial(make_node(heartbeat_timeout=0.25)) as peer:
        assert peer.greet().heartbeat == 0.25


@pytest.mark.slow
def test_idle_link_is_proved_alive(make_node: MakeNode) -> None:
    node, started = make_node(heartbeat_interval=0.05), monotonic()
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        assert keep_alives(peer, WAIT, enough=8) >= 8
        assert monotonic() - started > 0.12, "that is more than the link needs"


@pytest.mark.slow
def test_peer_that_is_quick_to_judge_hears_of_us_more_often(make_node: MakeNode) -> None:
    node, started = make_node(), monotonic()
    with RawPeer.dial(node, extras=ours(0.15)).shake() as peer:
        assert keep_alives(peer, WAIT, enough=8) >= 8
        assert monotonic() - started > 0.12, "that is more than the peer needs"


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat", ["0", "-1", "nan", "1e-9", "soon"])
def test_absurd_heartbeat_of_a_peer_costs_little(make_node: MakeNode, heartbeat: str) -> None:
    with RawPeer.dial(make_node(), extras=ours(heartbeat)).shake() as peer:
        assert keep_alives(peer, 0.3) <= 40


@pytest.mark.slow
def test_busy_link_carries_no_heartbeats(make_node: MakeNode) -> None:
    node = make_node(heartbeat_interval=0.2)
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        heard = monotonic()
        for _ in range(30):
            peer.send(["", "time", f"{peer.name}#pong"])
            beats = keep_alives_until_data(peer)
            before, heard = heard, monotonic()
            assert beats <= (heard - before) // 0.1, "it was never so long quiet"
            gevent.sleep(0.02)


def keep_alives_until_data(peer: RawPeer) -> int:
    count = 0
    while True:
        while not peer._packets:
            peer._feed(peer._read())
        if peer._packets.pop(0):
            return count
        count += 1


@pytest.mark.slow
def test_silent_link_is_lost_in_time_and_each_missed_heartbeat_is_reported(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        died = watched(node, peer)
        started = monotonic()
        assert died.wait()[:2] == ("transport_error", peer.name)
        assert monotonic() - started > 0.25, "sooner than heartbeat_timeout"
        assert "nothing received" in died.wait()[2]
        assert peer.closed()
    missed = [record.getMessage() for record in caplog.records if "missed heartbeat" in record.getMessage()]
    assert [text.split(" of ")[0] for text in missed[:2]] == ["missed heartbeat 1", "missed heartbeat 2"]


@pytest.mark.slow
def test_peer_that_sends_heartbeats_stays(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        died = watched(node, peer)
        for _ in range(10):
            peer.send([])
            gevent.sleep(0.06)
        assert died.count == 0
        assert "missed" not in caplog.text


@pytest.mark.slow
def test_pieces_of_a_long_message_are_signs_of_life(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        died = watched(node, peer)
        data = peer.encode([inbox.port.partition("#")[2], b"x" * 1000])
        for start in range(0, len(data), 100):
            peer.sock.sendall(data[start : start + 100])
            gevent.sleep(0.07)
        wait_until(lambda: inbox.messages)
        assert died.count == 0
    assert inbox.messages == [(b"x" * 1000,)]


# --- peers that know no heartbeats --------------------------------------------------------


@pytest.mark.slow
def test_silent_peer_without_heartbeats_is_asked_and_lost_without_an_answer(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node).shake() as peer:
        died = watched(node, peer)
        started = monotonic()
        assert peer.packet() == ["", "time", node.NODE(), "devnull"], "or sent keep-alives"
        assert monotonic() - started > 0.25, "asked sooner than after heartbeat_timeout"
        assert "no answer" in died.wait()[2]
        assert monotonic() - started > 0.6, "sooner than monitor_timeout after that"


@pytest.mark.slow
def test_peer_without_heartbeats_that_answers_stays(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node).shake() as peer:
        died = watched(node, peer)
        for _ in range(4):
            assert peer.packet() == ["", "time", node.NODE(), "devnull"]
            peer.send(["", "devnull", 1.5])
        assert died.count == 0


def test_impatient_peer_does_not_hide_the_silence_of_another(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a program with long turns: however often we mean to look, they count in full."""
    node = make_node(heartbeat_timeout=20, heartbeat_interval=5)
    pulse = network_of(node).pulse
    with (
        RawPeer.dial(node, extras=ours(100)).shake() as silent,
        RawPeer.dial(node, "127.0.0.1:8", extras=ours(1e-300)).shake() as visitor,
    ):
        assert silent.answers()
        assert visitor.answers()
        link = network_of(node).peers[silent.name].link
        assert link is not None
        ticks, start = 0, monotonic()
        monkeypatch.setattr("aemp_gevent.links.heartbeat.monotonic", lambda: start + 10 + ticks)
        pulse._tick()  # so much of what was before as counts
        while not link.closed and ticks < 100:
            ticks += 1
            pulse._tick()
        assert 17 <= ticks <= 21


def test_beat_is_as_before_when_an_impatient_peer_is_gone(make_node: MakeNode) -> None:
    node = make_node()
    pulse = network_of(node).pulse
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        assert peer.answers()
        usual = pulse._beat
        with RawPeer.dial(node, "127.0.0.1:8", extras=ours(1e-300)).shake() as visitor:
            assert visitor.answers()
            assert pulse._beat < usual
        wait_until(lambda: pulse._beat == usual)
        assert pulse._timer is not None


# --- a busy program -----------------------------------------------------------------------


@pytest.mark.slow
def test_blocked_loop_costs_no_peer_its_link_and_is_named(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.loop_watch.BLOCKED_SECONDS", 0.4)
    node = make_node(**QUICK)
    watch = network_of(node)._loop_watch
    assert watch is not None

    def block_the_loop() -> None:
        watch._stack = None  # of an earlier moment, when the machine stood still
        for step in range(100):
            if step >= 15 and watch._stack is not None:
                break
            sleep(0.1)

    with RawPeer.dial(node, extras=ours()).shake() as peer:
        died = watched(node, peer)
        block_the_loop()  # five times heartbeat_timeout
        for _ in range(5):
            peer.send([])
            gevent.sleep(0.06)
        assert died.count == 0
        wait_until(lambda: "block_the_loop" in caplog.text, show=lambda: caplog.text)
    (record,) = [record for record in caplog.records if "block_the_loop" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert "was blocked" in record.getMessage()
    assert f"{__name__.rpartition('.')[2]}.py" in record.getMessage()


@pytest.mark.slow
def test_loop_that_is_free_is_not_called_blocked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.loop_watch.BLOCKED_SECONDS", 0.8)
    told, late = [], math.inf
    while late > 0.4:  # the machine took the processor away, and the log rightly says so
        gevent.sleep(0.3)  # until an older watch has told what it saw
        caplog.clear()
        with lateness() as worst:
            watch = LoopWatch(gevent.get_hub()).use()
            gevent.sleep(1.3)
            told = list(caplog.records)
            watch.release()
            late = worst()
    assert told == []


@pytest.mark.slow
def test_watch_beats_while_the_loop_is_idle() -> None:
    watch = LoopWatch(gevent.get_hub()).use()

    def beats_of_a_second() -> int:
        before = watch._beats
        gevent.sleep(1)  # one turn, but for the watch
        return watch._beats - before

    try:
        assert any(beats_of_a_second() > 2 for _ in range(10))
    finally:
        watch.release()


def test_nodes_of_one_loop_share_its_watch(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    assert network_of(one)._loop_watch is network_of(two)._loop_watch is not None
    watch = network_of(one)._loop_watch
    users = watch._users
    one.shutdown()
    assert gevent.get_hub() in loopwatch._watches, "ended, and one node still needs it"
    two.shutdown()
    assert watch._users == users - 4, "each is watched for its ports, and for its links"
    wait_until(lambda: watch._timer.active == bool(watch._users))


def test_loop_is_watched_from_the_first_port_on_until_the_node_is_gone() -> None:
    node = Node()
    assert node._watch is None, "a node without ports starts nothing"
    node.port()
    watch = node._watch
    assert watch is not None
    assert watch is loopwatch._watches[gevent.get_hub()]
    users = watch._users
    node.port()
    assert watch._users == users
    del node
    wait_until(lambda: gc.collect() >= 0 and watch._users == users - 1)


def test_networked_node_gives_its_watch_back(make_node: MakeNode) -> None:
    node = make_node()
    node.port()
    watch = node._watch
    assert watch is not None
    users = watch._users
    node.shutdown()
    node.shutdown()
    assert watch._users == users - 2  # its own, and its network's


def test_beats_end_with_the_last_link(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    pulse = network_of(node).pulse
    assert pulse._timer is None
    with RawPeer.dial(node, extras=ours()).shake() as peer:
        assert peer.answers()
        assert pulse._timer is not None
    wait_until(lambda: pulse._timer is None)


def test_watch_of_a_loop_ends_with_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without shutdown: otherwise each former node would leave a thread."""
    monkeypatch.setattr(loopwatch, "BLOCKED_SECONDS", 0.05)
    monkeypatch.setattr(loopwatch, "_BEAT_SECONDS", 0.02)
    watches: list[loopwatch.LoopWatch] = []
    go_on = threading.Event()

    def run() -> None:
        watches.append(watch_loop(gevent.get_hub()))
        go_on.wait(10)  # blocked, and noticed, as it may be at any time

    def looks_on() -> bool:
        code = loopwatch.LoopWatch._look_on.__code__
        frames = [frame for frame in sys._current_frames().values() if frame is not None]
        while frames:
            frame = frames.pop()
            if frame.f_code is code and frame.f_locals["self"] in watches:
                return True
            if frame.f_back is not None:
                frames.append(frame.f_back)
        return False

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: watches and watches[0]._stack is not None)
    assert looks_on()
    go_on.set()
    thread.join(10)
    try:
        wait_until(lambda: not looks_on())
    finally:
        del loopwatch._watches[watches[0]._hub]


PATCHED = """
from gevent import monkey
monkey.patch_all()
import logging, sys, time
import gevent
from aemp_gevent.runtime import loop_watch as loopwatch

logging.basicConfig(stream=sys.stdout, format="%(message)s")
loopwatch.BLOCKED_SECONDS = 0.4
loopwatch.watch_loop(gevent.get_hub())
gevent.sleep(0.3)
end = time.monotonic() + 1.5
while time.monotonic() < end:  # busy with this
    pass
gevent.sleep(0.3)
"""


@pytest.mark.slow
def test_blocked_loop_of_a_patched_program_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PATCHED)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=30)
    assert "busy with this" in done.stdout, done.stdout + done.stderr
