# SPDX-License-Identifier: MIT
"""The engine for etcd against a real one: what nodes see of each other, through outages, forks and crashes."""

from __future__ import annotations

from time import monotonic

import pytest

from aemp_gevent.settings.directory_address import EtcdAddress
from tests.directory.etcd.observers import WAIT, Make, never_without, three
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until
from tests.support.networking import line_of, process

pytestmark = [needs_etcd, pytest.mark.slow]


def test_values_arrive_as_messages_do(address: EtcdAddress, make: Make) -> None:
    values = {"a": None, "b": b"\xff", "c": [1, {"d": 2.5, 3: True}], "e": "ä", "f": 2**63, "g": 1}
    a, b = make(address, "a", f=values), make(address, "b")
    b.engine.watch("f")
    b.wait("f", values)
    a.set("f", g=True)  # is another value although it is equal
    wait_until(lambda: b.copies["f"]["g"] is True, within=WAIT)
    assert b.asked("family", "f") == b.copies["f"]


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


def test_stopping_takes_all_entries_away(address: EtcdAddress, make: Make, lasting: EtcdServer) -> None:
    leases = lasting.leases()
    a = make(address, "a", ttl=1000, f={"k": 1}, listens=["127.0.0.1:1"])
    wait_until(lambda: len(lasting.keys(address.prefix + "/")) == 3, within=WAIT)
    a.engine.stop()
    assert a.engine.stopped.wait(WAIT)
    assert lasting.keys(address.prefix + "/") == []
    assert lasting.leases() == leases
    a.engine.query("family", "f", lambda _: pytest.fail("answered"))


def test_engines_stop_before_their_greenlets_have_begun(address: EtcdAddress, make: Make) -> None:
    a = make(address, "a", f={"k": 1})
    a.engine.stop()
    assert a.engine.stopped.wait(WAIT)


def test_a_stopped_etcd_loses_nothing_that_lives(server: EtcdServer, make: Make) -> None:
    a, b, watcher = three(make, server)
    server.stop()
    asleep = monotonic()
    a.set("f", a=2)
    a.set("f", new=1)
    b.delete("f", "b")
    b.set("f", late=1)
    wait_until(lambda: monotonic() - asleep > 6, within=WAIT)  # all leases have expired
    assert watcher.copies["f"] == {"a": 1, "b": 1}
    assert watcher.asked("family", "f") == {"a": 1, "b": 1}
    server.resume()
    watcher.wait("f", {"a": 2, "new": 1, "late": 1})
    assert never_without(watcher, "f", "a") and never_without(watcher, "f", "late")
    a.set("f", a=3)
    watcher.wait("f", {"a": 3, "new": 1, "late": 1})
    # Requests that timed out and are carried out late do no harm.
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
    wait_until(lambda: monotonic() - asleep > 5, within=WAIT)
    assert watcher.copies["f"] == {"a": 29, "b": 1}
    server.restart(empty=empty)
    watcher.wait("f", {"a": 2, "b": 1, "new": 1})
    again = monotonic()
    wait_until(lambda: monotonic() - again > 5, within=WAIT)  # until the time of grace is over
    assert watcher.copies["f"] == {"a": 2, "b": 1, "new": 1}
    assert all(never_without(watcher, "f", key) for key in "ab")
    a.set("f", a=3)
    watcher.wait("f", {"a": 3, "b": 1, "new": 1})


def test_entries_of_a_killed_process_are_gone_within_their_time_to_live(server: EtcdServer, make: Make) -> None:
    watcher = make(server.address(), "w")
    watcher.engine.watch("f")
    with process(PROGRAM, server.endpoint) as child:
        watcher.wait("f", {"k": 1})
        assert line_of(child) == "up"
        child.kill()
        watcher.wait("f", {}, within=15)


PROGRAM = """
import sys
import gevent
from aemp_gevent.directory.etcd.engine import EtcdEngine
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
    """In a forked child the engine stops; in the parent it continues undisturbed."""
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
from aemp_gevent.directory.etcd.engine import EtcdEngine
from aemp_gevent.settings.directory_address import parse_directory
from aemp_gevent.node.node import Node

class Observer:
    own = {"f": {"k": 1}}
    replaced = changed = lambda self, *args: told.append(args)

told = []
node = Node()
node.port(lambda: None)
engine = EtcdEngine(parse_directory(f"etcd://{sys.argv[1]}/test"), "parent", node._scheduler, 10)
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
