# SPDX-License-Identifier: MIT
"""Type checkers help those who use the library: they find mistakes in a program, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.given import ConfigureSettings
from tests.support.networking import ROOT

PROGRAM = Path(__file__).parent / "user_program.py"
WRONG = [number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# error")]


def mypy(cache: Path) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "mypy", "--output=json", "--config-file=", "--python-version=3.12", "--strict"]
    # The library's own errors are for `make types`.
    options = ["--follow-imports=silent", f"--cache-dir={cache}", str(PROGRAM)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_mypy_finds_the_mistakes_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    found = mypy(tmp_path)
    assert sorted({error["line"] for error in found}) == WRONG, found


@pytest.mark.slow
def test_pyright_finds_the_mistakes_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.12", "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    (tmp_path / PROGRAM.name).write_text(PROGRAM.read_text())
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = [error for error in json.loads(done.stdout)["generalDiagnostics"] if error["severity"] == "error"]
    assert sorted({error["range"]["start"]["line"] + 1 for error in found}) == WRONG, found


def test_the_settings_that_a_call_may_give_are_those_that_there_are() -> None:
    assert set(ConfigureSettings.__annotations__) == {field.name for field in fields(Settings)}
