# SPDX-License-Identifier: MIT
"""Programs that are monkey-patched before, after or while they use the library; the suite itself runs either way."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aemp_gevent.errors
from tests.support.networking import SECRET, Deaths, line_of, node_factory, process

pytestmark = pytest.mark.slow

PATCH = "from gevent import monkey; monkey.patch_all()"
IMPORT = "from aemp_gevent import *; import aemp_gevent.contrib"
START = f"initialise_node('127.0.0.1:0', secret={SECRET!r}); echo = port(lambda reply: snd(reply, 'echo', up_nodes()))"

ORDERS = [
    pytest.param([PATCH, IMPORT, START], id="first"),
    pytest.param([IMPORT, PATCH, START], id="after-the-import"),
    pytest.param([IMPORT, START, PATCH], id="after-the-start"),
    pytest.param([IMPORT, "port(); after(0, str)", PATCH, START], id="after-the-first-port"),
]

USE = """
import logging, socket, sys, threading, time
print(echo, flush=True)
peer = sys.stdin.readline().strip()
assert syncal(10, peer, "a")[0] == "a"
results = []
def in_a_thread():                      # a greenlet of this native thread
    time.sleep(0.01)
    results.append(syncal(10, peer, "thread"))
    results.append(port() is not None)
threads = [threading.Thread(target=in_a_thread) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join(10)
assert results.count(("thread",)) == 3 and results.count(True) == 3, results
with attach() as me:
    mon(peer, me, "died")
    syncal(10, peer, "monitored")
    logging.getLogger("aemp_gevent").warning("a patched lock")
    print("ready", flush=True)
    assert receive("died", timeout=10)[1:] == ("over",)
print("over", flush=True)
"""


def test_program_that_patches_after_the_import_ends_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", f"{IMPORT}; {PATCH}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("order", ORDERS)
def test_patching_comes_whenever_it_likes(order: list[str]) -> None:
    with node_factory() as make_node:
        node = make_node()
        peer = node.port(lambda *message: node.snd(message[-1], *message[:-1]))

        # Warnings are errors: gevent warns of what is imported too early.
        program = "import warnings; warnings.simplefilter('error')\n" + "\n".join([*order, USE])
        with process(program) as child:
            assert child.stdin is not None
            child.stdin.write(peer + "\n")
            child.stdin.flush()
            echo = line_of(child)
            deaths = Deaths()
            node.mon(echo, deaths)
            assert node.syncal(10, echo) == ("echo", [node.NODE()])
            assert line_of(child) == "ready"
            node.kil(peer, "over")
            assert line_of(child) == "over"
            assert deaths.wait()[0] == "shutdown"


def test_error_in_a_thread_that_was_started_before_the_patching_says_why() -> None:
    program = """
import threading
from aemp_gevent import *
from aemp_gevent.errors import WrongThreadError
go, done = threading.Event(), threading.Event()
inbox = []
ours = port(inbox.append)
def work():
    go.wait(10)
    snd(ours, "from afar")
    try:
        port()
    except WrongThreadError as error:
        inbox.append(str(error))
    done.set()
threading.Thread(target=work).start()
from gevent import monkey, sleep
monkey.patch_all()
go.set()
while len(inbox) < 2:
    sleep(0.01)
print(*sorted(inbox), sep="\\n", flush=True)
"""
    with process(program) as child:
        assert line_of(child) == "from afar"
        assert line_of(child).endswith("threads started before monkey.patch_all() stay native, so patch first")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("initialise_node('localhost:0', secret='s')", id="initialise_node"),
        pytest.param("configure(nodeid='slave/', seeds=['localhost:1'], secret='s')", id="configure"),
        pytest.param("resolve_node('localhost')", id="resolve_node"),
        pytest.param("receive(timeout=1)", id="receive"),
        pytest.param("get('tag')", id="get"),
        pytest.param("get_cond(print)", id="get_cond"),
        pytest.param("syncal(1, NODE(), 'time')", id="syncal"),
        pytest.param("db_family('f')", id="db_family"),
        pytest.param("db_keys('f')", id="db_keys"),
        pytest.param("db_values('f')", id="db_values"),
        pytest.param("db_wait('f', len)", id="db_wait"),
        pytest.param("attach()", id="attach"),
        pytest.param("default_node.wait_for_seeds()", id="wait_for_seeds"),
        pytest.param("initialised(shutdown)", id="shutdown"),
    ],
)
def test_what_has_to_wait_is_refused_on_the_hub_in_words_of_ours(call: str) -> None:
    program = f"""
import gevent
from aemp_gevent import *
errors = []
def initialised(function):
    function()
if "initialised" in {call!r}:
    initialise_node("127.0.0.1:0", secret="s")
def on_the_hub():
    try:
        {call}
    except BaseException as error:
        errors.append(error)
    else:
        errors.append(None)
gevent.get_hub().loop.run_callback(on_the_hub)
while not errors:
    gevent.sleep(0)
print(type(errors[0]).__name__, errors[0])
"""
    with process(program) as child:
        name, _, text = line_of(child).partition(" ")
        assert issubclass(getattr(aemp_gevent.errors, name), aemp_gevent.errors.UsageError), name
        assert "hub" in text or "attach" in text
