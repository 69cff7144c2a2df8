# SPDX-License-Identifier: MIT
"""What the page *A network from the command line* has recorded happens again, apart from times and the like."""

from __future__ import annotations

import html
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import ROOT
from tests.support.networking import free_address

SESSION = runpy.run_path(str(ROOT / "docs" / "aemp_session.py"))
REMEDY = "run python docs/aemp_session.py"


def steady(text: str) -> str:
    """A text without what differs from run to run: times, counts, process and port IDs, and the width of columns."""
    text = re.sub(r"^\[\d\][+-]? +Done .*\n", "", text, flags=re.MULTILINE)  # bash says so at one prompt or the next
    text = re.sub(r"#\w{8,}", "#ID", text)
    text = re.sub(r"\d[\d,.:-]*", "0", text)
    # The most significant units of a duration, and the padding of columns.
    text = re.sub(r"\b0m 0s", "0s", text)
    return re.sub(r"[ \xa0]+", " ", text)


def texts(picture: str) -> str:
    """The text of a picture, line by line, without its colours."""
    found = re.findall(r'<text [^>]*\by="([\d.]+)"[^>]*>([^<>]*)</text>', picture)
    lines: dict[str, str] = {}
    for height, text in found:
        lines[height] = lines.get(height, "") + html.unescape(text) + " "
    return steady("\n".join(" ".join(line.split()) for line in lines.values()))


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder whose name is no longer than that of the recording: tables have the terminal's width."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="a") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_page_matches_a_new_recording(home: Path) -> None:
    tools = home / "bin"
    tools.mkdir()
    (tools / "aemp").write_text(f"#!{sys.executable}\nfrom aemp_command import main\nmain()\n")
    (tools / "aemp").chmod(0o700)
    page = SESSION["PAGE"].read_text()
    shell = SESSION["Shell"](home, str(tools), PYTHONPATH=str(ROOT))
    try:
        recorded, pictures = SESSION["record"](shell, page, free_address(), installing=False)
    finally:
        shell.close()
    assert steady(recorded.replace(str(home), "/home/you")) == steady(page), REMEDY
    assert len(pictures) == 2
    for name, picture in pictures.items():
        assert texts(picture) == texts((SESSION["FOLDER"] / name).read_text()), REMEDY


def test_page_shows_what_the_installation_says() -> None:
    (shown,) = re.findall(r"^\$ pip install .*\n…\n(.*)$", SESSION["PAGE"].read_text(), re.MULTILINE)
    assert shown.startswith("Successfully installed ")
    assert {"aemp-gevent", "gevent", "click", "rich"} <= {word.rpartition("-")[0] for word in shown.split()}
