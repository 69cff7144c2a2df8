# SPDX-License-Identifier: MIT
"""The reference of the ``aemp`` command and its manual page say what the commands themselves do."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import click
import pytest

from aemp_command.group import aemp
from aemp_command.table import COMMANDS
from tests.cli.helpers import ROOT
from tests.docs.test_console_pages import PAGES

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


LINES = sorted(
    {
        (str(page.relative_to(DOCS)), line)
        for page in DOCS.rglob("*.md")
        if page.name not in {*PAGES, "aemp.md"}  # which are typed, mistakes and all
        for line in re.findall(r"^(?:\$ |  )(aemp [^\n]+)$|`(aemp [a-z][^`…]*)`", page.read_text(), re.MULTILINE)
        for line in line
        if line
    }
)


@pytest.mark.parametrize(("page", "line"), LINES)
def test_whatever_a_page_has_typed_is_a_command_line(page: str, line: str) -> None:
    line = re.split(r" [<>|&]| 2>", line)[0].replace("COMMAND ", "")
    words = shlex.split(line)[1:]
    root = aemp.make_context("aemp", words, help_option_names=["--help"])
    left = (
        [*root.protected_args, *root.args] if not hasattr(root, "_protected_args") else root._protected_args + root.args
    )
    parent, group = root, aemp
    while left:
        name, command, left = group.resolve_command(parent, left)
        assert name is not None
        if line.count(" ") == 1 or left == ["--help"]:
            return  # the command's name alone, in the middle of a text
        if isinstance(command, click.Group):
            parent, group = click.Context(command, parent=root, info_name=name), command
            continue
        chained = {"allow_extra_args": True, "allow_interspersed_args": False} if aemp.chain else {}
        context = command.make_context(name, left, parent=parent, resilient_parsing=False, **chained)
        left = context.args


def test_pages_have_commands() -> None:
    assert len(LINES) > 50


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_is_one_that_groff_understands(writer: ModuleType) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", writer.MANUAL], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    plain = re.sub(r"\x1b\[\d*m|.\x08", "", done.stdout)
    assert "aemp gensecret profile server setbinds '*:4040'" in re.sub(r"\s+", " ", plain)
