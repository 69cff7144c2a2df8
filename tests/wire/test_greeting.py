# SPDX-License-Identifier: MIT
"""The greeting line, in both directions."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import GreetingError
from aemp_gevent.wire.greeting import MAX_FIELDS, MAX_LIST, Greeting, parse_greeting

PLAIN = Greeting("n", ("hmac_sha3_512",), ("msgpack", "json"))


def with_extras(*extras: tuple[str, str]) -> Greeting:
    return Greeting("n", ("hmac_sha3_512",), ("msgpack", "json"), extras)


@pytest.mark.parametrize(
    ("line", "greeting"),
    [
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json", PLAIN, id="shortest"),
        pytest.param(b"aemp;1;n;;", Greeting("n", (), ()), id="empty-lists"),
        pytest.param(b"aemp;1;n;hmac_sha3_512,;,msgpack,,json", PLAIN, id="empty-elements"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;x=1;y=2", with_extras(("x", "1"), ("y", "2")), id="keys"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;y=2;x=1", with_extras(("y", "2"), ("x", "1")), id="order"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;tls", with_extras(("tls", "")), id="bare-key"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;;", PLAIN, id="empty-pairs"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;x=a=b", with_extras(("x", "a=b")), id="equals-in-value"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;x=%3b%25%3B", with_extras(("x", ";%;")), id="escapes"),
        pytest.param(b"aemp;1;n;hmac_sha3_512;msgpack,json;x=100%", with_extras(("x", "100%")), id="lone-percent"),
        pytest.param("aemp;1;kä;a;b".encode(), Greeting("kä", ("a",), ("b",)), id="utf-8"),
        pytest.param(b"aemp;1;k%c3%a4;a;b", Greeting("kä", ("a",), ("b",)), id="escaped-utf-8"),
        pytest.param(
            b"aemp;1;k\xe4;a;b;provider=AE-2.02", Greeting("kä", ("a",), ("b",), (("provider", "AE-2.02"),)), id="perl"
        ),
        pytest.param(
            "aemp;1;kä;a;b;x=ä;provider=AE-2.02".encode(),
            Greeting("k\xc3\xa4", ("a",), ("b",), (("x", "\xc3\xa4"), ("provider", "AE-2.02"))),
            id="perl-with-utf-8",
        ),
        pytest.param(b"aemp;1;h:1,h:2;a;b", Greeting("h:1,h:2", ("a",), ("b",)), id="comma-in-node"),
    ],
)
def test_a_greeting_is_parsed(line: bytes, greeting: Greeting) -> None:
    assert parse_greeting(line) == greeting


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(b"", "does not speak aemp", id="empty"),
        pytest.param(b"GET / HTTP/1.1", "does not speak aemp", id="http"),
        pytest.param(b"AEMP;1;n;a;b", "does not speak aemp", id="upper-case"),
        pytest.param(b"aemp-dataconn;1;n;a;b", "another protocol on this listener", id="dataconn"),
        pytest.param(b"aemp-dataconn", "another protocol on this listener", id="dataconn-alone"),
        pytest.param(b"aemp;2;n;a;b", "version '2'", id="version"),
        pytest.param(b"aemp;01;n;a;b", "version '01'", id="version-with-zero"),
        pytest.param(b"aemp;1;n;a", "4 fields", id="missing-field"),
        pytest.param(b"aemp;1;;a;b", "no node ID", id="no-node"),
        pytest.param(b"aemp;1;a#b;a;b", "cannot be a node ID", id="port-id-as-node"),
        pytest.param(b"aemp;1;a%0ab;a;b", "cannot be a node ID", id="line-end-in-node"),
        pytest.param(b"aemp;1;\xff;a;b", "not UTF-8", id="not-utf-8"),
        pytest.param(b"aemp;1;n;a;b;x=%ff", "not UTF-8", id="escaped-not-utf-8"),
    ],
)
def test_a_line_that_is_not_a_greeting_is_refused(line: bytes, text: str) -> None:
    with pytest.raises(GreetingError, match=re.escape(text)):
        parse_greeting(line)


def test_characters_that_would_break_the_line_are_escaped() -> None:
    greeting = with_extras(("x", "a;b%c\r\nd"))
    assert greeting.encode() == b"aemp;1;n;hmac_sha3_512;msgpack,json;x=a%3bb%25c%0d%0ad"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nodes = texts.filter(lambda node: bool(node) and "#" not in node and node.isprintable())
words = st.lists(texts.filter(bool), max_size=3).map(tuple)
pairs = st.lists(st.tuples(texts.filter(bool), texts), max_size=4).map(tuple)


@given(st.builds(Greeting, node=nodes, auth_methods=words, framings=words, extras=pairs))
def test_encoded_greetings_are_parsed_back(greeting: Greeting) -> None:
    line = greeting.encode()
    assert b"\n" not in line
    assert b"\r" not in line
    assert parse_greeting(line) == greeting


def test_perls_greeting_is_encoded_as_perl_does() -> None:
    greeting = Greeting("k\xc3\xa4\xe4", ("a",), ("b",), (("provider", "AE-2.02"),))
    assert greeting.encode() == b"aemp;1;k\xc3\xa4\xe4;a;b;provider=AE-2.02"
    assert parse_greeting(greeting.encode()) == greeting


@given(st.binary(max_size=80) | st.binary(max_size=80).map(b"aemp;1;".__add__))
def test_random_bytes_give_a_greeting_or_a_greeting_error(line: bytes) -> None:
    with contextlib.suppress(GreetingError):
        parse_greeting(line)


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_recorded_greeting_is_parsed_and_encoded_again(recording, node: str) -> None:  # type: ignore[no-untyped-def]
    line = getattr(recording, node).line
    greeting = parse_greeting(line)
    assert greeting.node == node
    assert greeting.auth_methods == ("tls_sha3_512", "hmac_sha3_512", "tls_anon", "cleartext")
    assert "json" in greeting.framings or greeting.framings == ("cbor",)
    assert greeting.provider == "AE-2.02"
    assert greeting.extra("mproto") == greeting.extra("gproto") == "1"
    assert greeting.extra("tls") == ("1.0" if "tls" in recording.name else None)
    assert not greeting.is_ours
    assert greeting.encode() == line


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("30", 30.0, id="int"),
        pytest.param("0.5", 0.5, id="float"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="word"),
        pytest.param("nan", None, id="nan"),
        pytest.param("inf", None, id="inf"),
        pytest.param("-3", None, id="negative"),
        pytest.param("0", None, id="zero"),
    ],
)
def test_a_heartbeat_that_is_not_a_positive_number_counts_as_missing(value: str, seconds: float | None) -> None:
    assert with_extras(("heartbeat", value)).heartbeat == seconds


def test_a_greeting_knows_our_own_library() -> None:
    greeting = with_extras(("provider", "aemp_gevent-0.1"), ("uniq", "xyz"))
    assert greeting.is_ours
    assert greeting.uniq == "xyz"
    assert not with_extras(("provider", "aemp_gevent")).is_ours
    assert PLAIN.provider is PLAIN.uniq is PLAIN.heartbeat is None


def test_the_wire_imports_no_network_clock_or_randomness() -> None:
    forbidden = re.compile(r"^\s*(?:import|from)\s+(gevent|socket|ssl|time|random|logging|os|secrets)\b", re.MULTILINE)
    modules = sorted((Path(__file__).parents[2] / "aemp_gevent" / "wire").glob("*.py"))
    assert modules
    assert {module.name: forbidden.findall(module.read_text()) for module in modules} == {
        module.name: [] for module in modules
    }


FIELDS = b"aemp;1;n;m;f"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(FIELDS + b";a" * (MAX_FIELDS - 5), "", id="as-many-fields-as-may-be"),
        pytest.param(FIELDS + b";a" * (MAX_FIELDS - 4), "more than 64 fields", id="one-more"),
        pytest.param(FIELDS + b";" * (MAX_FIELDS - 4), "more than 64 fields", id="one-more-that-is-empty"),
        pytest.param(b"aemp;1;n;" + b",".join([b"m"] * MAX_LIST) + b";f", "", id="as-many-words-as-may-be"),
        pytest.param(b"aemp;1;n;" + b"m," * MAX_LIST + b";f", "more than 64 words", id="one-method-more"),
        pytest.param(b"aemp;1;n;m;" + b"f," * MAX_LIST, "more than 64 words", id="one-framing-more"),
    ],
)
def test_a_line_has_no_more_pieces_than_it_may(line: bytes, text: str) -> None:
    """Each of them is an object, and a byte of the line."""
    if not text:
        parse_greeting(line)
        return
    with pytest.raises(GreetingError, match=text):
        parse_greeting(line)


def test_the_last_of_several_providers_decides_the_charset() -> None:
    line = b"aemp;1;n\xe4;m;f;provider=AE-2.02"
    assert parse_greeting(line).node == "n\xe4"
    assert parse_greeting(b"aemp;1;n;m;f;provider=x;provider=AE-2.02;k=\xe4").extra("k") == "\xe4"
    with pytest.raises(GreetingError, match="not UTF-8"):
        parse_greeting(line + b";provider=aemp_gevent-0")
