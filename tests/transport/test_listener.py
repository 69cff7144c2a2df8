# SPDX-License-Identifier: MIT
"""Listening: binding, accepting, and letting go."""

from __future__ import annotations

import errno
import os
import shutil
import socket as std_socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

import aemp_gevent.addresses.socket_folders
import aemp_gevent.transport.listener
from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import ListenError
from aemp_gevent.transport.listener import ANY_HOST, Listener
from aemp_gevent.transport.transport import _describe
from tests.support.helpers import turns, wait_until
from tests.support.networking import ROOT, free_address


def dial(listener: Listener, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, listener.endpoint.port), 5)


@pytest.mark.parametrize("host", ["127.0.0.1", ANY_HOST])
def test_accepts_on_the_real_port_once_started(host: str) -> None:
    accepted: list[socket.socket] = []
    listener = Listener(Endpoint(host, 0), accepted.append)
    assert listener.endpoint.port
    assert listener.endpoint.host == host
    client = dial(listener)
    turns(5)
    assert accepted == []
    listener.start()
    wait_until(lambda: accepted)
    listener.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        dial(listener)
    for sock in (client, *accepted):
        sock.close()


def test_all_interfaces_are_those_of_ipv6_as_well() -> None:
    if not std_socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    accepted: list[socket.socket] = []
    listener = Listener(Endpoint(ANY_HOST, 0), accepted.append)
    listener.start()
    clients: list[socket.socket] = []
    for host in ("::1", "127.0.0.1"):
        clients.append(dial(listener, host))
        wait_until(lambda: len(accepted) == len(clients))
        # Its own address, and not the IPv6 form of an IPv4 address: logs and peers get this one.
        home = _describe(accepted[-1]).rpartition(":")[0]
        assert home.strip("[]") == host
    with pytest.raises(ListenError, match="in use"):
        Listener(listener.endpoint, print)
    listener.close()
    for sock in (*clients, *accepted):
        sock.close()


@pytest.mark.parametrize("error", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_on_a_host_without_ipv6_all_interfaces_are_those_of_ipv4(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    real = aemp_gevent.transport.listener._listen

    def listen(sock: socket.socket, address: tuple[str, int]) -> socket.socket:
        if address[0] == "::":
            sock.close()
            raise OSError(error, "no IPv6")
        return real(sock, address)

    monkeypatch.setattr(aemp_gevent.transport.listener, "_listen", listen)
    listener = Listener(Endpoint(ANY_HOST, 0), print)
    dial(listener).close()
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_endpoint_that_cannot_be_bound_is_named(host: str) -> None:
    used = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint(host, used.getsockname()[1])
    with pytest.raises(ListenError, match=str(endpoint)) as caught:
        Listener(endpoint, print)
    assert caught.value.endpoint == str(endpoint)
    used.close()


def test_port_of_a_closed_listener_is_free_although_connections_linger() -> None:
    address, port = free_address().split(":")
    for _ in range(2):
        accepted: list[socket.socket] = []
        listener = Listener(Endpoint(address, int(port)), accepted.append)
        listener.start()
        client = dial(listener)
        wait_until(lambda: accepted)  # noqa: B023
        accepted[0].close()
        client.close()
        listener.close()
        turns(2)  # gevent closes a socket on which somebody waits in the next turn of its loop


def test_unix_socket_file_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = Listener(Endpoint("", 0, str(path)), print)
    assert path.is_socket()
    assert listener.endpoint == Endpoint("", 0, str(path))
    listener.close()
    assert not path.exists()
    listener.close()


def has_listener(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


def left_behind(path: Path) -> None:
    """Leave a socket's file as a killed process does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(1)
    sock.close()


def test_file_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left_behind(path)
    listener = Listener(Endpoint("", 0, str(path)), print)
    assert has_listener(path)
    listener.close()
    assert not path.exists()


@pytest.mark.parametrize("what", ["a living one's", "one that does not listen yet", "a file", "a datagram socket"])
def test_file_that_somebody_needs_is_never_taken_over(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "a file":
        path.write_text("of somebody else's")
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if "datagram" in what else socket.SOCK_STREAM)
        sock.bind(str(path))
        if what == "a living one's":
            sock.listen(1)
    before = path.stat()
    with pytest.raises(ListenError, match="Address already in use"):
        Listener(Endpoint("", 0, str(path)), print)
    assert path.stat().st_ino == before.st_ino
    if what != "a file":
        sock.close()


def test_path_is_not_taken_twice_by_processes_that_start_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a dead one's file and its removal another process takes it over."""
    path = tmp_path / "s"
    left_behind(path)
    others: list[Listener] = []
    locked = aemp_gevent.addresses.socket_folders._locked

    def later(folder: str) -> Any:
        monkeypatch.setattr(aemp_gevent.addresses.socket_folders, "_locked", locked)
        others.append(Listener(Endpoint("", 0, str(path)), print))
        return locked(folder)

    monkeypatch.setattr(aemp_gevent.addresses.socket_folders, "_locked", later)
    with pytest.raises(ListenError, match="Address already in use"):
        Listener(Endpoint("", 0, str(path)), print)
    assert has_listener(path)
    others[0].close()


@pytest.mark.slow
def test_lock_of_a_folder_ends_at_once_in_a_patched_program(tmp_path: Path) -> None:
    program = (
        "import gevent.monkey; gevent.monkey.patch_all(); import sys; "
        "from aemp_gevent.addresses import socket_folders; "
        "[socket_folders.remove_dead(sys.argv[1]) for _ in range(2)]"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], timeout=20, check=True, cwd=ROOT)


def test_listener_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = Listener(Endpoint("", 0, str(path)), print)
    path.unlink()
    second = Listener(Endpoint("", 0, str(path)), print)
    first._look_after_file()
    first.close()
    assert has_listener(path)
    second.close()


def test_socket_files_are_touched_and_created_again_after_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.transport.listener, "_KEEP_SECONDS", 0.001)
    path = tmp_path / "folder" / "s"
    path.parent.mkdir()
    accepted: list[socket.socket] = []
    listener = Listener(Endpoint("", 0, str(path)), accepted.append)
    listener.start()
    os.utime(path, (0, 0))
    wait_until(lambda: path.stat().st_mtime > 0)
    for number in (1, 2):
        shutil.rmtree(path.parent)
        wait_until(path.exists)
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        wait_until(lambda: len(accepted) == number)  # noqa: B023  # run at once
        client.close()
        assert caplog.text.count("was removed, and has been created again") == number
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listener.close()
    for sock in accepted:
        sock.close()
    turns(5)
    assert list(path.parent.iterdir()) == []


def test_error_while_accepting_is_logged_and_accepting_continues(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.transport.listener, "_RETRY_SECONDS", 0.01)
    accepted: list[socket.socket] = []
    listener = Listener(Endpoint("127.0.0.1", 0), accepted.append)
    real, failures = listener._socket, 3

    class Failing:
        closed = False

        def accept(self) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(24, "Too many open files")
            return real.accept()

        def close(self) -> None:
            real.close()

    monkeypatch.setattr(listener, "_socket", Failing())
    listener.start()
    client = dial(listener)
    wait_until(lambda: accepted)
    assert caplog.text.count("Too many open files") == 3
    listener.close()
    for sock in (client, *accepted):
        sock.close()


def test_connection_that_is_gone_at_once_is_closed() -> None:
    seen: list[socket.socket] = []

    def gone(sock: socket.socket) -> None:
        seen.append(sock)
        raise OSError("Invalid argument")

    listener = Listener(Endpoint("127.0.0.1", 0), gone)
    listener.start()
    clients = [dial(listener), dial(listener)]
    wait_until(lambda: len(seen) == 2)
    assert [client.recv(1) for client in clients] == [b"", b""]
    assert all(sock.closed for sock in seen)
    listener.close()
    for client in clients:
        client.close()


def test_closing_a_listener_again_leaves_its_successor_the_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = Listener(Endpoint("", 0, str(path)), print)
    first.close()
    second = Listener(Endpoint("", 0, str(path)), print)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()
