# SPDX-License-Identifier: MIT
"""Listening to another node's log: which records are sent, which are not, and that they never echo."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from aemp_gevent import Node
from aemp_gevent.node import log_feed
from tests.support.helpers import turns, wait_until
from tests.support.injecting import Injector, strike_points
from tests.support.native import threading
from tests.support.networking import SECRET, MakeNode, RawPeer, node_factory
from tests.support.seams import log_feed_of, network_of
from tests.support.settling import settle

PEER = "127.0.0.1:9"
REPLY = f"{PEER}#r"

LIBRARY = logging.getLogger("aemp_gevent")
PROGRAM = logging.getLogger("a.program.of.the.tests")


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    before = [(logger.level, list(logger.filters), list(logger.handlers)) for logger in (LIBRARY, logging.getLogger())]
    with node_factory() as make:
        yield make
    after = [(logger.level, list(logger.filters), list(logger.handlers)) for logger in (LIBRARY, logging.getLogger())]
    assert after == before, "the process's loggers are not as they were"


class Listener:
    """A port that listens to another node's log."""

    def __init__(self, node: Node, other: Node, level: object, *tag: object) -> None:
        self.node, self.other, self.tag = node, other, tag
        self.got: list[Any] = []
        self.port = node.port(self._take)
        node.snd(other.NODE(), "log", level, self.port, *tag)
        wait_until(lambda: self.got)
        self.answer = self.got.pop(0)

    def _take(self, *message: Any) -> None:
        assert message[:-1] == self.tag
        self.got.append(message[-1])

    def texts(self) -> list[str]:
        return [record["text"] for record in self.got]

    def stop(self) -> None:
        self.node.snd(self.other.NODE(), "log", None, self.port, *self.tag)
        wait_until(lambda: not log_feed_of(self.other).listeners)


def test_request_of_the_node_itself_that_cannot_be_answered_is_one_warning(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    node.snd(node.NODE(), "log", "info", node.NODE())
    settle(node)
    assert [record.levelname for record in caplog.records if "'log' of this node failed" in record.message] == [
        "WARNING"
    ]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def heard(listener: Listener, count: int = 1) -> None:
    wait_until(lambda: len(listener.got) >= count, show=lambda: listener.got)


def only_told(text: str, *args: object) -> None:
    """Log a record that pytest's own handlers cannot format."""
    record = logging.LogRecord(PROGRAM.name, logging.WARNING, "x.py", 1, text, args, None)
    logging.getLogger().handlers[-1].handle(record)


def test_records_of_the_level_and_above_are_sent(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning", "tag")
    assert listener.answer == {"node": one.NODE(), "level": "WARNING"}
    PROGRAM.info("too low")
    PROGRAM.warning("%s of %d", "one", 2)
    LIBRARY.info("too low")
    try:
        raise ValueError("what failed")
    except ValueError:
        LIBRARY.exception("it failed")
    heard(listener, 2)
    first, second = listener.got
    assert first["node"] == one.NODE()
    assert (first["level"], first["name"], first["text"]) == ("WARNING", PROGRAM.name, "one of 2")
    assert isinstance(first["time"], float)
    assert second["text"].startswith("it failed\nTraceback")
    assert second["text"].endswith("ValueError: what failed")
    listener.stop()
    PROGRAM.warning("nobody listens")
    assert two.syncal(10, one.NODE(), "time")
    assert len(listener.got) == 3, "the last is the answer"


def test_own_debug_records_are_sent_and_not_shown_to_the_program(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make_node(), make_node()
    level = LIBRARY.level
    listener = Listener(two, one, "debug")
    caplog.clear()
    LIBRARY.debug("a detail")
    logging.getLogger("aemp_gevent.etcd").debug("a detail of etcd")
    LIBRARY.warning("for all")
    heard(listener, 3)
    assert {"a detail", "a detail of etcd", "for all"} <= set(listener.texts())
    assert caplog.messages == ["for all"]
    listener.stop()
    assert LIBRARY.level == level
    assert not LIBRARY.isEnabledFor(logging.DEBUG)


def test_levels_of_the_program_stay_as_they_are(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "debug")
    assert not PROGRAM.isEnabledFor(logging.INFO)
    LIBRARY.setLevel(logging.ERROR)  # while somebody listens
    listener.stop()
    assert LIBRARY.level == logging.ERROR
    LIBRARY.setLevel(logging.NOTSET)


def test_each_listener_has_its_level_and_gets_each_record_once(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    all_, some = Listener(two, one, "debug"), Listener(two, one, logging.ERROR)
    Listener(two, two, "error")  # of another node in this process
    LIBRARY.debug("a detail")
    LIBRARY.error("an error")
    PROGRAM.error("another")
    heard(some, 2)
    heard(all_, 3)
    assert some.texts() == ["an error", "another"]
    assert [text for text in all_.texts() if "an" in text.split()] == ["an error"]
    assert all_.texts().count("another") == 1


def test_listening_again_changes_the_level(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "error")
    two.snd(one.NODE(), "log", "warning", listener.port)
    wait_until(lambda: listener.got)
    assert log_feed_of(one).listeners == 1
    LIBRARY.warning("now")
    heard(listener, 2)
    assert listener.got[1]["text"] == "now"


def test_feed_continues_wherever_it_is_struck(make_node: MakeNode) -> None:
    """Struck where it began to send, before the first line, it was silent from then on."""

    def strike() -> None:
        raise KeyboardInterrupt

    node = make_node()
    listener = Listener(node, node, "warning")
    for point in itertools.count(1):
        injector = Injector(strike, lambda seen: seen == point, strike_points, ("node/log_feed.py",))  # noqa: B023
        with contextlib.suppress(KeyboardInterrupt), injector:
            PROGRAM.warning("perhaps lost")
            settle(node)
        with contextlib.suppress(KeyboardInterrupt):  # it may only come now
            settle(node)
        listener.got.clear()
        PROGRAM.warning("the next")
        wait_until(lambda: "the next" in listener.texts(), within=5, show=lambda: (point, listener.got))  # noqa: B023
        if not injector.fired:
            break
    assert point > 8


# --- the end ---------------------------------------------------------------------------------


def test_listener_that_died_is_forgotten(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "debug")
    two.kil(listener.port)
    wait_until(lambda: not log_feed_of(one).listeners)


def test_listener_whose_node_is_gone_is_forgotten(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(["", "log", "error", REPLY])
        assert peer.take(2) == [["", "mon1", "r"], ["r", {"node": node.NODE(), "level": "ERROR"}]]
        assert log_feed_of(node).listeners == 1
    wait_until(lambda: not log_feed_of(node).listeners)


def test_forked_child_sends_no_records(make_node: MakeNode) -> None:
    """Calls what ``forked()`` calls, without a fork."""
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    log_feed_of(one).abandon()
    PROGRAM.warning("of the child")
    assert two.syncal(10, one.NODE(), "time")
    assert listener.got == []


def test_listener_that_loses_its_right_gets_the_refusal_and_no_more_records(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning", "tag")
    network = network_of(one)
    assert network is not None
    peer = network.peers[two.NODE()]
    peer.rights = replace(peer.rights, inspect=False)
    PROGRAM.warning("one")
    heard(listener)
    assert listener.got == [{"node": one.NODE(), "error": f"the rules no longer let {two.NODE()} inspect this node"}]
    assert log_feed_of(one).listeners == 0


# --- no echo, no flood -----------------------------------------------------------------------


def test_listening_port_without_a_handler_makes_no_echo(make_node: MakeNode) -> None:
    """Discarded messages are logged at debug level, and it listens to that level."""
    node = make_node()
    port = node.port()
    node.snd(node.NODE(), "log", "debug", port)
    wait_until(lambda: log_feed_of(node).listeners)
    PROGRAM.warning("one")
    for _ in range(50):
        turns(5)
    settle(node)
    assert node.scheduler.discarded == 4, "the answer, the hint and the line that say so, and the record"
    node.kil(port)
    wait_until(lambda: not log_feed_of(node).listeners)


def test_nodes_that_listen_to_each_other_make_no_echo(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    ports = [one.port(), two.port()]
    one.snd(two.NODE(), "log", "debug", ports[0])
    two.snd(one.NODE(), "log", "debug", ports[1])
    wait_until(lambda: log_feed_of(one).listeners and log_feed_of(two).listeners)
    PROGRAM.warning("one")
    for _ in range(50):
        assert one.syncal(10, two.NODE(), "time")
        assert two.syncal(10, one.NODE(), "time")
    # To each the answer, two lines for each of the two that was discarded (the log is of this process), and the record.
    assert (one.scheduler.discarded, two.scheduler.discarded) == (6, 6)


def test_flood_is_cut_and_counted(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(log_feed, "monotonic", lambda: now[0])
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    for number in range(log_feed.MAX_A_SECOND + 30):
        PROGRAM.warning("%d", number)
    heard(listener, log_feed.MAX_A_SECOND)
    assert two.syncal(10, one.NODE(), "time")
    assert len(listener.got) == log_feed.MAX_A_SECOND
    now[0] += 1.5
    PROGRAM.warning("later")
    heard(listener, log_feed.MAX_A_SECOND + 1)
    assert sum(record.get("left_out", 0) for record in listener.got) == 30
    assert listener.got[-1]["text"] == "later"


def test_listener_whose_link_is_full_misses_records_without_a_wait(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    network = network_of(one)
    assert network is not None
    peer = network.peers[two.NODE()]
    peer.high_water = -1
    PROGRAM.warning("one")
    PROGRAM.warning("two")
    settle(one)
    peer.high_water = 10**6
    PROGRAM.warning("three")
    heard(listener)
    assert [(record["text"], record["left_out"]) for record in listener.got] == [("three", 2)]


def test_long_texts_are_cut_in_the_middle(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    PROGRAM.warning("begin %s end", "x" * 100_000)
    only_told("\ud800")
    heard(listener, 2)
    text, odd = listener.texts()
    assert len(text) < log_feed.MAX_TEXT + 10
    assert text.startswith("begin x")
    assert text.endswith("x end")
    assert odd == "\\ud800"


def test_record_that_cannot_be_formatted_is_sent_unformatted(make_node: MakeNode) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError

    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    only_told("with %s", Bad())
    heard(listener)
    assert listener.texts() == ["'with %s' (it cannot be formatted: ValueError)"]


def test_records_of_native_threads_are_sent(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    listener = Listener(two, one, "warning")
    threads = [threading.Thread(target=PROGRAM.warning, args=("of thread %d", number)) for number in range(5)]
    for thread in threads:
        thread.start()
    heard(listener, 5)
    assert sorted(listener.texts()) == [f"of thread {number}" for number in range(5)]
    for thread in threads:
        thread.join()


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "port", "says"),
    [
        pytest.param("loud", REPLY, "'loud' is not a level: debug, info", id="name"),
        pytest.param(51, REPLY, "is not a level", id="number"),
        pytest.param([1], REPLY, "is not a level", id="list"),
        pytest.param("debug", PEER, "ports of the requesting node", id="node-port"),
    ],
)
def test_invalid_question_is_answered_with_the_reason(make_node: MakeNode, level: object, port: str, says: str) -> None:
    node = make_node()
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(["", "log", level, port, "devnull"])
        assert says in peer.packet()[-1]["error"]
    assert not log_feed_of(node).listeners


def test_log_goes_only_to_ports_of_the_requesting_node(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    got: list[Any] = []
    victim = two.port(lambda *message: got.append(message))
    with RawPeer.dial(one, PEER).shake() as peer:
        two.mon(one.NODE(), lambda *_reason: None)
        wait_until(lambda: one.node_is_up(two.NODE()))
        peer.send(["", "log", "debug", victim])
        wait_until(lambda: got)
        assert "requesting node" in got[0][0]["error"]
        assert not log_feed_of(one).listeners


def test_listeners_are_bounded(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_feed, "MAX_LISTENERS", 2)
    one, two = make_node(secret=SECRET), make_node()
    listeners = [Listener(two, one, "error") for _ in range(3)]
    assert "error" not in listeners[1].answer
    assert "listen to this node's log already" in listeners[2].answer["error"]
    assert log_feed_of(one).listeners == 2
