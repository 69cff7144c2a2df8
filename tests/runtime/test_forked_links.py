# SPDX-License-Identifier: MIT
"""What a forked child has of its parent's links, sockets and seeds: nothing; it makes links of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aemp_gevent.addresses import ids
from tests.support.forking import PRELUDE
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, line_of, process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]


def test_the_child_dials_nobody_for_the_parent(server):
    """A seed that does not answer is dialled again and again, by the parent only."""
    program = """
nowhere, full = where_nobody_accepts()
go = be_linked("127.0.0.1:0", "127.0.0.1:%d" % nowhere.getsockname()[1], monitor_timeout=0.3)
assert go.wait(20)
dialled = gevent.event.Event()
original = socket.socket.connect
socket.socket.connect = lambda self, address: (note("dials"), dialled.set(), original(self, address))[2]
pid = os.fork()
gevent.sleep(1.2)  # the next try is due after 0.75 s at most
if pid == 0:
    os._exit(0)
wait_for_child(pid)
dialled.wait(20)
note("done")
"""
    with server.run(program):
        server.linked()
        server.go()
        server.wait_until_done()
    assert server.of_child() == []
    assert "parent dials" in server.notes()


def test_slave_forks_a_fresh_node_that_opens_no_virtual_link_of_its_parents(server):
    program = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        note(record.getMessage())
nowhere, full = where_nobody_accepts()
go = be_linked("slave/parent", SERVER.partition("#")[0], monitor_timeout=1.5)
assert go.wait(20)
gevent.sleep(0)
logging.getLogger("aemp_gevent").addHandler(Handler())
logging.getLogger("aemp_gevent").setLevel(logging.DEBUG)
logging.getLogger("aemp_gevent").propagate = False
# Its master dials, longer than we wait.
mon("127.0.0.1:%d" % nowhere.getsockname()[1], lambda *reason: note("monitor"))
gevent.sleep(0.1)
pid = os.fork()
if pid == 0:
    assert NODE().startswith("anon/")
    if not gevent.wait(timeout=2):
        note("something keeps the loop from its end")
    gevent.sleep(1.6)
    os._exit(0)
wait_for_child(pid)
note("done")
Event().wait()
"""
    with server.run(program):
        server.linked()
        server.go()
        server.wait_until_done()
        server.check_link()
    assert server.of_child() == []
    assert "parent monitor" in server.notes()


def test_a_child_initialises_itself_and_talks_to_its_parent_and_others(server):
    program = f"""
go = be_linked()
assert go.wait(20)
heard = []
back = port(lambda *message: heard.append(message))
parent_id = NODE()
pid = os.fork()
if pid == 0:
    initialise_node("127.0.0.1:0", parent_id, secret={SECRET!r})
    me = port()
    rcv(me, "echo", lambda to, *message: snd(to, *message))
    died = Event()
    mon(back, lambda *reason: (snd(SERVER, "child saw", *reason), died.set()))
    snd(back, "child is", NODE(), me)
    snd(SERVER, "child is", NODE(), me)
    assert died.wait(20)
    shutdown()
    os._exit(0)
while not heard:
    gevent.sleep(0.01)
child = heard[0][2]
snd(child, "echo", back, "hello, parent")
while len(heard) < 2:
    gevent.sleep(0.01)
snd(SERVER, "parent heard", *heard[1])
assert go.wait(20)
kil(back, "enough")
wait_for_child(pid)
say("done")
go.wait(20)
"""
    with server.run(program) as parent:
        server.linked()
        server.go()
        wait_until(lambda: server.heard("parent heard") and server.heard("child is"), within=20)
        assert server.heard("parent heard") == [("parent heard", "hello, parent")]
        _, child_id, child_port = server.heard("child is")[0]
        assert child_id != ids.node_of(server.parent)
        server.node.snd(child_port, "echo", server.port, "hello, server")
        wait_until(lambda: server.heard("hello, server"), within=20)
        server.go()
        wait_until(lambda: server.heard("child saw"), within=20)
        assert server.heard("child saw") == [("child saw", "enough")]
        assert line_of(parent) == "done"
        server.check_link()


def test_a_child_that_lives_on_does_not_keep_the_parents_links_open(server):
    """Had it a copy of the link, nobody would see the parent's end."""
    program = """
go = be_linked()
assert go.wait(20)
pid = os.fork()
if pid == 0:
    say(os.getpid())
    gevent.sleep(30)
    os._exit(0)
assert go.wait(20)
os._exit(0)
"""
    with server.run(program) as parent:
        server.linked()
        server.go()
        child = int(line_of(parent))
        try:
            server.check_link()
            server.go()
            assert server.deaths.wait()[0] == "transport_error"
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, 9)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs a list of descriptors")
def test_a_child_has_no_socket_of_the_parents(server, tmp_path):
    program = """
go = be_linked()
assert go.wait(20)
nowhere, full = where_nobody_accepts()
own = {nowhere.fileno(), *(one.fileno() for one in full)}
before = {os.readlink(f"/proc/self/fd/{one}") for one in own}
snd("127.0.0.1:%d#p" % nowhere.getsockname()[1], "this dials, for long")
gevent.sleep(0.1)

def sockets():
    found = set()
    for one in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{one}"))
        except OSError:
            pass
    return {one for one in found if one.startswith("socket:")} - before

assert len(sockets()) >= 3, sockets()
pid = os.fork()
if pid == 0:
    note("has", sorted(sockets()))
    os._exit(0)
wait_for_child(pid)
say("forked")
go.wait(20)
"""
    with server.run(program) as parent:
        server.linked()
        server.go()
        assert line_of(parent) == "forked"
        server.check_link()
    assert server.of_child() == ["child has []"]


def test_a_child_unlinks_no_unix_socket(server, tmp_path):
    path = tmp_path / "socket"
    program = f"""
go = be_linked("unix:{path}")
assert go.wait(20)
pid = os.fork()
if pid == 0:
    shutdown()
    sys.exit(0)
wait_for_child(pid)
say("forked")
go.wait(20)
"""
    with server.run(program) as parent:
        server.linked()
        server.go()
        assert line_of(parent) == "forked"
        assert path.exists()
        server.check_link()


def test_a_child_does_not_dial_the_parents_seeds(server):
    program = """
seed = socket.socket()
seed.bind(("127.0.0.1", 0))  # and refuses, as it does not listen
initialise_node("127.0.0.1:0", "%s:%d" % seed.getsockname(), secret=SECRET)
gevent.sleep(0.1)
seed.listen()
pid = os.fork()
if pid == 0:
    gevent.sleep(1.2)  # the next try is due after 0.75 s at most
    os._exit(0)
os.waitpid(pid, 0)  # the whole parent waits: nobody but the child can have dialled
seed.settimeout(0)
try:
    note("dialled from", seed.accept()[1])
except OSError:
    note("nobody dialled")
seed.settimeout(5)
seed.accept()
note("done")
os._exit(0)
"""
    server.run_until_done(program)
    assert server.notes() == ["parent nobody dialled", "parent done"]


def test_a_child_that_resolves_a_name_first_thing_does_not_wait_for_the_parents_threads(server):
    """With the plain os.fork(), only we notify gevent of the fork."""
    program = f"""
resolve_node("localhost")  # a thread of the pool is there now
port()
pid = os.fork()
if pid == 0:
    with gevent.Timeout(10):
        initialise_node("localhost:0", secret={SECRET!r})
    note("initialised")
    shutdown()
    os._exit(0)
wait_for_child(pid)
note("done")
"""
    server.run_until_done(program)
    assert server.of_child() == ["child initialised"]


def test_greenlet_that_was_paused_in_snd_continues_in_the_child(tmp_path):
    """It is the program's own, so it is not stopped; and nobody would ever make room for it."""
    program = """
initialise_node("127.0.0.1:0", secret=SECRET, high_water_bytes=1000)
hole = socket.socket()  # where nobody ever accepts
hole.bind(("127.0.0.1", 0))
hole.listen(1)
sender = gevent.spawn(snd, "127.0.0.1:%d#p" % hole.getsockname()[1], bytes(5000))
gevent.sleep(0)
assert not sender.dead
pid = os.fork()
if pid == 0:
    sender.join(5)
    note("went on" if sender.dead else "waits")
    os._exit(0)
os.waitpid(pid, 0)
note("waits" if not sender.dead else "went on")
say("done")
shutdown(0.05)
"""
    log = tmp_path / "log"
    with process(PRELUDE + program, str(log), "no server") as parent:
        assert line_of(parent) == "done"
        assert log.read_text().splitlines() == ["child went on", "parent waits"]
        assert parent.wait(10) == 0


def test_a_function_that_forks_does_not_wait_in_the_child_for_room_on_the_parents_link(tmp_path):
    """It answers on the way that the call came by, which only the parent has."""
    program = """
initialise_node("127.0.0.1:0", secret=SECRET, high_water_bytes=1000)
def serve_and_fork():
    global pid
    pid = os.fork()
    if pid == 0:
        gevent.spawn(look_at, gevent.getcurrent())
    return bytes(100_000)

def look_at(serving):
    for _ in range(10):
        gevent.sleep(0)
    note("waits" if serving.aemp_call else "went on")
    os._exit(0)

other = Node()
other.initialise_node("127.0.0.1:0", secret=SECRET)
asked = serve(port(), work=serve_and_fork, ready=lambda: True)
assert other.call(asked, "ready")  # so that there is a link
assert len(other.call(asked, "work")) == 100_000
wait_for_child(pid)
say("done")
other.shutdown()
shutdown()
"""
    log = tmp_path / "log"
    with process(PRELUDE + program, str(log), "no server") as parent:
        assert line_of(parent) == "done"
        assert log.read_text().splitlines() == ["child went on"]
        assert parent.wait(10) == 0
