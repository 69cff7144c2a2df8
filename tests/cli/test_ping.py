# SPDX-License-Identifier: MIT
"""The figures of ``aemp ping``."""

from __future__ import annotations

import pytest

from aemp_gevent.cli.ping import statistics_of


def test_statistics_are_those_of_ping() -> None:
    assert statistics_of(4, [1.0, 2.0, 3.0]) == {
        "sent": 4,
        "answered": 3,
        "min": 1.0,
        "avg": 2.0,
        "max": 3.0,
        "mdev": pytest.approx((2 / 3) ** 0.5),
    }
    assert statistics_of(1, [0.1])["mdev"] == 0.0
    assert statistics_of(2, []) == {"sent": 2, "answered": 0, "min": None, "avg": None, "max": None, "mdev": None}
