# SPDX-License-Identifier: MIT
"""The page that maps Erlang's test cases to ours names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "otp-checklist.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_test_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / "tests" / "otp" / file).read_text()


def test_each_case_has_a_test_or_a_reason() -> None:
    rows = re.findall(r"^\| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    cases = [(case, covered) for case, covered in rows if case not in ("case", "---")]
    assert len(cases) > 50
    assert [case for case, covered in cases if "`test_" not in covered and "does not apply" not in covered] == []
