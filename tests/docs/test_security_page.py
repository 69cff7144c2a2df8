# SPDX-License-Identifier: MIT
"""The page *Security* names every refusal that is counted, and the limits as they are."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from aemp_gevent.calls import header
from aemp_gevent.directory import local_directory as directory
from aemp_gevent.directory.embedded import screening
from aemp_gevent.directory.embedded import server as directory_server
from aemp_gevent.links import heartbeat, link
from aemp_gevent.node import requests
from aemp_gevent.peers import network
from aemp_gevent.peers import relaying as routes
from aemp_gevent.peers import remote_ports as remote
from aemp_gevent.peers import virtual_peer as virtual
from aemp_gevent.runtime import bounded_log as complaints
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire import cbor_scanner, framing_json, framing_msgpack, greeting, limits, tls
from tests.support.networking import ROOT

PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text()
LIMITS = dict(
    re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.partition("## Limits")[2].partition("\n## ")[0], re.MULTILINE
    )
)


def test_every_refusal_that_is_counted_is_in_the_table() -> None:
    counted: set[str] = set()
    for path in (ROOT / "aemp_gevent").rglob("*.py"):
        counted.update(re.findall(r"(?:refuse|count_refusal|refusals)[(\[]\"(\w+)\"", path.read_text()))
    table = PAGE.partition("### What is counted")[2].partition("\n## ")[0]
    listed = {
        word for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    assert counted == listed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("handshake_timeout", "10 s"),
        ("max_strangers", "64"),
        ("max_strangers_per_address", "32"),
        ("accept_rate", "200 a second"),
        ("max_message_bytes", "64 MiB"),
        ("max_message_elements", "1,000,000"),
        ("max_name_bytes", "1024"),
        ("max_watched_ports", "100,000"),
        ("max_directory_entries", "100,000"),
        ("high_water_bytes", "4 MiB"),
    ],
)
def test_settings_are_in_the_table_with_their_defaults(name: str, text: str) -> None:
    default = {setting.name: setting.default for setting in fields(Settings)}[name]
    number = float(text.split(maxsplit=1)[0].replace(",", "")) * (2**20 if text.endswith("MiB") else 1)
    assert default == number
    row = next(value for key, value in LIMITS.items() if f"`{name}`" in key)
    assert text in row


@pytest.mark.parametrize(
    ("row", "text", "number"),
    [
        ("lines of the handshake", "4096 bytes", greeting.MAX_LINE_BYTES == 4096),
        ("lines of the handshake", "64 fields", greeting.MAX_FIELDS == 64),
        ("bytes until TLS is up", "24 KiB", tls.MAX_HANDSHAKE_BYTES == 24 * 1024),
        ("what a log record begins with", "4096 bytes", requests.MAX_REPLY_BYTES == 4096),
        ("ports that a call lists as waiting", "1,000", header.MAX_CHAIN == 1000),
        ("`snd` requests to the node's own node port, one inside another", "4", requests.MAX_DETOURS == 4),
        ("what all peers have announced and not yet sent", "256 MiB", limits.MAX_ANNOUNCED_BYTES == 256 * 2**20),
        ("what all peers have announced and not yet sent", "256 elements", framing_msgpack._SMALL_LIST == 256),
        ("a message in fragments that its sender does not continue", "60 s", heartbeat.STALLED_TIMEOUTS * 15 == 60),
        ("a message in fragments that its sender does not continue", "four times", heartbeat.STALLED_TIMEOUTS == 4),
        ("keys of one map that are numbers", "4096", limits.MAX_NUMBER_KEYS == 4096),
        ("levels of nesting", "512", framing_json.MAX_NESTING_RECEIVED == cbor_scanner.MAX_NESTING_RECEIVED == 512),
        ("families watched", "10,000", directory_server.MAX_WATCHES == 10_000),
        ("an entry of the directory", "1 MiB", directory.MAX_ENTRY_BYTES == 2**20),
        ("`max_directory_entries`", "64 MiB", screening.MAX_BYTES == 64 * 2**20),
        ("ports of one peer that are remembered", "10,000", remote.MAX_REMOTE_PORTS == 10_000),
        ("ports of one peer that are remembered", "32 if", remote.MAX_VIRTUAL_PORTS == 32),
        ("conversations of slaves that are passed on, for each link", "100,000", routes.MAX_CONVERSATIONS == 100_000),
        ("conversations that wait for a node to be dialled", "10,000", routes.MAX_WAITING == 10_000),
        ("conversations that wait for a node to be dialled", "1,000 nodes", routes.MAX_DIALS == 1000),
        ("virtual links over one link", "10,000", virtual.MAX_RIDERS == 10_000),
        ("requests of one peer handled in a row", "0.1 ms", link.SLICE_SECONDS == 0.0001),
        ("requests of one peer handled in a row", "8 jobs", link.JOBS_AT_ONCE == 8),
        ("nodes remembered without a link", "1,000 beyond", network.UNNEEDED_PEERS == 1000),
        ("nodes remembered without a link", "10,000 with", network.MAX_LOST_PEERS == 10_000),
        ("lines in the log", "100 a minute", complaints.MAX_LINES == 100),
    ],
)
def test_other_limits_are_in_the_table_as_they_are(row: str, text: str, number: bool) -> None:
    assert text in LIMITS[row]
    assert number
