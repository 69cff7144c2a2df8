# SPDX-License-Identifier: MIT
"""Endpoints, and the noderefs that consist of them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of, is_resolved, parse_endpoint
from aemp_gevent.errors import InvalidNoderefError

SCOPE = st.from_regex(r"%[a-z0-9]{1,8}", fullmatch=True) | st.just("")
HOST_NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,30}", fullmatch=True).filter(lambda host: host != "unix")
TCP_PORTS = st.integers(1, 0xFFFF)
NUMERIC_HOSTS = st.ip_addresses().map(str) | st.builds(lambda ip, scope: f"{ip}{scope}", st.ip_addresses(v=6), SCOPE)
UNIX_PATHS = st.from_regex(r"/[A-Za-z0-9_./-]{0,30}", fullmatch=True)
NUMERIC = st.builds(Endpoint, NUMERIC_HOSTS, TCP_PORTS, st.just("")) | st.builds(
    lambda path: Endpoint("", 0, path), UNIX_PATHS
)
ENDPOINTS = NUMERIC | st.builds(Endpoint, HOST_NAMES, TCP_PORTS, st.just(""))


@pytest.mark.parametrize(
    ("component", "endpoint", "text"),
    [
        pytest.param("host:1", Endpoint("host", 1), "host:1", id="host-and-port"),
        pytest.param("host", Endpoint("host", 4040), "host:4040", id="host"),
        pytest.param("a-b_c.example.org", Endpoint("a-b_c.example.org", 4040), "a-b_c.example.org:4040", id="dots"),
        pytest.param("1.2.3.4", Endpoint("1.2.3.4", 4040), "1.2.3.4:4040", id="ipv4"),
        pytest.param("1.2.3.4:0", Endpoint("1.2.3.4", 0), "1.2.3.4:0", id="smallest-port"),
        pytest.param("1.2.3.4:65535", Endpoint("1.2.3.4", 65535), "1.2.3.4:65535", id="largest-port"),
        pytest.param("[::1]", Endpoint("::1", 4040), "[::1]:4040", id="ipv6"),
        pytest.param("[0:0:0:0:0:0:0:1]:7", Endpoint("::1", 7), "[::1]:7", id="ipv6-is-shortened"),
        pytest.param("[FE80::A]:7", Endpoint("fe80::a", 7), "[fe80::a]:7", id="ipv6-is-lower-case"),
        pytest.param("unix:/a/b", Endpoint("", 0, "/a/b"), "unix:/a/b", id="unix"),
    ],
)
def test_components_name_endpoints(component, endpoint, text):
    assert parse_endpoint(component) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("component", "why"),
    [
        pytest.param("", "is not a host name", id="empty-is-this-host-and-not-ours"),
        pytest.param(":4040", "is not a host name", id="port-without-host"),
        pytest.param("ho st:1", "is not a host name", id="blank"),
        pytest.param("h\xf6st", "is not a host name", id="not-ascii"),
        pytest.param("a/b", "is not a host name", id="slash"),
        pytest.param("host:", "is not a port number", id="empty-port"),
        pytest.param("host:x", "is not a port number", id="port-of-letters"),
        pytest.param("host:-1", "is not a port number", id="negative-port"),
        pytest.param("host:\u0663", "is not a port number", id="arabic-digit"),
        pytest.param("host:65536", "the port number 65536 is out of range 0-65535", id="port-too-large"),
        pytest.param("host:" + "9" * 5000, "the port number 9+… is out of range", id="port-far-too-large"),
        pytest.param("::1", "needs brackets", id="ipv6-without-brackets"),
        pytest.param("[::1", "brackets hold no IPv6", id="bracket-left-open"),
        pytest.param("[::1]4040", "brackets hold no IPv6", id="no-colon-after-bracket"),
        pytest.param("[]:1", "cannot be", id="empty-brackets"),
        pytest.param("[1.2.3.4]:1", "cannot be", id="ipv4-in-brackets"),
        pytest.param("[::1]:", "is not a port number", id="ipv6-empty-port"),
        pytest.param("unix:", "needs an absolute path", id="unix-without-path"),
        pytest.param("unix:a/b", "needs an absolute path", id="unix-relative"),
    ],
)
def test_a_text_that_is_not_an_endpoint_is_refused_with_the_remedy(component, why):
    with pytest.raises(InvalidNoderefError, match=why) as caught:
        parse_endpoint(component)
    assert caught.value.component == component
    assert "write 'host:port'" in str(caught.value)


@given(ENDPOINTS)
def test_the_text_of_an_endpoint_parses_back(endpoint):
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.text() | st.from_regex(r"[a-z0-9.:\[\]%/]{0,30}", fullmatch=True))
def test_any_component_parses_or_is_refused_as_documented(text):
    try:
        endpoint = parse_endpoint(text)
    except InvalidNoderefError:
        return
    if endpoint.host != "unix":
        assert parse_endpoint(str(endpoint)) == endpoint


@given(NUMERIC)
def test_numeric_endpoints_are_known_as_such(endpoint):
    assert endpoint.is_numeric


@given(HOST_NAMES, TCP_PORTS)
def test_host_names_are_numeric_only_when_they_are_addresses(host, port):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        assert not Endpoint(host, port).is_numeric
    else:
        assert Endpoint(host, port).is_numeric


# --- noderefs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("noderef", "count"),
    [
        pytest.param("1.2.3.4:4040", 1, id="ipv4"),
        pytest.param("[::1]:4040", 1, id="ipv6"),
        pytest.param("unix:/a", 1, id="unix"),
        pytest.param("1.2.3.4:1,[::1]:2,unix:/a", 3, id="several"),
        pytest.param("", 0, id="empty"),
        pytest.param("1.2.3.4", 0, id="port-left-out"),
        pytest.param("[::1]", 0, id="ipv6-port-left-out"),
        pytest.param("[0::1]:1", 0, id="ipv6-not-as-we-write-it"),
        pytest.param("4040", 0, id="bare-number"),
        pytest.param("localhost:4040", 0, id="host-name"),
        pytest.param("1.2.3.4:1,", 0, id="empty-component"),
        pytest.param("1.2.3.4:1,localhost:1", 0, id="one-host-name"),
        pytest.param("anon/x", 0, id="private-node"),
        pytest.param("slave/w@1.2.3.4:1", 0, id="slave"),
    ],
)
def test_only_noderefs_that_can_be_dialled_as_they_stand_are_resolved(noderef, count):
    assert len(endpoints_of(noderef)) == count
    assert is_resolved(noderef) is bool(count)


@given(st.lists(NUMERIC, min_size=1, max_size=4))
def test_resolved_noderefs_keep_their_endpoints_in_order_and_are_node_ids(found):
    noderef = ",".join(map(str, found))
    assert endpoints_of(noderef) == tuple(found)
    assert ids.split_port(f"{noderef}#p") == (noderef, "p")
    assert ids.check_node_name(noderef) == noderef


@given(st.text())
def test_any_text_is_resolved_or_not_without_an_error(text):
    assert is_resolved(text) in (True, False)
