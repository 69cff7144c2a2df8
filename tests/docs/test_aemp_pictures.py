# SPDX-License-Identifier: MIT
"""The pictures of ``aemp top`` and ``aemp trace`` are what the commands would draw."""

from __future__ import annotations

import re
import runpy

from aemp_gevent.cli.trace import draw_svg, edges_of
from tests.support.networking import ROOT

PICTURES = runpy.run_path(str(ROOT / "docs" / "aemp_pictures.py"))
REMEDY = "run python docs/aemp_pictures.py"


def test_picture_of_the_network_is_up_to_date() -> None:
    met = PICTURES["network"]()
    assert PICTURES["NETWORK"].read_text() == draw_svg(met, edges_of(met)), REMEDY


def test_picture_of_the_screen_says_what_the_screen_would() -> None:
    """Only that: how a terminal is drawn differs from one release of rich to another."""

    def texts(picture: str) -> list[str]:
        return re.findall(r">([^<>]+)</text>", picture)

    assert texts(PICTURES["SCREEN"].read_text()) == texts(PICTURES["screen"]()), REMEDY
