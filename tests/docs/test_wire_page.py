# SPDX-License-Identifier: MIT
"""The page about the wire has every request that is understood, and a picture of the handshake as it is."""

from __future__ import annotations

import runpy

from aemp_gevent.node.requests import Requests
from aemp_gevent.wire.handshake_states import TRANSITIONS, Refused, State
from aemp_gevent.wire.vocabulary import DIRECTORY
from tests.support.networking import ROOT

PAGE = (ROOT / "docs" / "reference" / "wire.md").read_text()
DIAGRAM = runpy.run_path(str(ROOT / "docs" / "handshake_diagram.py"))


def test_page_has_a_row_for_every_request():
    rows = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    of_links = {"after", "refused", "idle", "stay", "via_up", "via_down"}
    for request in {*Requests._TABLE, *of_links, *DIRECTORY}:
        wanted = f"`{request}`" if request else '`""`'
        assert wanted in rows or f'"{request}"' in rows, request


def test_picture_of_the_handshake_is_up_to_date():
    assert DIAGRAM["PICTURE"].read_text() == DIAGRAM["draw"](), "run .venv/bin/python docs/handshake_diagram.py"


def test_picture_has_every_state_and_every_move():
    picture = DIAGRAM["draw"]()
    for state, moves in TRANSITIONS.items():
        assert f">{state.name}</text>" in picture
        for move in moves:
            assert move is Refused or f">{move.__name__}</text>" in picture
    assert picture.count("stroke-dasharray") == sum(Refused in moves for moves in TRANSITIONS.values())
    assert set(DIAGRAM["places"]()) == set(State)


def test_states_do_not_hide_each_other():
    places = list(DIAGRAM["places"]().values())
    assert len(set(places)) == len(places)
