# SPDX-License-Identifier: MIT
"""What a node sees of the directory: the same with every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

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
from tests.directories import PARAMETERS, WAIT, World, embedded_world, etcd_world
from tests.etcd_server import EtcdServer
from tests.helpers import on_hub, turns, wait_until
from tests.networking import Deaths, Inbox

Make = Callable[[int], "list[Node]"]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=PARAMETERS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    is_embedded = request.param == "embedded"
    with embedded_world() if is_embedded else etcd_world(request.getfixturevalue("etcd")) as world:
        yield world


@pytest.fixture
def directory_nodes(world: World) -> Make:
    """Make so many nodes that share a directory."""
    return lambda count: [world.join(world.node()) for _ in range(count)]


@pytest.fixture
def private() -> Iterator[Node]:
    node = Node()
    yield node
    for port in set(node._ports.values()):
        node._scheduler.kill(port, ())
    wait_until(lambda: not node._ports)


class Changes:
    """A callback of ``db_mon`` that keeps what it gets, and checks that the changes lead from one map to the next."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], list[str], list[str], list[str]]] = []
        self._before: dict[str, Any] = {}

    def __call__(self, entries: Any, added: list[str], changed: list[str], deleted: list[str]) -> None:
        now = dict(entries)
        assert not set(added) & set(self._before), (added, self._before)
        assert set(changed) <= set(self._before) & set(now)
        assert all(self._before[key] != now[key] for key in changed)
        replayed = {key: value for key, value in self._before.items() if key not in deleted}
        assert len(replayed) == len(self._before) - len(deleted)
        replayed |= {key: now[key] for key in added + changed}
        assert replayed == now
        assert not self.calls or added or changed or deleted
        self._before = now
        self.calls.append((now, sorted(added), sorted(changed), sorted(deleted)))

    @property
    def last(self) -> dict[str, Any] | None:
        return self.calls[-1][0] if self.calls else None

    def wait(self, entries: dict[str, Any]) -> None:
        wait_until(lambda: self.last == entries, within=WAIT, show=lambda: self.last)


def see(nodes: list[Node], family: str, entries: dict[str, Any]) -> None:
    """Wait until all nodes see this, and nothing else, in a family."""
    for node in nodes:
        wait_until(
            lambda node=node: node.db_family(family) == entries,
            within=WAIT,
            show=lambda node=node: (node, node.db_family(family)),
        )


# --- entries ---


def test_every_node_reads_what_each_has_set(directory_nodes: Make) -> None:
    nodes = directory_nodes(4)
    for number, node in enumerate(nodes):
        node.db_set("family", f"key {number}", {"n": [number, None, "ü", 2.5, True]})
    expected = {f"key {number}": {"n": [number, None, "ü", 2.5, True]} for number in range(4)}
    see(nodes, "family", expected)
    assert sorted(nodes[2].db_keys("family")) == sorted(expected)
    assert sorted(value["n"][0] for value in nodes[2].db_values("family")) == [0, 1, 2, 3]
    assert nodes[0].db_family("other") == {}
    assert nodes[0].db_keys("other") == nodes[0].db_values("other") == []


def test_node_reads_at_once_what_it_has_set_itself(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "before", 1)
    see([node], "family", {"before": 1})
    node.db_set("family", "key", 2)
    assert node.db_family("family", timeout=WAIT) == {"before": 1, "key": 2}
    node.db_del("family", "key", "key", "no such key")
    assert node.db_family("family", timeout=None) == {"before": 1}


def test_values_are_copied_and_look_the_same_to_all(directory_nodes: Make) -> None:
    nodes = directory_nodes(2)
    value = {"pair": (1, 2)}
    nodes[0].db_set("family", "key", value)
    value["pair"] = (3, 4)
    see(nodes, "family", {"key": {"pair": [1, 2]}})


def test_answer_may_be_changed_by_who_asked(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "key", 1)
    see([node], "family", {"key": 1})
    node.db_family("family").clear()
    assert node.db_family("family") == {"key": 1}


def test_smallest_living_owner_of_a_key_is_the_one_who_counts(directory_nodes: Make, world: World) -> None:
    nodes = sorted(directory_nodes(4), key=lambda node: node.NODE())
    for node in reversed(nodes):
        node.db_set("family", "key", node.NODE())
    see(nodes, "family", {"key": nodes[0].NODE()})
    nodes[3].db_del("family", "key")  # one's own only
    nodes[0].db_del("family", "key")
    see(nodes, "family", {"key": nodes[1].NODE()})
    world.crash(nodes[1])
    see([nodes[0], nodes[2], nodes[3]], "family", {"key": nodes[2].NODE()})
    nodes[2].shutdown()
    see([nodes[0], nodes[3]], "family", {})


def test_entries_go_with_their_node(directory_nodes: Make, world: World) -> None:
    crashing, leaving, *staying = directory_nodes(5)
    for node in (crashing, leaving, *staying):
        node.db_set("family", node.NODE())
    see(staying, "family", dict.fromkeys([crashing.NODE(), leaving.NODE(), *(node.NODE() for node in staying)]))
    world.crash(crashing)
    leaving.shutdown()
    see(staying, "family", dict.fromkeys(node.NODE() for node in staying))


def test_guard_deletes_its_entry_unless_that_was_set_anew(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    first = node.db_set("family", "key", 1)
    second = node.db_set("family", "key", 1)
    assert (second.family, second.key) == ("family", "key")
    first.cancel()
    assert node.db_family("family") == {"key": 1}
    second.cancel()
    second.cancel()
    assert node.db_family("family") == {}
    with node.db_set("family", "key", 3):
        assert node.db_family("family") == {"key": 3}
    assert node.db_family("family") == {}


def test_registered_port_is_there_until_it_dies(directory_nodes: Make) -> None:
    here, there = directory_nodes(2)
    port, other, third = (here.port() for _ in range(3))
    with port_context(here.find(port)):
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


def test_registering_a_dead_port_leaves_nothing(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    port = node.port()
    node.kil(port)
    node.db_reg("ports", port)
    see([node], "ports", {})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda node: node.db_set("", "key"), InvalidEntryError, id="empty-family"),
        pytest.param(lambda node: node.db_set(5, "key"), InvalidEntryError, id="family-is-no-str"),
        pytest.param(lambda node: node.db_set("'l", "key"), InvalidEntryError, id="reserved-set"),
        pytest.param(lambda node: node.db_del("'l", "key"), InvalidEntryError, id="reserved-del"),
        pytest.param(lambda node: node.db_family("'l"), InvalidEntryError, id="reserved-read"),
        pytest.param(lambda node: node.db_mon("'l", print), InvalidEntryError, id="reserved-mon"),
        pytest.param(lambda node: node.db_wait("'l", len), InvalidEntryError, id="reserved-wait"),
        pytest.param(lambda node: node.grp_get("'l"), InvalidEntryError, id="reserved-group"),
        pytest.param(lambda node: node.grp_mon("", print), InvalidEntryError, id="empty-group"),
        pytest.param(lambda node: node.db_set("family", 5), InvalidEntryError, id="key-is-no-str"),
        pytest.param(lambda node: node.db_set("family", "\ud800"), UnencodableMessageError, id="key-is-no-text"),
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


# --- before and after initialise_node ---


def test_private_node_has_a_directory_of_its_own(private: Node) -> None:
    changes = Changes()
    private.db_mon("family", changes)
    private.db_set("family", "key", 1)
    assert private.db_family("family") == {"key": 1}
    assert private.db_keys("family") == ["key"]
    assert private.db_values("family") == [1]
    assert private.grp_get("family") == ["key"]
    changes.wait({"key": 1})
    private.db_del("family", "key")
    changes.wait({})
    assert private.db_wait("family", lambda entries: not entries) == {}


def test_entries_set_before_the_node_is_initialised_become_known_then(world: World, directory_nodes: Make) -> None:
    (other,) = directory_nodes(1)
    node = world.node()
    changes = Changes()
    node.db_mon("family", changes)
    node.db_set("family", "key", 1)
    gone = node.db_set("family", "gone", 1)
    gone.cancel()
    port = node.port()
    node.db_reg("family", port)
    changes.wait({"key": 1, port: None})
    world.join(node)
    renamed = f"{node.NODE()}#{port.partition('#')[2]}"
    see([other, node], "family", {"key": 1, renamed: None})
    changes.wait({"key": 1, renamed: None})
    node.kil(renamed)
    see([other], "family", {"key": 1})
    changes.wait({"key": 1})


# --- asking with a callback ---


def test_callback_is_called_in_the_ports_context(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    node.db_set("family", "key", 1)
    seen: list[Any] = []
    port = node.port()
    with port_context(node.find(port)):
        assert node.db_family("family", lambda answer: seen.append((SELF(), answer))) is None
        node.db_keys("family", cb=lambda answer: seen.append((SELF(), answer)))
        node.db_values("family", cb=lambda answer: seen.append((SELF(), answer)))
    assert not seen
    wait_until(lambda: len(seen) == 3, within=WAIT)
    assert seen == [(port, {"key": 1}), (port, ["key"]), (port, [1])]


def test_killed_port_stops_waiting(directory_nodes: Make) -> None:
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


def test_attached_greenlet_stops_waiting_when_its_port_is_killed(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    changes = Changes()
    node.db_mon("family", changes)
    changes.wait({})  # nothing else will wake it
    with node.attach() as port:
        gevent.spawn(node.kil, port, "enough")
        with pytest.raises(PortKilled):
            node.db_wait("family", len, WAIT)


# --- monitors ---


def test_monitor_gets_the_whole_first_and_then_each_change_in_order(directory_nodes: Make) -> None:
    writer, watcher = directory_nodes(2)
    writer.db_set("family", "a", 1)
    see([watcher], "family", {"a": 1})
    changes, later = Changes(), Changes()
    with watcher.db_mon("family", changes):
        changes.wait({"a": 1})
        writer.db_set("family", "b", 1)
        writer.db_set("family", "a", 2)
        writer.db_set("family", "a", 2)  # no change
        writer.db_del("family", "b")
        changes.wait({"a": 2})
        assert [call[1:] for call in changes.calls] == [
            (["a"], [], []),
            (["b"], [], []),
            ([], ["a"], []),
            ([], [], ["b"]),
        ]
        watcher.db_mon("family", later)
        later.wait({"a": 2})
        assert later.calls == [({"a": 2}, ["a"], [], [])]
        writer.db_del("family", "a")
        changes.wait({})
    later.wait({})


def test_monitor_of_an_empty_family_is_told_so(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    changes = Changes()
    node.db_mon("family", changes)
    wait_until(lambda: changes.calls, within=WAIT)
    assert changes.calls == [({}, [], [], [])]


def test_cancelled_monitor_makes_no_more_calls(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    cancelled, other = Changes(), Changes()
    guard = node.db_mon("family", cancelled)
    node.db_mon("family", other)
    other.wait({})
    cancelled.wait({})
    guard.cancel()
    guard.cancel()
    node.db_set("family", "key", 2)
    other.wait({"key": 2})
    assert cancelled.calls == [({}, [], [], [])]


def test_call_that_is_due_is_not_made_after_cancel(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    guard = private.db_mon("family", changes)
    guard.cancel()
    turns(5)
    assert not changes.calls
    assert not caplog.records


def test_callbacks_run_in_the_ports_context_one_at_a_time_and_in_order(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    changes, seen, go = Changes(), [], Event()

    def slow(*args: Any) -> None:
        seen.append((SELF(), dict(args[0])))
        assert go.wait(WAIT)
        changes(*args)

    port = node.port()
    with port_context(node.find(port)):
        node.db_mon("family", slow)
    wait_until(lambda: seen, within=WAIT)
    for number in range(5):
        node.db_set("family", "key", number)
    assert node.db_family("family") == {"key": 4}  # the answer comes behind the changes
    turns(5)
    assert seen == [(port, {})]
    go.set()
    changes.wait({"key": 4})
    assert [call[0] for call in changes.calls] == [{}, *({"key": number} for number in range(5))]
    assert {context for context, _ in seen} == {port}
    node.kil(port)
    wait_until(lambda: not node.find(port), within=WAIT)
    node.db_set("family", "key", "after its death")
    see([node], "family", {"key": "after its death"})
    turns(5)
    assert changes.last == {"key": 4}
    assert not node._directory._families


def test_exception_in_a_callback_kills_the_port_and_ends_the_calls(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    calls: list[Any] = []

    def fail(*args: Any) -> None:
        calls.append(args)
        raise ZeroDivisionError

    port, deaths = node.port(), Deaths()
    node.mon(port, deaths)
    with port_context(node.find(port)):
        node.db_mon("family", fail)
    assert deaths.wait() == ("die", "ZeroDivisionError")
    node.db_set("family", "key")
    see([node], "family", {"key": None})
    assert len(calls) == 1


def test_exception_in_a_callback_outside_any_port_is_logged_and_the_calls_go_on(
    private: Node, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    def fail(entries: Any, *_keys: Any) -> None:
        calls.append(dict(entries))
        raise ZeroDivisionError

    private.db_mon("family", fail)
    private.db_set("family", "key", 1)
    wait_until(lambda: calls[-1:] == [{"key": 1}], within=WAIT)
    assert "ZeroDivisionError" in caplog.text


def test_map_of_a_callback_cannot_be_changed_and_its_lists_are_its_own(private: Node) -> None:
    changes, spoilt = Changes(), []

    def spoil(entries: Any, added: list[str], changed: list[str], deleted: list[str]) -> None:
        with pytest.raises(TypeError):
            entries["more"] = 1
        added.append("more")
        deleted.append("more")
        spoilt.append(1)

    private.db_mon("family", spoil)
    private.db_mon("family", changes)
    private.db_set("family", "key", 1)
    changes.wait({"key": 1})
    assert changes.calls[-1][1:] == (["key"], [], [])
    assert len(spoilt) == 2


def test_monitor_that_is_far_behind_gets_one_change_for_many(private: Node) -> None:
    changes, go, waiting = Changes(), Event(), []

    def slow(*args: Any) -> None:
        waiting.append(1)
        assert go.wait(WAIT)
        changes(*args)

    private.db_mon("family", slow)
    wait_until(lambda: waiting, within=WAIT)
    for number in range(1200):
        private.db_set("family", f"key {number % 7}", number)
    private.db_del("family", "key 3")
    go.set()
    changes.wait(private.db_family("family"))
    assert len(changes.calls) < 10
    private.db_set("family", "later")
    changes.wait(private.db_family("family"))
    assert changes.calls[-1][1:] == (["later"], [], [])


# --- waiting ---


def test_wait_ends_when_the_family_is_as_wanted(directory_nodes: Make) -> None:
    waiting, other = directory_nodes(2)
    waiter = gevent.spawn(waiting.db_wait, "family", lambda entries: len(entries) == 3, WAIT)
    for number in range(3):
        other.db_set("family", f"{number}")
    assert waiter.get(timeout=WAIT) == {"0": None, "1": None, "2": None}
    assert waiting.db_wait("family", len, 0 if waiting._directory.copy("family") else WAIT)
    assert not waiting._directory._families


def test_wait_gives_up_in_time_and_says_what_it_saw(directory_nodes: Make) -> None:
    (node,) = directory_nodes(1)
    with pytest.raises(DirectoryTimeout, match="it has 0 entries now") as caught:
        wait_until(lambda: node.db_keys("family") == [], within=WAIT)
        node.db_wait("family", len, 0.2)
    assert (caught.value.family, caught.value.timeout) == ("family", 0.2)
    with pytest.raises(ZeroDivisionError):
        node.db_wait("family", lambda entries: 1 / 0, WAIT)
    with pytest.raises(TypeError):
        node.db_wait("family", lambda entries: entries.update(x=1) if hasattr(entries, "update") else entries[0:1], 5)
    assert not node._directory._families


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


def test_shutdown_ends_what_waits_and_whatever_comes_later(directory_nodes: Make) -> None:
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


# --- groups ---


def test_group_has_its_ports_until_they_die(directory_nodes: Make) -> None:
    one, other = directory_nodes(2)
    told: list[tuple[list[str], list[str], list[str]]] = []
    other.grp_mon("group", lambda ports, added, deleted: told.append((sorted(ports), sorted(added), sorted(deleted))))
    wait_until(lambda: told == [([], [], [])], within=WAIT, show=lambda: told)
    assert other.grp_get("group") is None
    first, second = one.port(), other.port()
    one.grp_reg("group", first)
    wait_until(lambda: other.grp_get("group") == [first], within=WAIT)
    with other.grp_reg("group", second):
        both = sorted([first, second])
        wait_until(lambda: sorted(one.grp_get("group") or []) == both, within=WAIT)
        one.db_reg("group", first, "a value is no change of the group")
        one.kil(first)
        wait_until(lambda: one.grp_get("group") == other.grp_get("group") == [second], within=WAIT)
    wait_until(lambda: one.grp_get("group") is None and other.grp_get("group") is None, within=WAIT)
    wait_until(lambda: told[-1] == ([], [], [second]), within=WAIT, show=lambda: told)
    assert told == [
        ([], [], []),
        ([first], [first], []),
        (both, [second], []),
        ([second], [], [first]),
        ([], [], [second]),
    ]


def test_grp_snd_waits_for_the_group_and_reaches_every_port_of_it(directory_nodes: Make) -> None:
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


def test_grp_snd_sends_nothing_as_long_as_the_directory_does_not_answer() -> None:
    with MemoryNetwork() as network:
        node = network.node("10.0.0.1:4040", "10.0.0.2:4040")  # a seed that is not there
        inbox = Inbox(node)
        node.grp_reg("group", inbox)
        with pytest.raises(DirectoryTimeout, match="'group'"):
            node.grp_snd("group", 1, timeout=0.01)
        assert inbox.messages == []


def test_grp_snd_sends_to_nobody_what_cannot_travel_to_all(directory_nodes: Make) -> None:
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
