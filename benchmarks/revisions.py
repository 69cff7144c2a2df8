# SPDX-License-Identifier: MIT
"""Another revision of the library, for today's programs to import, so that both are measured in turn."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peer import ROOT

PACKAGE = "aemp_gevent"
BUILD = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
"""What its compiled modules are made with."""


@contextmanager
def checked_out(revision: str) -> Generator[Path, None, None]:
    """Check out the library of a git revision; yield a folder to run today's programs in, which import that library.

    If today's library is compiled, so is that one, unless it is older than compiled modules.

    Raises:
        LookupError: There is no such revision.
    """
    is_compiled: bool = importlib.import_module(PACKAGE).is_compiled
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        archive = folder / "library.tar"
        made = git("archive", f"--output={archive}", revision, "--", PACKAGE, *(BUILD if is_compiled else ()))
        if made.returncode:
            raise LookupError(made.stderr.strip())
        shutil.unpack_archive(archive, folder)
        archive.unlink()
        version = ROOT / PACKAGE / "_version.py"  # made when the package is built, and not in git
        if version.exists():
            shutil.copy(version, folder / PACKAGE)
        if is_compiled:
            build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
            subprocess.run(
                build, cwd=folder, env={**os.environ, "AEMP_PURE_PYTHON": "0"}, check=True, capture_output=True
            )
        (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
        imported = subprocess.run(
            [sys.executable, "-m", "benchmarks.revisions"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(imported).parent.parent.resolve() != folder.resolve():
            raise LookupError(f"{imported} would be imported and not revision {revision}: is PYTHONSAFEPATH set?")
        yield folder


def git(*args: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)


if __name__ == "__main__":  # which library do the programs import in this folder?
    print(importlib.import_module(PACKAGE).__file__)
