# SPDX-License-Identifier: MIT
"""The web examples behind a real gunicorn, with real clients; workers are killed, replaced and told to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
import pytest

from aemp_gevent.testing import wait_until
from soak.browser import Browser
from soak.web import EXAMPLES, PATIENCE, Backend, ChatSender, Gunicorn, Returner, Stream, faults, tabs
from tests.support.networking import free_address

pytest.importorskip("flask")
pytest.importorskip("gunicorn")

pytestmark = pytest.mark.slow

CHAT = EXAMPLES / "flask_chat"
COUNTER = EXAMPLES / "live_counter"
JOBS = EXAMPLES / "job_backend"
ROOMS = EXAMPLES / "socketio_chat"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def hear(streams: list[Stream], senders: list[ChatSender]) -> None:
    """Wait until all streams have all that was said for sure, and check that nothing else came, or in another order."""
    wait_until(
        lambda: not any(faults(stream, senders) for stream in streams),
        within=PATIENCE,
        show=lambda: [faults(stream, senders) for stream in streams if faults(stream, senders)][:2],
    )


def tabs_at_all(stack: ExitStack, server: Gunicorn) -> list[Stream]:
    """Open streams, until each worker serves two."""
    streams: list[Stream] = []

    def served() -> bool:
        streams.extend(stack.enter_context(tabs(server.address, 6)))
        nodes = [stream.node for stream in streams]
        return all(nodes.count(node) >= 2 for node in server.workers.values())

    wait_until(served, within=PATIENCE, show=lambda: Counter(stream.node for stream in streams))
    return streams


NEVER = ("--graceful-timeout", "3000")


@contextmanager
def clients_that_come_back(server: Gunicorn) -> Generator[None, None, None]:
    """Reconnect clients at once when their streams end, and check that none was cut off.

    They must not come back to a worker that is ending: it would wait for them until its time is over. Nothing here
    measures how long it takes, which is a second or two on a quiet machine: a busy one with few processors needs many
    times that to replace three processes. The server must have ``NEVER``, instead: if a worker waited for a client, it
    would still wait when the test gives up, however slow the machine is.
    """
    clients = [Returner(server.address) for _ in range(6)]
    try:
        wait_until(lambda: all(client.streams for client in clients), within=PATIENCE)
        yield
    finally:
        for client in clients:
            client.close()
    assert not any(client.cut for client in clients)
    assert "graceful timeout" not in server.log


def sockets(scratch: Path) -> list[str]:
    return [path.name for path in scratch.glob("aemp-*/*/*")]


# --- the chat ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--preload"], []], ids=["preloaded", "loaded-by-each"])
def test_a_message_of_one_tab_is_shown_in_all_tabs_of_all_workers(
    stack: ExitStack, scratch: Path, options: list[str]
) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, *options, workers=2))
    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, name) for name in ("anna", "ben", "cleo")]
    gevent.joinall([gevent.spawn(sender.say, 50) for sender in senders], raise_error=True)
    hear(streams, senders)
    assert not any(sender.cut for sender in senders)
    assert sum(len(stream.lines) for stream in streams) == 150 * len(streams)


def test_only_the_clients_of_a_killed_worker_notice_and_another_takes_its_place(
    stack: ExitStack, scratch: Path
) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, "--preload"))
    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, f"s{number}") for number in range(6)]
    talking = [gevent.spawn(sender.say, 100) for sender in senders]
    # The oldest, which the others found when they came; and in the middle of it all.
    victim, node = min(server.workers.items())
    wait_until(lambda: all(len(stream.lines) > 50 for stream in streams), within=PATIENCE)
    os.kill(victim, signal.SIGKILL)
    gevent.joinall(talking, raise_error=True)

    wait_until(lambda: all(stream.ended for stream in streams if stream.node == node), within=PATIENCE)
    survivors = [stream for stream in streams if stream.node != node]
    assert not any(stream.ended for stream in survivors)
    hear(survivors, senders)

    server.wait_for_workers(victim)
    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, "later")]
    senders[0].say(10)
    hear(streams, senders)
    assert len(sockets(scratch)) == 3


def test_hangup_replaces_all_workers_and_nothing_that_was_accepted_is_lost(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, "--preload", *NEVER, workers=2))
    old = server.workers
    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, f"s{number}") for number in range(3)]
    for sender in senders:
        sender.say(50)
    with clients_that_come_back(server):
        server.signal(signal.SIGHUP)
        server.wait_for_workers(*old)
    wait_until(lambda: all(stream.ended for stream in streams), within=PATIENCE)
    hear(streams, senders)
    assert "Traceback" not in server.log
    assert len(sockets(scratch)) == 2, "the old workers left something behind"

    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, "later")]
    senders[0].say(10)
    hear(streams, senders)


def test_workers_that_end_after_some_requests_are_replaced_and_nothing_is_lost(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, "--max-requests", "30", "--max-requests-jitter", "10", *NEVER))
    first = server.joined
    sender = ChatSender(server.address, "s")
    with clients_that_come_back(server):
        while len(server.joined) < len(first) + 3:
            sender.say(20)
        server.wait_for_workers(*first)
    assert not sender.cut, "requests were lost"
    server.wait_for_workers()
    streams = stack.enter_context(tabs(server.address, 6))
    expected = [["later.1", str(number)] for number in range(5)]
    ChatSender(server.address, "later").say(5)
    for stream in streams:  # one may belong to a worker that has had enough
        wait_until(lambda: stream.ended or stream.lines[-5:] == expected, within=PATIENCE, show=lambda: stream.lines)  # noqa: B023
    assert not all(stream.ended for stream in streams)


def test_end_comes_when_the_requests_are_done_and_with_a_goodbye(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, "--preload", *NEVER, workers=2))
    streams = tabs_at_all(stack, server)
    senders = [ChatSender(server.address, "s")]
    senders[0].say(50)
    with clients_that_come_back(server):
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    hear(streams, senders)
    assert all(stream.ended for stream in streams)
    assert "Traceback" not in server.log
    assert sockets(scratch) == [], "somebody did not say goodbye"


# --- in a browser --------------------------------------------------------------------------


@pytest.fixture
def browser(scratch: Path) -> Iterator[Browser]:
    if not shutil.which("chromedriver"):
        pytest.skip("there is no chromedriver")
    browser = Browser(scratch)
    yield browser
    browser.close()


def test_what_is_typed_in_one_browser_tab_appears_in_the_others(
    stack: ExitStack, scratch: Path, browser: Browser
) -> None:
    server = stack.enter_context(Gunicorn(CHAT, scratch, "--preload", workers=2, address=free_address()))
    url = f"http://{server.address}/"

    def node_of(tab: str) -> str:
        before, _, node = browser.run(tab, "return document.getElementById('state').textContent").rpartition(" to ")
        return node if before == "connected" else ""

    nodes: dict[str, str] = {}  # tabs, by the worker that serves them
    while len(nodes) < 2:
        tab = browser.open(url)
        node = wait_until(lambda: node_of(tab), within=PATIENCE)  # noqa: B023
        assert browser.run(tab, "return document.querySelectorAll('#lines li').length") == 0
        if nodes.setdefault(node, tab) != tab:
            browser.close_tab(tab)  # a browser has six connections to a server at most, and each tab keeps one
    speaker, listener = nodes.values()
    browser.type(speaker, "text", "hello, Grüße ☃ <b>\n")

    def lines(tab: str) -> list[str]:
        script = "return [...document.querySelectorAll('#lines li')].map(line => line.textContent)"
        found: list[str] = browser.run(tab, script)
        return found

    for tab in (speaker, listener):
        wait_until(lambda: lines(tab) == ["anna: hello, Grüße ☃ <b>"], within=PATIENCE, show=lambda: lines(tab))  # noqa: B023

    # The browser comes back by itself, to another worker.
    (node,) = (node for node, tab in nodes.items() if tab == listener)
    os.kill(next(pid for pid, each in server.workers.items() if each == node), signal.SIGKILL)
    wait_until(lambda: node_of(listener) not in {"", node}, within=PATIENCE)
    browser.type(speaker, "text", "again\n")
    wait_until(lambda: lines(listener)[1:] == ["anna: again"], within=PATIENCE, show=lambda: lines(listener))


def test_room_shows_who_is_there_in_all_browser_tabs_also_when_a_worker_is_killed(
    stack: ExitStack, scratch: Path, browser: Browser
) -> None:
    pytest.importorskip("flask_socketio")
    server = stack.enter_context(Gunicorn(ROOMS, scratch, "--preload", *NEVER, workers=2, address=free_address()))
    url = f"http://{server.address}/"

    def shown(tab: str, of: str) -> list[str]:
        script = f"return [...document.querySelectorAll('#{of} li')].map(line => line.textContent)"
        found: list[str] = browser.run(tab, script)
        return found

    def node_of(tab: str) -> str:
        before, _, node = browser.run(tab, "return document.getElementById('state').textContent").rpartition(" to ")
        return node if before == "connected" else ""

    def enter(tab: str, name: str, room: str) -> None:
        fields = f"document.getElementById('name').value = '{name}'; document.getElementById('room').value = '{room}'"
        browser.run(tab, f"{fields}; document.querySelector('#door button').click()")

    def wait_for(tab: str, of: str, *wanted: str) -> None:
        wait_until(lambda: shown(tab, of) == list(wanted), within=PATIENCE, show=lambda: (shown(tab, of), server.log))

    nodes: dict[str, str] = {}  # tabs, by the worker that serves them
    while len(nodes) < 2:
        tab = browser.open(url)
        node = wait_until(lambda: node_of(tab), within=PATIENCE)  # noqa: B023
        if nodes.setdefault(node, tab) != tab:
            browser.close_tab(tab)
    anna, ben = nodes.values()
    cleo = browser.open(url)
    wait_until(lambda: node_of(cleo), within=PATIENCE)
    for tab, name, room in ((anna, "anna", "kitchen"), (ben, "ben", "kitchen"), (cleo, "cleo", "attic")):
        enter(tab, name, room)
    for tab in (anna, ben):
        wait_for(tab, "people", "anna", "ben")
    wait_for(cleo, "people", "cleo")
    browser.type(anna, "text", "hello, Grüße ☃ <b>\n")
    for tab in (anna, ben):
        wait_for(tab, "lines", "anna: hello, Grüße ☃ <b>")
    enter(cleo, "cleo", "kitchen")
    for tab in (anna, ben, cleo):
        wait_for(tab, "people", "anna", "ben", "cleo")
    browser.close_tab(cleo)
    for tab in (anna, ben):
        wait_for(tab, "people", "anna", "ben")
    assert shown(ben, "lines") == ["anna: hello, Grüße ☃ <b>"]

    # Its people leave, and come back by themselves, to another worker.
    (node,) = (node for node, tab in nodes.items() if tab == ben)
    os.kill(next(pid for pid, each in server.workers.items() if each == node), signal.SIGKILL)
    wait_until(lambda: node_of(ben) not in {"", node}, within=PATIENCE)
    for tab in (anna, ben):
        wait_for(tab, "people", "anna", "ben")
    browser.type(ben, "text", "again\n")
    wait_for(anna, "lines", "anna: hello, Grüße ☃ <b>", "ben: again")

    # Workers that end in order send theirs away, instead of waiting for them.
    server.wait_for_workers()
    former = server.workers
    server.signal(signal.SIGHUP)
    server.wait_for_workers(*former)
    wait_until(lambda: not {node_of(anna), node_of(ben)} & {"", *former.values()}, within=PATIENCE)
    for tab in (anna, ben):
        wait_for(tab, "people", "anna", "ben")


# --- the counter ---------------------------------------------------------------------------


def test_everybody_sees_how_many_are_there_also_when_a_worker_is_killed(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(COUNTER, scratch, "--preload"))
    streams = [Stream(server.address) for _ in range(12)]
    stack.callback(lambda: [stream.close() for stream in streams])

    def shown() -> None:
        def living() -> list[Stream]:
            return [stream for stream in streams if not stream.ended]

        # Counted at each look: that a stream has ended may be noticed after the others were told.
        wait_until(
            lambda: all(stream.lines[-1:] == [len(living())] for stream in living()),
            within=PATIENCE,
            show=lambda: ([stream.lines[-3:] for stream in living()], server.states, server.log),
        )

    shown()
    streams[0].close()
    # gunicorn sees that somebody went away when it writes to him: a newcomer is news.
    streams.append(Stream(server.address))
    wait_until(lambda: streams[-1].lines[-1:] == [12], within=PATIENCE, show=lambda: streams[-1].lines)
    shown()
    victim = max(server.workers, key=lambda pid: len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208  # it serves some
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: any(stream.ended for stream in streams[1:]), within=PATIENCE)
    server.wait_for_workers(victim)
    shown()


# --- the jobs ------------------------------------------------------------------------------


def ask(server: Gunicorn, path: str) -> tuple[int, Any]:
    connection = server.connect()
    try:
        answer = connection.ask("GET", path)  # type: ignore[attr-defined]
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_jobs_are_done_by_backends_and_what_takes_too_long_is_said_so(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(JOBS, scratch, "--preload", workers=2))
    assert ask(server, "/factors/12") == (503, {"error": "no backend is there"})
    backends = [stack.enter_context(Backend(server)) for _ in range(2)]
    seen: set[int] = set()

    def both_seen() -> bool:
        status, answer = ask(server, "/factors/1001")
        assert (status, answer["factors"]) == (200, [7, 11, 13])
        seen.add(answer["backend"])
        return seen == {backend.pid for backend in backends}

    wait_until(both_seen, within=PATIENCE)
    assert ask(server, f"/factors/{10**12 + 1}")[0] == 400
    assert ask(server, "/factors/12?seconds=9") == (503, {"error": "no answer within 2 s"})


def test_job_whose_backend_is_killed_is_given_to_another(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(JOBS, scratch, "--preload", workers=2))
    victim = stack.enter_context(Backend(server))
    asked = [gevent.spawn(ask, server, "/factors/1001?seconds=0.7") for _ in range(5)]
    gevent.wait(asked, timeout=0.2)  # until they are under way; it matters for nothing else
    other = stack.enter_context(Backend(server))
    victim.kill()
    answers = [greenlet.get(timeout=PATIENCE) for greenlet in asked]
    assert {status for status, _ in answers} <= {200, 503}
    good = [answer for status, answer in answers if status == 200]
    assert {answer["backend"] for answer in good if answer["tries"] > 1} <= {other.pid}


def test_request_under_way_is_answered_before_the_workers_end(stack: ExitStack, scratch: Path) -> None:
    server = stack.enter_context(Gunicorn(JOBS, scratch, "--preload", workers=2))
    stack.enter_context(Backend(server))
    wait_until(lambda: ask(server, "/factors/12")[0] == 200, within=PATIENCE)
    asked = gevent.spawn(ask, server, "/factors/1001?seconds=1")
    assert not asked.ready()
    gevent.wait([asked], timeout=0.3)
    server.signal(signal.SIGTERM)
    status, answer = asked.get(timeout=PATIENCE)
    # On a machine that stood still meanwhile it may have taken too long, which is an answer, too.
    assert answer.get("factors") == [7, 11, 13] if status == 200 else "no answer within" in answer["error"]
    assert server.wait() == 0


def test_everything_that_the_one_command_starts_ends_with_it(stack: ExitStack, scratch: Path) -> None:
    server = Gunicorn(JOBS, scratch)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**server.environ, "GUNICORN_CMD_ARGS": f"--bind unix:{server.address}", "PATH": path}
    with (scratch / "log").open("wb") as log:
        command = subprocess.Popen([JOBS / "start.sh"], env=environ, stdout=log, stderr=log, start_new_session=True)
    stack.callback(command.wait)
    stack.callback(end_group, command.pid)
    wait_until(lambda: server.log.count("backend jobs/") == 2, within=PATIENCE, show=lambda: server.log)
    server.wait_for_workers()
    assert ask(server, "/factors/12")[0] == 200
    command.terminate()
    wait_until(lambda: command.poll() is not None, within=PATIENCE)
    wait_until(lambda: not end_group(command.pid, 0), within=PATIENCE, show=lambda: server.log)


def end_group(group: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to all processes of a group; return whether there were any."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
