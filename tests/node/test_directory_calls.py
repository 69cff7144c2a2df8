# SPDX-License-Identifier: MIT
"""The calls of the directory, with every engine: reading, registering, waiting, and sending to groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from aemp_gevent import SELF
from aemp_gevent.errors import (
    DirectoryTimeout,
    DirectoryUnavailableError,
    InvalidEntryError,
    InvalidPortError,
    NodeShutDownError,
    NoPortContextError,
    PortKilled,
    UnencodableMessageError,
)
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import port_context
from aemp_gevent.testing import MemoryNetwork
from tests.directory.changes import Changes, see
from tests.support.directories import WAIT, MakeNodes
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.networking import Deaths, Inbox


def test_node_reads_at_once_what_it_has_set_itself(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "before", 1)
    see([node], "family", {"before": 1})
    node.db_set("family", "key", 2)
    assert node.db_family("family", timeout=WAIT) == {"before": 1, "key": 2}
    node.db_del("family", "key", "key", "no such key")
    assert node.db_family("family", timeout=None) == {"before": 1}


def test_answers_belong_to_the_caller(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "key", 1)
    see([node], "family", {"key": 1})
    node.db_family("family").clear()
    assert node.db_family("family") == {"key": 1}


def test_registered_port_is_there_until_it_dies(directory_nodes: MakeNodes) -> None:
    here, there = directory_nodes(2)
    port, other, third = (here.port() for _ in range(3))
    with port_context(here.scheduler.table.find(port)):
        guard = here.db_reg("ports")
    here.db_reg("ports", other, "value")
    there.db_reg("ports", third)  # a port of another node
    assert guard.key == port
    see([here, there], "ports", {port: None, other: "value", third: None})
    here.kil(port)
    here.kil(third, "a", "reason")
    see([here, there], "ports", {other: "value"})
    here.db_reg("ports", other, "new")
    see([there], "ports", {other: "new"})
    here.db_del("ports", other)
    here.kil(other)
    here.db_set("ports", other, "set by hand, after the port's death")
    see([there], "ports", {other: "set by hand, after the port's death"})


def test_registering_a_dead_port_leaves_nothing(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    port = node.port()
    node.kil(port)
    node.db_reg("ports", port)
    see([node], "ports", {})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda node: node.db_set("", "key"), InvalidEntryError, id="empty-family"),
        pytest.param(lambda node: node.db_set(5, "key"), InvalidEntryError, id="family-is-not-a-str"),
        pytest.param(lambda node: node.db_set("'l", "key"), InvalidEntryError, id="reserved-set"),
        pytest.param(lambda node: node.db_del("'l", "key"), InvalidEntryError, id="reserved-del"),
        pytest.param(lambda node: node.db_family("'l"), InvalidEntryError, id="reserved-read"),
        pytest.param(lambda node: node.db_mon("'l", print), InvalidEntryError, id="reserved-mon"),
        pytest.param(lambda node: node.db_wait("'l", len), InvalidEntryError, id="reserved-wait"),
        pytest.param(lambda node: node.grp_get("'l"), InvalidEntryError, id="reserved-group"),
        pytest.param(lambda node: node.grp_mon("", print), InvalidEntryError, id="empty-group"),
        pytest.param(lambda node: node.db_set("family", 5), InvalidEntryError, id="key-is-not-a-str"),
        pytest.param(lambda node: node.db_set("family", "\ud800"), InvalidEntryError, id="key-is-not-text"),
        pytest.param(lambda node: node.db_set("\ud800", "key"), InvalidEntryError, id="set-what-is-not-text"),
        pytest.param(lambda node: node.db_del("\ud800", "key"), InvalidEntryError, id="delete-what-is-not-text"),
        pytest.param(lambda node: node.db_keys("\ud800", print), InvalidEntryError, id="read-what-is-not-text"),
        pytest.param(lambda node: node.db_mon("\ud800", print), InvalidEntryError, id="monitor-what-is-not-text"),
        pytest.param(lambda node: node.db_wait("\ud800", len), InvalidEntryError, id="wait-for-what-is-not-text"),
        pytest.param(lambda node: node.grp_get("\ud800"), InvalidEntryError, id="group-is-not-text"),
        pytest.param(lambda node: node.grp_mon("\ud800", print), InvalidEntryError, id="monitored-group-is-not-text"),
        pytest.param(lambda node: node.db_set("family", "key", object()), UnencodableMessageError, id="value"),
        pytest.param(lambda node: node.db_set("family", "key", "x" * 2**20), InvalidEntryError, id="size"),
        pytest.param(lambda node: node.db_reg("family"), NoPortContextError, id="no-context"),
        pytest.param(lambda node: node.grp_reg("family", "no port id"), InvalidPortError, id="no-port-id"),
        pytest.param(lambda node: node.db_mon("family", 5), TypeError, id="callback"),
        pytest.param(lambda node: node.db_keys("family", cb=5), TypeError, id="query-callback"),
        pytest.param(lambda node: node.grp_mon("family", None), TypeError, id="group-callback"),
    ],
)
def test_wrong_call_raises_and_changes_nothing(private: Node, call: Callable[[Node], Any], error: type) -> None:
    with pytest.raises(error):
        call(private)
    assert not private._directory.own
    assert not private._directory._copies


def test_callback_is_called_in_the_ports_context(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "key", 1)
    seen: list[Any] = []
    port = node.port()
    with port_context(node.scheduler.table.find(port)):
        assert node.db_family("family", lambda answer: seen.append((SELF(), answer))) is None
        node.db_keys("family", cb=lambda answer: seen.append((SELF(), answer)))
        node.db_values("family", cb=lambda answer: seen.append((SELF(), answer)))
    assert not seen
    wait_until(lambda: len(seen) == 3, within=WAIT)
    assert seen == [(port, {"key": 1}), (port, ["key"]), (port, [1])]


def test_killed_port_stops_waiting(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    ended: list[Any] = []

    def wait() -> None:
        try:
            node.db_wait("family", len)
        except PortKilled as killed:
            ended.append(killed.reason)
            raise

    port = node.port_async(wait)
    deaths = Deaths()
    node.mon(port, deaths)
    turns(5)
    node.kil(port, "enough")
    assert deaths.wait() == ("enough",)
    assert ended == [("enough",)]


def test_attached_greenlet_stops_waiting_when_its_port_is_killed(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    changes = Changes()
    node.db_mon("family", changes)
    changes.wait({})  # nothing else will wake it
    with node.attach() as port:
        gevent.spawn(node.kil, port, "enough")
        with pytest.raises(PortKilled):
            node.db_wait("family", len, WAIT)


def test_wait_ends_when_the_family_is_as_wanted(directory_nodes: MakeNodes) -> None:
    waiting, other = directory_nodes(2)
    waiter = gevent.spawn(waiting.db_wait, "family", lambda entries: len(entries) == 3, WAIT)
    for number in range(3):
        other.db_set("family", f"{number}")
    assert waiter.get(timeout=WAIT) == {"0": None, "1": None, "2": None}
    assert waiting.db_wait("family", len, 0 if waiting._directory.copy("family") else WAIT)
    assert not waiting._directory._copies


def test_wait_gives_up_in_time_and_reports_what_it_saw(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    with pytest.raises(DirectoryTimeout, match="it has 0 entries now") as caught:
        wait_until(lambda: node.db_keys("family") == [], within=WAIT)
        node.db_wait("family", len, 0.2)
    assert (caught.value.family, caught.value.timeout) == ("family", 0.2)
    with pytest.raises(ZeroDivisionError):
        node.db_wait("family", lambda entries: 1 / 0, WAIT)
    with pytest.raises(TypeError):
        node.db_wait("family", lambda entries: entries.update(x=1) if hasattr(entries, "update") else entries[[]], 5)
    assert not node._directory._copies


def test_blocking_calls_refuse_the_hub(private: Node) -> None:
    caught: list[Exception] = []

    def call() -> None:
        for ask in (lambda: private.db_keys("family"), lambda: private.db_wait("family", len)):
            try:
                ask()
            except NoPortContextError as error:
                caught.append(error)

    on_hub(call)
    assert ["db_keys()" in str(caught[0]), "db_wait()" in str(caught[1])] == [True, True]


def test_shutdown_ends_calls_that_wait_and_those_that_come_later(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    changes = Changes()
    node.db_mon("family", changes)
    changes.wait({})
    waiters = [gevent.spawn(node.db_wait, "family", len)]
    turns(3)
    node.shutdown()
    waiters.append(gevent.spawn(node.db_keys, "family"))
    for waiter in waiters:
        with pytest.raises(DirectoryUnavailableError, match="shut down$"):  # and nothing about seeds
            waiter.get(timeout=WAIT)
    with pytest.raises(NodeShutDownError):
        node.db_set("family", "key")


def test_grp_snd_waits_for_the_group_and_reaches_every_port_of_it(directory_nodes: MakeNodes) -> None:
    one, other = directory_nodes(2)
    inboxes = {one: [Inbox(one), Inbox(one)], other: [Inbox(other)]}
    ports = sorted(str(inbox) for node in inboxes for inbox in inboxes[node])
    for node, own in inboxes.items():
        for inbox in own:
            node.grp_reg("group", inbox)
    one.db_wait("group", lambda found: len(found) == 3, timeout=WAIT)
    # The other node has not asked for the group yet: grp_get() would know nothing.
    wait_until(lambda: sorted(other.grp_snd("group", "tag", 1)) == ports, within=WAIT)
    for inbox in (*inboxes[one], *inboxes[other]):
        wait_until(lambda inbox=inbox: ("tag", 1) in inbox.messages, within=WAIT)
    assert other.grp_snd("a group without ports", 1) == []


def test_grp_snd_leaves_out_entries_of_the_family_that_are_not_ports(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    inbox = Inbox(node)
    for key in ("a b#c", "key", "127.0.0.1:99999#p", "127.0.0.1:9"):  # as any peer may enter them
        node.db_set("group", key)
    node.grp_reg("group", inbox)
    node.db_wait("group", lambda found: len(found) == 5, timeout=WAIT)
    assert node.grp_snd("group", 1) == [str(inbox)]
    wait_until(lambda: inbox.messages == [(1,)])


def test_grp_snd_sends_nothing_as_long_as_the_directory_does_not_answer() -> None:
    with MemoryNetwork() as network:
        node = network.node("10.0.0.1:4040", "10.0.0.2:4040")  # a seed that is not there
        inbox = Inbox(node)
        node.grp_reg("group", inbox)
        with pytest.raises(DirectoryTimeout, match="'group'"):
            node.grp_snd("group", 1, timeout=0.01)
        assert inbox.messages == []


def test_grp_snd_sends_nothing_if_one_port_cannot_get_the_message(directory_nodes: MakeNodes) -> None:
    one, other = directory_nodes(2)
    inboxes = [Inbox(one), Inbox(other)]
    one.grp_reg("group", inboxes[0])
    other.grp_reg("group", inboxes[1])
    one.db_wait("group", lambda found: len(found) == 2, timeout=WAIT)
    with pytest.raises(UnencodableMessageError):
        one.grp_snd("group", object())
    one.grp_snd("group", "after")
    for inbox in inboxes:
        wait_until(lambda inbox=inbox: inbox.messages == [("after",)], within=WAIT, show=lambda: inboxes)


def test_grp_snd_in_one_process_takes_any_object(private: Node) -> None:
    inbox, thing = Inbox(private), object()
    private.grp_reg("group", inbox)
    assert private.grp_snd("group", thing) == [str(inbox)]
    wait_until(lambda: inbox.messages == [(thing,)])
