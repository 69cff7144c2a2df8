# SPDX-License-Identifier: MIT
"""What a distribution holds and says of itself, and how the texts say that it is installed."""

from __future__ import annotations

import email
import re
import runpy
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.networking import ROOT

INSTALLING = runpy.run_path(str(ROOT / "docs" / "installing.py"))
FILES = sorted({text.file for text in INSTALLING["TEXTS"]} | {"setup.cfg"})


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a clone")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("file", FILES)
def test_every_text_says_how_the_package_is_installed_now(file: str) -> None:
    content = (ROOT / file).read_text()
    assert INSTALLING["updated"](file, content) == content, "run python docs/installing.py"
    wanted = "index" if INSTALLING["ON_INDEX"] else "clone"
    for text in INSTALLING["TEXTS"]:
        assert text.file != file or getattr(text, wanted) in content, "docs/installing.py knows another text"


def test_no_other_text_says_how_the_package_is_installed() -> None:
    """Those that do would be forgotten when that changes. What was released, and what was recorded, stays as it was."""
    said = re.compile(r"pip install [^`\n]*(aemp-gevent|'\.\[)")
    others = [
        name
        for name in tracked()
        if name.endswith((".md", ".py", ".1", ".yaml", "Dockerfile"))
        and not name.startswith(("newsfragments/", "tests/"))
        if name not in {*FILES, "docs/installing.py", "CHANGELOG.md"} and said.search((ROOT / name).read_text())
    ]
    # These are written from docs/command_reference.py and from README.md, which are among the files.
    assert set(others) <= {"docs/aemp.1", "docs/reference/cli.md", "docs/index.md"}


def test_all_texts_name_the_same_python_versions() -> None:
    metadata = (ROOT / "setup.cfg").read_text()
    supported = re.findall(r"Python :: (3\.\d+)$", metadata, re.MULTILINE)
    assert f"CPython {supported[0]} to {supported[-1]}" in (ROOT / "README.md").read_text()
    assert f"python_requires = >={supported[0]}" in metadata
    tested = re.findall(r"\bpy3(\d+)\b", (ROOT / "tox.ini").read_text().partition("\n[testenv]")[0])
    assert [f"3.{minor}" for minor in tested] == supported


@pytest.mark.slow
@pytest.mark.skipif(int(version("setuptools").partition(".")[0]) < 77, reason="setuptools knows no licence expressions")
def test_no_text_invents_an_address_of_the_project() -> None:
    """It has no public one yet: once it has, ``docs/installing.py`` says so, and this goes."""
    shown = [name for name in tracked() if name.startswith(("README", "setup.cfg", "docs/", "aemp_", "examples/"))]
    assert len(shown) > 100
    home = re.compile(
        r"https?://[\w.]*(?:github|gitlab|codeberg|sourceforge|pypi|readthedocs)\.[^ )]*aemp", re.IGNORECASE
    )
    assert [name for name in shown if home.search((ROOT / name).read_bytes().decode(errors="replace"))] == []


@pytest.mark.slow
def test_a_source_distribution_has_everything_that_a_clone_has(tmp_path: Path) -> None:
    names = tracked()
    clone = tmp_path / "clone"
    for name in names:
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    program = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=clone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        packed = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
        folder = archive.getnames()[0].partition("/")[0]
        info = archive.extractfile(f"{folder}/PKG-INFO")
        assert info is not None
        metadata = email.message_from_bytes(info.read())
    assert set(names) - packed == set()
    assert metadata["License-Expression"] == "MIT"
    assert not [value for value in metadata.get_all("Classifier", []) if value.startswith("License ::")]
    assert [value.partition(", ")[2] for value in metadata.get_all("Project-URL", [])] == [
        line.partition(" = ")[2] for line in INSTALLING["project_urls"]().splitlines()[1:]
    ]
