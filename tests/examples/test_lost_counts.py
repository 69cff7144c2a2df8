# SPDX-License-Identifier: MIT
"""What the reference says about get-then-put, in real servers: it loses counts, and one step at the owner does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from soak.web import EXAMPLES, ROOT

pytest.importorskip("gunicorn.dirty")

pytestmark = pytest.mark.slow

ATTEMPTS = 5
"""The kernel may give all requests of one run to the same worker, which loses nothing then."""


def lost(scratch: Path) -> dict[str, int]:
    """Run the comparison; return how many counts each way has lost."""
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "HOME": str(scratch), "AEMP_CONFIG": os.devnull}
    program = [sys.executable, str(EXAMPLES / "lost_counts" / "compare.py")]
    done = subprocess.run(program, env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^(.+?) +\d+ of 800, (\d+) lost$", done.stdout, re.MULTILINE)
    assert len(found) == len(done.stdout.splitlines()), done.stdout
    return {way: int(number) for way, number in found}


def test_only_ways_in_one_step_lose_nothing() -> None:
    losers = {"stash: get, then put"}
    losers |= {"Redis: GET, then SET"} if shutil.which("redis-server") else set()
    seen: set[str] = set()
    with TemporaryDirectory() as scratch:
        for _ in range(ATTEMPTS):
            counts = lost(Path(scratch))
            seen.update(way for way, number in counts.items() if number)
            assert "Counter.add" in counts and seen <= losers, counts
            if seen == losers:
                return
    assert seen == losers
