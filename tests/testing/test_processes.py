# SPDX-License-Identifier: MIT
"""Nodes in processes of their own: driven, stopped, killed, restarted, and never left over."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import gevent
import pytest

from aemp_gevent.testing import SECRET, NodeProcess, NodeProcessError, NodeProcessTimeout, RemoteCodeError, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode, node_factory
from tests.support.seams import network_of

pytestmark = pytest.mark.slow

Start = Callable[..., NodeProcess]

# Every process has a socket and a file here, and both must go.
DESCRIPTORS = Path("/proc/self/fd")

SHOUTER = """
    shouter = mp.port()
    mp.rcv(shouter, lambda reply, word: mp.snd(reply, word.upper()))
    shouter
"""


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield lambda *args, **settings: make(*args, **{"secret": SECRET, **settings})


@pytest.fixture
def process(node_process: Start) -> NodeProcess:
    """A process for tests that need just any."""
    return node_process()


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be its status still waiting for somebody to ask."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return stat.parent.parent.is_dir()  # gone in between; else there is no /proc


# --- a node ---------------------------------------------------------------------------


def test_node_in_a_process_answers_and_its_death_is_noticed(node_process: Start, make_node: MakeNode) -> None:
    process = node_process()
    node = make_node()
    inbox = Inbox(node)
    shouter = process.run(SHOUTER)
    assert shouter.startswith(process.node + "#")
    node.snd(shouter, inbox.port, "hello")
    wait_until(lambda: inbox.messages == [("HELLO",)], show=lambda: inbox.messages)
    died = Deaths()
    node.mon(shouter, died)
    node.snd(shouter, inbox.port, "again")
    wait_until(lambda: len(inbox.messages) == 2)
    process.kill()
    assert died.wait()[:2] == ("transport_error", process.node)
    assert is_gone(process.pid)


def test_stopped_process_does_not_answer_until_it_is_resumed(node_process: Start, make_node: MakeNode) -> None:
    process = node_process()
    node = make_node()
    inbox = Inbox(node)
    shouter = process.run(SHOUTER)
    node.snd(shouter, inbox.port, "before")
    wait_until(lambda: inbox.messages)
    for _ in range(20):
        process.stop()
        assert process._running().is_stopped()
        process.resume()
    process.stop()
    node.snd(shouter, inbox.port, "meanwhile")
    with pytest.raises(NodeProcessTimeout, match="is it stopped"):
        process.run("1", timeout=0.2)
    assert inbox.messages == [("BEFORE",)]
    assert process.rss() > 2**20
    process.resume()
    wait_until(lambda: inbox.messages[1:] == [("MEANWHILE",)], show=lambda: inbox.messages)
    assert process.run("2") == 2


@pytest.mark.parametrize("kill_first", [False, True], ids=["running", "killed"])
def test_restarted_process_has_the_same_id_and_is_another_incarnation(
    node_process: Start, make_node: MakeNode, kill_first: bool
) -> None:
    process = node_process()
    node = make_node()
    inbox = Inbox(node)
    before = process.node, process.pid, process.listens
    shouter = process.run(SHOUTER)
    node.snd(shouter, inbox.port, "one")
    wait_until(lambda: inbox.messages)
    (peer,) = network_of(node).peers.values()
    incarnation = peer._incarnation
    if kill_first:
        process.kill()
        with pytest.raises(NodeProcessError, match="ended with status -9"):
            process.run("1")
    process.restart()
    assert (process.node, process.listens) == (before[0], before[2])
    assert process.pid != before[1]
    shouter = process.run(SHOUTER)
    process.run("mp.snd(inbox, 'new')", inbox=inbox.port)
    wait_until(lambda: inbox.messages[1:] == [("new",)], show=lambda: inbox.messages)
    assert peer._incarnation != incarnation


def test_restart_waits_for_a_port_that_a_connection_has_taken(node_process: Start) -> None:
    process = node_process()
    (endpoint,) = process.listens
    process.kill()
    host, port = endpoint.split(":")
    taker = gevent.socket.socket()
    taker.bind((host, int(port)))
    gevent.spawn_later(0.5, taker.close)
    process.restart()
    assert taker.closed
    assert process.listens == [endpoint]


def test_node_that_listens_elsewhere_says_where(node_process: Start) -> None:
    for process in (
        node_process("192.0.2.1:4040", binds=["127.0.0.1:0"]),
        node_process(nodeid="192.0.2.1:4040", binds=["127.0.0.1:0"]),
    ):
        assert process.node == "192.0.2.1:4040"
        (endpoint,) = process.listens
        assert endpoint.startswith("127.0.0.1:")
        process.restart()
        assert (process.node, process.listens) == ("192.0.2.1:4040", [endpoint])


def test_named_node_dials_its_seeds(node_process: Start, make_node: MakeNode) -> None:
    node = make_node()
    process = node_process(nodeid="worker", binds=["127.0.0.1:0"], seeds=node.NODE())
    wait_until(lambda: node.node_is_up("worker"))
    assert process.node == "worker"


def test_patched_process_has_cooperative_modules(node_process: Start) -> None:
    patched = node_process(patched=True)
    assert patched.run("import socket; socket.socket.__module__") == "gevent._socket3"
    patched.post("import time; time.sleep(60)")
    assert patched.run("1") == 1
    assert patched.run("import subprocess, sys; subprocess.run([sys.executable, '-c', '']).returncode") == 0


def test_patched_program_can_use_processes() -> None:
    program = """
from gevent import monkey; monkey.patch_all()
import gevent
from aemp_gevent.testing import NodeProcess, NodeProcessTimeout
with NodeProcess() as one, NodeProcess(patched=True) as two:
    print(one.run("1"), two.run("2"))
    one.stop()
    one.restart()
    two.terminate()
    print(two.wait(), one.run("3"))
    one.kill()
    print(one.wait())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1 2\n-15 3\n-9\n", "")


# --- running code ---------------------------------------------------------------------


def test_code_runs_there_with_names_and_values_travel(process: NodeProcess) -> None:
    value = {"tuple": (1, b"2", None), "set": {3.5}}
    assert process.run("value", value=value) == value
    assert process.run("import os; os.getpid()") == process.pid != os.getpid()
    assert process.run("mp.NODE()") == process.node
    assert process.run("mp.SELF()") is None


def test_modules_are_found_where_this_program_finds_them(
    node_process: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "only_for_this_test.py").write_text("answer = 42")
    monkeypatch.syspath_prepend(tmp_path)
    assert node_process().run("import only_for_this_test as module; module.answer") == 42


def test_error_there_is_an_error_here_with_its_traceback(process: NodeProcess) -> None:
    with pytest.raises(RemoteCodeError) as caught:
        process.run(
            """
            def fail():
                raise KeyError("which")
            fail()
            """
        )
    error = caught.value
    assert (error.kind, error.text) == ("KeyError", "'which'")
    assert str(error).startswith(
        f"KeyError: 'which'\n--- traceback in <NodeProcess {process.node}, pid {process.pid}>:"
    )
    assert 'in fail\n    raise KeyError("which")' in error.traceback


def test_command_that_takes_too_long_is_reported_and_holds_up_no_other(process: NodeProcess) -> None:
    with pytest.raises(NodeProcessTimeout, match=r"within 0\.05 s"):
        process.run("late = gevent.event.Event(); late.wait(5)", timeout=0.05)
    assert process.run("late.set()") is None


def test_timeout_of_the_test_passes_through(process: NodeProcess) -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        process.run("gevent.sleep(1)")


def test_what_cannot_travel_is_refused_by_name(process: NodeProcess) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        process.run("x", x=lambda: 1)
    with pytest.raises(TypeError, match="cannot travel"):
        process.post("x", x=lambda: 1)
    with pytest.raises(RemoteCodeError, match="lambda"):
        process.run("lambda: 1")
    with pytest.raises(NodeProcessError, match="NoSuchThingHere"):
        process.run(
            """
            import __main__
            class NoSuchThingHere:
                __module__ = "__main__"
            __main__.NoSuchThingHere = NoSuchThingHere
            NoSuchThingHere()
            """
        )


def test_posted_code_runs_and_its_errors_go_to_the_output(process: NodeProcess) -> None:
    process.post("posted = 1; print('said', posted)\n1 / 0")
    wait_until(lambda: "ZeroDivisionError" in process.output, show=lambda: process.output)
    assert "said 1\n" in process.output
    assert process.run("posted") == 1


def test_figures_are_those_of_the_process(process: NodeProcess) -> None:
    memory, files, greenlets = process.rss(), process.descriptors(), process.greenlets()
    process.run("hoard = b'x' * 50_000_000; files = [open('/dev/null') for _ in range(10)]")
    process.run("waiting = [gevent.spawn(gevent.sleep, 60) for _ in range(10)]; gevent.sleep(0)")
    assert 40_000_000 < process.rss() - memory < 100_000_000
    assert process.descriptors() - files == 10
    assert process.greenlets() - greenlets == 10
    process.run("[file.close() for file in files]; gevent.killall(waiting); del hoard")
    assert process.descriptors() == files
    assert process.greenlets() == greenlets


# --- the end --------------------------------------------------------------------------


def test_exit_status_is_reported(node_process: Start) -> None:
    process = node_process()
    with pytest.raises(NodeProcessTimeout, match="still runs"):
        process.wait(0.05)
    process.post("print('farewell'); raise SystemExit(3)")
    assert process.wait() == 3
    with pytest.raises(NodeProcessError, match=r"(?s)ended with status 3.*farewell"):
        process.run("1")
    for call in (process.stop, process.resume, process.rss, process.descriptors, process.greenlets):
        with pytest.raises(NodeProcessError, match="status 3"):
            call()
    process.kill()
    process.terminate()
    assert "ended with 3" in repr(process)
    assert "farewell" in process.output
    process.close()
    assert "farewell" in process.output


def test_end_in_the_middle_of_a_command_is_reported_at_once(node_process: Start) -> None:
    process = node_process()
    start = monotonic()
    with pytest.raises(NodeProcessError, match="status 7") as caught:
        process.run("import os; os._exit(7)")
    assert not isinstance(caught.value, (NodeProcessTimeout, RemoteCodeError))
    assert monotonic() - start < 5.0


def test_end_is_noticed_although_a_program_it_started_lives_on(node_process: Start) -> None:
    process = node_process()
    # Not subprocess, which closes what is inherited.
    child = process.run("import os; os.posix_spawnp('sleep', ['sleep', '60'], os.environ)")
    try:
        with pytest.raises(NodeProcessError, match="status 7"):
            process.run("os._exit(7)", timeout=3)
    finally:
        os.kill(child, signal.SIGKILL)


def test_terminate_ends_it_or_lets_it_decide(node_process: Start) -> None:
    process = node_process()
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    process.restart()
    process.run("import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0))")
    process.terminate()
    assert process.wait() == 0


@pytest.mark.parametrize("before", ["pass", "process.stop()", "process.kill()", "process.post('while True: pass')"])
def test_nothing_is_left_after_the_block(before: str) -> None:
    gc.collect()
    files = set(DESCRIPTORS.iterdir()) if DESCRIPTORS.exists() else set()
    with NodeProcess() as process:
        pid = process.pid
        reader = weakref.ref(process._running()._reader)
        exec(before)
    assert is_gone(pid)
    process.close()
    with pytest.raises(NodeProcessError, match="call start"):
        process.run("1")
    assert process.node
    del process
    gc.collect()
    wait_until(lambda: reader() is None or reader().dead)  # type: ignore[union-attr]
    if files:
        assert set(DESCRIPTORS.iterdir()) <= files


@pytest.mark.parametrize("how", ["exit", "forgotten", "error", "killed", "killed-stopped", "killed-busy"])
def test_process_ends_with_the_program_that_started_it(how: str) -> None:
    program = """
import sys, os, gc, signal
from aemp_gevent.testing import NodeProcess
def main(how):
    process = NodeProcess().start()
    print(process.pid, flush=True)
    if how == "error": 1 / 0
    if how == "forgotten": return
    if how == "killed-stopped": process.stop()
    if how == "killed-busy": process.post("while True: pass")
    if how.startswith("killed"):
        input()
        os.kill(os.getpid(), signal.SIGKILL)
    global keep
    keep = process
main(sys.argv[1])
gc.collect()
if sys.argv[1] == "forgotten": input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if how == "forgotten":
            wait_until(lambda: is_gone(pid))  # while the program continues
        if how not in {"exit", "error"}:  # it waits
            parent.stdin.write("\n")
            parent.stdin.flush()
        wait_until(lambda: is_gone(pid))
        parent.wait(10)


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"], ids=["plain", "patched"])
def test_fork_of_the_program_does_not_end_it(patch: str) -> None:
    program = f"""
{patch}
import os, sys
from aemp_gevent.testing import NodeProcess
process = NodeProcess().start()
child = os.fork()
if not child:
    sys.exit()  # through everything that is to be done at the end of a program
os.waitpid(child, 0)
print(process.run("'still there'"))
process.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("still there\n", "")


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noderef", "settings", "expected"),
    [
        pytest.param("127.0.0.1:0", {"secrett": "x"}, "did you mean 'secret'", id="setting"),
        pytest.param("127.0.0.1:http", {}, "is not a port number", id="noderef"),
        pytest.param("127.0.0.1:0", {"secret": ""}, "needs a secret", id="secret"),
        pytest.param("127.0.0.1:0", {"seeds": ["a:b:c"]}, "seeds", id="seed"),
    ],
)
def test_node_that_does_not_start_says_why(noderef: str, settings: dict[str, object], expected: str) -> None:
    process = NodeProcess(noderef, **settings)  # type: ignore[arg-type]
    with pytest.raises(RemoteCodeError, match=expected):
        process.start()
    with pytest.raises(NodeProcessError, match="call start"):
        _ = process.pid
    with pytest.raises(NodeProcessError, match="call start"):
        _ = process.node


def test_address_in_use_is_reported(process: NodeProcess) -> None:
    with pytest.raises(RemoteCodeError, match="ListenError: cannot listen on"):
        NodeProcess(process.node).start()
    with pytest.raises(NodeProcessError, match="runs already"):
        process.start()


def test_interpreter_that_cannot_run_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        NodeProcess(python="/nowhere/python").start()
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without packages
    bare.chmod(0o755)
    with pytest.raises(NodeProcessError, match=r"(?s)ended with status 1.*No module named"):
        NodeProcess(python=str(bare)).start()


def test_secret_of_the_environment_is_used_when_asked_for(node_process: Start) -> None:
    process = node_process(secret=None, env={"AEMP_SECRET": "from there"})
    assert process.run("mp.default_node.settings.secret") == "from there"
