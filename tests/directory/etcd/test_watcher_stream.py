# SPDX-License-Identifier: MIT
"""What the watcher asks of etcd and makes of the answers, with a client that stands for etcd."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from gevent.server import StreamServer

from aemp_gevent.directory.etcd.client import Cluster, EtcdClient, EtcdError, EtcdLostError, decoded, encoded
from aemp_gevent.directory.etcd.keyspace import Keyspace
from aemp_gevent.directory.etcd.watcher import Reopen, Watcher
from aemp_gevent.runtime.forking import Helper
from aemp_gevent.settings.directory_address import parse_directory
from tests.directory.etcd.observers import FakeObserver
from tests.support.injecting import Injector, strike_points

KEYS = Keyspace("/prefix", "node")


class FakeEtcd:
    """Stands for the client: families are read as empty, at growing revisions, and a stream has the answers given."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.requests: list[tuple[dict[str, Any], ...]] = []
        self._answers = answers
        self._revision = 9

    def call(self, _path: str, _body: dict[str, Any]) -> dict[str, Any]:
        self._revision += 1
        return {"header": {"revision": str(self._revision)}}

    def stream(self, _path: str, *bodies: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(bodies)
        yield {"header": {"revision": "99"}, "created": True}
        yield from self._answers


class Place:
    """A watcher of some families, the observer, and a greenlet that it may interrupt."""

    def __init__(self, *families: str) -> None:
        cluster = cast("Cluster", SimpleNamespace(token="a token"))
        self.watcher = Watcher(KEYS, "node", cluster, cast("Any", None), 2, lambda _family, _key: False)
        self.observer = FakeObserver(cast("Any", None))
        self.killed: list[type[BaseException]] = []
        greenlet = SimpleNamespace(kill=lambda kind, block: self.killed.append(kind))
        self.watcher.start(self.observer, cast("Helper", greenlet))
        for family in families:
            self.watcher.watch(family)

    def work(self, etcd: FakeEtcd) -> None:
        self.watcher.work(cast("EtcdClient", etcd))

    def revisions(self) -> dict[str, int | None]:
        return {name: family.revision for name, family in self.watcher._families.items()}


def put(revision: int, family: str, value: int, key: str = "k") -> dict[str, Any]:
    kv = {"key": encoded(KEYS.key(family, key)), "value": encoded(KEYS.encode([value])), "mod_revision": str(revision)}
    return {"kv": kv}


def news(*events: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"header": {"revision": "99"}, "events": list(events), **more}


@pytest.mark.parametrize("families", [["f"], ["b", "a", "c"], ["a", "a0", "a/"]], ids=["one", "three", "similar"])
def test_one_watch_serves_all_families(families: list[str]) -> None:
    place, etcd = Place(*families), FakeEtcd()
    place.work(etcd)
    [(body,)] = etcd.requests
    [(kind, request)] = body.items()
    assert kind == "create_request"
    ranges = [KEYS.range(family) for family in families]
    assert decoded(request["key"]) == min(begin for begin, _ in ranges)
    assert decoded(request["range_end"]) == max(end for _, end in ranges)
    assert request["start_revision"] == "11"  # after the revision at which the first one was read


def test_changes_go_to_the_family_that_they_are_in() -> None:
    place = Place("a", "c")  # as of revisions 10 and 11
    before = [put(11, "a", 1), put(11, "c", 0)]  # the family has been read after this
    place.work(FakeEtcd(news(*before, put(12, "c", 2), put(12, "c", 3, "other"), put(13, "b", 4), put(14, "a", 5))))
    assert place.observer.copies == {"a": {"k": 5}, "c": {"k": 2, "other": 3}}
    assert place.observer.steps.count(({"k": 0}, [])) == 0
    assert place.revisions() == {"a": 14, "c": 14}


def test_changes_of_other_families_are_ignored() -> None:
    place = Place("", "c")
    foreign = [put(12, "b", 1), put(12, "b", 1), put(12, "b", 1)]
    foreign[1]["kv"]["key"] = encoded(b"/prefix/db/b")
    foreign[2]["kv"]["key"] = encoded(b"/prefix/db/b/x/y/z")
    place.work(FakeEtcd(news(*foreign)))
    assert place.observer.copies == {"": {}, "c": {}}


def test_change_that_was_applied_is_not_applied_again_when_the_rest_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Monitors would see an old value come back."""
    place, shown = Place("a"), []
    show = place.watcher._show

    def show_or_be_interrupted(*args: Any) -> None:
        show(*args)
        shown.append(args)
        if len(shown) == 3:
            raise Reopen

    events = news(*(put(11 + number, "a", number) for number in range(1, 5)))
    monkeypatch.setattr(place.watcher, "_show", show_or_be_interrupted)
    shown.clear()
    with pytest.raises(Reopen):
        place.work(FakeEtcd(events))
    place.work(FakeEtcd(events))
    values = [entries["k"] for entries, _deleted in place.observer.steps if "k" in entries]
    assert values == sorted(values)
    assert values[-1] == 4


def test_rest_of_a_revision_may_come_in_the_next_answer() -> None:
    place = Place("a")
    place.work(FakeEtcd(news(put(12, "a", 1), put(13, "a", 2, "x"), fragment=True)))
    assert place.revisions() == {"a": 12}
    place = Place("a")
    place.work(FakeEtcd(news(put(13, "a", 1), fragment=True), news(put(13, "a", 2, "x"))))
    assert place.observer.copies == {"a": {"k": 1, "x": 2}}
    assert place.revisions() == {"a": 13}


def test_progress_counts_for_all_families_that_are_known() -> None:
    place, etcd = Place("a", "c"), FakeEtcd({"header": {"revision": "50"}})
    place.work(etcd)
    assert place.revisions() == {"a": 50, "c": 50}
    place.watcher.lost()
    place.watcher._take({"header": {"revision": "60"}}, {})
    assert place.revisions() == {"a": None, "c": None}


def test_all_families_are_read_again_after_a_compaction() -> None:
    place = Place("a", "c")
    with pytest.raises(Reopen):
        place.work(FakeEtcd({"canceled": True, "compact_revision": "50"}))
    assert place.revisions() == {"a": None, "c": None}
    etcd = FakeEtcd()
    place.work(etcd)
    assert place.revisions() == {"a": 10, "c": 11}


def test_refusal_is_an_error_and_all_families_are_read_again() -> None:
    place = Place("a", "c")
    with pytest.raises(EtcdError, match="refused to watch: no permission"):
        place.work(FakeEtcd({"canceled": True, "cancel_reason": "no permission"}))
    assert place.revisions() == {"a": None, "c": None}


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], ids=["nothing", "only headers"]
)
def test_watch_that_etcd_does_not_confirm_in_time_is_an_error(head: bytes) -> None:
    revision = b'{"header": {"revision": "10"}}'

    def serve(sock: Any, _address: object) -> None:
        data = b""
        while part := sock.recv(65536):
            data += part
            if b"/kv/range" in data:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(revision), revision))
            else:
                sock.sendall(head)
            data = b""

    with closing(StreamServer(("127.0.0.1", 0), serve)) as server:
        server.start()
        address = parse_directory(f"etcd://127.0.0.1:{server.server_port}")
        assert address is not None
        place = Place("f")
        client = EtcdClient(Cluster(address), 0.1, lambda: None)
        with pytest.raises(EtcdLostError, match=r"no answer within 0\.1 s"):
            place.watcher.work(client)
        assert place.observer.copies == {"f": {}}


def test_family_that_is_watched_already_is_read_again() -> None:
    place = Place("f")  # whose last monitor was cancelled, and the call struck before it reached the watcher
    place.work(FakeEtcd(news(put(12, "f", 1))))
    place.watcher.watch("f")
    assert place.revisions() == {"f": None}
    place.work(FakeEtcd())
    assert place.observer.steps == [("whole", {}), ({"k": 1}, []), ("whole", {})]


def test_wherever_a_strike_came_the_next_call_watches_the_family() -> None:
    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        place = Place("f")
        place.work(FakeEtcd())
        place.watcher._streaming = True
        traced = ("directory/etcd/watcher.py",)
        injector = Injector(strike, lambda seen: seen == point, strike_points, traced)  # noqa: B023
        with contextlib.suppress(KeyboardInterrupt), injector:
            place.watcher.watch("g")
        place.watcher.watch("g")
        assert set(place.killed) == {Reopen}, point
        place.work(FakeEtcd())
        assert place.observer.copies == {"f": {}, "g": {}}, point
        if not injector.fired:
            break
    assert point > 3


def test_stream_is_interrupted_by_the_next_call_if_the_first_try_was_struck(monkeypatch: pytest.MonkeyPatch) -> None:
    def strike(_kind: object, block: bool) -> None:
        raise KeyboardInterrupt

    place = Place("f")
    place.work(FakeEtcd())
    place.watcher._streaming = True
    with monkeypatch.context() as patch:
        patch.setattr(place.watcher._greenlet, "kill", strike)
        with pytest.raises(KeyboardInterrupt):
            place.watcher.watch("g")
    place.watcher.lost()
    assert place.killed == [Reopen]
