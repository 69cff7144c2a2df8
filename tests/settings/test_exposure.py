# SPDX-License-Identifier: MIT
"""Files with secrets that others may read are found; those that another owner made for our group are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aemp_gevent.settings.exposure import exposure_of


class Status:
    """What ``os.fstat`` returns."""

    def __init__(self, mode: int, uid: int) -> None:
        self.st_mode = mode
        self.st_uid = uid


@pytest.mark.parametrize(
    ("mode", "is_ours", "is_exposed"),
    [
        pytest.param(0o600, True, False, id="private"),
        pytest.param(0o400, True, False, id="read-only"),
        pytest.param(0o700, True, False, id="executable"),
        pytest.param(0o640, True, True, id="readable-by-the-group"),
        pytest.param(0o620, True, True, id="writable-by-the-group"),
        pytest.param(0o604, True, True, id="readable-by-all"),
        pytest.param(0o644, True, True, id="as-files-are-made"),
        pytest.param(0o440, False, False, id="of-another-owner-for-our-group"),
        pytest.param(0o660, False, True, id="of-another-owner-and-writable"),
        pytest.param(0o444, False, True, id="of-another-owner-for-all"),
    ],
)
def test_who_else_may_read_a_file(mode: int, is_ours: bool, is_exposed: bool) -> None:
    status = Status(0o100000 | mode, os.geteuid() + (not is_ours))
    found = exposure_of(status, "/run/my secret")  # type: ignore[arg-type]
    assert bool(found) == is_exposed
    assert not found or found == f"others may read it (mode {mode:04o}): chmod 600 '/run/my secret'"


def test_pipe_is_not_exposed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    assert exposure_of((tmp_path / "pipe").stat(), "pipe") == ""
