# SPDX-License-Identifier: MIT
"""``aemp run`` as supervisors see it: a process that starts, is ready, reloads, drains and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from aemp_gevent import AempError
from aemp_gevent.node.node import Node
from tests.cli.helpers import AEMP, ROOT, aemp, environment, hurried
from tests.support import preloaded
from tests.support.helpers import wait_until
from tests.support.native import PATCHED
from tests.support.networking import SECRET, MakeNode, free_address, line_of, node_factory

pytestmark = pytest.mark.slow

PATIENCE = 30.0

SHOP = """
import os, gevent
from aemp_gevent import *

def echo(group="echo"):
    grp_reg(group)
    serve(SELF(), echo=lambda text: text, where=lambda: SELF())

def slow():
    grp_reg("slow")
    def work(text):
        with open("begun", "w"):
            pass
        while not os.path.exists("finish"):
            gevent.sleep(0.02)
        return text
    serve(SELF(), work=work)

def busy():
    grp_reg("busy")
    serve(SELF(), work=lambda: gevent.sleep(1000))

def fragile(times):
    with open("starts", "a") as file:
        file.write("x")
    if os.stat("starts").st_size <= times:
        raise RuntimeError("on purpose")
    grp_reg("fragile")

def short():
    kil(SELF())

def patched():
    import socket, gevent.socket
    grp_reg(f"patched-{socket.socket is gevent.socket.socket}")
"""


@pytest.fixture(autouse=True)
def shop(home: Path) -> None:
    (home / "shop.py").write_text(SHOP)
    (home / "config.json").write_text("{}")


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    monkeypatch.setenv("AEMP_CONFIG", os.devnull)  # theirs, not ours
    with node_factory() as make:
        yield make


class Running:
    """A node that ``aemp run`` runs.

    Attributes:
        id: Its ID.
        process: The process.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.id = line_of(process)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def logs(self, text: str) -> str:
        """Wait until it has logged a text; return the line."""
        wait_until(lambda: text in self.log, within=PATIENCE, show=lambda: self.log)
        return next(line for line in self.log.splitlines() if text in line)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        wait_until(lambda: self.process.poll() is not None, within=PATIENCE, show=lambda: self.log)
        return self.process.returncode


Start = Callable[..., Running]


@pytest.fixture
def start(home: Path) -> Generator[Start, None, None]:
    """Run a node; it is killed in the end."""
    with contextlib.ExitStack() as stack:

        def run(
            *args: str, command: tuple[str, ...] = AEMP, stdin: Any = subprocess.DEVNULL, **variables: str
        ) -> Running:
            log = home / "log"
            process = preloaded.Popen(
                [*command, "run", *args],
                env=environment(home, AEMP_SECRET=variables.pop("AEMP_SECRET", SECRET), **variables),
                stdout=subprocess.PIPE,
                stdin=stdin,
                stderr=stack.enter_context(log.open("w")),
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return Running(process, log)

        yield run


def ask(node: Node, port: str, *message: Any) -> Any:
    return node.call(port, *message, timeout=PATIENCE)


def members(node: Node, group: str) -> list[str]:
    with contextlib.suppress(AempError):
        return sorted(node.db_keys(group, timeout=PATIENCE))
    return []


def only(node: Node, group: str) -> str:
    """Wait for a group to have one member, and return it."""
    (member,) = wait_until(lambda: members(node, group), within=PATIENCE)
    return member


def http(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Ask a health port; return status and text."""
    with socket.create_connection(address, PATIENCE) as to:
        to.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: to.recv(4096), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body.strip()


# --- starting ------------------------------------------------------------------------------


def test_node_runs_its_services_and_others_can_ask_them(start: Start, make_node: MakeNode) -> None:
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.echo", "--service", '["shop.echo", "other"]')
    node = make_node("127.0.0.1:0", running.id)
    assert ask(node, only(node, "echo"), "echo", "hello") == "hello"
    assert only(node, "other").startswith(running.id + "#")
    assert running.end() == 0


def test_profile_and_options_say_what_it_is(start: Start, home: Path, make_node: MakeNode) -> None:
    aemp(home, "setsecret", SECRET, "profile", "shop", "setservices", "shop.echo", "setbinds", "127.0.0.1:0")
    seed = make_node("127.0.0.1:0")
    running = start(
        "shop", "--nodeid", "backend/%u", "--seed", seed.NODE(), "--set", "monitor_timeout=7", AEMP_SECRET=""
    )
    assert running.id.startswith("backend/")
    assert only(seed, "echo").startswith(running.id + "#")
    assert running.end() == 0


def test_services_that_need_a_patched_library_can_have_it(start: Start, make_node: MakeNode) -> None:
    """As the how-to says."""
    page = (ROOT / "docs" / "howto" / "run-in-production.md").read_text()
    module = "python -m gevent.monkey --module aemp_gevent.cli run orders"
    assert f"`{module}`" in page.replace("\n", " ")
    command = (sys.executable, *module.split()[1:-2])
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.patched", command=command)
    node = make_node("127.0.0.1:0", running.id)
    assert only(node, "patched-True")
    assert running.end() == 0


WRONG = [
    (["--service", "shop.ecko"], 2, "setting 'services' cannot be 'shop.ecko'"),
    (["--service", "[1"], 2, "'[1' begins like JSON"),
    (["--nodeid", "a b"], 2, "setting 'nodeid' cannot be 'a b'"),
    (["--bind", "*:x"], 2, "setting 'binds' cannot be"),
    (["--nodeid", "h:99999"], 2, "aemp: setting 'nodeid' cannot be 'h:99999'"),
    (["--set", "x"], 2, "--set must be NAME=VALUE, not 'x'"),
    (["--set", "monitor_timeot=3"], 2, "did you mean 'monitor_timeout'?"),
    (["nix"], 2, "no profile 'nix'"),
    (["--secret", "a", "--secret-file", "b"], 2, "both set the secret"),
    (["--secret-file", "nowhere"], 2, "--secret-file nowhere: No such file or directory"),
    (["--health-port", "x"], 2, "--health-port must be PORT or HOST:PORT, not 'x'"),
    (["--metrics", "9100"], 2, "--metrics: the address must be HOST:PORT or :PORT, not '9100'"),
    (["--log-level", "loud"], 2, "'loud' is not one of"),
    (["--ready-file", "nowhere/ready"], 1, "nowhere/ready"),
]


@pytest.mark.parametrize(
    ("args", "code", "why"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_what_cannot_run_says_so_in_one_line(home: Path, args: list[str], code: int, why: str) -> None:
    done = aemp(home, "run", "--nodeid", "127.0.0.1:0", *args, check=False, env={"AEMP_SECRET": SECRET})
    complaint = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint.startswith("aemp")
    assert why in complaint


def test_place_that_is_taken_is_reported(home: Path, make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    done = aemp(home, "run", "--nodeid", node.NODE(), check=False, env={"AEMP_SECRET": SECRET})
    assert done.returncode == 1
    assert f"cannot listen on {node.NODE()}" in done.stderr


# --- ready ---------------------------------------------------------------------------------


def test_ready_file_is_there_while_it_is_ready(start: Start, home: Path) -> None:
    ready = home / "ready"
    ready.write_text("of a process that was killed")
    running = start("--nodeid", "127.0.0.1:0", "--ready-file", "ready")
    wait_until(lambda: ready.exists() and ready.read_text() == running.id + "\n", within=PATIENCE)
    assert running.end() == 0
    assert not ready.exists()


def test_node_is_ready_when_it_is_linked_to_a_seed_that_starts_as_it_does(
    start: Start, home: Path, make_node: MakeNode
) -> None:
    address = free_address()
    running = start("--nodeid", "127.0.0.1:0", "--seed", address, "--ready-file", "ready", "--service", "shop.echo")
    running.logs("is up")
    assert not (home / "ready").exists()
    seed = make_node(address)
    wait_until((home / "ready").exists, within=PATIENCE, show=lambda: running.log)
    assert "continuing without" not in running.log
    assert seed.up_nodes() == [running.id]
    assert members(seed, "echo"), "and what it has is known there"
    assert running.end() == 0


def test_first_node_of_a_network_does_not_wait_forever(start: Start, home: Path) -> None:
    seed = free_address()
    args = ("--nodeid", "127.0.0.1:0", "--seed", seed, "--ready-file", "ready")
    running = start(*args, command=hurried("node_runner.JOIN_SECONDS = 0.5"))
    running.logs(f"no link to any seed within 0.5 s, continuing without: {seed}: Connection refused")
    wait_until((home / "ready").exists, within=PATIENCE, show=lambda: running.log)
    assert running.end() == 0


def test_probes_tell_how_it_is(start: Start, home: Path) -> None:
    args = ("--service", '["shop.fragile", 1]', "--health-port", "127.0.0.1:0")
    running = start("--nodeid", "127.0.0.1:0", *args)
    address = ("127.0.0.1", int(running.logs("probes are answered on port").split()[-1]))
    running.logs("restart in 1")
    assert http(address, "/readyz") == (503, "crashed, waiting for a restart: shop.fragile")
    assert http(address, "/livez") == (200, "alive")
    assert http(address, "/")[0] == 404
    wait_until(lambda: http(address, "/readyz") == (200, "ready"), within=PATIENCE)
    assert running.end() == 0


def test_figures_are_served_and_crashes_of_services_are_among_them(start: Start) -> None:
    pytest.importorskip("prometheus_client", reason="the extra 'prometheus' is not installed")
    running = start("--nodeid", "127.0.0.1:0", "--service", '["shop.fragile", 1]', "--metrics", "127.0.0.1:0")
    address = ("127.0.0.1", int(running.logs("metrics are served on port").split()[-1]))
    running.logs("restart in 1")
    status, text = http(address, "/metrics")
    assert status == 200
    assert 'aemp_service_restarts_total{service="shop.fragile"} 1.0' in text
    assert running.end() == 0


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_notified_of_everything(start: Start, home: Path, kind: str) -> None:
    name = str(home / "notify") if kind == "path" else f"@aemp-{home}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        notify.settimeout(PATIENCE)

        def heard(text: str) -> str:
            while text not in (found := notify.recv(4096).decode()):
                pass
            return found

        running = start("--nodeid", "127.0.0.1:0", NOTIFY_SOCKET=name, WATCHDOG_USEC="200000")
        assert heard("READY=1").splitlines() == ["READY=1", f"STATUS={running.id} is ready"]
        heard("WATCHDOG=1")
        heard("WATCHDOG=1")
        running.send(signal.SIGHUP)
        reloading = heard("RELOADING=1").splitlines()
        assert reloading[1].startswith("MONOTONIC_USEC=")
        heard("READY=1")
        running.send(signal.SIGTERM)
        heard("STOPPING=1")
        assert running.wait() == 0


# --- crashing ------------------------------------------------------------------------------


def test_crashed_service_is_started_again_and_the_others_continue(start: Start, make_node: MakeNode) -> None:
    services = ("--service", '["shop.fragile", 2]', "--service", "shop.echo")
    running = start("--nodeid", "127.0.0.1:0", *services, command=hurried("supervisor.FIRST_DELAY = 0.2"))
    node = make_node("127.0.0.1:0", running.id)
    echo = only(node, "echo")
    text = "; restart in "
    wait_until(lambda: running.log.count(text) == 2, within=PATIENCE, show=lambda: running.log)
    assert only(node, "fragile")
    assert only(node, "echo") == echo
    first, second = (float(line.split()[-2]) for line in running.log.splitlines() if text in line)
    assert 0.2 <= first <= 0.3 and 0.4 <= second <= 0.6
    assert running.end() == 0


def test_service_that_ends_by_itself_is_not_started_again(start: Start) -> None:
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.short")
    running.logs("service shop.short ended")
    assert "again" not in running.log
    assert running.end() == 0


# --- SIGHUP --------------------------------------------------------------------------------


def test_sighup_starts_and_ends_services_and_takes_the_new_secret(
    start: Start, home: Path, make_node: MakeNode
) -> None:
    aemp(home, "setsecret", SECRET, "profile", "p", "setnodeid", "127.0.0.1:0")
    aemp(home, "profile", "p", "setservices", '["shop.echo", ["shop.echo", "leaving"]]')
    running = start("p", AEMP_SECRET="")
    node = make_node("127.0.0.1:0", running.id)
    echo, leaving = only(node, "echo"), only(node, "leaving")
    reasons: list[tuple[Any, ...]] = []
    node.mon(leaving, lambda *reason: reasons.append(reason))
    assert node.syncal(PATIENCE, running.id, "time"), "and so it is monitored"
    services = '["shop.echo", ["shop.echo", "coming"]]'
    aemp(home, "setsecret", "another", "profile", "p", "setservices", services, "set", "monitor_timeout", "7")
    running.send(signal.SIGHUP)
    running.logs("reloaded")
    running.logs("these settings change only after a restart: monitor_timeout")
    assert only(node, "coming")
    wait_until(lambda: reasons == [()], within=PATIENCE, show=lambda: reasons)
    assert members(node, "leaving") == []
    assert only(node, "echo") == echo, "the service that was there already is left alone"
    newcomer = make_node("127.0.0.1:0", running.id, secret="another")
    assert ask(newcomer, echo, "echo", "hello") == "hello"
    assert running.end() == 0


def test_reloading_that_fails_changes_nothing(start: Start, home: Path, make_node: MakeNode) -> None:
    secret = home / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET + "\n")
    args = ("--nodeid", "127.0.0.1:0", "--secret-file", "secret", "--service", "shop.echo")
    running = start(*args, AEMP_SECRET="")
    secret.unlink()
    running.send(signal.SIGHUP)
    running.logs("reloading failed, nothing was changed: --secret-file secret: No such file")
    (home / "config.json").write_text("{")
    secret.touch(0o600)
    secret.write_text("another")
    running.send(signal.SIGHUP)
    running.logs("it is not JSON")
    node = make_node("127.0.0.1:0", running.id)
    assert ask(node, only(node, "echo"), "echo", "hello") == "hello"
    (home / "config.json").write_text("{}")
    running.send(signal.SIGHUP)
    running.logs("INFO reloaded")
    newcomer = make_node("127.0.0.1:0", running.id, secret="another")
    assert ask(newcomer, only(newcomer, "echo"), "echo", "hello") == "hello"
    assert running.end() == 0


@pytest.mark.skipif(PATCHED, reason="gevent's Popen hands both ends of the terminal down, and so it never goes")
def test_sighup_of_a_terminal_that_is_gone_ends_it(start: Start) -> None:
    ours, theirs = os.openpty()
    running = start("--nodeid", "127.0.0.1:0", stdin=theirs)
    os.close(theirs)
    running.send(signal.SIGHUP)
    running.logs("INFO reloaded")
    os.close(ours)
    assert running.end(signal.SIGHUP) == 0


# --- SIGTERM -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_begun_is_finished_and_nobody_finds_it_any_more(
    start: Start, home: Path, make_node: MakeNode, number: int
) -> None:
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.slow")
    node = make_node("127.0.0.1:0", running.id)
    slow = only(node, "slow")
    first = gevent.spawn(ask, node, slow, "work", "one")
    second = gevent.spawn(ask, node, slow, "work", "two")
    wait_until((home / "begun").exists, within=PATIENCE)
    reasons: list[tuple[Any, ...]] = []
    node.mon(slow, lambda *reason: reasons.append(reason))
    assert node.syncal(PATIENCE, running.id, "time"), "and so it is monitored"
    running.send(number)
    wait_until(lambda: members(node, "slow") == [], within=PATIENCE)
    assert not reasons, "it is still there, only nobody is sent to it"
    (home / "finish").touch()
    assert (first.get(timeout=PATIENCE), second.get(timeout=PATIENCE)) == ("one", "two")
    assert running.wait() == 0
    wait_until(lambda: reasons, within=PATIENCE)
    assert reasons == [("shutdown", running.id)]


def test_who_does_not_finish_is_not_waited_for_longer_than_is_said(start: Start, make_node: MakeNode) -> None:
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.busy", "--drain", "0.2")
    node = make_node("127.0.0.1:0", running.id)
    node.snd(only(node, "busy"), "work")
    node.call_async(only(node, "busy"), "work", timeout=None)
    gevent.sleep(0)
    assert node.syncal(PATIENCE, running.id, "time"), "and so what was sent before has arrived"
    assert running.end() == 0
    running.logs("some ports were still working after 0.2 s")


def test_second_signal_ends_it_at_once(start: Start, make_node: MakeNode) -> None:
    running = start("--nodeid", "127.0.0.1:0", "--service", "shop.busy", "--drain", "1000")
    node = make_node("127.0.0.1:0", running.id)
    waiting = gevent.spawn(node.call, only(node, "busy"), "work", timeout=None)
    assert node.syncal(PATIENCE, running.id, "time")
    running.send(signal.SIGTERM)
    running.logs("signal 15: ending")
    running.send(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM
    waiting.kill()
