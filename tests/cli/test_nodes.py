# SPDX-License-Identifier: MIT
"""The texts in the table of ``aemp nodes``."""

from __future__ import annotations

import pytest

from aemp_gevent.cli.nodes import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (90_061, "1d 1h"), (86_400 * 40, "40d")],
)
def test_durations_are_shown_in_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
