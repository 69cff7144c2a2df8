# SPDX-License-Identifier: MIT
"""Which connections may do their handshake, which are dropped, and what counts as one address."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from aemp_gevent.links.admission import Gate, home_of


class Waiting:
    """As much of a link as the gate looks at."""

    def __init__(self, address: str) -> None:
        self.transport = SimpleNamespace(peer_address=address)
        self.closed = self.is_up = False


def admit(gate: Gate, link: Any) -> Any:
    surplus = gate.admit(link)
    return None if surplus is None else surplus[0]


def test_reason_names_the_setting() -> None:
    gate = Gate(3, 2)
    links = [Waiting(f"10.0.0.{host}:1") for host in (1, 1, 1, 2)]
    first, second, own, other = (gate.admit(link) for link in links)  # type: ignore[arg-type]
    assert first is second is None
    assert own is not None
    assert own[1].startswith("too many handshakes are under way from 10.0.0.1, and this one was the oldest")
    assert own[1].endswith("; the limit is max_strangers_per_address=2")
    assert other is not None
    assert other[1].endswith("under way, and this one was the oldest; the limit is max_strangers=3")


def test_oldest_of_an_address_goes_when_there_are_too_many_of_it() -> None:
    gate = Gate(10, 2)
    mine = [Waiting(f"10.0.0.1:{port}") for port in range(3)]
    other = Waiting("10.0.0.2:1")
    assert [admit(gate, link) for link in (other, *mine)] == [None, None, None, mine[0]]


def test_oldest_of_all_goes_when_there_are_too_many() -> None:
    gate = Gate(3, 2)
    links = [Waiting(f"10.0.0.{number}:1") for number in range(4)]
    assert [admit(gate, link) for link in links] == [None, None, None, links[0]]


@pytest.mark.parametrize("how", ["closed", "is_up", "forgotten"])
def test_who_is_in_or_gone_does_not_count(how: str) -> None:
    gate = Gate(2, 2)
    links: list[Any] = [Waiting("10.0.0.1:1") for _ in range(2)]
    assert [admit(gate, link) for link in links] == [None, None]
    if how == "forgotten":
        links.clear()
        gc.collect()
    else:
        setattr(links[0], how, True)
    assert admit(gate, Waiting("10.0.0.1:1")) is None


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1:1", "10.0.0.1:2", True),
        ("10.0.0.1:1", "10.0.0.2:1", False),
        ("[2001:db8::1]:1", "[2001:db8::ffff:2]:1", True),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", False),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1:9", True),
        ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1", False),
        ("[fe80::1%eth0]:1", "[fe80::2%eth1]:1", True),
        ("/run/a.sock", "/run/a.sock", True),
    ],
)
def test_addresses_in_one_assigned_network_count_as_one(one: str, other: str, is_same: bool) -> None:
    assert (home_of(one) == home_of(other)) is is_same
