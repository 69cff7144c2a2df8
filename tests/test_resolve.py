# SPDX-License-Identifier: MIT
"""Noderefs to resolved noderefs. A look-up of the test's own stands in for the resolver."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

import aemp_gevent.resolve
from aemp_gevent.errors import InvalidNoderefError, ResolveError
from aemp_gevent.resolve import resolve_node

HOSTS: dict[str, list[str]] = {
    "one": ["10.0.0.1"],
    "both": ["fe80::1%eth0", "2001:db8::1", "10.0.0.2"],
    "six": ["2001:db8::6"],
    "link": ["fe80::1%eth0"],
    "none": [],
    "here": ["127.0.0.1", "10.9.9.9"],
    "lonely": ["127.0.1.1"],
}


def lookup(host: str, port: object, **kwargs: Any) -> list[tuple[Any, ...]]:
    if host not in HOSTS:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(0, 0, 0, "", (address, 0)) for address in HOSTS[host]]


@pytest.mark.parametrize(
    ("noderef", "resolved"),
    [
        pytest.param("1.2.3.4:5", "1.2.3.4:5", id="numeric"),
        pytest.param("[2001:DB8::1]:5", "[2001:db8::1]:5", id="numeric-v6"),
        pytest.param("1.2.3.4", "1.2.3.4:4040", id="numeric-without-port"),
        pytest.param("[::1]", "[::1]:4040", id="v6-without-port"),
        pytest.param("unix:/tmp/x", "unix:/tmp/x", id="unix"),
        pytest.param("one:7", "10.0.0.1:7", id="name"),
        pytest.param("one", "10.0.0.1:4040", id="name-without-port"),
        pytest.param("both:7", "10.0.0.2:7", id="v4-first"),
        pytest.param("six:7", "[2001:db8::6]:7", id="v6-only"),
        pytest.param("one:7,1.1.1.1:2, six:3", "10.0.0.1:7,1.1.1.1:2,[2001:db8::6]:3", id="several-in-order"),
        pytest.param("one:7,10.0.0.1:7,one:8", "10.0.0.1:7,10.0.0.1:8", id="duplicates"),
    ],
)
def test_noderef_is_resolved(noderef: str, resolved: str) -> None:
    assert resolve_node(noderef, lookup=lookup) == resolved


@pytest.mark.parametrize(
    ("noderef", "resolved"), [("", "10.9.9.9:4040"), ("4041", "10.9.9.9:4041"), ("0,", "10.9.9.9:0,10.9.9.9:4040")]
)
def test_empty_component_and_bare_number_mean_this_host(
    monkeypatch: pytest.MonkeyPatch, noderef: str, resolved: str
) -> None:
    monkeypatch.setattr(aemp_gevent.resolve.std_socket, "gethostname", lambda: "here")
    assert resolve_node(noderef, lookup=lookup) == resolved


@pytest.mark.parametrize(("name", "address"), [("lonely", "127.0.1.1"), ("unknown", "127.0.0.1")])
def test_host_without_routable_address_is_loopback_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, address: str
) -> None:
    monkeypatch.setattr(aemp_gevent.resolve.std_socket, "gethostname", lambda: name)
    monkeypatch.setattr(aemp_gevent.resolve, "_interface_addresses", list)
    assert resolve_node("", lookup=lookup) == f"{address}:4040"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert repr(name) in caplog.text


def test_host_whose_name_is_loopback_is_reached_by_its_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.resolve.std_socket, "gethostname", lambda: "lonely")
    monkeypatch.setattr(aemp_gevent.resolve, "_interface_addresses", lambda: ["10.1.2.3"])
    assert resolve_node("", lookup=lookup) == "10.1.2.3:4040"


def test_interface_is_found_without_sending_anything() -> None:
    for address in aemp_gevent.resolve._interface_addresses():
        assert not ipaddress.ip_address(address).is_loopback


@pytest.mark.parametrize("noderef", ["²", "4" * 5000, "unix:/a\0b", "65536", "1.2.3.4:99999"])
def test_what_looks_like_a_number_or_path_and_is_none_is_refused(noderef: str) -> None:
    with pytest.raises(InvalidNoderefError):
        resolve_node(noderef, lookup=lookup)


@pytest.mark.parametrize(
    ("noderef", "named"),
    [
        ("nobody:1", "nobody:1"),
        ("one:1,nobody:2", "nobody:2"),
        ("none", "none:4040"),
        ("link:1", "link:1"),
    ],
)
def test_name_without_address_is_named(noderef: str, named: str) -> None:
    with pytest.raises(ResolveError) as caught:
        resolve_node(noderef, lookup=lookup)
    assert caught.value.component == named
    assert repr(named) in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 70, "a..b", ".a"])
def test_name_that_no_resolver_takes_is_named(name: str) -> None:
    """Python's own encoder of host names raises a UnicodeError, before any resolver is asked."""
    with pytest.raises(ResolveError) as caught:
        resolve_node(f"{name}:1")
    assert caught.value.component == f"{name}:1"


@pytest.mark.parametrize(
    "noderef",
    ["anon/x", "slave/x", "host:70000", "host:x", "a b:1", "1:2:3", "[::1", "[zz]:1", "unix:x", "70000", ":1", None, 5],
)
def test_malformed_or_reserved_noderef_is_refused(noderef: Any) -> None:
    with pytest.raises(InvalidNoderefError):
        resolve_node(noderef, lookup=lookup)


def test_real_resolver_knows_localhost() -> None:
    assert resolve_node("localhost:1") == "127.0.0.1:1"


def test_default_lookup_is_cooperative() -> None:
    default: Callable[..., Any] = resolve_node.__kwdefaults__["lookup"]
    assert default.__module__.startswith("gevent")
