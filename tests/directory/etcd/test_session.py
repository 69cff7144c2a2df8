# SPDX-License-Identifier: MIT
"""The engine for etcd against a real one, and observers that keep what they are told."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.directory.etcd import session as etcd
from aemp_gevent.directory.etcd.client import EtcdClient, EtcdLostError, encoded
from aemp_gevent.directory.etcd.session import EtcdEngine
from aemp_gevent.node.node import Node
from aemp_gevent.settings.directory_address import EtcdAddress, parse_directory
from aemp_gevent.testing import Proxy
from tests.etcd_server import EtcdServer, needs_etcd
from tests.helpers import wait_until
from tests.networking import free_address, line_of, process

pytestmark = [needs_etcd, pytest.mark.slow]

WAIT = 20.0


class FakeObserver:
    """A node's own side: keeps a copy of each watched family, and every step on the way."""

    def __init__(self, engine: EtcdEngine) -> None:
        self.engine = engine
        self.own: dict[str, dict[str, Any]] = {}
        self.copies: dict[str, dict[str, Any]] = {}
        self.steps: list[tuple[Any, ...]] = []

    def replaced(self, family: str, entries: dict[str, Any]) -> None:
        self.copies[family] = dict(entries)
        self.steps.append(("whole", dict(entries)))

    def changed(self, family: str, entries: dict[str, Any], deleted: Collection[str]) -> None:
        assert entries or deleted
        copy = self.copies[family]
        for key in deleted:
            del copy[key]
        copy.update(entries)
        self.steps.append((dict(entries), sorted(deleted)))

    def set(self, family: str, **entries: Any) -> None:
        self.own.setdefault(family, {}).update(entries)
        self.engine.publish(family, entries, ())

    def delete(self, family: str, *keys: str) -> None:
        for key in keys:
            del self.own[family][key]
        self.engine.publish(family, {}, keys)

    def wait(self, family: str, entries: dict[str, Any], within: float = WAIT) -> None:
        wait_until(lambda: self.copies.get(family) == entries, within=within, show=lambda: self.steps[-5:])

    def asked(self, what: Any, family: str) -> Any:
        answers: list[Any] = []
        self.engine.query(what, family, answers.append)
        wait_until(lambda: answers, within=WAIT)
        return answers[0]

    def found(self, node: str) -> Any:
        answers: list[Any] = []
        self.engine.find(node, answers.append)
        wait_until(lambda: answers, within=WAIT)
        return answers[0]


Make = Callable[..., FakeObserver]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def address(lasting: EtcdServer, request: pytest.FixtureRequest) -> EtcdAddress:
    """A part of an etcd for this test alone."""
    return lasting.address(f"/{abs(hash(request.node.name))}")


@pytest.fixture
def server(tmp_path: Any) -> Iterator[EtcdServer]:
    """An etcd for this test alone."""
    with EtcdServer(tmp_path) as server:
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Make engines with observers; all are stopped afterwards."""
    made: list[FakeObserver] = []

    def make(address: EtcdAddress, name: str = "a", ttl: float = 2, listens: Collection[str] = (), **own: Any) -> Any:
        engine = EtcdEngine(address, name, Node()._scheduler, ttl, listens)
        observer = FakeObserver(engine)
        observer.own.update(own)
        made.append(observer)
        engine.start(observer)
        return observer

    yield make
    for observer in made:
        observer.engine.stop()
        observer.engine.stop()
    for observer in made:
        assert observer.engine.stopped.wait(WAIT)


def test_watchers_get_the_whole_and_then_each_change_in_order(address: EtcdAddress, make: Make) -> None:
    a, b = make(address, "a", f={"x": 1, "y": [2]}), make(address, "b")
    wait_until(lambda: b.asked("family", "f") == {"x": 1, "y": [2]}, within=WAIT)
    b.engine.watch("f")
    b.wait("f", {"x": 1, "y": [2]})
    for number in range(50):
        a.set("f", x=number, z=number)
        if number % 2:
            a.delete("f", "z")
    b.wait("f", {"x": 49, "y": [2]})
    changes = b.steps[1:]
    assert [step[0]["x"] for step in changes if "x" in step[0]] == list(range(50))
    assert [step[0].get("z", "gone") for step in changes if "z" in step[0] or "z" in step[1]] == [
        text for number in range(50) for text in ([number, "gone"] if number % 2 else [number])
    ]
    assert b.steps[0] == ("whole", {"x": 1, "y": [2]})


ODD = ["", "/", "a/b", "ä€😀", "%2F", "..", "\udc80", "x" * 300, "'l", "\0"]


def test_any_texts_are_families_keys_and_owners(address: EtcdAddress, make: Make) -> None:
    family = "f/ä%\udcff"
    a = make(address, "no/de ä", **{family: {key: key + "!" for key in ODD if key != "\udc80"}})
    b = make(address, "b")
    b.engine.watch(family)
    b.engine.watch("f")
    b.wait(family, {key: key + "!" for key in ODD if key != "\udc80"})
    a.own[family]["\udc80"] = 1
    a.engine.publish(family, {"\udc80": 1}, ())
    wait_until(lambda: "\udc80" in b.copies[family], within=WAIT)
    assert b.copies["f"] == {}


def test_values_arrive_as_messages_do(address: EtcdAddress, make: Make) -> None:
    values = {"a": None, "b": b"\xff", "c": [1, {"d": 2.5, 3: True}], "e": "ä", "f": 2**63, "g": 1}
    a, b = make(address, "a", f=values), make(address, "b")
    b.engine.watch("f")
    b.wait("f", values)
    a.set("f", g=True)  # is another value although it is equal
    wait_until(lambda: b.copies["f"]["g"] is True, within=WAIT)
    assert b.asked("family", "f") == b.copies["f"]


def test_queries_see_what_was_published_before(address: EtcdAddress, make: Make) -> None:
    a = make(address)
    for number in range(20):
        a.set("f", k=number, other=1)
        assert a.asked("family", "f") == {"k": number, "other": 1}
    assert sorted(a.asked("keys", "f")) == ["k", "other"]
    assert sorted(a.asked("values", "f")) == [1, 19]
    assert a.asked("family", "none") == {}
    assert a.asked("keys", "none") == a.asked("values", "none") == []


def test_the_smallest_owner_is_seen(address: EtcdAddress, make: Make) -> None:
    watcher = make(address, "w")
    watcher.engine.watch("f")
    b, c = make(address, "b"), make(address, "c")
    b.set("f", k="of b")
    watcher.wait("f", {"k": "of b"})
    c.set("f", k="of c", only="c")
    watcher.wait("f", {"k": "of b", "only": "c"})
    b.delete("f", "k")
    watcher.wait("f", {"k": "of c", "only": "c"})
    a = make(address, "a", f={"k": "of a"})
    watcher.wait("f", {"k": "of a", "only": "c"})
    a.engine.stop()
    watcher.wait("f", {"k": "of c", "only": "c"})
    assert watcher.asked("family", "f") == {"k": "of c", "only": "c"}
    assert c.asked("family", "f") == {"k": "of c", "only": "c"}


def test_nodes_are_found(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    make(address, "a/1", listens=["127.0.0.1:1", "127.0.0.1:2"])
    b = make(address, "b", listens=["127.0.0.1:3"])
    wait_until(lambda: b.found("a/1") is not None, within=WAIT)
    assert b.found("a/1") == ["127.0.0.1:1", "127.0.0.1:2"]
    wait_until(lambda: b.found("b") == ["127.0.0.1:3"], within=WAIT)
    assert b.found("nobody") is None
    lasting.put(f"{address.prefix}/db/%27l/liar/liar", b"\x91\x91\x07")
    assert b.found("liar") is None


def test_unwatched_families_are_told_no_more(address: EtcdAddress, make: Make) -> None:
    a, b = make(address, "a", f={"k": 1}, g={"k": 1}), make(address, "b")
    b.engine.watch("f")
    b.engine.watch("g")
    b.wait("f", {"k": 1})
    b.wait("g", {"k": 1})
    b.engine.unwatch("f")
    a.set("f", k=2)
    a.set("g", k=2)
    b.wait("g", {"k": 2})
    assert b.copies["f"] == {"k": 1}
    b.engine.watch("f")
    b.wait("f", {"k": 2})
    a.set("f", k=3)
    b.wait("f", {"k": 3})


def test_families_of_many_pages_are_read_at_one_revision(
    address: EtcdAddress, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "_PAGE", 7)
    many = {f"k{number}": number for number in range(100)}
    make(address, "a", f=many)
    b = make(address, "b")
    wait_until(lambda: b.asked("family", "f") == many, within=WAIT)
    b.engine.watch("f")
    b.wait("f", many)
    assert b.steps == [("whole", many)]


def test_stopping_takes_all_entries_away(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    leases = lasting.leases()
    a = make(address, "a", ttl=1000, f={"k": 1}, listens=["127.0.0.1:1"])
    wait_until(lambda: len(lasting.keys(address.prefix + "/")) == 3, within=WAIT)
    a.engine.stop()
    assert a.engine.stopped.wait(WAIT)
    assert lasting.keys(address.prefix + "/") == []
    assert lasting.leases() == leases
    a.engine.query("family", "f", lambda _: pytest.fail("answered"))


def test_engines_stop_before_they_began(address: EtcdAddress, make: Make) -> None:
    a = make(address, "a", f={"k": 1})
    a.engine.stop()
    assert a.engine.stopped.wait(WAIT)


def test_what_is_none_of_ours_is_skipped(
    address: EtcdAddress, make: Make, lasting: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    b = make(address, "b", f={"good": 1})
    garbage = {"f/x": b"1", "f/x/y/z": b"1", "f/k/o": b"\xc1", "f/k/p": b"\x91", "f/k/q": b"\x92\x01\x02", "f/k/r": b""}
    garbage |= {"f/%FF/o": b"\x91\x01", "f/k/s": b"\x91\x01\x91\x01", "f/k/t": b"\x91\xc7\x01\x05\x00"}
    with caplog.at_level(logging.WARNING):
        for key, value in garbage.items():
            lasting.put(f"{address.prefix}/db/{key}", value)
        b.engine.watch("f")
        b.wait("f", {"good": 1})
        assert b.asked("family", "f") == {"good": 1}
        for key, value in garbage.items():
            lasting.delete(f"{address.prefix}/db/{key}")
            lasting.put(f"{address.prefix}/db/{key}", value)
        b.set("f", better=2)
        b.wait("f", {"good": 1, "better": 2})
    assert len([record for record in caplog.records if "skipped" in record.message]) == 1


# --- etcd goes away, and comes back ---


def never_without(observer: FakeObserver, family: str, key: str) -> bool:
    """Return whether a watcher was never told that an entry is gone."""
    seen = False
    for step in observer.steps:
        entries = step[1] if step[0] == "whole" else step[0]
        seen = seen or key in entries
        if seen and ((step[0] == "whole" and key not in entries) or (step[0] != "whole" and key in step[1])):
            return False
    return seen


def three(make: Make, server: EtcdServer, ttl: float = 2) -> tuple[FakeObserver, FakeObserver, FakeObserver]:
    """Return two nodes with an entry each, and one that watches them."""
    a, b = make(server.address(), "a", ttl, f={"a": 1}), make(server.address(), "b", ttl, f={"b": 1})
    watcher = make(server.address(), "w", ttl)
    watcher.engine.watch("f")
    watcher.wait("f", {"a": 1, "b": 1})
    return a, b, watcher


def count_lost(observer: FakeObserver) -> int:
    return len([step for step in observer.steps if step[0] == "whole"])


def test_a_stopped_etcd_loses_nothing_that_lives(server: EtcdServer, make: Make) -> None:
    a, b, watcher = three(make, server)
    server.stop()
    asleep = monotonic()
    a.set("f", a=2)
    a.set("f", new=1)
    b.delete("f", "b")
    b.set("f", late=1)
    wait_until(lambda: monotonic() - asleep > 5, within=WAIT)  # all leases are over
    assert watcher.copies["f"] == {"a": 1, "b": 1}
    assert watcher.asked("family", "f") == {"a": 1, "b": 1}
    server.resume()
    watcher.wait("f", {"a": 2, "new": 1, "late": 1})
    assert never_without(watcher, "f", "a") and never_without(watcher, "f", "late")
    a.set("f", a=3)
    watcher.wait("f", {"a": 3, "new": 1, "late": 1})
    # The late copies of the requests that timed out do no harm.
    assert watcher.asked("family", "f") == {"a": 3, "new": 1, "late": 1}


@pytest.mark.parametrize("empty", [False, True], ids=["same-data", "empty-data"])
def test_a_restarted_etcd_loses_nothing_that_lives(server: EtcdServer, make: Make, empty: bool) -> None:
    a, b, watcher = three(make, server)
    for number in range(30):
        a.set("f", a=number)
    watcher.wait("f", {"a": 29, "b": 1})
    server.kill()
    a.set("f", a=2)
    b.set("f", new=1)
    asleep = monotonic()
    wait_until(lambda: monotonic() - asleep > 3, within=WAIT)
    assert watcher.copies["f"] == {"a": 29, "b": 1}
    server.restart(empty=empty)
    watcher.wait("f", {"a": 2, "b": 1, "new": 1})
    again = monotonic()
    wait_until(lambda: monotonic() - again > 3, within=WAIT)  # until the time of grace is over
    assert watcher.copies["f"] == {"a": 2, "b": 1, "new": 1}
    assert all(never_without(watcher, "f", key) for key in "ab")
    a.set("f", a=3)
    watcher.wait("f", {"a": 3, "b": 1, "new": 1})


def test_what_was_deleted_while_etcd_was_away_is_not_left_over(server: EtcdServer, make: Make) -> None:
    leases = server.leases()
    a = make(server.address(), "a", 6, f={"gone": 1, "k": 1})
    assert sorted(a.asked("keys", "f")) == ["gone", "k"]
    server.stop()
    a.delete("f", "gone")
    wait_until(lambda: not a.engine._is_sure, within=WAIT)
    a.set("f", k=2)
    server.resume()
    wait_until(lambda: server.leases() == leases + 1, within=WAIT)
    wait_until(lambda: server.keys("/test/db/") == ["/test/db/f/k/a"], within=WAIT)
    assert a.asked("family", "f") == {"k": 2}


def test_a_request_of_a_former_session_does_nothing(server: EtcdServer, make: Make) -> None:
    """etcd may carry out a request long after we gave it up."""
    a = make(server.address(), "a", f={"k": 1})
    assert a.asked("keys", "f") == ["k"]
    lease = a.engine._lease
    late: list[Any] = []
    call = EtcdClient.call

    def lose(client: EtcdClient, path: str, body: Any, **options: Any) -> Any:
        if path == "kv/txn" and not late:
            late.append(body)
            raise EtcdLostError("no answer")
        return call(client, path, body, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EtcdClient, "call", lose)
        a.delete("f", "k")
        wait_until(lambda: late, within=WAIT)
        a.set("f", k=2)
        assert a.asked("family", "f") == {"k": 2}
    assert a.engine._lease != lease
    server.call("kv/txn", late[0])
    assert a.asked("family", "f") == {"k": 2}


def test_who_died_while_etcd_was_away_is_gone_after_the_grace(server: EtcdServer, make: Make) -> None:
    a, b, watcher = three(make, server)
    server.kill()
    kill(b)
    server.restart(empty=True)
    watcher.wait("f", {"a": 1})
    assert never_without(watcher, "f", "a")
    assert watcher.asked("family", "f") == {"a": 1}


def kill(observer: FakeObserver) -> None:
    """End an engine as a crash would: etcd is not told."""
    engine = observer.engine
    engine._former.clear()
    engine._lease = None
    engine.stop()


def test_compaction_while_cut_off(server: EtcdServer, make: Make) -> None:
    with Proxy(server.endpoint) as proxy:
        address = replace(server.address(), endpoints=(parse_endpoint(proxy.address),))
        a, watcher = make(server.address(), "a", 30, f={"a": 1, "b": 1}), make(address, "w", 30)
        watcher.engine.watch("f")
        watcher.wait("f", {"a": 1, "b": 1})
        proxy.blackhole()
        a.set("f", a=2)
        a.delete("f", "b")
        a.set("f", a=3)
        assert a.asked("family", "f") == {"a": 3}
        server.compact()
        # Another family: the watch of the first goes on from a revision that is no more.
        watcher.engine.watch("g")
        assert watcher.copies["f"] == {"a": 1, "b": 1}
        proxy.heal()
        watcher.wait("f", {"a": 3})
        assert watcher.copies["g"] == {}


def test_compacted_watches_are_read_anew(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    a, watcher = make(address, "a", f={"a": 1, "b": 1}), make(address, "w")
    watcher.engine.watch("f")
    watcher.wait("f", {"a": 1, "b": 1})
    family = watcher.engine._families["f"]
    a.delete("f", "b")
    watcher.wait("f", {"a": 1})
    a.set("f", b=2)
    watcher.wait("f", {"a": 1, "b": 2})
    lasting.compact()
    family.revision = 1  # as if it had fallen behind
    watcher.steps.clear()
    watcher.engine.watch("g")
    wait_until(lambda: watcher.steps.count(("whole", {"a": 1, "b": 2})), within=WAIT)
    a.set("f", b=3)
    watcher.wait("f", {"a": 1, "b": 3})


def test_the_next_member_is_asked(server: EtcdServer, make: Make) -> None:
    nobody = parse_endpoint(free_address())
    with Proxy(server.endpoint) as first, Proxy(server.endpoint) as second:
        both = tuple(parse_endpoint(proxy.address) for proxy in (first, second))
        a = make(replace(server.address(), endpoints=(nobody, *both)), "a", 3, f={"a": 1})
        a.engine.watch("f")
        a.wait("f", {"a": 1})
        for number, proxy in enumerate([first, second, first], 2):
            proxy.heal()
            other = second if proxy is first else first
            other.blackhole()
            server.put("/test/db/f/other/o", b"\x91" + bytes([number]))
            a.wait("f", {"a": 1, "other": number}, within=60)
        assert never_without(a, "f", "a")


def test_entries_of_a_killed_process_are_gone_within_its_time(server: EtcdServer, make: Make) -> None:
    watcher = make(server.address(), "w")
    watcher.engine.watch("f")
    with process(PROGRAM, server.endpoint) as child:
        watcher.wait("f", {"k": 1})
        assert line_of(child) == "up"
        child.kill()
        killed = monotonic()
        watcher.wait("f", {})
        assert monotonic() - killed < 2 + 5  # the time to live, and what a loaded machine needs


PROGRAM = """
import sys
import gevent
from aemp_gevent.directory.etcd.session import EtcdEngine
from aemp_gevent.settings.directory_address import parse_directory
from aemp_gevent.node.node import Node

class Observer:
    own = {"f": {"k": 1}}

engine = EtcdEngine(parse_directory(f"etcd://{sys.argv[1]}/test"), "victim", Node()._scheduler, 2)
engine.start(Observer())
print("up", flush=True)
gevent.sleep(1000)
"""


def test_a_child_process_leaves_the_parent_alone(server: EtcdServer, make: Make) -> None:
    """A forked child stops all that the engine does, and the parent goes on undisturbed."""
    with process(FORKING, server.endpoint) as child:
        assert line_of(child) == "forked"
        watcher = make(server.address(), "w")
        watcher.engine.watch("f")
        watcher.wait("f", {"k": 1})
        assert line_of(child) == "the child ended with 0"
        for number in range(2, 5):
            assert child.stdin is not None
            child.stdin.write(f"{number}\n")
            child.stdin.flush()
            watcher.wait("f", {"k": number})
        assert never_without(watcher, "f", "k")


FORKING = """
import os, sys
import gevent
from aemp_gevent.directory.etcd.session import EtcdEngine
from aemp_gevent.settings.directory_address import parse_directory
from aemp_gevent.node.node import Node

class Observer:
    own = {"f": {"k": 1}}
    replaced = changed = lambda self, *args: told.append(args)

told = []
node = Node()
node.port(lambda: None)
engine = EtcdEngine(parse_directory(f"etcd://{sys.argv[1]}/test"), "parent", node._scheduler, 2)
observer = Observer()
engine.start(observer)
engine.watch("f")
while ("f", {"k": 1}) not in told and ("f", {"k": 1}, []) not in told:
    gevent.sleep(0.01)
pid = os.fork()
if not pid:
    engine.abandon()
    told.clear()
    gevent.sleep(3)
    os._exit(bool(told))
print("forked", flush=True)
while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
    gevent.sleep(0.05)
status = os.waitstatus_to_exitcode(ended[1])
print("the child ended with", status, flush=True)
while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
    observer.own["f"]["k"] = int(line)
    engine.publish("f", {"k": int(line)}, ())
"""


def test_two_processes_with_one_id_are_told(address: EtcdAddress, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        first = make(address, "same", f={"k": 1})
        assert first.asked("keys", "f") == ["k"]
        second = make(address, "same", f={"k": 2})
        assert second.asked("family", "f") == {"k": 2}
        first.set("f", k=3)
        wait_until(lambda: "must be unique" in caplog.text, within=WAIT)


def test_a_new_life_of_a_node_is_not_ended_with_the_old_one(address: EtcdAddress, make: Make) -> None:
    watcher = make(address, "w")
    watcher.engine.watch("f")
    old = make(address, "same", f={"k": 1, "old": 1})
    watcher.wait("f", {"k": 1, "old": 1})
    kill(old)
    make(address, "same", f={"k": 2})
    watcher.wait("f", {"k": 2, "old": 1})
    watcher.wait("f", {"k": 2})
    assert never_without(watcher, "f", "k")


def test_more_changes_than_wait_for_etcd_become_the_whole(
    address: EtcdAddress, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "_MAX_QUEUED", 10)
    a, b = make(address, "a", f={"k": 0}), make(address, "b")
    b.engine.watch("f")
    b.wait("f", {"k": 0})
    for number in range(100):
        a.set("f", **{f"k{number}": number})
        a.set("f", k=number)
        assert len(a.engine._changes) <= 12
    a.delete("f", "k7")
    b.wait("f", {"k": 99, **{f"k{number}": number for number in range(100) if number != 7}})


def test_large_entries_are_left_out(address: EtcdAddress, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    # A busy machine may need longer than the shortest time to live for what follows.
    a, b = make(address, "a", ttl=30), make(address, "b", ttl=30)
    b.engine.watch("f")
    large = "x" * 2**20
    a.set("f", larger=large + "x" * 2048)
    a.set("f", large=large)
    a.set("f", **{f"k{number}": large[: 2**18] for number in range(30)})
    b.wait("f", {"large": large, **{f"k{number}": large[: 2**18] for number in range(30)}})
    assert "the own entry larger of f" in caplog.text
    assert a.asked("family", "f") == b.copies["f"]  # more than gRPC's 4 MiB


# --- users ---


def test_users_prove_who_they_are(
    server: EtcdServer, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "_LOG_SECONDS", 0)
    for user in ("root", "node", "weak"):
        server.call("auth/user/add", {"name": user, "password": f"secret of {user}"})
    for user, role in (("root", "root"), ("node", "ours")):
        server.call("auth/role/add", {"name": role})
        server.call("auth/user/grant", {"user": user, "role": role})
    both = {"key": encoded(b"/test/"), "range_end": encoded(b"/test0"), "permType": "READWRITE"}
    server.call("auth/role/grant", {"name": "ours", "perm": both})
    server.call("auth/enable", {})

    known = replace(server.address(), user="node", password="secret of node")
    a, b = make(known, "a", f={"k": 1}), make(known, "b")
    b.engine.watch("f")
    b.wait("f", {"k": 1})
    assert not caplog.records

    # Tokens are good for some time only.
    for observer in (a, b):
        observer.engine._cluster.token = "an old one"
    a.set("f", k=2)
    b.engine.watch("g")
    b.wait("f", {"k": 2})
    b.wait("g", {})
    assert b.asked("family", "f") == {"k": 2}

    for number, (user, why) in enumerate(
        {"weak": "permission denied", "nobody": "authentication failed", None: "user name"}.items()
    ):
        caplog.clear()
        stranger = make(replace(server.address(), user=user, password=f"secret of {user}"), f"stranger{number}")
        stranger.engine.watch("f")
        wait_until(lambda why=why: why in caplog.text, within=WAIT, show=lambda: caplog.text)
        assert "secret" not in caplog.text
        assert stranger.steps == []
        stranger.engine.stop()


def test_failures_are_not_logged_each_time(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    address = parse_directory(f"etcd://{free_address()}")
    assert address is not None
    with caplog.at_level(logging.INFO):
        a = make(address, "a", f={"k": 1})
        trouble: list[Any] = []
        monkey = a.engine._cluster.failed
        a.engine._cluster.failed = lambda endpoint: (trouble.append(endpoint), monkey(endpoint))  # type: ignore[method-assign]
        a.engine.watch("f")
        a.engine.query("family", "f", trouble.append)
        wait_until(lambda: len(trouble) > 8, within=WAIT)
    assert len(caplog.records) == 3  # writing, watching, asking


# --- TLS ---


def certified(folder: Path, host: str) -> tuple[Path, Path]:
    """Return files with a certificate for a host, which vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{host}.pem", folder / f"{host}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_members_prove_who_they_are(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    files = certified(tmp_path, "127.0.0.1")
    with EtcdServer(tmp_path, files) as server:
        a, b = make(server.address(), "a", f={"k": 1}), make(server.address(), "b")
        b.engine.watch("f")
        b.wait("f", {"k": 1})
        server.restart()
        a.set("f", k=2)
        b.wait("f", {"k": 2})
        strangers = {
            "certificate verify failed": replace(server.address(), ca=None),
            "CA cert|certificate verify failed": replace(server.address(), ca=str(certified(tmp_path, "127.0.0.2")[0])),
            "cannot be used": replace(server.address(), ca=str(tmp_path / "none")),
            "certificate required|bad certificate|reset|broke|without response|EOF occurred": replace(
                server.address(), cert=None, key=None
            ),
        }
        for number, (why, address) in enumerate(strangers.items()):
            caplog.clear()
            stranger = make(address, f"s{number}", f={"k": 3})
            wait_until(lambda why=why: re.search(why, caplog.text), within=WAIT, show=lambda: caplog.text)
            stranger.engine.stop()
        assert b.copies["f"] == {"k": 2}
        a.engine.stop()
        b.engine.stop()
        assert a.engine.stopped.wait(WAIT)
        assert server.keys() == []
