# SPDX-License-Identifier: MIT
"""``aemp shell`` on a terminal, and fed by a script."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from rlcompleter import Completer

import pexpect
import pytest

from tests.cli.networks import PATIENCE, Network
from tests.cli.screens import terminal
from tests.support.helpers import wait_until

pytestmark = pytest.mark.slow

PROMPT = ">>> "


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes without coverage's tracer: with it, an interrupt of what cannot be interrupted ends elsewhere."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def shell(network: Network):
    """Python's own prompt, ready for a statement."""
    with terminal(network, "shell", "--plain") as screen:
        screen.child.expect_exact("Ctrl-D quits.")
        screen.child.expect_exact(PROMPT)
        yield screen.child


def say(shell: pexpect.spawn, statement: str, shown: str) -> None:
    shell.sendline(statement)
    shell.expect_exact("\r\n")  # behind what was typed
    shell.expect(shown)
    shell.expect_exact(PROMPT)


def test_code_runs_in_the_context_of_a_port_that_others_reach(shell: pexpect.spawn, network: Network) -> None:
    say(shell, "call('backend#orders', 'price', 3)", r"15\r\n")
    say(shell, "SELF() == me and node_of(me) == NODE()", "True")
    say(shell, "snd('backend#orders', 'note', me); snd(me, 'hello', 1)", "")
    say(shell, "receive()", re.escape("('hello', 1)"))
    shell.sendline("print('port', me)")
    shell.expect(r"port (aemp/\S+)\r\n")
    port = shell.match[1]
    shell.expect_exact(PROMPT)
    # No seed, and listening nowhere: only a node with a link to it can.
    say(shell, f"snd({network.hub!r}, 'time', me, 'the time')", "")
    say(shell, "receive('the time')", r"\('the time', [\d.]+\)")
    assert port


def test_loop_continues_while_nobody_types(shell: pexpect.spawn) -> None:
    say(shell, "t = after(0.3, lambda: print('came' + ' by itself'))", "")
    shell.expect_exact("came by itself")


def test_statements_of_several_lines_errors_and_variables(shell: pexpect.spawn) -> None:
    shell.sendline("for number in range(2):")
    shell.expect_exact("... ")
    shell.sendline("    print('number', number)")
    shell.expect_exact("... ")
    shell.sendline("")
    shell.expect("number 0\r\nnumber 1\r\n")
    shell.expect_exact(PROMPT)
    say(shell, "1 / 0", "ZeroDivisionError: division by zero")
    say(shell, "x = 5", "")
    say(shell, "x + 1", "6")
    say(shell, "_ + 1", "7")
    say(shell, "raise gevent.Timeout", "Timeout")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("receive()", id="waits"),
        pytest.param("while True: pass", id="computes"),
        pytest.param("call('backend#orders', 'add', receive('never'))", id="waits-below"),
    ],
)
def test_ctrl_c_interrupts_what_runs(shell: pexpect.spawn, code: str) -> None:
    shell.sendline(f"print('be' + 'gun'); {code}" if "while" not in code else "print('be' + 'gun')\nwhile True: pass\n")
    shell.expect_exact("begun\r\n")
    if "while" in code:
        shell.expect_exact("... ")
        shell.expect_exact("\r\n")
    shell.expect(pexpect.TIMEOUT, timeout=0.3)  # it is inside
    shell.sendintr()
    shell.expect_exact("KeyboardInterrupt")
    shell.expect_exact(PROMPT)
    say(shell, "call('backend#orders', 'price', 1)", r"5\r\n")


def _open_for_writing(pipe: Path) -> int | None:
    """Return a file descriptor, once somebody opens the pipe for reading."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_ctrl_c_that_cannot_interrupt_says_so(unmeasured: None, shell: pexpect.spawn, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shell.sendline(f"open({str(pipe)!r}).read()")
    writer = wait_until(lambda: _open_for_writing(pipe), within=PATIENCE)  # before that it could be interrupted
    shell.sendintr()
    shell.expect_exact(
        "the code keeps running until the call returns: gevent.sleep can be interrupted, time.sleep cannot"
    )
    os.close(writer)
    shell.expect_exact("KeyboardInterrupt")
    shell.expect_exact(PROMPT)


def test_ctrl_c_at_the_prompt_drops_the_line_and_ctrl_d_ends(shell: pexpect.spawn, network: Network) -> None:
    shell.send("half a li")
    shell.expect_exact("half a li")
    shell.expect(pexpect.TIMEOUT, timeout=0.3)  # CPython looks for signals only while it waits for a key
    shell.sendintr()
    shell.expect_exact("KeyboardInterrupt")
    shell.expect_exact(PROMPT)
    shell.sendeof()
    shell.expect(pexpect.EOF)
    shell.wait()
    assert shell.exitstatus == 0
    wait_until(lambda: "aemp/" not in network.aemp("nodes", "--json").stdout.split('"rights"')[0], within=PATIENCE)


def test_tab_completes_and_lines_are_kept(network: Network) -> None:
    for round_ in range(2):
        with terminal(network, "shell", "--plain") as screen:
            shell = screen.child
            shell.expect_exact(PROMPT)
            if round_:
                shell.send("\x1b[A")  # the line before: exit()
                shell.expect_exact("exit()")
                shell.send("\x1b[A")
                shell.expect_exact("up_nodes()")
                shell.sendline("")
            else:
                shell.send("up_no\t")
                completed = Completer({"up_nodes": lambda: None}).complete("up_no", 0)
                assert completed is not None
                shell.expect_exact(completed)
                shell.sendline("" if completed.endswith(")") else ")")  # which depends on the version of Python
            shell.expect_exact(f"['{network.hub}']")
            shell.sendline("exit()")
            shell.expect(pexpect.EOF)
    history = network.home / ".local" / "state" / "aemp" / "shell_history"
    assert "up_nodes()" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_script_is_run_without_prompts(network: Network) -> None:
    script = (
        "x = 2\nprint(call('backend#orders', 'price', x))\nfor i in range(2):\n    print(i)\n\nundefined\nprint('on')\n"
    )
    done = network.aemp("shell", input=script)
    assert done.stdout == "10\n0\n1\non\n"
    assert "NameError: name 'undefined' is not defined" in done.stderr
    assert ">>>" not in done.stderr


def test_statements_are_run_on_another_node(network: Network) -> None:
    script = "1 + 1\nfor i in range(2):\n    i\n\nimport os\n1 / 0\n'text'\n+\n"
    done = network.aemp("shell", network.hub, input=script)
    assert done.stdout == "2\n'text'\n"
    assert f"{network.hub}: ZeroDivisionError: division by zero\n" in done.stderr
    assert "SyntaxError" in done.stderr
    with terminal(network, "shell", network.hub) as screen:
        screen.child.expect_exact(f"Each statement runs separately on {network.hub}.")
        screen.child.expect_exact(PROMPT)
        screen.child.sendline("6 * 7")
        screen.child.expect_exact("42\r\n")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        pytest.param(["backend"], "aemp: backend does not evaluate code for this node: ", id="not-allowed"),
        pytest.param(["127.0.0.1:1"], "aemp: 127.0.0.1:1 cannot be reached: ", id="nobody"),
        pytest.param(["--seed", "127.0.0.1:1", "--connect-timeout", "0.3"], "aemp: no link to the network", id="alone"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_a_line(network: Network, args: list[str], says: str) -> None:
    assert network.refused("shell", *args).startswith(says)


def test_ipython_has_the_same_names_and_its_loop_continues(network: Network) -> None:
    pytest.importorskip("IPython")
    with terminal(network, "shell", IPYTHONDIR=str(network.home / "ipython")) as screen:
        shell = screen.child
        shell.expect(r"In \[[^]]*1")
        shell.expect(pexpect.TIMEOUT, timeout=0.5)
        shell.send("call('backend#orders', 'price', 3)\r")
        shell.expect(r"\D15\r\n")
        shell.send("t = after(0.3, lambda: print('came' + ' by itself'))\r")
        shell.expect_exact("came by itself")
        shell.send("print(SELF() == me)\r")
        shell.expect_exact("True")
        shell.send("exit\r")
        shell.expect(pexpect.EOF)
