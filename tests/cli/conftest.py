# SPDX-License-Identifier: MIT
"""A home of one's own for each test: no settings, and no profile file but the one that the test makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import Command
from tests.cli.networks import Network, running_network


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where ``config.json`` is the profile file."""
    for name in [name for name in os.environ if name.startswith("AEMP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AEMP_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""
    return Command(home, capsys)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three nodes that run, for all tests of a module."""
    with running_network(tmp_path_factory.mktemp("network")) as running:
        yield running
