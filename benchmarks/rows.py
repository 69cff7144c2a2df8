# SPDX-License-Identifier: MIT
"""The rows as data: where each program is, and what was measured *elsewhere* for it.

The references are texts, not numbers, so that nobody computes with them: they come from another day on a machine of the
same kind (2 cores, shared, +-20 %), as medians of 5 with Python 3.11, gevent 26.9, Erlang/OTP 25. Ratios belong to one
run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of the performance table."""

    name: str
    module: str
    work: str
    erlang: str = ""
    goal: str = ""
    floor: str = ""
    """What the pure-Python library of today is to reach at least; "" where nothing was set."""


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            "L1", "l1_local_cb", "200 k messages to one callback port",
            "4.27 M/s", "3.8 M/s", "0.45 of deferred",
        ),
        Row(
            "L2", "l2_local_pingpong", "two callback ports, 100 k round trips",
            "1.48 M/s", "2.0 M/s", "0.8 M/s",
        ),
        Row(
            "L3", "l3_local_recv", "two receive loops, 100 k round trips",
            "1.77 M/s", "1.1 M/s", "0.55 M/s",
        ),
        Row(
            "L4", "l4_ring", "1000 ports, 200 k hops",
            "2.7 M/s", "3.2 M/s", "1.4 M/s callbacks",
        ),
        Row(
            "L5", "l5_create", "100 k idle ports",
            "0.55 M/s, 2767 B", "0.8 M/s, 400 B", "300 B",
        ),
        Row(
            "L6", "l6_kill_mon", "create + monitor + kill + notify, 20 k",
            "0.25 M/s", "0.3 M/s", "0.35 M/s",
        ),
        Row(
            "N1", "n1_net_pingpong", "one outstanding message, 20 k round trips",
            "84 us, 12.4 us one cpu", "84 us, 20 us one cpu", "0.8 of greenlet",
        ),
        Row(
            "N2", "n2_net_oneway", "200 k small messages, then an ack",
            "0.79 M/s", "1.2 M/s", "0.35 of coalesced",
        ),
        Row(
            "N3", "n3_net_bulk", "2 k x 64 KiB, then an ack",
            "2.5 GB/s", "1.7 GB/s", "",
        ),
        Row(
            "N4", "n4_net_rpc100", "100 callers x 500 requests",
            "86 k/s, 188 k/s bare", "130 k/s", "",
        ),
        Row(
            "N5", "n5_net_tls", "200 k small messages inside TLS, then an ack",
            "0.36 M/s", "0.8 M/s", "",
        ),
        Row(
            "N6", "n6_fanout", "1 sender to 1000 ports x 200",
            "0.54 M/s", "0.9 M/s", "",
        ),
        Row("S1", "s1_size", "100 k messages, or 200 MB, of so many bytes each"),
        Row("S2", "s2_ports", "200 k messages to so many ports in turn"),
        Row("S3", "s3_links", "100 k messages to so many nodes in turn"),
        Row("S4", "s4_load", "20 k requests, at this percentage of the possible rate"),
        Row("S5", "s5_beside_bulk", "2 k round trips, alone or beside 1 GB in large ones"),
        Row("M1", "m1_memory", "bytes of each of 100 k ports, or of 100 links"),
    )
}  # fmt: skip
