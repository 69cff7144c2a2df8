# SPDX-License-Identifier: MIT
"""Sending to all other processes: each message reaches each of them once, whatever happens to their ports."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import aemp_gevent.node.lasting_port
from aemp_gevent.contrib.fan_out import FanOut
from aemp_gevent.contrib.joining import MeshURL
from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.support.helpers import wait_until

WAIT = 20.0
SEED = "10.7.0.1:4040"


class Member:
    """A member of the group that keeps what it gets."""

    def __init__(self, node: Node) -> None:
        self.got: list[Any] = []
        self.fan_out = FanOut("group", MeshURL(), self._take, "a test", node)

    def _take(self, *message: Any) -> None:
        self.got.append(message)
        if message == ("die",):
            raise ValueError("of a handler")

    @property
    def port(self) -> str:
        port = self.fan_out._membership.get()._port
        return "" if port is None else port.id


def test_message_that_cannot_travel_reaches_nobody_or_all_as_another_one() -> None:
    with MemoryNetwork(time="virtual") as network:
        here, there = network.node(SEED, SEED), network.node(None, SEED)
        sender, neighbour, other = Member(here), Member(here), Member(there)
        for member in (neighbour, other, sender):
            member.fan_out.open()
        wait_until(lambda: len(here.grp_get("group") or ()) == 3, within=WAIT)
        with pytest.raises(UnencodableMessageError):
            sender.fan_out.send(object())
        assert sender.fan_out.send(object(), instead=lambda: ("text",)) == 2
        for member in (neighbour, other):
            wait_until(lambda: member.got, within=WAIT)  # noqa: B023
            assert member.got == [("text",)]


def test_member_whose_port_dies_gets_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.node.lasting_port, "REOPEN_SECONDS", 0.01)
    with MemoryNetwork(time="virtual") as network:
        here, there = network.node(SEED, SEED), network.node(None, SEED)
        sender, other = Member(here), Member(there)
        other.fan_out.open()
        sender.fan_out.open()
        for kill in (lambda: here.kil(other.port), lambda: sender.fan_out.send("die")):
            former = other.port
            kill()
            wait_until(lambda: other.port not in ("", former), within=WAIT)  # noqa: B023
            wait_until(lambda: set(here.grp_get("group") or ()) == {sender.port, other.port}, within=WAIT)
        sender.fan_out.send("hello")
        wait_until(lambda: ("hello",) in other.got, within=WAIT)
        there.reset()
        wait_until(lambda: here.grp_get("group") == [sender.port], within=WAIT)
        assert other.port == ""


def test_opening_that_was_interrupted_is_continued_and_each_message_comes_once() -> None:
    with MemoryNetwork(time="virtual") as network:
        here, there = network.node(SEED, SEED), network.node("10.7.0.9:4040", SEED)
        wait_until(lambda: there.node_is_up(SEED), within=WAIT)
        network.partition([here], [there])
        network.cut(here, there)
        wait_until(lambda: not there.node_is_up(SEED), within=WAIT)
        sender, other = Member(here), Member(there)
        with gevent.Timeout(0.01, False):
            other.fan_out.open()
        assert not other.fan_out._membership.get().is_open
        network.heal()
        other.fan_out.open()
        sender.fan_out.open()
        wait_until(lambda: other.port in (here.grp_get("group") or ()), within=WAIT)
        assert sender.fan_out.send("hello") == 1
        wait_until(lambda: other.got == [("hello",)], within=WAIT, show=lambda: other.got)


def test_first_message_reaches_a_member_whose_link_comes_up_late() -> None:
    """Both keep the directory, as all nodes of a folder do: only the member itself has its entries."""
    with MemoryNetwork(time="virtual") as network:
        network.node(SEED, SEED)
        there = network.node("10.7.0.2:4040", SEED, "10.7.0.2:4040")
        sender_at = "10.7.0.3:4040"
        network.delay(there, sender_at, 0.3, dial=1.0)
        other = Member(there)
        other.fan_out.open()
        here = network.node(sender_at, SEED, sender_at)
        only_sends = FanOut("group", MeshURL(), None, "a test", here)
        assert only_sends.send("hello") == 1
        wait_until(lambda: other.got == [("hello",)], within=WAIT, show=lambda: other.got)


@pytest.mark.parametrize("fault", ["late", "unreachable", "seed down"])
def test_warning_names_what_is_not_known_in_time(caplog: pytest.LogCaptureFixture, fault: str) -> None:
    with MemoryNetwork(time="virtual") as network:
        network.node(SEED, SEED)
        there_at, here_at = "10.7.0.2:4040", "10.7.0.3:4040"
        there = network.node(there_at, SEED, there_at)
        other = Member(there)
        other.fan_out.open()
        assert not caplog.records
        if fault == "late":
            network.delay(there, here_at, 0.0, dial=60.0)
        elif fault == "unreachable":
            network.refuse(here_at, there_at)
            network.refuse(there_at, here_at)
        else:
            network.crash(there)
        here = network.node(here_at, SEED, here_at, *([there_at] if fault == "seed down" else []))
        caplog.clear()
        FanOut("group", MeshURL(), None, "a test", here).send("hello")
        warnings = [record.getMessage() for record in caplog.records if "a test" in record.getMessage()]
        assert len(warnings) == 1 and there_at in warnings[0] and SEED not in warnings[0], caplog.text
