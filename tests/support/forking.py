# SPDX-License-Identifier: MIT
"""Programs that fork, linked to a node of the test's.

Whatever runs in them writes what it does, and where, to a file. A child may write only the
results of what it was asked to do.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.helpers import wait_until
from tests.support.networking import SECRET, Deaths, process

PRELUDE = f"""
import os, sys, threading, time
PARENT = os.getpid()
LOG, SERVER = sys.argv[1:3]
SECRET = {SECRET!r}
import gevent
from gevent import socket
from gevent.event import Event
import aemp_gevent as mp
from aemp_gevent import *
from aemp_gevent.errors import NoPortContextError

def note(*what):
    with open(LOG, "a") as file:
        file.write(" ".join(["parent" if os.getpid() == PARENT else "child", *map(str, what)]) + "\\n")

def say(*what):
    print(*what, flush=True)

class Go(Event):
    # Each wait is for a call of its own.
    def wait(self, timeout=None):
        came = super().wait(timeout)
        self.clear()
        return came

def be_linked(nodeid="127.0.0.1:0", *seeds, **settings):
    initialise_node(nodeid, *seeds, secret={SECRET!r}, **settings)
    go = Go()
    port_of_parent = port()
    rcv(port_of_parent, "go", lambda *_: go.set())
    rcv(port_of_parent, "echo", lambda back, *message: snd(back, *message))
    snd(SERVER, "up", port_of_parent)
    return go

def wait_for_child(pid):
    try:
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            gevent.sleep(0.01)
    except ChildProcessError:
        pass  # gevent was faster

def where_nobody_accepts():
    nowhere = socket.socket()
    nowhere.bind(("127.0.0.1", 0))
    nowhere.listen(0)
    full = [socket.socket() for _ in range(3)]
    for one in full:
        one.setblocking(False)
        one.connect_ex(nowhere.getsockname())
    return nowhere, full

def wait_for_child_in(pids):
    while not pids:
        gevent.sleep(0.01)
    wait_for_child(pids[0])
"""


class Server:
    """A node of the test's, to which a parent is linked."""

    def __init__(self, make_node, tmp_path: Path) -> None:
        self.node = make_node()
        self.log = tmp_path / "log"
        self.log.touch()
        self.messages: list[tuple[object, ...]] = []
        self.port = self.node.port(lambda *message: self.messages.append(message))
        self.deaths = Deaths()
        self.parent = ""

    def run(self, program: str):
        return process(PRELUDE + program, str(self.log), self.port)

    def linked(self) -> None:
        """Wait for the parent's link, and monitor a port of its."""
        wait_until(lambda: self.heard("up"), within=20, show=lambda: self.messages)
        self.parent = self.heard("up")[0][1]
        self.node.mon(self.parent, self.deaths)

    def go(self) -> None:
        """Wake the parent, which waits for this call."""
        self.node.snd(self.parent, "go")

    def run_until_done(self, program: str) -> None:
        """Run a program that needs nothing of the test, until it notes that it is done."""
        with self.run(program):
            self.wait_until_done()

    def wait_until_done(self) -> None:
        wait_until(lambda: any("done" in line for line in self.notes()), within=20, show=self.notes)

    def heard(self, tag: str):
        return [message for message in self.messages if message[0] == tag]

    def check_link(self) -> None:
        """The link works in both directions, and was never lost."""
        self.node.snd(self.parent, "echo", self.port, "echoed", len(self.messages))
        wait_until(lambda: self.heard("echoed"), within=20, show=lambda: self.messages)
        assert self.deaths.count == 0
        lost = [line for line in self.notes() if "mon_nodes" in line and not line.endswith(" True")]
        assert not lost

    def notes(self) -> list[str]:
        return self.log.read_text().splitlines()

    def of_child(self) -> list[str]:
        return [line for line in self.notes() if not line.startswith("parent ")]
