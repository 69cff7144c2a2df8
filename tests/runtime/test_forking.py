# SPDX-License-Identifier: MIT
"""Forked children: fresh nodes, in which nothing of the parent's runs on."""

from __future__ import annotations

import gc
import os
import weakref

import gevent
import pytest

from aemp_gevent import Node
from tests.support.forking import PRELUDE
from tests.support.networking import SECRET, WAIT, line_of, process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]


BUSY = """
def leave(name):
    note(name, "left by", type(sys.exc_info()[1]).__name__)

def blocked(name, wait):
    def handler(*_):
        try:
            wait()
            note(name, "went on")
        finally:
            leave(name)
    made = port(handler)
    snd(made)
    mon(made, lambda *reason: note(name, "died", reason))
    return made

released = Event()
ours, theirs = socket.socketpair()
never_read, written = socket.socketpair()

def with_timeout():
    with gevent.Timeout(0.3, False):
        Event().wait()

blocked("sleep", lambda: gevent.sleep(0.3))
blocked("event", released.wait)
blocked("recv", lambda: ours.recv(1))
blocked("readable", lambda: socket.wait_read(never_read.fileno()))
blocked("timeout", with_timeout)
blocked("syncal", lambda: syncal(0.3, port()))

@actor
def act(name):
    try:
        while True:
            note(name, receive("stop", timeout=0.3, default="timed out"))
    finally:
        leave(name)

actor_port = act("actor")

def helping():
    try:
        gevent.sleep(0.3)
        note("helper went on")
    finally:
        leave("helper")

def helping_too():
    try:
        released.wait()
    finally:
        leave("other helper")

peval_async(port(), helping)
peval_async(port(), helping_too)
ticks = []
def tick():
    note("tick")
    after(0.05, tick)
after(0.05, tick)
after(3600, note, "late")
mon_nodes(lambda *what: note("mon_nodes", *what))
gevent.sleep(0.1)
"""


CHILD_LIVES = """
    assert SELF() is None, SELF()
    assert NODE() != parent_id and NODE().startswith("anon/"), NODE()
    assert not default_node.scheduler.ports and up_nodes() == []
    snd(actor_port, "stop")
    kil(actor_port)
    released.set()
    theirs.send(b"x")
    written.send(b"x")
    hub = gevent.get_hub()
    before = hub.loop.iteration
    got = []
    mine = port(got.append)
    assert mine.partition("#")[2][:10] != actor_port.partition("#")[2][:10]
    snd(mine, "hello")
    after(0.05, snd, mine, "later")
    with attach() as me:
        snd(me, "for me")
        assert receive(timeout=5) == ("for me",)
    for _ in range(60):
        gevent.sleep(0.01)
    assert got == ["hello", "later"], got
    assert hub.loop.iteration - before < 600, "the loop spins"
    note("was fine")
"""


FORKS = {
    "os.fork": ("", "os.fork"),
    "gevent.os.fork": ("", "gevent.os.fork"),
    "patched": ("import gevent.monkey; gevent.monkey.patch_all()", "os.fork"),
    "forkpty": ("", "lambda: os.forkpty()[0]"),
}


ENDS = {
    "_exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "exec": "os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "end-of-program": "",
}


@pytest.mark.parametrize(
    ("fork", "end"),
    [
        *((fork, "_exit") for fork in FORKS),
        *(("os.fork", end) for end in ENDS if end != "_exit"),
        ("patched", "sys.exit"),
    ],
)
def test_nothing_of_the_parents_runs_on_in_the_child_and_its_links_stay_as_they_are(server, fork, end):
    first, call = FORKS[fork]
    program = (
        BUSY
        + f"""
go = be_linked()
assert go.wait(20)
parent_id = NODE()
fork = {call}
pid = fork()
if pid == 0:
    try:
"""
        + CHILD_LIVES.replace("\n    ", "\n        ")
        + f"""
    except BaseException as error:
        note("failed:", type(error).__name__, error)
        os._exit(1)
    {ENDS[end]}
else:
    wait_for_child(pid)
    gevent.sleep(0.3)
    released.set()
    theirs.send(b"x")
    snd(actor_port, "stop")
    say("the child is gone")
    assert go.wait(20)
    note("done")
    shutdown()
    os._exit(0)
"""
    )
    with process(first + "\n" + PRELUDE + program, str(server.log), server.port) as parent:
        server.linked()
        server.go()
        while line_of(parent) != "the child is gone":  # a pty's child has another terminal
            pass
        server.check_link()
        server.go()
        server.wait_until_done()
    assert server.of_child() == ["child was fine"]
    notes = server.notes()
    for name in ("sleep", "event", "recv", "readable", "timeout", "syncal"):
        assert f"parent {name} went on" in notes, "it went on where it belongs"
        assert f"parent {name} left by NoneType" in notes
    assert "parent helper went on" in notes
    assert "parent other helper left by NoneType" in notes
    assert "parent actor ('stop',)" in notes
    assert notes.count("parent tick") > 5
    assert not [line for line in notes if "died ('die'" in line]


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("snd(port(fork), 'x')", id="handler"),
        pytest.param("made = port(); rcv(made, 'x', fork); snd(made, 'x')", id="tag-handler"),
        pytest.param("port_async(fork)", id="actor"),
        pytest.param("made = port(); mon(made, fork); kil(made)", id="monitor"),
        pytest.param("after(0, fork)", id="timer"),
        pytest.param("peval(port(), fork)", id="peval"),
        pytest.param("peval_async(port(), fork)", id="peval_async"),
        pytest.param("port_async(lambda: peval(port(), fork))", id="peval-in-an-actor"),
        pytest.param("attached()", id="attach"),
        pytest.param("port_async(inside)", id="handler-of-an-actor"),
    ],
)
def test_a_fork_from_inside_a_port_leaves_the_child_outside_of_any(server, where):
    program = f"""
messages = []
pids = []

def fork(*_):
    here = SELF()
    snd(here, "x") if here in second else None
    pid = os.fork()
    if pid:
        pids.append(pid)
        assert SELF() == here
        return
    note("SELF is", SELF())
    try:
        receive(timeout=0)
    except NoPortContextError:
        note("outside")
    snd(here or "x", "x")
    gevent.spawn_later(0.3, end)
    # ... and returns to its caller in the parent

def end():
    note("SELF is", SELF())
    with attach() as me:
        snd(me, "works")
        note(*receive())
    os._exit(0)

second = []

def attached():
    with attach() as me:
        mon(me, note, "the attachment died")
        after(0.05, note, "a timer")
        fork()

def inside():
    rcv(SELF(), "x", fork)
    snd(SELF(), "x")
    snd(SELF(), "x2")
    receive("x2")
    note("went on")

{where}
try:
    while not pids:
        gevent.sleep(0.01)
except BaseException as error:
    note("failed:", type(error).__name__, error)
if os.getpid() != PARENT:
    gevent.sleep(5)
    os._exit(3)
wait_for_child(pids[0])
note("done")
"""
    server.run_until_done(program)
    assert server.of_child() == ["child SELF is None", "child outside", "child SELF is None", "child works"]


def test_messages_that_waited_are_neither_handled_nor_finalised_in_the_child(server):
    program = """
pids = []
kept = [True]

class Message:
    def __del__(self):
        note("finalised")

other = port(lambda *message: note("other got", *message))

def handler(number, _message):
    note("got", number)
    if number == 1:
        snd(other, "something")
        mon(port_that_dies, note, "died")
        mon(NODE() + "#nobody", note)
        kil(port_that_dies)
        pid = os.fork()
        if pid == 0:
            gevent.spawn_later(0.3, os._exit, 0)
        else:
            pids.append(pid)

port_that_dies = port()
made = port(handler)
for number in range(4):
    snd(made, number, Message())
wait_for_child_in(pids)
note("done")
os._exit(0)
"""
    server.run_until_done(program)
    # Of the child only what its own frame held: the message it was handling.
    assert server.of_child() in ([], ["child finalised"])
    notes = server.notes()
    got = [line for line in notes if " got " in line]
    assert [line for line in got if "other" not in line] == [f"parent got {number}" for number in range(4)]
    assert got.count("parent other got something") == 1
    assert "parent died" in notes
    assert next(line for line in notes if "no_such_port" in line).startswith("parent ")
    assert notes.count("parent finalised") == 4


def test_a_port_context_that_the_child_leaves_is_not_a_context_any_more(server):
    program = """
pids = []

def fork():
    pid = os.fork()
    if pid:
        pids.append(pid)

def act():
    here = SELF()
    peval(port(), fork)
    if os.getpid() == PARENT:
        note("SELF is right:", SELF() == here)
    else:
        note("SELF is", SELF())
        os._exit(0)

port_async(act)
wait_for_child_in(pids)
note("done")
"""
    server.run_until_done(program)
    assert server.of_child() == ["child SELF is None"]
    assert "parent SELF is right: True" in server.notes()


def test_an_attached_greenlet_that_continues_in_the_child_finds_its_port_dead(server):
    """gevent's greenlets do continue there; nothing is thrown into them, but our next blocking call raises."""
    program = """
def work(pause):
    with attach() as me:
        snd(me, "not for the child")
        gevent.sleep(pause)
        try:
            note("received", *receive(timeout=5))
        except PortKilled:
            note("killed")
            raise

gevent.spawn(work, 0.2)
gevent.sleep(0.05)
pid = os.fork()
gevent.sleep(0.4)
if pid == 0:
    os._exit(0)
wait_for_child(pid)
note("done")
"""
    server.run_until_done(program)
    assert server.of_child() == ["child killed"]
    assert "parent received not for the child" in server.notes()


def test_what_threads_had_handed_over_is_done_by_the_parent_only(server):
    program = """
import _thread, logging
class Handler(logging.Handler):
    def emit(self, record):
        note("log")
logging.getLogger("aemp_gevent").addHandler(Handler())
logging.getLogger("aemp_gevent").setLevel(logging.DEBUG)
logging.getLogger("aemp_gevent").propagate = False
pids = []

def handler():
    done = []
    _thread.start_new_thread(lambda: (snd(NODE() + "#nobody", 1), done.append(True)), ())
    while not done:
        pass  # and the hub does not run
    pid = os.fork()
    if pid:
        pids.append(pid)
    else:
        gevent.spawn_later(0.2, os._exit, 0)

snd(port(handler))
wait_for_child_in(pids)
note("done")
"""
    server.run_until_done(program)
    assert server.notes() == ["parent log", "parent done"]


def test_a_monitors_action_that_waited_for_its_turn_runs_in_the_parent_only(server):
    program = """
pids = []

def handler():
    mon(NODE() + "#nobody", lambda *reason: note("fired"))  # at once: behind this handler in the run queue
    pid = os.fork()
    if pid == 0:
        gevent.spawn_later(0.3, os._exit, 0)
    else:
        pids.append(pid)

snd(port(handler))
wait_for_child_in(pids)
note("done")
"""
    server.run_until_done(program)
    assert server.notes() == ["parent fired", "parent done"]


def test_a_greenlet_that_was_attached_finds_its_port_dead_in_the_child(server):
    """It is the user's, and continues there, as gevent's greenlets do; it must not wait for what never comes."""
    program = """
def work():
    with attach() as me:
        told.append(me)
        gevent.sleep(0.2)
        try:
            note("got", *receive(timeout=2, default=("nothing",)))
        except PortKilled:
            note("killed")

told = []
worker = gevent.spawn(work)
while not told:
    gevent.sleep(0.01)
pid = os.fork()
if pid == 0:
    worker.join()
    os._exit(0)
snd(told[0], "a message")
worker.join()
wait_for_child(pid)
note("done")
"""
    server.run_until_done(program)
    assert sorted(server.notes()) == ["child killed", "parent done", "parent got a message"]


def test_ids_of_parents_children_and_grandchildren_never_collide(server):
    program = """
def tell(who):
    ids = [NODE(), Node().NODE(), other.NODE(), other.port(), *(port() for _ in range(3))]
    ids += [spawn(NODE(), "os.getpid") for _ in range(2)]
    note("ids", *(one.partition("#")[2] or one for one in ids))

other = Node()
tell("parent")
if os.fork() == 0:
    tell("child")
    if os.fork() == 0:
        tell("grandchild")
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
if os.fork() == 0:
    tell("another")
    os._exit(0)
os.wait()
tell("parent")
note("done")
"""
    server.run_until_done(program)
    words = [word for line in server.notes() for word in line.split()[2:]]
    # The parent's node IDs are printed twice.
    assert len(words) == 5 * 9
    assert len(set(words)) == 5 * 9 - 2


def test_a_child_forked_by_another_native_thread_is_fresh_and_works(server):
    program = """
import _thread
go = be_linked()
assert go.wait(20)
parent_id = NODE()
released = Event()

def handler(*_):
    try:
        released.wait()
    finally:
        note("left")

blocked = port(handler)
snd(blocked)
gevent.sleep(0.05)
pids = []

def elsewhere():
    snd(blocked, "on its way")
    pid = os.fork()
    if pid:
        pids.append(pid)
        return
    try:
        assert NODE() != parent_id
        got = []
        mine = port(got.append)
        snd(mine, "hello")
        while not got:
            gevent.sleep(0.01)
        initialise_node("127.0.0.1:0", secret=SECRET)
        snd(SERVER, "from the child", NODE())
        gevent.sleep(0.3)
        shutdown()
        note("was fine")
    except BaseException as error:
        note("failed:", type(error).__name__, error)
    os._exit(0)

_thread.start_new_thread(elsewhere, ())
wait_for_child_in(pids)
say("forked")
go.wait(20)
released.set()
gevent.sleep(0.05)
note("done")
"""
    with server.run(program) as parent:
        server.linked()
        server.go()
        assert line_of(parent) == "forked"
        server.check_link()
        assert len(server.heard("from the child")) == 1
        server.go()
        server.wait_until_done()
    assert server.of_child() == ["child was fine"]


@pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])
def test_multiprocessing_forks_fresh_nodes(server, patched):
    program = f"""
import multiprocessing
go = be_linked()
assert go.wait(20)
parent_id = NODE()

def work(number, parent):
    assert SELF() is None and NODE() != parent_id and not default_node.scheduler.ports
    initialise_node("127.0.0.1:0", secret={SECRET!r})
    snd(parent, "result", number * number)
    shutdown()

def handler(*_):
    results = Event()
    heard = []
    collector = port(lambda *message: (heard.append(message[1]), len(heard) == 3 and results.set()))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(number, collector)) for number in range(3)]
    for child in children:
        child.start()
    assert results.wait(20)
    for child in children:
        while child.is_alive():
            gevent.sleep(0.01)
    say(sorted(heard), [child.exitcode for child in children])

snd(port(handler))
go.wait(20)
"""
    first = "import gevent.monkey; gevent.monkey.patch_all()\n" if patched else ""
    with process(first + PRELUDE + program, str(server.log), server.port) as parent:
        server.linked()
        server.go()
        assert line_of(parent) == "[0, 1, 4] [0, 0, 0]"
        server.check_link()


@pytest.mark.parametrize("fork", ["subprocess", "os.fork"])
def test_a_fork_does_not_wait_for_what_threads_of_the_parents_have_begun(fork):
    """In a patched program a function that the thread pool runs has a hub of its own, with a pool of its own."""
    program = f"""
from gevent import monkey; monkey.patch_all()
import os, socket, subprocess, sys
import gevent
from aemp_gevent import port, resolve_node
def look_up():
    return socket.getaddrinfo("localhost", 80)
port()
for _ in range(5):
    gevent.get_hub().threadpool.apply(look_up)
if {fork!r} == "subprocess":
    subprocess.run([sys.executable, "-c", "print('it ran')"])
elif os.fork() == 0:
    port()
    print("it ran" if gevent.get_hub().threadpool.apply(look_up) else "", flush=True)
    os._exit(0)
gevent.sleep(20)
"""
    with process(program) as parent, gevent.Timeout(WAIT):
        assert line_of(parent) == "it ran"


def test_a_program_that_runs_another_one_continues_undisturbed(server):
    """A patched program forks for each subprocess."""
    program = """
import subprocess
go = be_linked()
assert go.wait(20)
for _ in range(3):
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout == "1\\n"
assert subprocess.run([sys.executable, "-c", "pass"], preexec_fn=lambda: None).returncode == 0
say("ran")
go.wait(20)
"""
    with process(
        "import gevent.monkey; gevent.monkey.patch_all()\n" + PRELUDE + program, str(server.log), server.port
    ) as parent:
        server.linked()
        server.go()
        assert line_of(parent) == "ran"
        server.check_link()


def test_a_loop_of_the_childs_ends_when_nothing_of_its_own_is_left(server):
    """Timers of the parent's, and handlers that sleep for long, do not keep it from that."""
    program = """
snd(port(lambda *_: gevent.sleep(3600)))
after(3600, print)
port_async(lambda: receive(timeout=3600))
def with_timeout():
    with gevent.Timeout(3600):
        Event().wait()
snd(port(lambda *_: with_timeout()))
ours, theirs = socket.socketpair()
snd(port(lambda *_: ours.recv(1)))
gevent.sleep(0.1)
pid = os.fork()
if pid == 0:
    started = time.monotonic()
    gevent.wait(timeout=10)
    note("waited", time.monotonic() - started < 5)
    os._exit(0)
wait_for_child(pid)
note("done")
os._exit(0)
"""
    server.run_until_done(program)
    assert server.of_child() == ["child waited True"]


def test_what_is_kept_of_the_parent_is_not_finished_when_the_child_collects_garbage(server):
    program = """
import gc
def handler(*_):
    try:
        Event().wait()
    finally:
        note("left")
snd(port(handler))
def act():
    try:
        receive()
    finally:
        note("left, too")
port_async(act)
gevent.sleep(0.05)
if os.fork() == 0:
    for _ in range(3):
        gc.collect()
        gevent.sleep(0)
    note("collected")
    sys.exit(0)
os.wait()
note("done")
os._exit(0)
"""
    server.run_until_done(program)
    assert server.of_child() == ["child collected"]


def test_importing_registers_for_forks_and_starts_nothing():
    program = "import os, gevent; import aemp_gevent; print(os.fork() != 0 or os._exit(0), flush=True); os.wait()"
    with process(program) as child:
        assert line_of(child) == "True"


def test_a_forgotten_node_is_not_kept_by_the_hope_for_a_fork():
    node = Node()
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
