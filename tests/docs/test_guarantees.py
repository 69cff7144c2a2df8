# SPDX-License-Identifier: MIT
"""The pages that promise something name tests that exist, and *Guarantees* the times that the settings have."""

import re
from pathlib import Path

import pytest

from aemp_gevent.settings.fields import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "guarantees.md").read_text()
DIRECTORY_PAGE = (ROOT / "docs" / "explanation" / "directory.md").read_text()
REFERENCE = "".join(
    (ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("topics", "presence", "shared")
)
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE + DIRECTORY_PAGE + REFERENCE)


def test_every_guarantee_has_a_test():
    numbered = re.findall(r"^\| (\d+) \| \[([^]]+)\]", PAGE, re.MULTILINE)
    assert [int(number) for number, _title in numbered] == list(range(1, 12))
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == [title for _number, title in numbered]
    assert len(TESTS) >= len(numbered)


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_named_test_exists(file, name):
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("setting", "value"), re.findall(r"`(\w+)` \((\d+ \w+)\)", PAGE), ids=lambda text: text.replace(" ", "")
)
def test_named_default_is_the_setting(setting, value):
    number, unit = value.split()
    assert getattr(Settings(), setting) == int(number) * {"s": 1, "MiB": 2**20}[unit]
