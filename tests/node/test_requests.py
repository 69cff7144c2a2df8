# SPDX-License-Identifier: MIT
"""What the node port understands, packet by packet: a raw peer asks, and reads what comes back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.node import access
from aemp_gevent.node.node import Node
from aemp_gevent.node.spawnable_functions import spawnable
from tests.support import node_functions
from tests.support.helpers import turns, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode, RawListener, RawPeer, name_of
from tests.support.seams import network_of, request_host_of
from tests.support.settling import settle

PEER = "127.0.0.1:9"
REPLY = f"{PEER}#r"
SPAWN = "AnyEvent::MP::_spawn"


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    node_functions.called.clear()
    node_functions.node = fresh = make_node(allow_spawn=["tests.support.node_functions.*"])
    return fresh


@pytest.fixture
def peer(node: Node) -> Iterator[RawPeer]:
    with RawPeer.dial(node, PEER).shake() as peer:
        yield peer


def test_lookup_answers_with_the_ports_id_or_nil(node: Node, peer: RawPeer) -> None:
    inbox = Inbox(node)
    node.reg(inbox.port, "known")
    peer.send(["", "lookup", "known", REPLY, "a", 1], ["", "lookup", "unknown", REPLY], ["", "lookup", 5, REPLY])
    assert peer.take(3) == [["r", "a", 1, inbox.port], ["r", None], ["r", None]]


def test_time_answers_with_seconds(peer: RawPeer) -> None:
    peer.send(["", "time", REPLY, "tag"])
    name, tag, seconds = peer.packet()
    assert (name, tag) == ("r", "tag")
    assert isinstance(seconds, float)
    assert abs(seconds - time.time()) < 5


@pytest.mark.parametrize(
    "request_name",
    ["", "devnull", "lookup", "time", "can", "snd", "relay", "mon0", "mon1", "kil0", "kil1", "eval", SPAWN, "g_slave"],
)
def test_can_knows_requests(peer: RawPeer, request_name: str) -> None:
    peer.send(["", "can", request_name, REPLY, "x"])
    assert peer.packet() == ["r", "x", 1]


@pytest.mark.parametrize("request_name", ["g_unknown", "os.getcwd", None, 5])
def test_can_does_not_know_other_names(peer: RawPeer, request_name: object) -> None:
    peer.send(["", "can", request_name, REPLY])
    assert peer.packet() == ["r", ""]


@pytest.mark.parametrize("packet", [["", "devnull", 1, {}], [""], ["", ""], ["", "", 5], []], ids=repr)
def test_devnull_and_keep_alives_do_nothing(
    node: Node, peer: RawPeer, caplog: pytest.LogCaptureFixture, packet: list[Any]
) -> None:
    peer.send(packet)
    assert peer.answers()
    # A node of an earlier test may end just now, and log that.
    assert [text for text in caplog.messages if PEER in text or node.NODE() in text] == []


@pytest.mark.parametrize("request_name", ["snd", "relay"])
def test_snd_passes_a_message_on(node: Node, peer: RawPeer, request_name: str) -> None:
    inbox = Inbox(node)
    peer.send(["", request_name, inbox.port, "a", [1]], ["", request_name, REPLY, "back"], ["", request_name, REPLY])
    assert peer.take(2) == [["r", "back"], ["r"]]
    wait_until(lambda: inbox.messages)
    assert inbox.messages == [("a", [1])]


def test_snd_uses_only_links_that_are_up(node: Node, peer: RawPeer, make_node: MakeNode) -> None:
    """Nor do the replies of other requests."""
    with RawListener() as listener:
        peer.send(["", "snd", f"{listener.id}#x", 1], ["", "time", f"{listener.id}#x"])
        assert peer.answers()
        assert listener.id not in (network.peers if (network := access.network_of(node)) else ())
        other = make_node()
        inbox = Inbox(other)
        peer.send(["", "snd", inbox.port, "while it is down"])
        assert peer.answers()
        node.snd(other.NODE(), "devnull")
        wait_until(lambda: node.node_is_up(other.NODE()))
        peer.send(["", "snd", inbox.port, "while it is up"])
        wait_until(lambda: inbox.messages)
        assert inbox.messages == [("while it is up",)]


def test_snd_does_not_dial_a_node_that_was_up_before(node: Node, peer: RawPeer) -> None:
    with RawListener() as listener:
        node.snd(f"{listener.id}#x", "hello")
        with listener.accept().shake() as other:
            assert other.packet() == ["x", "hello"]
        wait_until(lambda: listener.id not in node.up_nodes())
        peer.send(["", "snd", f"{listener.id}#x", 1])
        assert peer.answers()
        assert not network_of(node).peers[listener.id]._dialling


def test_snd_dials_if_relaying_is_allowed(make_node: MakeNode) -> None:
    node, other = make_node(allow_relay=True), make_node()
    inbox = Inbox(other)
    with RawPeer.dial(node).shake() as peer:
        peer.send(["", "snd", inbox.port, "dialled"])
        wait_until(lambda: inbox.messages)


def test_mon1_and_kil1_and_kil0_have_exactly_these_arguments(node: Node, peer: RawPeer) -> None:
    inbox = Inbox(node)
    name = name_of(inbox)
    peer.send(["", "mon1", name], [name, "last", "words"], ["", "kil1", name, "bad", [1, None]])
    assert peer.packet() == ["", "kil0", name, "bad", [1, None]]
    assert inbox.messages == [("last", "words")]
    peer.send(["", "kil1", name, "again"])
    assert peer.answers(), "and nothing else came"


def test_normal_death_is_a_kil0_without_reason(node: Node, peer: RawPeer) -> None:
    name = name_of(Inbox(node))
    peer.send(["", "mon1", name], ["", "kil1", name])
    assert peer.packet() == ["", "kil0", name]


def test_exception_is_a_kil0_with_die(node: Node, peer: RawPeer) -> None:
    name = name_of(node.port(lambda: 1 / 0))
    peer.send(["", "mon1", name], [name])
    assert peer.packet() == ["", "kil0", name, "die", "ZeroDivisionError: division by zero"]


def test_mon1_of_a_nonexistent_port_is_answered_at_once(node: Node, peer: RawPeer) -> None:
    peer.send(["", "mon1", "nobody"])
    assert peer.packet() == [
        "", "kil0", "nobody", "no_such_port", "cannot monitor nonexistent port", f"{node.NODE()}#nobody",
    ]  # fmt: skip


def test_mon1_of_a_registered_name_is_answered_under_that_name(node: Node, peer: RawPeer) -> None:
    inbox = Inbox(node)
    node.reg(inbox.port, "known")
    peer.send(["", "mon1", "known"], ["", "kil1", "known", "why"])
    assert peer.packet() == ["", "kil0", "known", "why"]


def test_mon0_ends_the_monitoring(node: Node, peer: RawPeer) -> None:
    name = name_of(Inbox(node))
    peer.send(["", "mon1", name], ["", "mon1", name], ["", "mon0", name], ["", "mon0", name], ["", "kil1", name, "x"])
    assert peer.answers()
    assert peer.name in node.up_nodes()


def test_mon1_of_the_node_port_is_never_answered(peer: RawPeer) -> None:
    peer.send(["", "mon1", ""], ["", "mon0", ""])
    assert peer.answers()


def test_our_monitors_send_mon1_once_and_mon0_after_the_last(node: Node, peer: RawPeer) -> None:
    port = f"{PEER}#p"
    guards = [node.mon(port, print) for _ in range(3)]
    node.snd(port, "x")
    assert peer.take(2) == [["", "mon1", "p"], ["p", "x"]]
    for guard in guards:
        guard.cancel()
        guard.cancel()
    node.snd(port, "y")
    assert peer.take(2) == [["", "mon0", "p"], ["p", "y"]]
    with node.mon(port, print):
        assert peer.packet() == ["", "mon1", "p"]
    assert peer.packet() == ["", "mon0", "p"]


def test_kil0_fires_our_monitors_once_and_strays_are_ignored(node: Node, peer: RawPeer) -> None:
    died, cancelled = Deaths(), Deaths()
    node.mon(f"{PEER}#p", died)
    node.mon(f"{PEER}#p", cancelled).cancel()
    peer.send(["", "kil0", "p", "why", 1], ["", "kil0", "p", "again"], ["", "kil0", "other"], ["", "kil0", ""])
    assert died.wait() == ("why", 1)
    assert peer.take(1) == [["", "mon1", "p"]]
    assert peer.answers()
    assert (died.count, cancelled.count) == (1, 0)
    node.kil(f"{PEER}#p", "r", 2)
    node.kil(f"{PEER}#p")
    assert peer.take(2) == [["", "kil1", "p", "r", 2], ["", "kil1", "p"]]


def test_reason_that_cannot_travel_reaches_the_watcher_as_text(node: Node, peer: RawPeer) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "<odd>" * 1000

    name = name_of(Inbox(node))
    peer.send(["", "mon1", name])
    assert peer.answers()
    node.kil(f"{node.NODE()}#{name}", "odd", Odd(), *range(100))
    request, verb, port, *reason = peer.packet()
    assert (request, verb, port) == ("", "kil0", name)
    assert reason[0] == "odd"
    assert reason[1].startswith("<odd><odd>")
    assert len(reason[1]) <= 200


def test_reason_whose_repr_fails_reaches_the_watcher(node: Node, peer: RawPeer) -> None:
    class Awful:
        def __repr__(self) -> str:
            raise ValueError("no repr")

    name = name_of(Inbox(node))
    peer.send(["", "mon1", name])
    assert peer.answers()
    node.kil(f"{node.NODE()}#{name}", Awful())
    assert peer.packet()[:3] == ["", "kil0", name]


# --- spawn ------------------------------------------------------------------------------------


def test_spawn_and_later_requests_in_the_same_read(node: Node, peer: RawPeer) -> None:
    peer.send(
        [SPAWN] * 0,
        ["", SPAWN, "new", "tests.support.node_functions.echo", REPLY],
        ["", "mon1", "new"],
        ["new", "hello"],
    )
    assert peer.packet() == ["r", "hello"]
    peer.send(["", "kil1", "new", "x"])
    assert peer.packet() == ["", "kil0", "new", "x"]


def test_spawned_function_that_raises_is_reported_to_its_watcher(peer: RawPeer) -> None:
    peer.send(["", SPAWN, "new", "tests.support.node_functions.fail", "oh"], ["", "mon1", "new"])
    assert peer.packet() == ["", "kil0", "new", "die", "ValueError: oh"]


@pytest.mark.parametrize("function", ["os.getcwd", "tests.support.node_functions", "tests.other.f", "", "::", 5, None])
def test_spawn_that_is_not_allowed_is_refused_to_its_watcher(node: Node, peer: RawPeer, function: object) -> None:
    peer.send(["", SPAWN, "new", function], ["", "mon1", "new"])
    _, kil0, name, reason, what, text = peer.packet()
    assert (kil0, name, reason, what) == ("kil0", "new", "spawn_refused", function)
    assert isinstance(text, str)
    assert text


def test_allowed_function_that_does_not_exist_is_refused(peer: RawPeer) -> None:
    peer.send(["", SPAWN, "new", "tests.support.node_functions.missing"], ["", "mon1", "new"])
    assert peer.packet()[3:5] == ["spawn_refused", "tests.support.node_functions.missing"]


def test_spawn_under_a_name_that_is_taken_is_refused(
    node: Node, peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(node)
    peer.send(["", SPAWN, name_of(inbox), "tests.support.node_functions.note"])
    assert peer.answers()
    assert len(caplog.messages) == 1
    peer.send([name_of(inbox), "still here"])
    wait_until(lambda: inbox.messages)
    assert node_functions.called == []


def test_marked_function_is_spawned_by_its_name_and_by_another(node: Node, peer: RawPeer) -> None:
    spawnable("Perl::name")(node_functions.note)
    peer.send(["", SPAWN, "a", "Perl::name", 1], ["", "Perl::name", 2])
    wait_until(lambda: len(node_functions.called) == 2)
    assert node_functions.called == [(f"{node.NODE()}#a", 1), (None, 2)]


@pytest.mark.parametrize("what", ["spawn", "call", "eval"])
def test_secure_node_runs_nothing(make_node: MakeNode, what: str, caplog: pytest.LogCaptureFixture) -> None:
    node_functions.called.clear()
    node = make_node(secure=True, allow_eval=True, allow_spawn=["*"])
    with RawPeer.dial(node, PEER).shake() as peer:
        if what == "spawn":
            peer.send(["", SPAWN, "new", "tests.support.node_functions.note"], ["", "mon1", "new"])
            assert peer.packet()[:4] == ["", "kil0", "new", "spawn_refused"]
        elif what == "call":
            peer.send(["", "tests.support.node_functions.note", 1])
        else:
            peer.send(["", "eval", "1+1", REPLY])
        assert peer.answers()
    assert node_functions.called == []


# --- functions and eval -----------------------------------------------------------------------


def test_unknown_request_calls_a_function_that_is_allowed(peer: RawPeer) -> None:
    peer.send(["", "tests.support.node_functions.note", "a", 1])
    wait_until(lambda: node_functions.called)
    assert node_functions.called == [(None, "a", 1)]


@pytest.mark.parametrize("name", ["os.getcwd", "no_such_request"])
def test_unknown_request_that_is_not_allowed_is_refused_with_a_log_line(
    peer: RawPeer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    peer.send(["", name, 1])
    assert peer.answers()
    (line,) = caplog.messages
    assert repr(name) in line
    assert PEER in line


def test_eval_is_off(peer: RawPeer, caplog: pytest.LogCaptureFixture) -> None:
    peer.send(["", "eval", "__import__('tests.support.node_functions').support.node_functions.note()", REPLY])
    assert peer.answers()
    assert node_functions.called == []
    assert "allow_eval" in caplog.text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6*7", ["", 42]),
        ("x = 1", [""]),
        ("1/0", ["ZeroDivisionError: division by zero"]),
        ("raise KeyError('k')", ["KeyError: 'k'"]),
        ("import time\ntime.time()", [""]),
    ],
)
def test_eval_answers_where_it_is_allowed(make_node: MakeNode, text: str, answer: list[Any]) -> None:
    with RawPeer.dial(make_node(allow_eval=True), PEER).shake() as peer:
        peer.send(["", "eval", text, REPLY, "tag"])
        assert peer.packet() == ["r", "tag", *answer]


@pytest.mark.parametrize("text", ["def f(", "\x00", 5])
def test_eval_of_invalid_code_answers_with_the_error(make_node: MakeNode, text: Any) -> None:
    with RawPeer.dial(make_node(allow_eval=True), PEER).shake() as peer:
        peer.send(["", "eval", text, REPLY])
        name, error = peer.packet()
        assert error


def test_eval_whose_result_cannot_travel_answers_with_the_error(make_node: MakeNode) -> None:
    with RawPeer.dial(make_node(allow_eval=True), PEER).shake() as peer:
        peer.send(["", "eval", "object()", REPLY])
        name, error = peer.packet()
        assert error.startswith("the result cannot travel: ")


@pytest.mark.parametrize("reply", [None, 5, [], "a b#r", "127.0.0.1:9#\n"], ids=repr)
def test_eval_with_an_invalid_reply_port_is_one_warning(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, reply: Any
) -> None:
    node = make_node(allow_eval=True)
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(["", "eval", "1", reply], ["", "eval", "object()", reply], ["", "eval", "2", REPLY])
        assert peer.packet() == ["r", "", 2]
    settle(node)
    assert [record.levelname for record in caplog.records if "'eval' of" in record.message] == ["WARNING"] * 2
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- our own node port ---------------------------------------------------------------------------


def test_node_answers_its_own_requests(node: Node) -> None:
    inbox = Inbox(node)
    node.reg(inbox.port, "me")
    node.snd(node.NODE(), "lookup", "me", inbox.port, "a")
    node.snd(node.NODE(), "snd", inbox.port, "b")
    node.snd(node.NODE(), "devnull")
    node.snd(node.NODE())
    node.snd(node.NODE(), "tests.support.node_functions.note", 7)
    node.snd(node.NODE(), "time", inbox.port, "d")
    wait_until(lambda: len(inbox.messages) == 3 and node_functions.called)
    assert sorted(inbox.messages)[:2] == [("a", inbox.port), ("b",)]
    assert node_functions.called == [(None, 7)]
    turns(2)


def test_handler_that_answers_to_the_node_itself_runs_nothing_for_a_peer(
    make_node: MakeNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer may name the node's own ID as the port to answer to: what the handler sends there is a request."""
    node = make_node()
    made = tmp_path / "made"
    echo = name_of(node.port(lambda *message: node.snd(message[-1], *message[:-1])))
    spawned = f"spawned{time.time_ns()}"
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(
            [echo, "eval", f"open({str(made)!r}, 'w')", node.NODE()],
            [echo, "os.mkdir", str(made), node.NODE()],
            [echo, SPAWN, spawned, "os.mkdir", str(made), node.NODE()],
        )
        assert peer.answers()
        settle(node)
    assert not made.exists()
    assert sum("refused" in text or "failed" in text for text in caplog.messages) == 3


def test_bye_fires_monitors_with_shutdown(node: Node, peer: RawPeer) -> None:
    died = Deaths()
    node.mon(f"{PEER}#p", died)
    assert peer.packet() == ["", "mon1", "p"]
    peer.send(["", "bye"])
    assert died.wait() == ("shutdown", PEER)
    assert peer.closed()


def test_watchers_of_a_lost_link_are_forgotten(node: Node, peer: RawPeer) -> None:
    inbox = Inbox(node)
    peer.send(["", "mon1", name_of(inbox)])
    assert peer.answers()
    found = request_host_of(node).find_port(name_of(inbox))
    assert found is not None
    assert found.monitors is not None
    peer.close()
    wait_until(lambda: not node.up_nodes())
    assert found.monitors is None


# --- wrong requests and their order --------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["mon0", "p"], ["mon1", "p"], ["kil0", "p", "x"], ["after", "x"], ["refused"], ["bye"], ["g_upd", "f"]],
    ids=" ".join,
)
@pytest.mark.parametrize("allow_relay", [False, True])
def test_requests_about_a_link_are_not_relayed_to_another_node(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, words: list[str], allow_relay: bool
) -> None:
    """The other node would take it for a request of this node."""
    node = make_node(allow_relay=allow_relay)
    other = "127.0.0.1:8"
    with RawPeer.dial(node, PEER).shake() as peer, RawPeer.dial(node, other).shake() as third:
        assert third.answers()
        peer.send(
            *(
                ["", *request, node_port, *words]
                for node_port in (other, f"{other}#")
                for request in (
                    ["snd"],
                    ["relay"],
                    ["time"],
                    ["info"],
                    ["lookup", "x"],
                    ["can", "x"],
                    ["snd", node.NODE(), "snd"],  # through our own node port
                )
            ),
            ["", "time", f"{PEER}#pong", "pong"],
        )
        assert peer.packet()[:2] == ["pong", "pong"]
        wait_until(lambda: sum("is not relayed" in line for line in caplog.messages) == 14)
        peer.send(["", "snd", other, "devnull"], ["", "snd", f"{other}#q", *words])
        assert third.take(2) == [["", "devnull"], ["q", *words]], "others are"
        assert third.answers()
        assert sorted(node.up_nodes()) == [other, PEER]


def test_module_of_a_requested_function_is_not_imported_on_the_hub(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import takes time and may block."""
    name = "imported_for_a_request"
    (tmp_path / f"{name}.py").write_text(
        "import gevent\ncalled = []\non_hub = gevent.getcurrent() is gevent.get_hub()\n"
        "def f(number):\n    called.append(number)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = make_node(allow_spawn=[f"{name}.*"])
    try:
        with RawPeer.dial(node, PEER).shake() as peer:
            peer.send(["", f"{name}.f", 5])
            wait_until(lambda: getattr(sys.modules.get(name), "called", None))
            assert not sys.modules[name].on_hub
            assert sys.modules[name].called == [5]
            assert peer.answers()
    finally:
        sys.modules.pop(name, None)


def test_huge_request_makes_short_log_lines(peer: RawPeer, caplog: pytest.LogCaptureFixture) -> None:
    huge = "x" * 1_000_000
    for packet in (
        ["", huge],
        ["", "time", f"{huge} "],
        ["", "snd", f"{huge} ", "hello"],
        ["", SPAWN, f"{huge} ", "tests.support.node_functions.echo"],
        ["", "eval", huge],
        ["", [huge] * 3],
    ):
        peer.send(packet)
        assert peer.answers()
    wait_until(lambda: len(caplog.messages) == 6, show=lambda: len(caplog.messages))
    assert max(map(len, caplog.messages)) < 700
