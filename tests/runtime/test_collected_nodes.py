# SPDX-License-Identifier: MIT
"""What the garbage collector finds of nodes, in whichever thread it runs: watchers are closed, blocks are left."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref

import gevent
import pytest

from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.toolkit import RemotePool, death_of
from tests.support.helpers import wait_until
from tests.support.networking import ROOT, tables
from tests.support.seams import ports_of
from tests.support.settling import set_aside, settle
from tests.support.threads import in_thread

WATCHERS = """
import gc, sys, threading
from gevent._ffi.watcher import watcher

left = []
watcher.__del__ = lambda self: self._watcher and left.append(type(self).__name__)  # its memory goes, unclosed

import gevent
import aemp_gevent as mp

seed = mp.Node()
seed.initialise_node("127.0.0.1:0", secret="s")
remote = seed.port(lambda *message: None)

def run(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.001)

def live():
    node = mp.Node()
    node.initialise_node("127.0.0.1:0", seed.NODE(), secret="s")
    port = node.port(lambda *message: None)
    for receiver in (port, remote):
        node.mon(receiver, lambda *reason: None)
        node.snd(receiver, "hello")
    node.after(0.001, lambda: None)
    node.syncal(5, seed.NODE(), "time")
    gevent.sleep(0.002)
    node.shutdown(1)

def live_and_end(destroyed):
    live()
    gc.collect()
    gevent.sleep(0)
    if destroyed:
        gevent.get_hub().destroy(destroy_loop=True)

for _ in range(3):
    live()
for destroyed in (False, True):
    run(live_and_end, destroyed)
seed.shutdown(1)
private = [mp.Node()]
private[0].port()
run(lambda: (private.clear(), gc.collect()))  # so it is collected there
gc.collect()
gevent.sleep(0.01)
gc.collect()
print(type(gevent.get_hub().loop).__module__, left)
"""


@pytest.mark.slow
def test_every_watcher_of_a_collected_node_is_closed():
    """libuv keeps using the memory of one that is not, and sooner or later the process aborts."""
    environment = {**os.environ, "GEVENT_LOOP": "libuv"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHERS], env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    if "ImportError" in done.stderr:
        pytest.skip("this gevent has no libuv")
    assert (done.stdout, done.stderr) == ("gevent.libuv.loop []\n", "")


GUARDS = {
    "attach": lambda node, port: node.attach(),
    "mon": lambda node, port: node.mon(port, print),
    "after": lambda node, port: node.after(60, print),
    "db_set": lambda node, port: node.db_set("family", "key", 1),
    "db_mon": lambda node, port: node.db_mon("family", print),
    "mon_nodes": lambda node, port: node.mon_nodes(print),
    "death_of": lambda node, port: death_of(port, node=node),
    "pool": lambda node, port: RemotePool([node.NODE()], node=node),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_the_collector_may_close_a_block_in_any_thread(make_node, guard):
    """It runs in each, also in those of gevent's pool, and finds generators that nobody needs any more."""
    node = make_node(None)
    port = node.port()

    def generator():
        with GUARDS[guard](node, port):
            yield

    running = [generator()]
    next(running[0])
    before = tables(node)
    in_thread(running.clear)
    wait_until(lambda: tables(node) != before or guard in {"db_set", "db_mon", "mon_nodes"})
    node.kil(port)
    settle(node)
    wait_until(lambda: not ports_of(node))


def test_node_that_is_let_go_of_in_a_later_round_of_the_loop_is_not_set_aside():
    """Otherwise each test that leaves one, with what it had not sent, would keep its memory until the process ends."""
    node = LocalNode()
    node.port()
    scheduler = weakref.ref(node.scheduler)
    gevent.spawn_later(0.002, id, node)
    del node
    set_aside()
    assert scheduler() is None
