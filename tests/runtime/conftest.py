# SPDX-License-Identifier: MIT
"""The node to which programs that fork are linked."""

from __future__ import annotations

import pytest

from tests.support.forking import Server


@pytest.fixture
def server(make_node, tmp_path):
    return Server(make_node, tmp_path)
