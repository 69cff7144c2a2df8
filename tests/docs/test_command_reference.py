# SPDX-License-Identifier: MIT
"""The reference of the ``aemp`` command and its manual page say what the commands themselves do."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import click
import pytest

from aemp_command.group import aemp
from aemp_command.table import COMMANDS
from tests.cli.helpers import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = spec_from_file_location("command_reference", DOCS / "command_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_are_up_to_date(writer: ModuleType) -> None:
    remedy = "run python docs/command_reference.py"
    assert writer.PAGE.read_text() == writer.page(), remedy
    assert writer.MANUAL.read_text() == writer.manual(), remedy


def test_they_have_all_commands_options_and_arguments(writer: ModuleType) -> None:
    page, manual = writer.page(), writer.manual().replace("\\-", "-")
    context = click.Context(aemp)
    common = page.partition(f"\n## {writer.NODE_TITLE}\n")[2]
    assert "--secret-file" in common
    for name in COMMANDS:
        command = aemp.get_command(context, name)
        below = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, each in below.items():
            full = f"{name} {sub}".strip()
            assert f"\n### {full}\n" in page
            assert re.search(rf"^\.SS aemp {re.escape(full)}\b", manual, re.MULTILINE)
            section = page.partition(f"\n### {full}\n")[2].partition("\n### ")[0]
            for parameter in each.params:
                if isinstance(parameter, click.Option):
                    if writer.NODE_TITLE in section:
                        section += common
                    assert all(option in section and option in manual for option in parameter.opts), full
                    assert parameter.help is not None


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_is_one_that_groff_understands(writer: ModuleType) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", writer.MANUAL], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    plain = re.sub(r"\x1b\[\d*m|.\x08", "", done.stdout)
    assert "aemp gensecret profile server setbinds '*:4040'" in re.sub(r"\s+", " ", plain)
