# SPDX-License-Identifier: MIT
"""Write the reference page of the ``aemp`` command, and its manual page. A test checks that they are up to date.

Both come from the commands themselves: their docstrings, parameters and examples. Text about
all commands is here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from aemp_command.group import aemp
from aemp_command.table import SECTIONS
from aemp_gevent.cli.command_node import NodeOptions, node_options

FOLDER = Path(__file__).parent
PAGE = FOLDER / "reference" / "cli.md"
MANUAL = FOLDER / "aemp.1"

WRITTEN = "written by docs/command_reference.py"

# Backquotes mark what users type. A single line break becomes a blank.
ABOUT = """
## Description

`aemp` is the tool for operators: it sets nodes up, runs them, sends messages to their ports, and shows what they do.
The commands have the names of AnyEvent::MP's `aemp`. `aemp --help` lists them, and `aemp COMMAND --help` describes
one. To install it, run `pip install '.[cli]'` in a clone of aemp_gevent.

**You can write several set-up commands** on one command line; each takes as many arguments as it needs: `aemp
gensecret profile server setbinds '*:4040'`. They change the settings for all profiles in the profile file or, behind
`profile NAME`, those of that profile. All of them are checked first. Then the file is written once, and the former
file is kept beside it as `config.json~`. If one of them is wrong, nothing is written. As with AnyEvent::MP, you can
leave out `set`: `binds '*:4040'` is `setbinds '*:4040'`.

**Arguments that are messages** are JSON if they look like JSON: numbers, `true`, `false`, `null`, and everything that
begins with `[`, `{` or `"`. All else is text. Write arguments that begin with a minus sign behind `--`.

**Output** is for people: tables, and colours on a terminal. For scripts, use `--json` where a command has it.

## Exit codes

0: done. 1: not done, because another node or port is missing, or refused. 2: the command line, or a setting, is
wrong; one line on the standard error output explains it. 130: interrupted by Ctrl-C.

## Files

`~/.config/aemp/config.json`, or the file that `AEMP_CONFIG` names: the profile file, with mode 0600. (On macOS
`~/Library/Application Support/aemp/config.json`.) `.config.json.lock` beside it keeps two `aemp` from changing it at
once.

`~/.config/aemp/ca/`: the CA's key and certificate.

## Environment

`AEMP_CONFIG`: the profile file. `AEMP_PROFILE`: the profile that is taken when none is named. `AEMP_NODEID`,
`AEMP_SECRET`, and so on: any setting; it takes precedence over the profile's. `NO_COLOR`: no colours.

## Shell completion

bash: put `eval "$(_AEMP_COMPLETE=bash_source aemp)"` into `~/.bashrc`. zsh: `eval "$(_AEMP_COMPLETE=zsh_source
aemp)"` into `~/.zshrc`. fish: `_AEMP_COMPLETE=fish_source aemp | source` into `~/.config/fish/completions/aemp.fish`.
"""


def about() -> dict[str, list[str]]:
    """Return the paragraphs about all commands, by section."""
    found: dict[str, list[str]] = {}
    for block in ABOUT.strip().split("\n\n"):
        if block.startswith("## "):
            paragraphs = found.setdefault(block.removeprefix("## "), [])
        else:
            paragraphs.append(block.replace("\n", " "))
    return found


@click.command()
@node_options
def _node(options: NodeOptions) -> None:
    """Only for its options."""


NODE_OPTIONS = [parameter for parameter in _node.params if isinstance(parameter, click.Option)]

NODE_TITLE = "Options of a node"
AS_A_NODE = (
    "Commands that talk to the network are nodes of it while they run; their IDs begin with aemp/. Their settings "
    "come from a profile and from the environment, as for any node; but they listen nowhere, and start no services. "
    "They link to the profile's seeds or, if it has none, to the node that the profile describes. All of them have "
    "these options:"
)
POINTER = f"And those under {NODE_TITLE}."


class Described(NamedTuple):
    """A command, as both pages have it.

    Attributes:
        name: What follows ``aemp``.
        usage: The whole line.
        text: Paragraphs.
        options: Each with what it does.
        is_node: Whether it is a node of the network, and has the options of all that are.
        examples: Command lines.
    """

    name: str
    usage: str
    text: list[str]
    options: list[tuple[str, str]]
    is_node: bool
    examples: list[str]


def described(command: click.Command, name: str) -> Iterator[Described]:
    """Yield a command, or those below it if it is a group."""
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from described(each, f"{name} {below}")
        return
    options = _options(command)
    usage = " ".join(["aemp", name, *(["[OPTIONS]"] if options else []), *map(_argument, _arguments(command))])
    is_node = {option.name for option in NODE_OPTIONS} <= {option.name for option in options}
    if is_node:
        named = {option.name for option in NODE_OPTIONS}
        options = [option for option in options if option.name not in named]
    examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    text = [re.sub(r"\s+", " ", paragraph) for paragraph in inspect.cleandoc(command.help or "").split("\n\n")]
    yield Described(name, usage, text, _explained(options), is_node, examples)


def _explained(options: list[click.Option]) -> list[tuple[str, str]]:
    return [(_option(option), _meaning(option)) for option in options]


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _arguments(command: click.Command) -> list[click.Argument]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").upper().strip("[]")
    return (name if argument.required else f"[{name}]") + ("…" if argument.nargs != 1 else "")


def _option(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ", ".join([*option.opts, *option.secondary_opts])
    if option.metavar:
        value = option.metavar
    elif isinstance(option.type, click.Choice):
        value = "|".join(map(str, option.type.choices))
    else:
        value = {"directory": "FOLDER", "file": "FILE", "path": "FILE", "filename": "FILE"}.get(
            option.type.name, option.type.name.upper()
        )
    return f"{', '.join(option.opts)} {value}"


def _meaning(option: click.Option) -> str:
    default = f" Default: {option.default}." if option.show_default and option.default is not None else ""
    return (option.help or "") + default


def sections() -> Iterator[tuple[str, list[Described]]]:
    """Yield each section with its commands."""
    context = click.Context(aemp)
    for section, entries in SECTIONS.items():
        found: list[Described] = []
        for name in entries:
            command = aemp.get_command(context, name)
            assert command is not None, name
            found += described(command, name)
        if found:
            yield section, found


# --- Markdown ----------------------------------------------------------------------------


def page() -> str:
    """Return the reference page."""
    lines = [f"<!-- {WRITTEN} -->", "", "# The aemp command", ""]
    for title, paragraphs in about().items():
        lines += [f"## {title}", ""] if title != "Description" else []
        for paragraph in paragraphs:
            lines += [paragraph, ""]
    for section, commands in sections():
        lines += [f"## {section}", ""]
        for each in commands:
            lines += [f"### {each.name}", "", "```text", each.usage, "```", ""]
            for paragraph in each.text:
                lines += [_escaped(paragraph), ""]
            lines += _definitions(each.options)
            if each.is_node:
                lines += [POINTER.replace(NODE_TITLE, f"[{NODE_TITLE}](#{NODE_TITLE.lower().replace(' ', '-')})"), ""]
            if each.examples:
                lines += ["```console", *(f"$ {line}" for line in each.examples), "```", ""]
    lines += [f"## {NODE_TITLE}", "", AS_A_NODE, "", *_definitions(_explained(NODE_OPTIONS))]
    return "\n".join(lines).rstrip() + "\n"


def _definitions(options: list[tuple[str, str]]) -> list[str]:
    return [line for option, meaning in options for line in (f"`{option}`", f": {_escaped(meaning)}", "")]


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]{}$~|])", r"\\\1", text)


# --- roff --------------------------------------------------------------------------------


def manual() -> str:
    """Return the manual page; see man(7)."""
    lines = [
        f'.\\" {WRITTEN}',
        '.TH AEMP 1 "" aemp_gevent "User Commands"',
        ".SH NAME",
        "aemp \\- set up, run, ask and watch nodes that send messages to each other's ports",
        ".SH SYNOPSIS",
        ".B aemp",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".br",
        ".B aemp",
        ".I SET-UP-COMMAND ARGUMENTS SET-UP-COMMAND ARGUMENTS",
        "\\&...",
    ]
    general = {title: [_marked(paragraph) for paragraph in paragraphs] for title, paragraphs in about().items()}
    lines += _section("DESCRIPTION", general.pop("Description"))
    for section, commands in sections():
        lines.append(f".SH {section.upper()}")
        for each in commands:
            lines += [f".SS {_roff(each.usage)}"]
            for paragraph in each.text:
                lines += [".PP", _roff(paragraph)]
            lines += _tagged(each.options)
            if each.is_node:
                lines += [".PP", _roff(POINTER)]
            if each.examples:
                lines += [".PP", "Examples:", ".PP", ".RS 4", ".nf", *map(_roff, each.examples), ".fi", ".RE"]
    lines += [*_section(NODE_TITLE.upper(), [_roff(AS_A_NODE)]), *_tagged(_explained(NODE_OPTIONS))]
    for title, paragraphs in general.items():
        lines += _section(title.upper(), paragraphs)
    return "\n".join(lines) + "\n"


def _tagged(options: list[tuple[str, str]]) -> list[str]:
    return [line for option, meaning in options for line in (".TP", f"\\fB{_roff(option)}\\fR", _roff(meaning))]


def _section(title: str, paragraphs: list[str]) -> list[str]:
    lines = [f".SH {title}"]
    for paragraph in paragraphs:
        lines += [".PP", paragraph]
    return lines


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace("`", "\\(ga").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _marked(text: str) -> str:
    """Return a paragraph of ABOUT in roff: what is typed, and what is stressed, in bold."""
    pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    return "".join(
        f"\\fB{_roff(piece.strip('`*'))}\\fR" if piece[:1] in {"`", "*"} else _roff(piece) for piece in pieces
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    MANUAL.write_text(manual())
