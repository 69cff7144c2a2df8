# SPDX-License-Identifier: MIT
"""python-socketio's own tests of its pub/sub manager, from its source distribution, with our manager."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.networking import ROOT

pytest.importorskip("socketio")

TESTS = "tests/common/test_pubsub_manager.py"


@pytest.fixture
def tests_of_socketio(pytestconfig: pytest.Config, tmp_path: Path) -> Path:
    """The file of python-socketio's tests that belong to the installed version; it is fetched once."""
    name = f"python_socketio-{version('python-socketio')}"
    kept = pytestconfig.cache.mkdir("python-socketio") / f"{name}.py" if pytestconfig.cache else tmp_path / "tests.py"
    if not kept.exists():
        wanted = f"python-socketio=={version('python-socketio')}"
        # Without isolation, because that would install a build system first, only to read the metadata.
        options = ["--no-deps", "--no-build-isolation", "--no-binary", "python-socketio", "--dest", str(tmp_path)]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, wanted]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=120)
        archive = next(tmp_path.glob("*.tar.gz"), None)
        if archive is None:
            pytest.skip(f"python-socketio's source distribution cannot be fetched: {fetched.stderr[-300:]}")
        with tarfile.open(archive) as files:
            found = files.extractfile(f"{name}/{TESTS}")
            assert found is not None
            scratch = tmp_path / "scratch"
            scratch.write_bytes(found.read())
        scratch.replace(kept)  # in one step: other runs may look for it
    tests = tmp_path / "test_pubsub_manager.py"
    tests.write_bytes(kept.read_bytes())
    return tests


@pytest.mark.slow
def test_ours_passes_python_socketios_own_tests(tests_of_socketio: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.contrib.substituted_manager", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tests_of_socketio.parent)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AEMP_CONFIG": os.devnull}
    ran = subprocess.run(
        [*command, str(tests_of_socketio)], capture_output=True, text=True, timeout=120, cwd=ROOT, env=environ
    )
    counts = re.search(r"^(\d+) passed in", ran.stdout, re.MULTILINE)
    assert ran.returncode == 0 and counts is not None, ran.stdout[-3000:] + ran.stderr[-1000:]
    made = re.search(r"^made (\d+) of ours", ran.stdout, re.MULTILINE)
    assert made is not None
    assert int(made[1]) >= int(counts[1]) >= 40, "some did not use ours, or there are fewer than there were"
