# SPDX-License-Identifier: MIT
"""What the pages about ``aemp`` say in their terminals happens when it is typed, and so do all examples of commands."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from aemp_command.examples import EXAMPLES
from aemp_command.group import run_command
from aemp_command.table import SECTIONS
from aemp_gevent.cli import node_runner
from tests.cli.helpers import ROOT, environment
from tests.support.helpers import wait_until, without_standstills
from tests.support.networking import free_address

HOWTO = ROOT / "docs" / "howto"
PAGES = ["set-nodes-up.md", "run-in-production.md", "look-into-a-network.md"]

PATIENCE = 60.0
SHOWN_HOME = "/home/you"

PERL = {
    "version": 1,
    "secret": "another",
    "connect_interval": 2,
    "profile": {"node": {"binds": ["*:4041"], "services": ["AnyEvent::MP::LogCatcher::catch"]}},
}

SHOP = """
import aemp_gevent

def serve():
    aemp_gevent.serve(aemp_gevent.SELF(), price=lambda pieces: 5 * pieces)
"""

pytestmark = pytest.mark.slow


class Terminal:
    """A shell that commands are typed into, in an empty home with ``aemp`` in its path.

    Args:
        home: The folder.
        join_seconds: How long a node waits for its seeds.
        variables: Of the environment.
    """

    def __init__(self, home: Path, *, join_seconds: float = node_runner.JOIN_SECONDS, **variables: str) -> None:
        self._home = home
        tools = home / "bin"
        tools.mkdir()
        (tools / "python").symlink_to(sys.executable)
        (tools / "aemp").write_text(
            f"#!{sys.executable}\n"
            "import sys\n"
            "if 'run' in sys.argv:\n"
            "    from aemp_gevent.cli import node_runner\n"
            f"    node_runner.JOIN_SECONDS = {join_seconds}\n"
            "from aemp_command import main\n"
            "main()\n"
        )
        (tools / "aemp").chmod(0o700)
        env = environment(home, **variables)
        env["PATH"] = f"{tools}:{env['PATH']}"
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=home,
            env={name: value for name, value in env.items() if value},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> tuple[int, str]:
        """Type a command; return its exit code and what it printed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f'{command}\necho "<end $?>"\n')
        self._shell.stdin.flush()
        printed = ""
        while not (end := re.search(r"<end (\d+)>\n\Z", printed)):
            line = self._shell.stdout.readline()
            assert line, printed
            printed += line
        shown = without_standstills(printed[: end.start()])
        return int(end[1]), shown.replace(str(self._home), SHOWN_HOME)

    def close(self) -> None:
        """End it, and all that was started in it."""
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


@pytest.fixture
def terminal(tmp_path: Path) -> Generator[Terminal, None, None]:
    """A terminal where no profile file is."""
    made = Terminal(tmp_path, AEMP_CONFIG="", COLUMNS="200")
    yield made
    made.close()


def as_pattern(shown: str) -> str:
    """What a page shows as a pattern: … on a line of its own is any lines, elsewhere any text of a line."""
    lines = [".*" if line == "…" else re.escape(line).replace("…", "[^\n]*") for line in shown.splitlines()]
    return "\n?".join(lines) if "…" in shown.splitlines() else "\n".join(lines)


def typed(page: str) -> Generator[tuple[str, str], None, None]:
    """Each command of a page's terminals, and what the page shows below it."""
    for block in re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_what_happens(terminal: Terminal, tmp_path: Path, name: str) -> None:
    # A port of our own, that of the page may be taken.
    address = free_address()
    page = (HOWTO / name).read_text()
    for file, source in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        (tmp_path / file).write_text(source)
    (tmp_path / ".perl-anyevent-mp").write_text(json.dumps(PERL))
    commands = list(typed(page))
    assert len(commands) > 5
    for command, shown in commands:
        code, printed = terminal.type(command.replace("127.0.0.1:4040", address))
        printed = printed.replace(address, "127.0.0.1:4040")
        is_wrong = shown.startswith("aemp: ")
        assert (code != 0) is is_wrong, (command, printed)
        if len(address) == len("127.0.0.1:4040"):
            assert re.fullmatch(as_pattern(shown), printed.strip("\n"), re.DOTALL), (command, printed, shown)
        else:  # columns are wider then
            squeezed = re.sub(" +", " ", printed.strip("\n"))
            assert re.fullmatch(as_pattern(re.sub(" +", " ", shown)), squeezed, re.DOTALL), (command, printed, shown)


# --- the examples of the commands ----------------------------------------------------------

BEGIN: dict[str, Any] = {
    "secret": "hush",
    "nodeid": "127.0.0.1:0",
    "seeds": ["10.0.0.1:4040"],
    "monitor_timeout": 5,
    "profiles": {
        "server": {"nodeid": "127.0.0.1:0", "seeds": [], "binds": ["*:4040"], "services": ["shop.orders.serve"]},
        "client": {},
        "worker": {"parent": "client", "nodeid": "worker/%u"},
        "backend": {"cert": "backend.pem"},
    },
}

IN_ONE_PROCESS = [
    pytest.param(line, id=line)
    for name, lines in EXAMPLES.items()
    for line in lines
    if name.split()[0] in {**SECTIONS["Set up"], **SECTIONS["Maintain"]}
]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A home in which all examples make sense."""
    (tmp_path / "config.json").write_text(json.dumps(BEGIN))
    (tmp_path / "config.json").chmod(0o600)
    (tmp_path / "secret.txt").write_text("from a file\n")
    (tmp_path / "secret.txt").chmod(0o600)
    (tmp_path / ".perl-anyevent-mp").write_text(json.dumps(PERL))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "orders.py").write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize("line", IN_ONE_PROCESS)
def test_example_does_what_it_says(
    prepared: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(prepared).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(prepared)
    if "setcert" in line or "ca issue" in line:
        assert run_command(["ca", "init"]) == 0
    if "setcert" in line:
        assert run_command(["ca", "issue", "backend"]) == 0
    capsys.readouterr()
    # As a shell would, in this process, which is much faster.
    line, _, file = line.partition(" < ")
    if file:
        monkeypatch.setattr("sys.stdin", io.StringIO((prepared / file).read_text()))
    words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(line)]
    assert run_command(words[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_every_command_has_an_example() -> None:
    wanted = {*SECTIONS["Set up"], *SECTIONS["Maintain"], *SECTIONS["Run"]}
    assert wanted == {name.split()[0] for name in EXAMPLES} & wanted
    assert all(line.startswith("aemp ") for lines in EXAMPLES.values() for line in lines)


@pytest.mark.parametrize("line", EXAMPLES["run"])
def test_node_runs_as_its_examples_say(prepared: Path, line: str) -> None:
    line = line.replace("127.0.0.1:4041", "127.0.0.1:0").replace("--health-port 8080", "--health-port 127.0.0.1:0")
    content = json.loads((prepared / "config.json").read_text())
    content["profiles"]["server"]["binds"] = None  # its port is anybody's
    (prepared / "config.json").write_text(json.dumps(content))
    terminal = Terminal(prepared, join_seconds=0.2)  # the seed is not there
    try:
        terminal.type(f"{line} --ready-file ready > id.txt 2> log.txt &")
        log = prepared / "log.txt"
        wait_until((prepared / "ready").exists, within=PATIENCE, show=lambda: log.exists() and log.read_text())
        assert (prepared / "id.txt").read_text() == (prepared / "ready").read_text()
        assert terminal.type("kill $!; wait $!") == (0, ""), log.read_text()
    finally:
        terminal.close()


# --- what is deployed ----------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    unit = tmp_path / "aemp@orders.service"
    text = (HOWTO / "deploy" / "aemp@.service").read_text()
    unit.write_text(text.replace("User=aemp", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert str(unit) not in done.stderr, done.stderr
    assert "aemp@" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_what_the_unit_starts_can_be_started_by_hand(prepared: Path) -> None:
    text = (HOWTO / "deploy" / "aemp@.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].replace("%i", "client")
    drain = float(re.search(r"--drain (\S+)", command)[1])
    assert float(re.search(r"^TimeoutStopSec=(.*)$", text, re.MULTILINE)[1]) >= drain + 5
    terminal = Terminal(prepared)
    try:
        terminal.type(f"{command} > id.txt 2> log.txt &")
        started = prepared / "id.txt"
        wait_until(lambda: started.exists() and started.read_text(), within=PATIENCE)
        reload = re.search(r"^ExecReload=(.*)$", text, re.MULTILINE)[1].replace("$MAINPID", "$!")
        assert terminal.type(reload)[0] == 0
        log = prepared / "log.txt"
        wait_until(lambda: "reloaded" in log.read_text(), within=PATIENCE, show=log.read_text)
        assert terminal.type("kill $!; wait $!") == (0, "")
    finally:
        terminal.close()


def test_manifest_fits_together_and_its_node_can_be_started_by_hand(prepared: Path) -> None:
    yaml = pytest.importorskip("yaml")
    service, deployment = yaml.safe_load_all((HOWTO / "deploy" / "kubernetes.yaml").read_text())
    assert (service["kind"], deployment["kind"]) == ("Service", "Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["name"] == "aemp", "or there is no SRV record that nodes look for"
    assert ports[service["spec"]["ports"][0]["targetPort"]] == service["spec"]["ports"][0]["port"]
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health"}
    args = dict(arg.split("=", 1) for arg in container["args"])
    assert args["--seed"] == service["metadata"]["name"]
    assert (args["--bind"], args["--health-port"]) == (f"*:{ports['aemp']}", str(ports["health"]))
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= sleep + float(args["--drain"]) + 5
    (mount,), (volume,) = container["volumeMounts"], pod["spec"]["volumes"]
    assert args["--secret-file"].startswith(mount["mountPath"])
    assert mount["name"] == volume["name"]
    args.update(
        {
            "--nodeid": "shop-orders-0",
            "--bind": "127.0.0.1:0",
            "--seed": "127.0.0.1:1",
            "--secret-file": "secret.txt",
            "--service": "shop.orders.serve",
            "--health-port": "127.0.0.1:0",
        }
    )
    terminal = Terminal(prepared, join_seconds=0.2)  # the seed is not there
    try:
        line = " ".join(f"{name}={value}" for name, value in args.items())
        terminal.type(f"aemp run {line} --ready-file ready 2> log.txt &")
        log = prepared / "log.txt"
        wait_until((prepared / "ready").exists, within=PATIENCE, show=lambda: log.exists() and log.read_text())
        assert (prepared / "ready").read_text() == "shop-orders-0\n"
        assert terminal.type("kill $!; wait $!")[0] == 0
    finally:
        terminal.close()


def test_image_starts_a_node_and_no_shell() -> None:
    lines = (HOWTO / "deploy" / "Dockerfile").read_text().splitlines()
    made = {line.split()[0]: line.partition(" ")[2] for line in lines if re.match(r"[A-Z]+ ", line)}
    words = json.loads(made["ENTRYPOINT"])
    assert words == ["aemp", "run"]
    options = json.loads(made["CMD"])
    from aemp_gevent.cli.run import run

    known = {option for parameter in run.params for option in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known
    assert made["USER"] == "aemp"
