# SPDX-License-Identifier: MIT
"""Interrupts that strike a global node while it changes its directory: afterwards everybody has the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from gevent.event import Event

from aemp_gevent.directory.embedded.server import DirectoryServer
from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import OURS, PERL, Dial, attach, handled, packets_until_now, shorten_grace
from tests.support.helpers import wait_until
from tests.support.injecting import Injector, strike_points
from tests.support.networking import RawListener, RawPeer, free_address, node_factory
from tests.support.seams import embedded_of, network_of
from tests.support.striking import STRIKES, at_every_depth, nothing, strike_in_turn

TRACED = (
    *(
        f"directory/embedded/{name}.py"
        for name in ("client", "engine", "guest", "introductions", "mesh", "orphans", "protocol")
    ),
    *(f"directory/embedded/{name}.py" for name in ("screening", "server", "turns")),
    *("directory/merge.py", "directory/local_directory.py", "directory/family_monitor.py"),
)


def struck(act: Callable[[], object], point: int, has_begun: Callable[[], object] = lambda: True) -> int:
    """Do something and be struck at a point; return how many points there are."""

    def strike() -> None:
        raise STRIKES[point % 2]

    injector = Injector(strike, lambda seen: seen == point, strike_points, TRACED, has_begun)
    with contextlib.suppress(KeyboardInterrupt, MemoryError), injector:
        act()
    return injector.count


def struck_asking(node: Node, peer: str, request: str, *args: Any, point: int) -> int:
    """Make a request as if a peer had sent it, and be struck at a point from where its call is due.

    What strikes before that has no effect but the exception, for which a link is lost: that is the scene ``arrival``.
    """
    return struck(lambda: ask(node, peer, request, *args), point, lambda: embedded_of(node)._turns._due)


def struck_once(method: Callable[..., None], error: type[BaseException]) -> Callable[..., None]:
    """Return a form of a method whose first call is struck: of one that mends, the second strike at a change."""
    strikes = [error]

    def call(*args: Any) -> None:
        if strikes:
            raise strikes.pop()
        method(*args)

    return call


def ask(node: Node, peer: str, request: str, *args: Any) -> None:
    """Make a request as if a peer had sent it."""
    embedded_of(node).handle(network_of(node).peer(peer), request, list(args))


def let_hub_end(node: Node) -> None:
    """Wait until the hub has done what it was asked for."""
    visited = Event()
    node.scheduler.call_on_hub(visited.set)
    assert visited.wait(5)
    wait_until(lambda: not embedded_of(node)._turns._due, within=5)


def lose(node: Node, peer: str) -> None:
    """Cut the link to a peer."""
    link = network_of(node).peer(peer).link
    assert link is not None
    link.fail("cut by the test")


class Scene:
    """A global node with a client, two watchers, two other global nodes, of ours and of Perl's, and its own monitor."""

    def __init__(self, make_node: Callable[..., Node], stack: ExitStack) -> None:
        address = free_address()
        self.node = make_node(address, address)
        wait_until(lambda: self.node.info()["directory"] == "global")
        shorten_grace(self.node, 0.05)
        dial = Dial(self.node, stack)
        self.client, self.watcher, self.late = dial("c", OURS), dial("w", OURS), dial("v", PERL)
        self.partner, self.perl, self.other = dial("g", OURS), dial("p", PERL), dial("h", OURS)
        self.received: dict[RawPeer, list[list[Any]]] = {}
        self.copy: dict[str, Any] = {}
        self.node.db_set("f", "mine", 1)
        self.client.send(["", "g_slave", {"f": {"k": 1, "old": 1}, "other": {"k": 1}}])
        self.watcher.send(["", "g_mon1", "f"])
        handled(self.client)
        for peer in (self.partner, self.perl, self.other):
            peer.send(["", "g_global"])
        self.partner.send(["", "g_set", {"f": {"k": "z's", "z": 1}}, "z"])
        self.partner.send(["", "g_set", {"f": {"partner": 1}, "'l": {"g": ["127.0.0.1:1"]}, "'g": {"g": None}}, "g"])
        for peer in (self.partner, self.perl, self.other):
            self._read(peer)
        self.node.db_mon("f", lambda entries, *_: setattr(self, "copy", dict(entries)))

    def ask(self, peer: RawPeer, request: str, *args: Any) -> None:
        ask(self.node, peer.name, request, *args)

    def lose(self, peer: RawPeer) -> None:
        lose(self.node, peer.name)

    # --- what everybody has ---

    def _read(self, peer: RawPeer) -> list[list[Any]]:
        packets = self.received.setdefault(peer, [])
        packets += packets_until_now(peer)
        return packets

    def watched(self, peer: RawPeer) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for packet in self._read(peer):
            if packet[1:3] == ["g_chg1", "f"]:
                seen = packet[3] or {}
            elif packet[1:3] == ["g_chg2", "f"]:
                seen = {key: value for key, value in {**seen, **packet[3]}.items() if key not in packet[4]}
        return seen

    def brought(self, peer: RawPeer, family: str = "f", by_owner: bool = True) -> dict[str, dict[str, Any]]:
        """Return what the node sent another global node, by owner."""
        owned: dict[str, dict[str, Any]] = {}
        for packet in self._read(peer):
            owner = packet[-1] if by_owner else ""
            if packet[1] == "g_set":
                owned[owner] = dict(packet[2].get(family) or {})
            elif packet[1:3] == ["g_upd", family]:
                its = owned.setdefault(owner, {})
                its.update(packet[3] or {})
                for key in packet[4]:
                    its.pop(key, None)
        return {owner: entries for owner, entries in owned.items() if entries}

    def check(self, expected: dict[str, Any], owned: dict[str, dict[str, Any]], watchers: list[RawPeer]) -> None:
        me = self.node.NODE()
        wait_until(lambda: self.node.db_family("f") == expected, within=5, show=lambda: self.node.db_family("f"))
        wait_until(lambda: self.copy == expected, within=5, show=lambda: self.copy)
        for watcher in watchers:
            assert self.watched(watcher) == expected
        own = dict(self.node._directory.own.get("f", {}))
        assert self.brought(self.other) == {**({me: own} if own else {}), **owned}
        near = {key: value for entries in owned.values() for key, value in entries.items()}
        assert self.brought(self.perl, by_owner=False) == {"": {**own, **near}}


def play(scene: str, point: int) -> int:
    with ExitStack() as stack:
        it = Scene(stack.enter_context(node_factory()), stack)
        theirs = {"partner": 1, "z": 1}
        clients = {"k": 1, "old": 1}
        watchers = [it.watcher]
        if scene in ("change", "change-twice"):
            if scene == "change-twice":
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(DirectoryServer, "mend", struck_once(DirectoryServer.mend, STRIKES[point % 2]))
            count = struck_asking(it.node, "c", "g_upd", "f", {"k": 2, "new": 1}, ["old"], point=point)
            clients = {"k": 2, "new": 1}
        elif scene == "arrival":
            it.client.send(["", "g_upd", "f", {"k": 2, "new": 1}, ["old"]])
            count = struck(lambda: wait_until(lambda: it.node.db_family("f")["k"] != 1, within=5), point)
            wait_until(lambda: it.node.db_family("f")["k"] != 1, within=5)  # or its link was lost, and all it brought
            clients = {"k": 2, "new": 1} if it.node.node_is_up("c") else {}
            theirs = {**theirs, **({} if clients else {"k": "z's"})}
        elif scene == "subscription":
            count = struck_asking(it.node, "v", "g_mon1", "f", point=point)
            it.ask(it.client, "g_upd", "f", {"new": 1}, [])
            watchers.append(it.late)
            clients = {**clients, "new": 1}
        elif scene == "owner-lost":
            count = struck(lambda: it.lose(it.client), point)
            clients, theirs = {}, {**theirs, "k": "z's"}
        elif scene == "own-change":
            count = struck(lambda: it.node.db_set("f", "mine", 2), point)
        elif scene == "own-deletion":
            count = struck(lambda: it.node.db_del("f", "mine"), point)
        elif scene == "own-subscription":
            copies: list[dict[str, Any]] = [{}, {}]
            count = struck(lambda: it.node.db_mon("h", lambda entries, *_: copies[0].update(entries)), point)
            it.node.db_mon("h", lambda entries, *_: copies[1].update(entries))
            it.node.db_set("h", "k", 1)
            wait_until(lambda: copies[1] == {"k": 1}, within=5, show=lambda: copies)
            assert copies[0] in ({}, {"k": 1})
        else:
            count = struck(lambda: it.lose(it.partner), point)
            theirs = {}  # z's entries after some time
        let_hub_end(it.node)  # which completes what was struck twice
        own = dict(it.node._directory.own.get("f", {}))  # changed, or untouched
        it.check({**theirs, **clients, **own}, {"c": clients} if clients else {}, watchers)
        return count


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene",
    [
        *("change", "change-twice", "arrival", "subscription", "owner-lost", "partner-lost"),
        *("own-change", "own-deletion", "own-subscription"),
    ],
)
def test_copies_agree_though_an_interrupt_struck_a_change(scene: str) -> None:
    count = play(scene, 0)
    assert count > 10
    strike_in_turn(lambda point: play(scene, point), count, 300)


def play_client(scene: str, point: int) -> int:
    """Strike a client of a global node; return how many points there are."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(RawListener()) for _ in range(2))
        node = stack.enter_context(node_factory())("127.0.0.1:0", first.id, second.id)
        copy: list[dict[str, Any]] = [{}]
        answers: list[Any] = []
        node.db_set("f", "mine", 1)
        node.db_mon("f", lambda entries, *_: copy.append(dict(entries)))
        master, _database = attach(first)
        stack.enter_context(master)
        other = stack.enter_context(second.accept(extras=PERL).shake())
        assert master.packet() == ["", "g_mon1", "f"]
        wait_until(lambda: set(node.up_nodes()) == {first.id, second.id})
        node.db_keys("g", answers.append)
        *_rest, number = master.packet()
        if scene == "look-up":
            found: list[Any] = []
            count = struck(lambda: embedded_of(node).find("n", found.append), point)
            embedded_of(node).find("n", found.append)
            assert ["", "g_find", "n"] in packets_until_now(master)
            ask(node, first.id, "g_found", "n", ["127.0.0.1:1"])
            wait_until(lambda: found and found == len(found) * [["127.0.0.1:1"]], within=5, show=lambda: found)
        elif scene == "unwatch":
            monitor = node.db_mon("h", nothing)
            assert master.packet() == ["", "g_mon1", "h"]
            count = struck(monitor.cancel, point)
            monitor.cancel()
            ask(node, first.id, "g_chg1", "h", {})  # at the next report at the latest
            assert ["", "g_mon0", "h"] in packets_until_now(master)
            assert "h" not in node._directory._copies
        if scene == "whole":
            count = struck_asking(node, first.id, "g_chg1", "f", {"a": 1}, point=point)
        else:
            ask(node, first.id, "g_chg1", "f", {"a": 0, "gone": 1})
        if scene == "change":
            count = struck_asking(node, first.id, "g_chg2", "f", {"a": 1}, ["gone"], point=point)
        elif scene == "answer":
            count = struck_asking(node, first.id, "g_reply", number, ["x"], point=point)
            ask(node, first.id, "g_chg1", "f", {"a": 1})
        elif scene == "master-lost":
            count = struck(lambda: lose(node, first.id), point)
            said = packets_until_now(other)
            assert ["", "g_slave", {"f": {"mine": 1}, "'l": {node.NODE(): [node.NODE()]}}] in said
            assert ["", "g_mon1", "f"] in said
            assert ["", "g_db_keys", "g", number] in said
            ask(node, second.id, "g_reply", number, ["x"])
            ask(node, second.id, "g_chg1", "f", {"a": 0})
            ask(node, second.id, "g_chg2", "f", {"a": 1}, ["gone"])
        if scene in ("look-up", "unwatch"):
            return count
        wait_until(lambda: copy[-1] == {"a": 1}, within=5, show=lambda: copy)
        if scene in ("answer", "master-lost"):
            wait_until(lambda: answers == [["x"]], within=5, show=lambda: answers)
        return count


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["whole", "change", "answer", "master-lost", "look-up", "unwatch"])
def test_client_has_what_its_master_has_though_an_interrupt_struck(scene: str) -> None:
    count = play_client(scene, 0)
    assert count > 5
    strike_in_turn(lambda point: play_client(scene, point), count, 300)


def test_call_that_was_struck_asks_for_nothing_in_the_end() -> None:
    """At the recursion limit some calls begin, and others cannot: none of them may come back later."""
    with ExitStack() as stack:
        listener = stack.enter_context(RawListener())
        node = stack.enter_context(node_factory())("127.0.0.1:0", listener.id)
        master, _database = attach(listener)
        stack.enter_context(master)
        answered: list[int] = []
        errors = list(at_every_depth(lambda number: node.db_keys("f", lambda _keys: answered.append(number))))
        let_hub_end(node)
        node.db_keys("f", lambda _keys: answered.append(-1))
        for _name, request, *_family, number in packets_until_now(master):
            assert request == "g_db_keys"
            master.send(["", "g_reply", number, []])
        wait_until(lambda: -1 in answered, within=5, show=lambda: answered)
        assert sorted(answered) == [-1, *(number for number, error in enumerate(errors) if error is None)]

        errors = list(at_every_depth(lambda number: node.db_mon(f"{number}", nothing)))
        let_hub_end(node)
        watched: set[str] = set()
        while news := packets_until_now(master):
            for _name, request, family in news:
                if request == "g_mon1":
                    watched.add(family)
                    master.send(["", "g_chg1", family, {}])
                else:
                    assert request == "g_mon0"
                    watched.discard(family)
        assert watched == {f"{number}" for number, error in enumerate(errors) if error is None}


def test_loss_after_a_change_that_was_given_up_deletes_all_that_the_peer_brought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        it = Scene(stack.enter_context(node_factory()), stack)

        def fail(*_args: object) -> None:
            raise MemoryError

        newcomer = Dial(it.node, stack)("n", OURS)
        with monkeypatch.context() as patch:
            patch.setattr(DirectoryServer, "_spread", fail)
            with pytest.raises(MemoryError):
                it.ask(newcomer, "g_upd", "f", {"new": 1}, [])
            wait_until(lambda: not embedded_of(it.node)._turns._due, within=5)
        it.lose(newcomer)
        theirs = {"partner": 1, "z": 1}
        it.check({**theirs, "k": 1, "old": 1, "mine": 1}, {"c": {"k": 1, "old": 1}}, [it.watcher])
