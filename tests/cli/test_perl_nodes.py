# SPDX-License-Identifier: MIT
"""Commands about nodes of other programs: these get only requests that they can answer, and the output says so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import click
import gevent
import pytest

from aemp_gevent.cli.groups import _list_families
from aemp_gevent.cli.log import _Stream
from aemp_gevent.cli.node_queries import OtherProgramError, Walk, look, other_program
from aemp_gevent.cli.shell import _RemotePrompt
from aemp_gevent.cli.talk import check_may_eval, evaluate, spawn_there
from aemp_gevent.node.node import Node
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawListener, RawPeer
from tests.support.seams import log_feed_of

PERL = (("provider", "AE-2.02"),)


EVIL = "\x1b[2J\nERROR forged\u202e"


class PerlNode:
    """A Perl node, as far as commands meet one.

    Args:
        peer: Its connection, authenticated.
        program: Its functions, by name: what happens to a port that is spawned with one.
    """

    def __init__(self, peer: RawPeer, program: dict[str, str]) -> None:
        self.asked: list[str] = []
        self._peer = peer
        self._program = program
        self._dying: dict[str, str] = {}  # ports, and of what they die in the next turn
        self._greenlet = gevent.spawn(self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                self._take(*self._peer.packet())

    def _take(self, _name: str, request: str, *args: Any) -> None:
        self.asked.append(request)
        if request == "time":
            reply, *rest = args
            self._peer.send([reply.partition("#")[2], *rest, 1.5])
            for port, text in self._dying.items():
                self._peer.send(["", "kil0", port, "die", text])
            self._dying.clear()
        elif request == "eval":
            code, reply, *rest = args
            results: list[Any] | None = {"1+1": [2], "(1, 2)": [1, 2], "()": [], "echo": [EVIL]}.get(code)
            answer = ["", *results] if results is not None else ["syntax error" if code != "evil" else EVIL]
            if code != "secure":
                self._peer.send([reply.partition("#")[2], *rest, *answer])
        elif request == "AnyEvent::MP::_spawn":
            port, function, *_args = args
            if self._program.get(function):
                self._dying[port] = self._program[function]
        elif request == "mon1" and not self._program:
            self._peer.send(["", "kil0", args[0], "no_such_port", "cannot monitor nonexistent port", f"perl#{args[0]}"])

    def close(self) -> None:
        self._peer.close()
        self._greenlet.kill()


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


@contextlib.contextmanager
def perl_node(node: Node, **program: str) -> Iterator[PerlNode]:
    perl = PerlNode(RawPeer.dial(node, "perl", extras=PERL, framing="json").shake(), program)
    wait_until(node.up_nodes)
    try:
        yield perl
    finally:
        perl.close()


def asked(perl: PerlNode) -> set[str]:
    """What else was asked than which anybody answers."""
    return set(perl.asked) - {"time", "mon1", "mon0"}


def test_program_of_a_node_is_known_from_its_greeting(make_node: MakeNode, node: Node) -> None:
    other = make_node()
    assert other_program(node, other.NODE(), timeout=WAIT) == ""
    with perl_node(node) as perl:
        assert other_program(node, "perl", timeout=WAIT) == "AE-2.02"
        assert perl.asked == []
    with RawListener() as listener:
        accepted = gevent.spawn(lambda: PerlNode(listener.accept(extras=PERL, framing="json").shake(), {}))
        assert other_program(node, listener.id, timeout=WAIT) == "AE-2.02"
        dialled = accepted.get()
        assert asked(dialled) == set()
        dialled.close()


def test_perl_node_is_not_asked_what_it_is(node: Node) -> None:
    with perl_node(node) as perl:
        with pytest.raises(OtherProgramError, match=r"perl runs AE-2\.02, not aemp_gevent"):
            look(node, "perl", timeout=WAIT)
        (seen,) = Walk(node, WAIT, {"ports": 5}).go(["perl"]).values()
        assert (seen.provider, seen.error) == ("AE-2.02", "runs another program: AE-2.02")
        assert asked(perl) == set()


@pytest.mark.parametrize(("code", "value"), [("1+1", 2), ("(1, 2)", [1, 2]), ("()", None)])
def test_perl_node_evaluates(node: Node, code: str, value: object) -> None:
    with perl_node(node) as perl:
        assert check_may_eval(node, "perl", WAIT) == "AE-2.02"
        assert evaluate(node, "perl", code, WAIT) == value
        with pytest.raises(click.ClickException, match="syntax error"):
            evaluate(node, "perl", "1+", WAIT)
        assert asked(perl) == {"eval"}


def test_perl_node_that_refuses_is_named_as_what_it_is(node: Node) -> None:
    with perl_node(node), pytest.raises(click.ClickException, match=r"did not answer .* it runs AE-2\.02"):
        evaluate(node, "perl", "secure", 0.05)


def test_spawn_on_a_perl_node(node: Node) -> None:
    with perl_node(node, fine="", broken="oops at x.pl line 1.") as perl:
        assert spawn_there(node, "perl", "fine", (), WAIT).startswith("perl#")
        with pytest.raises(click.ClickException, match="broken did not start on perl: oops at x.pl line 1"):
            spawn_there(node, "perl", "broken", (), WAIT)
        assert asked(perl) == {"AnyEvent::MP::_spawn"}
    with perl_node(node) as perl, pytest.raises(click.ClickException, match="its log says why"):
        spawn_there(node, "perl", "No::such", (), WAIT)


def test_families_of_a_perl_node_are_said_to_be_missing(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    with perl_node(node) as perl:
        _list_families(node, WAIT, as_json=False)
        assert asked(perl) == set()
    printed = capsys.readouterr()
    assert printed.out == "No families are known; nodes that run other programs cannot list theirs.\n"
    assert "perl runs AE-2.02, and cannot list its families" in printed.err


def test_directory_without_entries_is_still_called_empty(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    _list_families(node, WAIT, as_json=False)
    assert capsys.readouterr().out == "The directory is empty.\n"


def test_log_of_a_perl_node_is_not_asked_for(
    make_node: MakeNode, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = make_node()
    logger = logging.getLogger("aemp_gevent")
    level = logger.level
    try:
        with perl_node(node) as perl:
            stream = _Stream(node, "info", as_json=True)
            following = gevent.spawn(stream.follow, ["perl", ours.NODE()])
            wait_until(lambda: log_feed_of(ours)._listeners)
            following.kill()
            for port in stream._ports.values():
                node.kil(port)
            assert asked(perl) == set()
    finally:
        logger.setLevel(level)
    assert "perl runs AE-2.02, not aemp_gevent, and cannot send its log" in capsys.readouterr().err


class Place:
    """Where a prompt's code runs: here."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = node.port()

    def do(self, call: Any) -> None:
        call()


def test_lines_typed_for_a_perl_node_need_not_be_python(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    with perl_node(node) as perl:
        prompt = _RemotePrompt(Place(node), "perl")  # type: ignore[arg-type]
        assert "in the language of AE-2.02" in prompt.welcome()
        assert not prompt.runsource("$x = {")
        assert not prompt.runsource("1+1")
        assert asked(perl) == {"eval"}
    printed = capsys.readouterr()
    assert printed.out == "2\n"
    assert "syntax error" in printed.err


@pytest.mark.parametrize("code", ["evil", "echo"])
def test_what_is_evaluated_in_the_shell_does_nothing_to_the_terminal(
    node: Node, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    with perl_node(node):
        _RemotePrompt(Place(node), "perl").runsource(code)  # type: ignore[arg-type]
    printed = capsys.readouterr()
    said = (printed.out + printed.err).rstrip("\n")
    assert r"\x1b[2J\nERROR forged\u202e" in said
    assert said.isprintable()
