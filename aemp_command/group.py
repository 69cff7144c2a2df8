# SPDX-License-Identifier: MIT
"""The group of all commands: it finds and runs a command, and reports errors in one line."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from aemp_command.examples import EXAMPLES
from aemp_command.table import COMMANDS, SECTIONS, SET_UP

WRONG_INPUT = 2
FAILED = 1
INTERRUPTED = 130


class Group(click.Group):
    """A group that suggests the nearest command for a misspelt one, with any version of click."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"'{ctx.command_path} --help' lists them"
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


class Commands(Group):
    """All commands, each imported when it is needed.

    Commands of the section *Set up* can follow one another; each takes as many arguments as it needs.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The group's own options are all flags, so the first word that is not an option is the command.
        first = next((arg for arg in args if not arg.startswith("-")), "")
        self.chain = _full_name(first) in SECTIONS[SET_UP]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SECTIONS[SET_UP] if self.chain else COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(_full_name(cmd_name))
        if entry is None:
            return None
        module, _, name = entry.where.partition(":")
        command: click.Command = getattr(import_module(f"aemp_gevent.cli.{module}"), name)
        command.short_help = entry.line
        _add_examples(command, _full_name(cmd_name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = _full_name(args[0])
        if self.chain and name in COMMANDS and name not in SECTIONS[SET_UP]:
            ctx.fail(f"{name!r} cannot follow a set-up command; run it separately")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, entries in SECTIONS.items():
            if entries:
                with formatter.section(section):
                    formatter.write_dl([(name, entry.line) for name, entry in entries.items()])


def _add_examples(command: click.Command, path: str) -> None:
    """Add examples to the end of the help of a command and of its subcommands."""
    if path in EXAMPLES:
        # \b keeps click from rewrapping these lines.
        command.epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[path])])
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            _add_examples(below, f"{path} {name}")


def _full_name(word: str) -> str:
    """Return the full name of a command: ``setbinds`` can be written ``binds``, as with AnyEvent::MP."""
    return f"set{word}" if word and word not in COMMANDS and f"set{word}" in COMMANDS else word


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        library = import_module("aemp_gevent")
        click.echo(f"aemp {library.__version__} ({'compiled' if library.is_compiled else 'pure Python'})")
        ctx.exit()


@click.group(
    cls=Commands,
    name="aemp",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run 'aemp COMMAND --help' for details of a command.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def aemp() -> None:
    """Set up, run, inspect and watch nodes: processes that send messages to each other's ports."""


@aemp.result_callback()
@click.pass_context
def _finish(ctx: click.Context, _results: object) -> None:
    """Write the changes of all commands of a chain together."""
    if aemp.chain:
        import_module("aemp_gevent.cli.set_up").finish(ctx)


def run_command(args: Sequence[str] | None = None) -> int:
    """Run a command line (None: the program's arguments), and return its exit code."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        result: Any = aemp.main(words or ["--help"], prog_name="aemp", standalone_mode=False)
    except click.ClickException as error:
        if error.__class__.__name__ == "NoArgsIsHelpError":  # which click has from 8.2 on
            click.echo(error.format_message())
            return 0
        is_wrong = isinstance(error, (click.UsageError, click.FileError))
        return _complain(error, WRONG_INPUT if is_wrong else error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        # Not imported here, which would take long: if it is not imported yet, this cannot be one of its errors.
        errors = sys.modules.get("aemp_gevent.errors")
        if errors is not None and isinstance(error, errors.AempError):
            return _complain(error, WRONG_INPUT if isinstance(error, errors.UsageError) else FAILED)
        if not isinstance(error, OSError):
            raise
        # Otherwise Python would try again at exit to print what could not be printed, and fail again.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return _complain(click.ClickException(where + (error.strerror or str(error))), FAILED)
    # An int is the exit code of Context.exit(); other results of commands are ignored.
    return result if isinstance(result, int) else 0


# Users of the command cannot do what these errors advise programmers to do.
_OF_A_COMMAND = {
    "NoSecretError": (
        "neither a secret nor a certificate is set: run 'aemp gensecret' to make the secret of a new network, or "
        "'aemp setsecret - < FILE' to use that of an existing one; or give --secret-file FILE, or set AEMP_SECRET"
    ),
}
"""The command's own texts for some errors, by class."""


def _complain(error: Exception, code: int) -> int:
    if isinstance(error, click.NoSuchOption):
        # Worded like the error for commands; click's wording differs from version to version.
        nearest = error.possibilities
        text = f"there is no option {error.option_name!r}; " + (
            f"did you mean {nearest[0]!r}?" if nearest else "--help lists them"
        )
    else:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        text = _OF_A_COMMAND.get(type(error).__name__, text).removeprefix("the call: ")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "aemp"
    # Part of it may come from another node, and must not control the terminal.
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    click.echo(f"{path}: {line}", err=True)
    return code
