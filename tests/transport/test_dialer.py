# SPDX-License-Identifier: MIT
"""Dialling: the first endpoint that accepts wins, and the text of a failure names each."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import pytest
from gevent import socket

from aemp_gevent.addresses.endpoints import Endpoint, parse_endpoint
from aemp_gevent.transport.dialer import dial
from tests.support.networking import RawListener, free_address


def test_first_endpoint_that_accepts_is_taken() -> None:
    with RawListener() as one, RawListener() as two:
        endpoints = [parse_endpoint(free_address()), parse_endpoint(two.id), parse_endpoint(one.id)]
        sock = dial(endpoints, 5)
        assert "{}:{}".format(*sock.getpeername()) == two.id
        sock.close()


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        dial([Endpoint("", 0, path)], 5).close()


def test_numeric_address_asks_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver is a thread, whose answer a busy loop can keep waiting for seconds."""

    def asked(*args: object) -> object:
        raise AssertionError(args)

    monkeypatch.setattr("gevent.hub.Hub.resolver", property(asked))
    with RawListener() as listener:
        dial([parse_endpoint(listener.id)], 5).close()


def test_failure_names_every_endpoint(tmp_path: Path) -> None:
    addresses = [free_address(), free_address()]
    endpoints = [*map(parse_endpoint, addresses), Endpoint("", 0, str(tmp_path / "none"))]
    with pytest.raises(OSError, match="refused") as caught:
        dial(endpoints, 5)
    for endpoint in endpoints:
        assert str(endpoint) in str(caught.value)


def test_no_endpoint_is_a_failure() -> None:
    with pytest.raises(OSError, match="no endpoint"):
        dial([], 5)


def test_endpoint_that_never_answers_costs_its_part_of_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left goes to the others."""
    waited: list[float] = []

    def silent(endpoint: Endpoint, timeout: float, _under_way: object) -> object:
        waited.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr("aemp_gevent.transport.dialer._connect", silent)
    started = monotonic()
    with pytest.raises(OSError, match="timed out"):
        dial([Endpoint("192.0.2.1", 1)] * 2, 10)
    assert waited[0] == pytest.approx(5, abs=0.5)
    assert waited[1] == pytest.approx(10, abs=0.5)
    assert monotonic() - started < 1
