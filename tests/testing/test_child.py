# SPDX-License-Identifier: MIT
"""The code of the child that carries out commands, run in this process at the other end of a socket pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from aemp_gevent.testing._child import execute, serve
from aemp_gevent.testing.channel import Channel, pack, unpack

Ask = Callable[..., tuple[Any, ...]]


@pytest.fixture
def channel() -> Iterator[Channel]:
    """The parent's end; a greenlet serves the other one."""
    ours, theirs = map(Channel, socket.socketpair())
    server = gevent.spawn(serve, theirs, {"gevent": gevent})
    yield ours
    ours.close()
    server.join(5.0)
    assert server.successful(), "it serves on without a parent"
    theirs.close()


@pytest.mark.parametrize(
    ("code", "value"),
    [
        pytest.param("1 + 1", 2, id="expression"),
        pytest.param("a = 2\na * 3", 6, id="last-line"),
        pytest.param("a = 2", None, id="statement"),
        pytest.param("", None, id="nothing"),
        pytest.param("def f(x):\n    return x + y\ny = 5\nf(1)", 6, id="function-sees-globals"),
        pytest.param("[n for n in range(3) if n != skip]", [0, 2], id="names-in-a-comprehension"),
        pytest.param("if skip:\n    1", None, id="no-expression"),
    ],
)
def test_value_of_the_last_expression_is_returned(code: str, value: object) -> None:
    assert execute(code, {"skip": 1}) == value


def test_commands_share_a_namespace(channel: Channel) -> None:
    channel.send(1, "x = given", pack({"given": 5}))
    assert channel.receive() == (1, True, pack(None))
    channel.send(2, "x + given", pack({}))
    number, succeeded, value = channel.receive()
    assert (number, succeeded, unpack(value)) == (2, True, 10)


def test_command_that_waits_holds_up_no_other(channel: Channel) -> None:
    channel.send(1, "event = gevent.event.Event()\nevent.wait(5)", pack({}))
    channel.send(2, "event.set()", pack({}))
    assert sorted([channel.receive(), channel.receive()]) == [(1, True, pack(True)), (2, True, pack(None))]


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        pytest.param("def f():\n    1 / 0\nf()", "ZeroDivisionError", '", line 2, in f\n    1 / 0\n', id="raised"),
        pytest.param("1 +", "SyntaxError", "1 +", id="syntax"),
        pytest.param("lambda: 1", "PicklingError", "lambda", id="value-cannot-travel"),
        pytest.param("raise gevent.Timeout(3)", "Timeout", "3 seconds", id="timeout"),
        pytest.param("raise gevent.GreenletExit('so')", "GreenletExit", "so", id="exit"),
    ],
)
def test_error_is_reported_with_the_commands_own_lines(channel: Channel, code: str, kind: str, expected: str) -> None:
    channel.send(1, code, pack({}))
    number, succeeded, name, _text, trace = channel.receive()
    assert (number, succeeded) == (1, False)
    assert name in {kind, "AttributeError"}  # what pickle raises for a lambda differs
    assert expected in trace
    assert "_child.py" not in trace or name in {"PicklingError", "AttributeError"}


def test_posted_command_answers_nothing_and_prints_its_error(
    channel: Channel, capsys: pytest.CaptureFixture[str]
) -> None:
    channel.send(None, "1 / 0", pack({}))
    channel.send(None, "posted = True", pack({}))
    channel.send(1, "posted", pack({}))
    assert channel.receive() == (1, True, pack(True))
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_name_that_cannot_be_read_spoils_only_its_command(channel: Channel) -> None:
    channel.send(1, "x", b"rubbish")
    assert channel.receive()[:3] == (1, False, "UnpicklingError")
    channel.send(2, "1", pack({}))
    assert channel.receive() == (2, True, pack(1))


def test_frames_of_several_senders_do_not_mix() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    senders = [gevent.spawn(ours.send, number, bytes([number]) * 300_000) for number in range(4)]
    assert sorted(theirs.receive() for _ in senders) == [(n, bytes([n]) * 300_000) for n in range(4)]
    gevent.joinall(senders)
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.close()


def test_frame_that_is_cut_off_closes_the_channel() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        ours.send(bytes(2**24))
    with gevent.Timeout(5), pytest.raises(OSError, match=r"closed|descriptor"):
        ours.send("the rest of it, as it were")
    theirs.close()
