# SPDX-License-Identifier: MIT
"""The grammar of IDs."""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent import ids
from aemp_gevent.errors import InvalidNoderefError, InvalidPortError
from aemp_gevent.ids import Endpoint
from aemp_gevent.quoting import quoted
from tests.settling import PortLike

# --- unique names -------------------------------------------------------------


def test_uniqs_are_short_alphanumeric_and_all_different():
    words = {ids.new_uniq() for _ in range(2000)}
    assert len(words) == 2000
    assert {len(word) for word in words} == {10}
    assert set("".join(words)) <= set(string.ascii_letters + string.digits)


@pytest.mark.parametrize(
    "name", ["echo", "distributed", "coordinated", "1234567890ab", "ABCDEFGHIJ0", "aB3dE6gH9k", "a.3dE6gH9kf", ""]
)
def test_given_names_are_not_taken_for_unique_ones(name: str) -> None:
    assert not ids.is_unique_name(name)


def test_names_made_here_are_unique_ones() -> None:
    for _ in range(300):
        new = ids.port_names(ids.new_uniq())
        assert all(ids.is_unique_name(new()) for _ in range(20))


def test_port_names_never_repeat_and_carry_their_uniq():
    new_name = ids.port_names("uniq")
    names = [new_name() for _ in range(5000)]
    assert len(set(names)) == 5000
    assert all(name.startswith("uniq") for name in names)


def test_port_names_of_two_processes_differ_even_at_the_same_count():
    one, other = ids.port_names(ids.new_uniq()), ids.port_names(ids.new_uniq())
    assert {one() for _ in range(500)}.isdisjoint({other() for _ in range(500)})


# --- port IDs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "parts"),
    [
        pytest.param("anon/x#p1", ("anon/x", "p1"), id="private-node"),
        pytest.param("1.2.3.4:4040#p", ("1.2.3.4:4040", "p"), id="public-node"),
        pytest.param("[::1]:4040#p", ("[::1]:4040", "p"), id="ipv6"),
        pytest.param("1.2.3.4:1,[::1]:2#p", ("1.2.3.4:1,[::1]:2", "p"), id="two-endpoints"),
        pytest.param("unix:/run/x.sock#p", ("unix:/run/x.sock", "p"), id="unix"),
        pytest.param("slave/w@1.2.3.4:1!5.6.7.8:2#p", ("slave/w@1.2.3.4:1!5.6.7.8:2", "p"), id="slave"),
        pytest.param("shop/east.1-a_b#p", ("shop/east.1-a_b", "p"), id="named-node"),
        pytest.param("shop:x#p", ("shop:x", "p"), id="named-node-with-colon"),
        pytest.param("shop#", ("shop", ""), id="empty-name-is-the-node-port"),
        pytest.param("shop", ("shop", ""), id="node-ID-is-its-node-port"),
        pytest.param("shop#a#b", ("shop", "a#b"), id="first-hash-splits"),
        pytest.param(PortLike("shop#a"), ("shop", "a"), id="object"),
        pytest.param("k\xe4se/1+2{€}#p", ("k\xe4se/1+2{€}", "p"), id="odd-node-of-another-program"),
        pytest.param("shop#p q", ("shop", "p q"), id="blank-in-name"),
    ],
)
def test_port_ids_split_into_node_and_name(port, parts):
    assert ids.split_port(port) == parts
    assert ids.node_of(port) == parts[0]


@pytest.mark.parametrize(
    ("port", "why"),
    [
        pytest.param("", "it has no node part", id="empty"),
        pytest.param("#p", "it has no node part", id="no-node"),
        pytest.param(None, "it has no node part", id="None"),
        pytest.param("shop #p", "blanks or unprintable", id="blank-in-node"),
        pytest.param(PortLike("shop#p q"), "blanks or unprintable", id="object-with-a-blank"),
        pytest.param(PortLike("k\xe4se#p"), "is not a port ID", id="object-of-an-odd-node"),
        pytest.param("shop#p\n", "blanks or unprintable", id="newline"),
        pytest.param("shop\x00#p", "blanks or unprintable", id="nul"),
        pytest.param(print, "blanks or unprintable", id="built-in-function"),
        pytest.param(lambda: None, r"it is a function; call an @actor to get its port", id="function"),
        pytest.param(object(), "blanks or unprintable", id="object"),
        pytest.param("localhost:4040#p", r"resolve_node\(\)", id="host-name"),
        pytest.param("1.2.3.4:99999#p", "the port number 99999 is out of range 1-65535", id="port-too-large"),
        pytest.param(
            "1.2.3.4:" + "9" * 900 + "#p", "port number 99999999999999999[9]*… is out of range", id="port-far-too-large"
        ),
        pytest.param("host:0#p", "the port number 0 is out of range 1-65535", id="port-0-of-a-name"),
        pytest.param("1.2.3.4:0#p", "the port number 0 is out of range 1-65535", id="port-0"),
        pytest.param("1.2.3.4:4040,[::1]:70000#p", "the port number 70000 is out of range", id="port-of-the-second"),
        pytest.param("1.2.3.4:04040#p", r"resolve_node\(\)", id="port-spelt-unusually"),
        pytest.param("1.2.3.4:1,localhost:2#p", r"resolve_node\(\)", id="second-is-a-host-name"),
        pytest.param("localhost:1,shop#p", r"resolve_node\(\)", id="last-has-no-port"),
        pytest.param(b"shop#p", "is not a port ID", id="bytes"),
        pytest.param(["shop"], "is not a port ID", id="list"),
        pytest.param("slave/@#p", "is not a port ID", id="slave-of-nobody"),
    ],
)
@pytest.mark.parametrize("call", [ids.split_port, ids.node_of])
def test_what_is_no_port_id_is_refused_with_the_remedy(call, port, why):
    with pytest.raises(InvalidPortError, match=why) as caught:
        call(port)
    assert caught.value.port is port
    assert quoted(port) in str(caught.value)
    assert "as returned by port(), spawn() and SELF()" in str(caught.value)


@given(st.text() | st.from_regex(r"[a-z0-9.,:\[\]!@#/%]{0,40}", fullmatch=True))
def test_any_text_is_split_or_refused_as_documented(text):
    try:
        node, name = ids.split_port(text)
    except InvalidPortError:
        return
    assert node
    assert text in (f"{node}#{name}", node)


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.lists(st.text()))
def test_anything_is_split_or_refused_as_documented(port):
    try:
        node, _ = ids.split_port(port)
    except InvalidPortError:
        return
    assert str(port).startswith(node)


# --- endpoints ----------------------------------------------------------------

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
    assert ids.parse_endpoint(component) == endpoint
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
def test_what_names_no_endpoint_is_refused_with_the_remedy(component, why):
    with pytest.raises(InvalidNoderefError, match=why) as caught:
        ids.parse_endpoint(component)
    assert caught.value.component == component
    assert "write 'host:port'" in str(caught.value)


@given(ENDPOINTS)
def test_the_text_of_an_endpoint_parses_back(endpoint):
    assert ids.parse_endpoint(str(endpoint)) == endpoint


@given(st.text() | st.from_regex(r"[a-z0-9.:\[\]%/]{0,30}", fullmatch=True))
def test_any_component_parses_or_is_refused_as_documented(text):
    try:
        endpoint = ids.parse_endpoint(text)
    except InvalidNoderefError:
        return
    if endpoint.host != "unix":
        assert ids.parse_endpoint(str(endpoint)) == endpoint


@given(NUMERIC)
def test_numeric_endpoints_say_so(endpoint):
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
    assert len(ids.endpoints(noderef)) == count
    assert ids.is_resolved(noderef) is bool(count)


@given(st.lists(NUMERIC, min_size=1, max_size=4))
def test_resolved_noderefs_keep_their_endpoints_in_order_and_are_node_ids(found):
    noderef = ",".join(map(str, found))
    assert ids.endpoints(noderef) == tuple(found)
    assert ids.split_port(f"{noderef}#p") == (noderef, "p")
    assert ids.check_node_name(noderef) == noderef


@given(st.text())
def test_any_text_is_resolved_or_not_without_an_error(text):
    assert ids.is_resolved(text) in (True, False)


@pytest.mark.parametrize("name", ["shop", "shop/east-1.a_b:c", "a:1b", "1.2.3.4:4040", "[::1]:1", "unix:/a b"])
def test_good_node_names_are_returned_unchanged(name):
    assert ids.check_node_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("anon/x", "are reserved", id="anon"),
        pytest.param("slave/x@y", "are reserved", id="slave"),
        pytest.param("", "consists of letters, digits", id="empty"),
        pytest.param("sh\xf6p", "consists of letters, digits", id="not-ascii"),
        pytest.param("a b", "consists of letters, digits", id="blank"),
        pytest.param("a\n", "consists of letters, digits", id="newline"),
        pytest.param("a#b", "consists of letters, digits", id="hash"),
        pytest.param("localhost:4040", "must not end in ':' and digits", id="unresolved"),
        pytest.param(b"shop", "a node ID must be a string", id="bytes"),
        pytest.param(None, "a node ID must be a string", id="None"),
    ],
)
def test_bad_node_names_are_refused_with_the_remedy(name, why):
    with pytest.raises(InvalidNoderefError, match=why):
        ids.check_node_name(name)


@given(st.text())
def test_any_node_name_is_good_or_refused_as_documented(text):
    try:
        assert ids.check_node_name(text) == text
    except InvalidNoderefError:
        return


@pytest.mark.parametrize(
    ("node", "master"),
    [
        pytest.param("slave/x@1.2.3.4:5", "1.2.3.4:5", id="one-endpoint"),
        pytest.param("slave/x@1.2.3.4:5![::1]:6", "1.2.3.4:5,[::1]:6", id="several"),
        pytest.param("slave/a/b.c:1@backend", "backend", id="named-master"),
        pytest.param("slave/x@unix:/run/node.sock", "unix:/run/node.sock", id="unix"),
    ],
)
def test_slaves_id_has_its_masters(node: str, master: str) -> None:
    assert ids.master_of(node) == master
    assert ids.slave_id(node.partition("/")[2].partition("@")[0], master) == node
    assert ids.is_node_id(node)


@pytest.mark.parametrize(
    "node", ["1.2.3.4:5", "backend", "slave/", "slave/x", "slave/@m", "slave/x@", "slave/x@m\n", ""]
)
def test_others_have_no_master(node: str) -> None:
    assert ids.master_of(node) is None


@pytest.mark.parametrize("master", ["unix:/run/a+b", "a!b", "x" * 3000, ""])
def test_some_nodes_cannot_have_slaves(master: str) -> None:
    with pytest.raises(InvalidNoderefError, match="cannot have slaves"):
        ids.slave_id("x", master)


def test_slave_without_a_name_gets_one_of_its_own() -> None:
    assert ids.slave_name("slave/x") == "x"
    assert len({ids.slave_name("slave/") for _ in range(10)}) == 10
