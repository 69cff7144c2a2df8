# SPDX-License-Identifier: MIT
"""The files for contributors work: hooks run targets of the Makefile, forms are what code hosts expect."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests.support.networking import ROOT

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_every_hook_runs_a_target_of_the_makefile(hook: dict[str, str]) -> None:
    make, target = hook["entry"].split()
    assert make == "make"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_has_a_name_and_says_what_it_is_for(form) -> None:
    _, head, body = form.read_text().split("---\n", 2)
    assert set(yaml.safe_load(head)) == {"name", "about"}
    assert body.strip()


def test_targets_that_the_guide_lists_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert listed > {"test", "lint"}
    assert listed - targets == set()


def test_slow_tests_that_the_guide_lists_exist() -> None:
    listed = re.findall(r"^\| `(test_\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    modules = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(listed) == 10
    assert [name for name in listed if f"def {name}(" not in modules] == []


def test_paths_that_the_makefile_names_exist() -> None:
    named = re.findall(r"\btests/[\w/]+(?:\.py)?(?![\w/*])", (ROOT / "Makefile").read_text())
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("venv", [".venv", ".venv-3.14", "/elsewhere/venv"])
def test_clean_removes_every_venv_that_make_may_have_made(venv: str) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "clean", f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    removed = re.search(r"^rm -rf (.*)", printed, re.MULTILINE)
    assert removed is not None
    assert {venv, ".venv", ".venv-3.14"} <= set(removed[1].split())
