# SPDX-License-Identifier: MIT
"""The crowd of Socket.IO clients notices what its clients' library misses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("socketio")
pytest.importorskip("wsproto")

from tests.support.networking import ROOT


@pytest.mark.parametrize("how", ["error", "close"])
def test_client_notices_the_end_of_its_connection_while_it_writes(how: str) -> None:
    command = [sys.executable, "-m", "tests.soak.missed_end", how]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [None, True], ran.stderr
