# SPDX-License-Identifier: MIT
"""Listening: binding, accepting, and letting go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gevent import socket

import aemp_gevent.listener
from aemp_gevent.errors import ListenError
from aemp_gevent.ids import Endpoint
from aemp_gevent.listener import ANY_HOST, Listener
from tests.helpers import turns, wait_until
from tests.networking import free_address


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


def test_error_while_accepting_is_logged_and_accepting_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.listener, "_RETRY_SECONDS", 0.01)
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
