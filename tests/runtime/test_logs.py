# SPDX-License-Identifier: MIT
"""Everything that reaches the log is cut and escaped, no matter who sends it."""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aemp_gevent
from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.node.requests import Requests
from aemp_gevent.runtime.bounded_log import ALL_PEERS
from aemp_gevent.runtime.logs import MAX_VALUE, Brief, Lines, Log
from tests.support.networking import OUR_PROVIDER, MakeNode, RawPeer

EVIL = "bye\nCRITICAL forged line \x1b[31m\u202e"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("plain", "plain", id="text"),
        pytest.param(EVIL, r"bye\nCRITICAL forged line \x1b[31m\u202e", id="hostile-text"),
        pytest.param(b"\n", r"b'\n'", id="bytes"),
        pytest.param(["\n", 1], r"['\n', 1]", id="list"),
        pytest.param(ValueError(EVIL), r"bye\nCRITICAL forged line \x1b[31m\u202e", id="exception"),
        pytest.param(Endpoint("127.0.0.1", 5), "127.0.0.1:5", id="tuple-with-a-text-of-its-own"),
        pytest.param("x" * 1000, "x" * (MAX_VALUE - 1) + "…", id="long"),
        pytest.param(Lines("a\n  b\x1b"), "a\n  b\\x1b", id="lines-of-ours"),
        pytest.param(Brief(("tag", "secret", 2)), "message 'tag' with 2 more elements", id="message"),
        pytest.param(Brief(("tag", 2)), "message 'tag' with 1 more element", id="message-of-two"),
        pytest.param(Brief(("4" * 50,)), "message <str>", id="message-without-tag"),
        pytest.param(Brief(({"card": "4111"},)), "message <dict>", id="message-of-data"),
        pytest.param(Brief(()), "empty message", id="empty-message"),
    ],
)
def test_values_are_cut_and_escaped(caplog: pytest.LogCaptureFixture, value: object, shown: str) -> None:
    Log().warning("said %s %d %g", value, 7, 0.5)
    assert caplog.messages == [f"said {shown} 7 0.5"]


def test_value_whose_text_fails_is_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Awful:
        def __str__(self) -> str:
            raise ValueError("no text")

        def __repr__(self) -> str:
            return "<awful>"

    Log().warning("said %s", Awful())
    assert caplog.messages == ["said <awful>"]


def test_records_name_the_code_that_logged(caplog: pytest.LogCaptureFixture) -> None:
    Log().warning("here")
    Log().log(logging.WARNING, "and here")
    assert [record.filename for record in caplog.records] == ["test_logs.py"] * 2


def hostile_packets() -> Iterator[list[Any]]:
    for name in (*Requests._TABLE, EVIL, [EVIL]):
        for count in range(1, 6):
            yield ["", name, *[EVIL] * count]
            yield ["", name, *[[EVIL]] * count]
            yield ["", name, *[{EVIL: EVIL}] * count]
    yield [EVIL, 1]
    yield [EVIL, EVIL]


def test_no_peer_begins_a_line_of_its_own_or_speaks_to_a_terminal(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.runtime.bounded_log.MAX_LINES", 10_000)
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    node = make_node(allow_spawn=["tests.*"])
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("uniq", "once"))).shake() as peer:
        for packet in hostile_packets():
            peer.send(packet)
        peer.send(["", "time", "127.0.0.1:9#done"])
        while peer.packet()[0] != "done":
            pass
    assert len(caplog.messages) > 50
    # On a busy machine there may be a warning with a stack, which this process wrote, in several lines.
    lines = [text for text in caplog.messages if not text.startswith("the event loop was blocked")]
    assert [text for text in lines if not text.isprintable()] == []


def test_reason_of_a_lost_route_cannot_forge_a_line(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    node = make_node()
    me = f"slave/x@{node.NODE()}"
    with RawPeer.dial(node, me, extras=(*OUR_PROVIDER, ("uniq", "once"))).shake() as slave:
        slave.send(["", "via", me, node.NODE(), ["", "via_down", me, "transport_error", "x", EVIL]])
        slave.send(["", "refused", EVIL])
        assert slave.closed()
    assert any("forged line" in text for text in caplog.messages)
    assert [text for text in caplog.messages if not text.isprintable()] == []


def fail_with(text: object) -> None:
    """Serve as a function that a peer may spawn and call."""
    raise ValueError(f"cannot do {text}")


@pytest.mark.slow
def test_no_peer_can_flood_the_log(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, times = 10, 30
    monkeypatch.setattr("aemp_gevent.runtime.bounded_log.MAX_LINES", most)
    caplog.set_level(logging.DEBUG, "aemp_gevent")
    node = make_node(allow_spawn=["tests.*"])
    served = node.serve(node.port(), "fail", fail_with).partition("#")[2]
    plain = node.port().partition("#")[2]
    fail = "tests.runtime.test_logs.fail_with"
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("uniq", "once"))).shake() as peer:
        for number in range(times):
            peer.send(
                ["", fail, "x"],
                ["", fail],
                ["", fail, {}, 1],
                ["", "AnyEvent::MP::_spawn", f"spawned{number}", fail, "x"],
                [served, "fail", "x", "127.0.0.1:9#reply"],
                [served, "fail", "no call"],
                [plain, "no handler"],
                ["nobody", 1],
                ["", "lookup"],
                ["", "not_done", f"request{number}", "why", ""],
            )
        peer.send(["", "time", "127.0.0.1:9#done"])
        while peer.packet()[0] != "done":
            pass
    for _ in range(times):
        with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("uniq", "once"))).shake() as peer:
            peer.send(["", "refused", "x"])
            assert peer.closed()
    templates = Counter(record.msg for record in caplog.records)
    assert templates["%s discarded: no handler matches"] == most  # or nothing of this was logged at all
    assert {text: count for text, count in templates.items() if count > most} == {}


@pytest.mark.slow
def test_a_peer_cannot_flood_the_log_under_many_node_ids(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 2
    monkeypatch.setattr("aemp_gevent.runtime.bounded_log.MAX_LINES", most)
    node = make_node()
    for number in range(ALL_PEERS + 5):
        with RawPeer.dial(node, f"127.0.0.1:{number + 1}").shake() as peer:
            peer.send(*[["", "lookup"]] * (most + 1))
            assert peer.answers()
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == ALL_PEERS * most + 1


def test_traceback_cannot_begin_a_line_with_what_a_peer_sent(caplog: pytest.LogCaptureFixture) -> None:
    try:
        try:
            fail_with("\x1b[2J\nCRITICAL forged inner")
        except ValueError as inner:
            raise KeyError("\nCRITICAL outer is quoted by Python") from inner
    except KeyError as error:
        Log().error("exception in %s", "x", exc_info=error)
    [record] = caplog.records
    assert (record.filename, record.funcName) == (
        "test_logs.py",
        "test_traceback_cannot_begin_a_line_with_what_a_peer_sent",
    )
    begins = {line[:8] for line in caplog.text.splitlines() if not line.startswith(" ")}
    assert begins == {"ERROR   ", "Tracebac", "ValueErr", "", "The abov", "KeyError"}
    assert "cannot do \\x1b[2J\n    CRITICAL forged inner\n" in caplog.text


def test_long_traceback_is_cut_in_its_middle(caplog: pytest.LogCaptureFixture) -> None:
    try:
        fail_with("x" * 100_000)
    except ValueError as error:
        Log().error("exception in %s", "x", exc_info=error)
    assert len(caplog.text) < 21_000
    assert "in fail_with" in caplog.text


# --- there is no other way --------------------------------------------------------------------

PACKAGE = Path(aemp_gevent.__file__).parent

HANDLES_LOGGERS = {
    "runtime/gunicorn.py",
    "runtime/logs.py",
    "node/log_feed.py",
    "node/log_tap.py",
    "cli/command_node.py",
    "cli/top.py",
    "cli/log.py",
    "testing/crashes.py",
}
"""They set levels or handlers, or catch what was logged."""


@pytest.mark.slow
def test_every_logger_of_the_package_escapes() -> None:
    """A module with a logger of its own would log the texts of peers unchanged."""
    for source in PACKAGE.rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.Attribute) and node.attr in ("getLogger", "LoggerAdapter")
        ]
        name = str(source.relative_to(PACKAGE))
        assert not calls or name in HANDLES_LOGGERS, f"{name}: make a logs.Log instead"


class HeldForever:
    """A lock that nobody gets."""

    def acquire(self, *_args: object) -> None:
        raise AssertionError("logging's lock was waited for")

    __enter__ = acquire

    def __exit__(self, *_args: object) -> None: ...


def test_whether_a_line_is_logged_is_known_without_logging_s_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A native thread that sends asks for it, and in a patched program might wait for that lock forever."""
    logger, log = logging.getLogger("aemp_gevent.test"), Log("aemp_gevent.test")
    levels = (0, 5, 10, 20, 30, 40)
    for disabled in (False, True):
        for below in levels:
            for least in levels:
                monkeypatch.setattr(logger, "disabled", disabled)
                monkeypatch.setattr(logger.manager, "disable", below)
                logger.setLevel(least)  # which forgets what was asked before
                expected = [logger.isEnabledFor(level) for level in levels]
                logger.setLevel(least)
                with monkeypatch.context() as held:
                    held.setattr(logging, "_lock", HeldForever())
                    assert [log.is_enabled_for(level) for level in levels] == expected
    logger.setLevel(logging.NOTSET)
