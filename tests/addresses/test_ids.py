# SPDX-License-Identifier: MIT
"""The grammar of IDs."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.addresses import ids
from aemp_gevent.errors import InvalidNoderefError, InvalidPortError
from aemp_gevent.runtime.quoting import quoted
from tests.support.settling import PortLike

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


def test_port_names_do_not_end_when_one_could_not_be_made_for_want_of_stack() -> None:
    new_name = ids.port_names("uniq")
    names: list[str] = []

    def at_each_depth() -> None:
        with contextlib.suppress(RecursionError):
            at_each_depth()
        with contextlib.suppress(RecursionError):
            names.append(new_name())

    for _ in range(20):
        at_each_depth()
    names.append(new_name())
    assert len(set(names)) == len(names) > 1000


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
def test_a_value_that_is_not_a_port_id_is_refused_with_the_remedy(call, port, why):
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


# --- node IDs -----------------------------------------------------------------


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
