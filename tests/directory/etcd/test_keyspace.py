# SPDX-License-Identifier: MIT
"""The keys and values in etcd: what is written can be read back, and the rest is skipped."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.directory.etcd import keyspace
from aemp_gevent.directory.etcd.keyspace import Keyspace, StoredValue
from aemp_gevent.settings.directory_address import EtcdAddress
from tests.directory.etcd.observers import WAIT, Make
from tests.support.etcd_server import EtcdServer, needs_etcd
from tests.support.helpers import wait_until

ODD = ["", "/", "a/b", "ä€😀", "%2F", "..", "\udc80", "x" * 300, "'l", "\0"]
KEYS = Keyspace("/prefix", "node")
TEXTS = st.text(st.characters())  # with lone surrogates


@given(TEXTS, TEXTS, TEXTS)
def test_every_key_names_its_entry_and_lies_in_the_range_of_its_family(family: str, key: str, owner: str) -> None:
    path = KEYS.key(family, key, owner)
    assert KEYS.place(path) == (key, owner)
    begin, end = KEYS.range(family)
    assert begin <= path < end


@given(TEXTS, TEXTS, TEXTS)
def test_ranges_of_families_do_not_overlap(family: str, other: str, key: str) -> None:
    begin, end = KEYS.range(family)
    assert (begin <= KEYS.key(other, key) < end) == (family == other)


@given(st.binary())
def test_any_bytes_are_a_value_or_are_skipped(text: bytes) -> None:
    value = KEYS.value(b"/prefix/db/f/k/o", text)
    assert value is None or value.encoded == text
    assert KEYS.value(b"path", KEYS.encode([text])) == StoredValue(KEYS.encode([text]), text)


@needs_etcd
@pytest.mark.slow
def test_any_text_can_be_a_family_key_or_owner(address: EtcdAddress, make: Make) -> None:
    family = "f/ä%\udcff"
    a = make(address, "no/de ä", **{family: {key: key + "!" for key in ODD if key != "\udc80"}})
    b = make(address, "b")
    b.engine.watch(family)
    b.engine.watch("f")
    b.wait(family, {key: key + "!" for key in ODD if key != "\udc80"})
    a.own[family]["\udc80"] = 1
    a.engine.publish(family, {"\udc80": 1}, ())
    wait_until(lambda: "\udc80" in b.copies[family], within=WAIT)
    assert b.copies["f"] == {}


@needs_etcd
@pytest.mark.slow
def test_families_of_many_pages_are_read_at_one_revision(
    address: EtcdAddress, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "_PAGE", 7)
    many = {f"k{number}": number for number in range(100)}
    make(address, "a", f=many)
    b = make(address, "b")
    wait_until(lambda: b.asked("family", "f") == many, within=WAIT)
    b.engine.watch("f")
    b.wait("f", many)
    assert b.steps == [("whole", many)]


@needs_etcd
@pytest.mark.slow
def test_keys_and_values_of_other_programs_are_skipped_with_one_log_line(
    address: EtcdAddress, make: Make, lasting: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    b = make(address, "b", f={"good": 1})
    garbage = {"f/x": b"1", "f/x/y/z": b"1", "f/k/o": b"\xc1", "f/k/p": b"\x91", "f/k/q": b"\x92\x01\x02", "f/k/r": b""}
    garbage |= {"f/%FF/o": b"\x91\x01", "f/k/s": b"\x91\x01\x91\x01", "f/k/t": b"\x91\xc7\x01\x05\x00"}
    with caplog.at_level(logging.WARNING):
        for key, value in garbage.items():
            lasting.put(f"{address.prefix}/db/{key}", value)
        b.engine.watch("f")
        b.wait("f", {"good": 1})
        assert b.asked("family", "f") == {"good": 1}
        for key, value in garbage.items():
            lasting.delete(f"{address.prefix}/db/{key}")
            lasting.put(f"{address.prefix}/db/{key}", value)
        b.set("f", better=2)
        b.wait("f", {"good": 1, "better": 2})
    assert len([record for record in caplog.records if "skipped" in record.message]) == 1
