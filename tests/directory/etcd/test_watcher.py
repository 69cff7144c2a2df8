# SPDX-License-Identifier: MIT
"""Watched families in a real etcd: changes in order, compaction, and the time of grace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.settings.directory_address import EtcdAddress
from aemp_gevent.testing import Proxy
from tests.directory.etcd.observers import WAIT, Make, kill, never_without, three
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until

pytestmark = [needs_etcd, pytest.mark.slow]


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


def test_unwatched_families_are_no_longer_reported(address: EtcdAddress, make: Make) -> None:
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


def test_each_of_many_families_hears_its_changes_whenever_the_stream_is_opened(
    address: EtcdAddress, make: Make
) -> None:
    a, b = make(address, "a"), make(address, "b")
    watcher = b.engine._watcher
    families = [f"f{number}" for number in range(50)]
    for family in families:
        watcher.watch(family)
    for opening in range(10):
        wait_until(lambda: watcher._streaming, within=WAIT)
        for family in families:
            a.set(family, k=opening)
        for family in families:
            b.wait(family, {"k": opening})
        watcher._reopen()


def test_entries_of_a_node_that_died_while_etcd_was_away_go_after_the_grace(server: EtcdServer, make: Make) -> None:
    a, b, watcher = three(make, server)
    server.kill()
    kill(b)
    server.restart(empty=True)
    watcher.wait("f", {"a": 1})
    assert never_without(watcher, "f", "a")
    assert watcher.asked("family", "f") == {"a": 1}


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
        # Another family: the watch of the first continues from a revision that no longer exists.
        watcher.engine.watch("g")
        assert watcher.copies["f"] == {"a": 1, "b": 1}
        proxy.heal()
        watcher.wait("f", {"a": 3})
        assert watcher.copies["g"] == {}


def test_compacted_watches_are_read_again(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    a, watcher = make(address, "a", f={"a": 1, "b": 1}), make(address, "w")
    watcher.engine.watch("f")
    watcher.wait("f", {"a": 1, "b": 1})
    family = watcher.engine._watcher._families["f"]
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
