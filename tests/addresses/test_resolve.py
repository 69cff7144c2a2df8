# SPDX-License-Identifier: MIT
"""Noderefs to resolved noderefs: what each form of a component means. The names are the test's own."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Any

import pytest

import aemp_gevent.addresses.resolve
from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.addresses.resolve import resolve_endpoint, resolve_node
from aemp_gevent.errors import InvalidNoderefError, ResolveError

HOSTS: dict[str, list[str]] = {
    "one": ["10.0.0.1"],
    "both": ["fe80::1%eth0", "2001:db8::1", "10.0.0.2"],
    "six": ["2001:db8::6"],
    "link": ["fe80::1%eth0"],
    "none": [],
    "here": ["127.0.0.1", "10.9.9.9"],
    "here6": ["::1", "2001:db8::9"],
    "lonely": ["127.0.1.1"],
    "unplugged": ["169.254.3.4", "127.0.0.2"],
}

SERVICES: dict[str, list[tuple[str, int]]] = {
    "served": [("six", 5001), ("one", 5002)],
    "half-served": [("nobody", 5001), ("one", 5002)],
    "dead-served": [("nobody", 5001), ("none", 5002)],
}


class Names:
    """Answers from the tables above, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def addresses(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return HOSTS[host]

    def services(self, host: str) -> list[tuple[str, int]]:
        self.asked.append(f"_aemp._tcp.{host}")
        if host == "refused":
            raise OSError("its SRV record says that it has no such service")
        return SERVICES.get(host, [])


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.mark.parametrize(
    ("noderef", "resolved", "asked"),
    [
        pytest.param("1.2.3.4:5", "1.2.3.4:5", [], id="numeric"),
        pytest.param("[2001:DB8::1]:5", "[2001:db8::1]:5", [], id="numeric-v6"),
        pytest.param("1.2.3.4", "1.2.3.4:4040", [], id="numeric-without-port"),
        pytest.param("[::1]", "[::1]:4040", [], id="v6-without-port"),
        pytest.param("unix:/tmp/x", "unix:/tmp/x", [], id="unix"),
        pytest.param("one:7", "10.0.0.1:7", ["one"], id="name"),
        pytest.param("one", "10.0.0.1:4040", ["_aemp._tcp.one", "one"], id="name-without-port-or-service"),
        pytest.param(
            "served",
            "[2001:db8::6]:5001,10.0.0.1:5002",
            ["_aemp._tcp.served", "six", "one"],
            id="services-in-order",
        ),
        pytest.param("half-served", "10.0.0.1:5002", None, id="service-without-address-is-left-out"),
        pytest.param("both:7", "10.0.0.2:7", None, id="v4-first"),
        pytest.param("six:7", "[2001:db8::6]:7", None, id="v6-only"),
        pytest.param("one:7,1.1.1.1:2, six:3", "10.0.0.1:7,1.1.1.1:2,[2001:db8::6]:3", None, id="several-in-order"),
        pytest.param("one:7,10.0.0.1:7,one:8", "10.0.0.1:7,10.0.0.1:8", None, id="duplicates"),
        pytest.param("one:5002,served", "10.0.0.1:5002,[2001:db8::6]:5001", None, id="duplicate-of-a-service"),
        pytest.param("unix:/x,unix:/x", "unix:/x", None, id="duplicate-paths"),
        pytest.param("one:0,one:0", "10.0.0.1:0,10.0.0.1:0", None, id="two-free-ports-are-not-duplicates"),
    ],
)
def test_noderef_is_resolved(names: Names, noderef: str, resolved: str, asked: list[str] | None) -> None:
    assert resolve_node(noderef, names) == resolved
    assert asked is None or names.asked == asked


@pytest.mark.parametrize(
    ("host", "noderef", "resolved"),
    [
        ("here", "", "10.9.9.9:4040"),
        ("here", "4041", "10.9.9.9:4041"),
        ("here", "0,", "10.9.9.9:0,10.9.9.9:4040"),
        ("here6", " ", "[2001:db8::9]:4040"),
    ],
)
def test_empty_component_and_bare_number_mean_this_host(
    monkeypatch: pytest.MonkeyPatch, names: Names, host: str, noderef: str, resolved: str
) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "gethostname", lambda: host)
    assert resolve_node(noderef, names) == resolved


@pytest.mark.parametrize(
    ("name", "address"), [("lonely", "127.0.1.1"), ("unknown", "127.0.0.1"), ("unplugged", "127.0.0.2")]
)
def test_host_without_routable_address_is_loopback_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, names: Names, name: str, address: str
) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "gethostname", lambda: name)
    monkeypatch.setattr(aemp_gevent.addresses.resolve, "own_addresses", list)
    assert resolve_node("", names) == f"{address}:4040"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert repr(name) in caplog.text


@pytest.mark.parametrize(
    ("interfaces", "resolved"),
    [(["2001:db8::7", "10.1.2.3"], "10.1.2.3:4040"), (["2001:db8::7"], "[2001:db8::7]:4040")],
)
def test_host_whose_name_is_loopback_is_reached_by_its_interface(
    monkeypatch: pytest.MonkeyPatch, names: Names, interfaces: list[str], resolved: str
) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "gethostname", lambda: "lonely")
    monkeypatch.setattr(aemp_gevent.addresses.resolve, "own_addresses", lambda: interfaces)
    assert resolve_node("", names) == resolved


def test_interface_is_found_without_sending_anything() -> None:
    for address in aemp_gevent.addresses.resolve.own_addresses():
        assert not ipaddress.ip_address(address).is_loopback


class Probe:
    """A socket whose packets would leave from loopback."""

    def __init__(self, family: int, kind: int) -> None:
        self._address = "127.0.0.1" if family == socket.AF_INET else "::1"

    def connect(self, address: object) -> None: ...

    def getsockname(self) -> tuple[str, int]:
        return (self._address, 1)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


def test_without_a_route_to_the_world_the_route_to_others_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a network that has only what it needs, of IPv6 only for instance."""
    ways = {"fd00::1": "fd00::2", "10.0.0.9": "127.0.0.1"}

    class OnlyLocal(Probe):
        def connect(self, address: object) -> None:
            if address[0] not in ways:  # type: ignore[index]
                raise OSError("Network is unreachable")
            self._address = ways[address[0]]  # type: ignore[index]

    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "socket", OnlyLocal)
    assert aemp_gevent.addresses.resolve.own_addresses() == []
    assert aemp_gevent.addresses.resolve.own_addresses(["10.0.0.9", "fd00::3", "fd00::1"]) == ["fd00::2"]


def test_loopback_does_not_lead_to_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.resolve.std_socket, "socket", Probe)
    assert aemp_gevent.addresses.resolve.own_addresses() == []


@pytest.mark.parametrize("noderef", ["²", "4" * 5000, "unix:/a\0b", "65536", "1.2.3.4:99999"])
def test_malformed_numbers_and_paths_are_refused(names: Names, noderef: str) -> None:
    with pytest.raises(InvalidNoderefError):
        resolve_node(noderef, names)
    assert names.asked == []


@pytest.mark.parametrize(
    ("noderef", "named", "why"),
    [
        ("nobody:1", "nobody:1", "not known"),
        ("one:1,nobody:2", "nobody:2", "not known"),
        ("none", "none", "no address"),
        ("link:1", "link:1", "no address"),
        ("refused", "refused", "no such service"),
        ("dead-served", "dead-served", "nobody: .*not known.*; none: .*no address"),
    ],
)
def test_name_without_address_is_named(names: Names, noderef: str, named: str, why: str) -> None:
    with pytest.raises(ResolveError, match=why) as caught:
        resolve_node(noderef, names)
    assert caught.value.component == named
    assert repr(named) in str(caught.value)


@pytest.mark.parametrize(
    "noderef",
    ["anon/x", "slave/x", "host:70000", "host:x", "a b:1", "1:2:3", "[::1", "[zz]:1", "unix:x", "70000", ":1", None, 5],
)
def test_malformed_or_reserved_noderef_is_refused(names: Names, noderef: Any) -> None:
    with pytest.raises(InvalidNoderefError):
        resolve_node(noderef, names)


def test_component_at_fault_is_named(names: Names) -> None:
    with pytest.raises(InvalidNoderefError) as caught:
        resolve_node("one:7,host:70000", names)
    assert caught.value.component == "host:70000"
    assert names.asked == [], "nobody is asked for a noderef that is malformed elsewhere"


def test_endpoint_of_a_bind_is_not_looked_up_as_a_service(names: Names) -> None:
    assert str(resolve_endpoint(parse_endpoint("one"), names)) == "10.0.0.1:4040"
    assert names.asked == ["one"]
