# SPDX-License-Identifier: MIT
"""Directories whose global nodes die at any step: the copies of those who are left agree; a wrong one is noticed."""

from __future__ import annotations

import os
from typing import Any

import pytest

import soak.directory
from aemp_gevent.directory.embedded.server import DirectoryServer
from soak.directory import SHAPES, run

SEEDS = int(os.environ.get("AEMP_TEST_SEEDS", "12"))
"""How many worlds to try."""


@pytest.mark.slow
def test_copies_agree_although_a_global_node_dies_while_it_tells() -> None:
    """``python -m soak.directory --first SEED --seeds 1`` runs a world again that failed."""
    worlds = run(list(range(SEEDS)), at_once=12)
    assert [str(world) for world in worlds if world.wrong] == []
    assert {world.shape for world in worlds} == set(SHAPES)


@pytest.mark.slow
def test_entry_that_outlives_its_owner_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    drop: Any = DirectoryServer._drop
    monkeypatch.setattr(soak.directory, "HEAL_SECONDS", 1.0)
    monkeypatch.setattr(
        DirectoryServer, "_drop", lambda server, source, guest=None: guest and drop(server, source, guest)
    )
    assert any(world.wrong for world in run(list(range(3)), at_once=3))
