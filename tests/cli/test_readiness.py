# SPDX-License-Identifier: MIT
"""The health port answers probes, whatever else is connected to it; systemd is notified only if it asks for it."""

from __future__ import annotations

import contextlib
import os
from _socket import socket as native_socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import click
import gevent
import pytest
from gevent import socket

from aemp_gevent.cli import readiness
from aemp_gevent.cli.readiness import HealthPort, Readiness, ReadyFile, ServiceManager
from tests.support import native
from tests.support.networking import WAIT

SILENT = ServiceManager({})


@pytest.fixture
def state() -> Readiness:
    return Readiness(SILENT, None)


@pytest.fixture
def health(state: Readiness) -> Iterator[HealthPort]:
    port = HealthPort("127.0.0.1:0", state)
    port.start()
    yield port
    port.stop()


def ask(health: HealthPort, request: str) -> tuple[str, str]:
    """Return the status line and the body that a request gets."""
    with socket.create_connection(("127.0.0.1", health.port), WAIT) as to:
        to.sendall(request.encode())
        head, _, body = b"".join(iter(lambda: to.recv(4096), b"")).decode().partition("\r\n\r\n")
    return head.splitlines()[0], body


def test_probe_is_answered_by_what_is_so(health: HealthPort, state: Readiness) -> None:
    assert ask(health, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n") == ("HTTP/1.1 503 Service Unavailable", "starting\n")
    assert ask(health, "GET /livez HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "alive\n")
    state.now("", "node")
    assert ask(health, "GET /readyz?verbose HTTP/1.0\r\n\r\n") == ("HTTP/1.1 200 OK", "ready\n")
    assert ask(health, "HEAD /readyz HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "")
    assert ask(health, "GET /secrets HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 404 Not Found"
    assert ask(health, "nonsense\r\n\r\n")[0] == "HTTP/1.1 404 Not Found"


def test_probe_is_not_answered_while_the_loop_is_blocked(health: HealthPort) -> None:
    """So a process whose loop is deadlocked is restarted, even if other nodes would believe it for longer."""
    request, answers = b"GET /livez HTTP/1.1\r\n\r\n", []

    def probe() -> None:
        probing = native_socket()
        probing.settimeout(0.2)
        try:
            probing.connect(("127.0.0.1", health.port))
            probing.send(request)
            answers.append(probing.recv(4096))
        except TimeoutError:
            answers.append(b"")
        finally:
            probing.close()

    thread = native.threading.Thread(target=probe)
    thread.start()
    thread.join()  # which blocks the loop
    assert answers == [b""]
    assert ask(health, request.decode()) == ("HTTP/1.1 200 OK", "alive\n")


def test_endless_input_is_not_read_forever(health: HealthPort) -> None:
    assert ask(health, f"GET /{quote('x' * 20_000)}")[0] == "HTTP/1.1 404 Not Found"


@pytest.mark.slow
def test_those_who_say_nothing_keep_nobody_out(health: HealthPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_PROBE_SECONDS", 0.2)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * readiness._MAX_PROBES):
            idle = socket.create_connection(("127.0.0.1", health.port), WAIT)
            stack.enter_context(idle)
        gevent.sleep(0)
        assert ask(health, "GET /livez HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "alive\n")


@pytest.mark.parametrize("address", ["x", "1:x", "70000", ":", "-1"])
def test_invalid_port_is_refused(state: Readiness, address: str) -> None:
    with pytest.raises(click.UsageError, match="PORT or HOST:PORT"):
        HealthPort(address, state)


def test_port_that_is_taken_is_reported(health: HealthPort, state: Readiness) -> None:
    with pytest.raises(click.ClickException, match="cannot listen on .* for --health-port: .*in use"):
        HealthPort(f"127.0.0.1:{health.port}", state).start()


def test_all_interfaces_and_ipv6_can_be_listened_on(state: Readiness) -> None:
    for address in ("0", "[::1]:0"):
        port = HealthPort(address, state)
        port.start()
        assert port.port
        port.stop()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_watchdog_is_fed_only_if_it_is_ours(environ: dict[str, str], seconds: float) -> None:
    assert ServiceManager(environ).watchdog_seconds == seconds


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_nobody_to_notify_is_not_an_error(address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}).tell("READY=1")


def test_ready_file_follows_what_is_so(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    file.write_text("left behind")
    state = Readiness(SILENT, ReadyFile(file))
    assert not file.exists()
    state.now("", "node")
    assert file.read_text() == "node\n"
    state.now("a reason", "node")
    assert not file.exists()
    state.now("", "node")
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_folder_that_goes_away_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    state = Readiness(SILENT, ReadyFile(folder / "ready"))
    folder.rmdir()
    with pytest.raises(click.ClickException, match="No such file"):
        state.now("", "node")
