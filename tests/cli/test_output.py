# SPDX-License-Identifier: MIT
"""Values on the command line, tables and JSON."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from aemp_command.group import run_command
from aemp_gevent import cli
from aemp_gevent.cli.arguments import parse_value
from aemp_gevent.cli.output import complain, echo, print_json, print_json_line, print_table
from aemp_gevent.cli.set_up import gensecret
from aemp_gevent.errors import InvalidPortError

ROWS = [{"node": "one", "ports": 3, "more": [1]}, {"node": "[red]two[/red]\x1b[1m", "ports": 12, "more": None}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello", "hello"),
        ("", ""),
        ("12", 12),
        ("-1.5e3", -1500.0),
        ("007", "007"),
        ("1.", "1."),
        ("-", "-"),
        ("true", True),
        ("null", None),
        ("True", "True"),
        ("NaN", "NaN"),
        ('"12"', "12"),
        ("[1, null]", [1, None]),
        ('{"a": {}}', {"a": {}}),
        ("127.0.0.1:4040#port", "127.0.0.1:4040#port"),
    ],
)
def test_text_means(text: str, value: Any) -> None:
    found = parse_value(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["[1", '{"a"}', '"open'])
def test_broken_json_is_not_text(text: str) -> None:
    with pytest.raises(ValueError, match="to give a text, write"):
        parse_value(text)


def test_rows_become_a_table_without_colours_or_tricks(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, ("node", "ports"))
    assert capsys.readouterr().out == (
        "node                   ports\n"
        "one                        3\n"
        "[red]two[/red]\\x1b[1m     12\n"
    )  # fmt: skip


def test_rows_become_json_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, ("node",), as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_nothing_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], ("node",), empty="no nodes")
    assert capsys.readouterr().out == "no nodes\n"
    print_table([], ("node",), as_json=True, empty="no nodes")
    assert capsys.readouterr().out == "[]\n"


def test_what_json_cannot_say_is_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": b"\x00"})
    assert json.loads(capsys.readouterr().out) == {"b": "b'\\x00'"}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        pytest.param({b"key": 1, (2,): {3: 4}}, {"b'key'": 1, "(2,)": {"3": 4}}, id="keys"),
        pytest.param([float("nan"), -float("inf"), 0.5], ["nan", "-inf", 0.5], id="no numbers"),
        pytest.param(["\udc80", "ü"], ["\udc80", "ü"], id="half characters"),
    ],
)
def test_json_is_json_whatever_another_node_says(
    capsys: pytest.CaptureFixture[str], value: object, read: object
) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    print_json(value)
    print_json_line(value)
    print_table([{"column": value}], ("column",))
    *lines, _title, cell = capsys.readouterr().out.splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [read, read]
    assert cell


def test_colours_on_a_terminal_only_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    from aemp_gevent.cli import output

    for variables, expected in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with monkeypatch.context() as patch:
            for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
                patch.delenv(name, raising=False)
            patch.setenv("TERM", "xterm-256color")
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdout.isatty", lambda: True)
            printer = output.console()
            with printer.capture() as captured:
                printer.print("text", style="red")
            assert ("\x1b[31m" in captured.get()) is expected, variables


@pytest.mark.parametrize("is_terminal", [True, False])
def test_json_holds_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    """Controls beyond ASCII, marks of direction and lone surrogates have escapes in JSON, too."""
    value = {"a\x9b31m": ["\u202eabc\x7f", "half \ud800 of a pair", "\U000e0001", "äöü 😀", "\n"]}
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    print_json(value)
    said = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in said)
    assert json.loads(said) == value
    assert "äöü 😀" in said


EVIL = "\x1b[2J\nERROR forged\u202e\x9b\x07"
HARMLESS = r"\x1b[2J\nERROR forged\u202e\x9b\x07"


@pytest.mark.parametrize(
    "say", [echo, complain, lambda text: echo(text, err=True), lambda text: print_table([], (), empty=text)]
)
def test_messages_do_nothing_to_the_terminal(say: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a peer said {EVIL}")
    said = capsys.readouterr()
    assert (said.out + said.err).removeprefix("aemp: ") == f"a peer said {HARMLESS}\n"


@pytest.mark.parametrize("error", [click.ClickException(EVIL), click.UsageError(EVIL), InvalidPortError("x", EVIL)])
def test_error_of_a_command_does_nothing_to_the_terminal(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_arguments: object) -> None:
        raise error

    monkeypatch.setattr(gensecret, "callback", fails)
    assert run_command(["gensecret"]) != 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.isprintable() or said.err.rstrip("\n").isprintable()
    assert "ERROR forged" in said.err


WAYS_TO_A_TERMINAL = {"echo", "secho", "echo_via_pager", "print", "show", "print_exc", "print_exception", "write"}
TAKEN = {
    "bench": ["show(min(passed, seconds), f'{count / passed:,.0f}/s')"],  # a bar
    "log": ["self._console.print(line, soft_wrap=True)"],  # a Text, of printable() parts
    "private_files": ["file.write(text)"],
    "readiness": ["self._file.write(node_id)"],
    "top": ["console().print(draw(sample, view))", "_Screen(sampler, interval, view).show()"],  # printable() cells
    "tree": ["printer.print(drawn)"],  # _text() makes all of it printable
    "trace": ["picture.write(draw_svg(met, edges))", "console().print(draw_tree(met, edges))"],  # printable() labels
}
"""What else commands print and write, by module."""


def test_commands_print_through_one_function() -> None:
    """``click.echo`` and the exceptions of click print a text as it is, with what a peer put into it."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(cli.__file__).parent.glob("*.py")):
        if path.stem == "output":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="echo")):  # output.echo(): nothing else of this name is imported
                    pass
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in WAYS_TO_A_TERMINAL:
                    found.setdefault(path.stem, []).append(ast.unparse(node))
                case ast.ImportFrom(module="click" | "click.utils", names=names):
                    assert not WAYS_TO_A_TERMINAL & {each.name for each in names}, path
    assert found == TAKEN
