# SPDX-License-Identifier: MIT
"""Strict nodes: messages inside one process are like messages between two."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator
from typing import Any

import pytest

from aemp_gevent.errors import InvalidSettingError, MessageTooLargeError, RemoteError, UnencodableMessageError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.networking import Inbox
from tests.support.settling import PortLike, settle


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


TRAVELLERS = [
    pytest.param((1, (2, 3)), id="tuple"),
    pytest.param({"key": (1,)}, id="tuple-in-map"),
    pytest.param(Colour.RED, id="enum"),
    pytest.param(Text("text"), id="str-subclass"),
    pytest.param(bytearray(b"bytes"), id="bytearray"),
]
STAY_AT_HOME = [
    pytest.param(datetime.datetime(2026, 1, 1), id="datetime"),  # noqa: DTZ001
    pytest.param({1, 2}, id="set"),
    pytest.param(object(), id="object"),
    pytest.param(2**70, id="large-int"),
    pytest.param({(1, 2): 3}, id="tuple-key"),
]


@pytest.fixture
def strict() -> Iterator[Node]:
    with MemoryNetwork() as network:
        yield network.node(strict=True, max_message_bytes=1000)


def echo(value: Any) -> Any:
    return value


@pytest.mark.parametrize("value", TRAVELLERS)
def test_a_message_arrives_at_a_port_here_as_it_does_on_another_node(value: Any) -> None:
    with MemoryNetwork() as network:
        here, there = network.node(strict=True), network.node()
        inboxes = [Inbox(here), Inbox(there)]
        for inbox in inboxes:
            here.snd(inbox, value)
        wait_until(lambda: all(inbox.messages for inbox in inboxes))
        (((local,),), ((remote,),)) = (inbox.messages for inbox in inboxes)
        assert local == remote
        assert repr(local) == repr(remote)
        assert type(local) is type(remote)


@pytest.mark.parametrize("value", STAY_AT_HOME)
def test_every_call_that_sends_refuses_messages_that_cannot_travel(strict: Node, value: Any) -> None:
    inbox = Inbox(strict)
    server = strict.serve(strict.port(), echo=echo, give=lambda: value)
    calls = {
        "snd": lambda: strict.snd(inbox, value),
        "snd to an object": lambda: strict.snd(PortLike(inbox), value),
        "snd_nowait": lambda: strict.snd_nowait(inbox, value),
        "cal": lambda: strict.cal(inbox, value, cb=print),
        "syncal": lambda: strict.syncal(1, inbox, value),
        "call": lambda: strict.call(server, "echo", value),
        "call_async": lambda: strict.call_async(server, "echo", value),
        "kil": lambda: strict.kil(inbox, value),
        "spawn": lambda: strict.spawn(strict.NODE(), "builtins.print", value),
    }
    for name, call in calls.items():
        with pytest.raises(UnencodableMessageError):
            call()
            pytest.fail(name)
    with pytest.raises(RemoteError, match="UnencodableMessageError"):
        strict.call(server, "give", timeout=5)
    settle(strict)
    assert inbox.messages == []


def test_an_error_says_what_made_the_node_strict(strict: Node) -> None:
    inbox = Inbox(strict)
    for value in (object(), "x" * 1000):
        with pytest.raises((UnencodableMessageError, MessageTooLargeError), match=r"strict=True.*AEMP_STRICT=1"):
            strict.snd(inbox, value)


def test_later_changes_by_the_sender_are_not_seen(strict: Node) -> None:
    inbox, sent = Inbox(strict), [1]
    strict.snd(inbox, sent)
    sent.append(2)
    settle(strict)
    assert inbox.messages == [([1],)]


def test_messages_that_are_too_large_are_refused(strict: Node) -> None:
    with pytest.raises(MessageTooLargeError):
        strict.snd(Inbox(strict), "x" * 1000)


def test_other_native_threads_send_to_strict_nodes(strict: Node) -> None:
    inbox = Inbox(strict)
    threading.Thread(target=strict.snd, args=(inbox, (1, 2))).start()
    wait_until(lambda: inbox.messages == [([1, 2],)])


def test_other_nodes_pass_objects_by_reference() -> None:
    with MemoryNetwork() as network:
        node, thing = network.node(), object()
        inbox = Inbox(node)
        node.snd(inbox, thing)
        settle(node)
        assert inbox.messages == [(thing,)]


def test_the_environment_makes_a_private_node_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_STRICT", "1")
    node = Node()
    with pytest.raises(UnencodableMessageError):
        node.snd(Inbox(node), object())
    monkeypatch.setenv("AEMP_STRICT", "maybe")
    with pytest.raises(InvalidSettingError, match="AEMP_STRICT"):
        Node().port()


def test_a_call_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_STRICT", "1")
    with MemoryNetwork() as network:
        node = network.node(strict=False)
        node.snd(Inbox(node), object())
