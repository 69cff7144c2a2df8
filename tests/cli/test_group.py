# SPDX-License-Identifier: MIT
"""The command itself: what it lists, how fast it starts, and its errors for wrong usage."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

import aemp_gevent
from aemp_command.group import Commands, aemp, run_command
from aemp_command.table import COMMANDS, SECTIONS
from aemp_gevent.errors import ListenError, NoSecretError
from tests.cli.helpers import AEMP, Command, environment
from tests.cli.helpers import aemp as run_aemp
from tests.support import preloaded

START_SECONDS = 0.25


def fresh(home: Path, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own, whose imports nobody measures."""
    env = {name: value for name, value in environment(home).items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", program, *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_where_the_table_says_and_explains_itself(name: str) -> None:
    context = click.Context(aemp)
    command = aemp.get_command(context, name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help, "its docstring"
    assert command.help.splitlines()[0].endswith((".", ":"))
    line = COMMANDS[name].line
    assert line.endswith(".")
    assert len(line) <= 80
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter


def test_each_module_is_named_after_its_command_or_the_heading_of_several() -> None:
    others = {"gencert": "ca", "showprofile": "show", "showconfig": "show"}
    for heading, entries in SECTIONS.items():
        for name, entry in entries.items():
            names = {name.replace("-", "_"), heading.lower().replace(" ", "_"), others.get(name)}
            assert entry.where.partition(":")[0] in names, name


def test_help_lists_all_commands_by_section(command: Command) -> None:
    shown = command("--help").out
    for section, entries in SECTIONS.items():
        assert not entries or f"\n{section}:\n" in shown
    for name, entry in COMMANDS.items():
        assert f"\n  {name} " in shown
        assert entry.line.split()[0] in shown


def test_without_a_command_it_shows_the_help(command: Command) -> None:
    assert command().out == command("--help").out
    assert command("ca").out == command("ca", "--help").out


@pytest.mark.slow
def test_help_starts_in_a_quarter_of_a_second(home: Path) -> None:
    program = "from aemp_command import main; main()"
    seconds = []
    for _ in range(5):
        begin = cpu_seconds()
        assert fresh(home, program, "--help").stdout.startswith("Usage: aemp")
        seconds.append(cpu_seconds() - begin)
    # Of the processor, of which others on this machine have their share; and of the best run.
    assert min(seconds) < START_SECONDS, seconds


def cpu_seconds() -> float:
    """Return how long processes that have ended have run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_imports_nothing_that_takes_long(home: Path) -> None:
    program = """
import sys
from aemp_command.group import run_command
run_command(["--help"])
found = {name.partition(".")[0] for name in sys.modules} & {"aemp_gevent", "gevent", "rich", "dns", "cryptography"}
print(sorted(found), file=sys.stderr)
"""
    assert fresh(home, program).stderr == "[]\n"


def test_the_library_does_not_import_the_command(home: Path) -> None:
    program = (
        "import sys, aemp_gevent; print([name for name in sys.modules if 'cli' in name.split('.') or name == 'click'])"
    )
    assert fresh(home, program).stdout == "[]\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_in_one_line_what_to_install(home: Path, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None\nfrom aemp_command import main; main()"
    done = fresh(home, program)
    assert done.returncode == 1
    assert done.stderr == (
        "aemp: the command needs click and rich, which are not installed: "
        "run pip install '.[cli]' in a clone of aemp_gevent\n"
    )


WRONG = [
    (["rnu"], "aemp: there is no command 'rnu'; did you mean 'run'?"),
    (["wurstbrot"], "aemp: there is no command 'wurstbrot'; 'aemp --help' lists them"),
    (["--hepl"], "aemp: there is no option '--hepl'; did you mean '--help'?"),
    (["run", "--nodeit", "x"], "aemp run: there is no option '--nodeit'; did you mean '--nodeid'?"),
    (["run", "--xyzzy"], "aemp run: there is no option '--xyzzy'; --help lists them"),
    ([""], "aemp: there is no command ''; 'aemp --help' lists them"),
    (["ping", "x", "--timeout", "nan"], "aemp ping: Invalid value for '--timeout': nan is not a number of seconds."),
    (["ping", "x", "-i", "inf"], "aemp ping: Invalid value for '-i' / '--interval': inf is not a number of seconds."),
    (["top", "--interval", "x"], "aemp top: Invalid value for '--interval': 'x' is not a valid number of seconds."),
    (["nodes", "--secret-file", "none"], "aemp nodes: --secret-file none: No such file or directory"),
    (["showconfig", "--jso"], "aemp showconfig: there is no option '--jso'; did you mean '--json'?"),
    (["setnodeid", "x", "gensecert"], "aemp: there is no command 'gensecert'; did you mean 'gensecret'?"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_input_is_one_line_with_the_nearest_command(command: Command, words: list[str], line: str) -> None:
    assert command.refused(*words) == line + "\n"


def test_errors_of_nodes_are_one_line_with_the_right_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: Exception = NoSecretError()

    def fail() -> None:
        raise wrong

    monkeypatch.setattr(Commands, "get_command", lambda *_args: click.Command("failing", callback=fail))
    said = command("run", code=2).err
    assert said.startswith("aemp: neither a secret nor a certificate is set: run 'aemp gensecret'")
    assert said.count("\n") == 1
    assert "secret=" not in said  # as a program passes it
    wrong = ListenError("x:1", "in use")
    assert command("run", code=1).err.startswith("aemp: cannot listen on x:1: in use;")
    wrong = KeyboardInterrupt()  # type: ignore[assignment]
    assert "Traceback" not in command("run", code=130).err
    wrong = ValueError("a mistake of ours")
    with pytest.raises(ValueError, match="a mistake of ours"):
        run_command(["run"])


@pytest.mark.slow
@pytest.mark.parametrize("args", [("showconfig",), ("showconfig", "--json"), ("--help",)], ids=" ".join)
def test_output_that_has_no_room_is_an_error_in_a_line(home: Path, args: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        done = preloaded.run(
            [*AEMP, *args], env=environment(home), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "aemp: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize("args", [("showconfig",), ("showconfig", "--json"), ("gensecret",)], ids=" ".join)
def test_output_that_nobody_wants_is_not_an_error(home: Path, args: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&-', "sh", *AEMP, *args],
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_version(command: Command) -> None:
    kind = "compiled" if aemp_gevent.is_compiled else "pure Python"
    assert command("--version").out == f"aemp {aemp_gevent.__version__} ({kind})\n"


def completed(home: Path, *words: str) -> list[str]:
    """What a shell would offer for the last word."""
    done = preloaded.run(
        [*AEMP],
        env=environment(
            home, _AEMP_COMPLETE="bash_complete", COMP_WORDS=" ".join(("aemp", *words)), COMP_CWORD=str(len(words))
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.slow
def test_shells_can_complete_commands_and_options(home: Path) -> None:
    assert completed(home, "gense") == ["gensecret"]
    assert completed(home, "run", "--he") == ["--health-port", "--help"]
    assert completed(home, "gensecret", "setb") == ["setbinds"]
    assert completed(home, "profile", "w") == []
    (home / "config.json").write_text('{"profiles": {"web": {}, "worker": {}, "hub": {}}}')
    assert completed(home, "profile", "w") == ["web", "worker"]
    assert completed(home, "run", "h") == ["hub"]
    assert completed(home, "set", "monitor") == ["monitor_timeout"]
    assert "_AEMP_COMPLETE=bash_complete" in run_aemp(home, env={"_AEMP_COMPLETE": "bash_source"}).stdout
