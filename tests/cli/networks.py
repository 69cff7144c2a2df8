# SPDX-License-Identifier: MIT
"""A small network that commands talk to and look at: real nodes, each an ``aemp run``."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.cli.helpers import aemp, environment, running
from tests.support.helpers import wait_until
from tests.support.networking import free_address

PATIENCE = 30.0

SHOP = """
import gevent
from aemp_gevent import SELF, db_set, grp_reg, kil, rcv, reg, serve, spawnable

noted = []

def orders():
    reg("orders")
    grp_reg("workers")
    rcv(SELF(), "note", lambda *what: noted.append(what))
    rcv(SELF(), "end", lambda *reason: kil(SELF(), *reason))
    serve(SELF(), price=lambda pieces: 5 * pieces, add=lambda line: line)
    serve(SELF(), broken=lambda: 1 / 0, text=lambda: "some text")

def stock():
    db_set("colours", "red", 1)
    grp_reg("workers")
    reg("stock")
    rcv(SELF(), "work", lambda *_: gevent.sleep(10_000))

@spawnable
def count(what, number):
    reg(f"{what}-{number}")

@spawnable
def work():
    grp_reg("workers")
    rcv(SELF(), "end", lambda: kil(SELF()))

@spawnable
def fail():
    raise ValueError("of no use")
"""


class Network:
    """Three nodes: a seed where ``eval`` is allowed, ``backend``, and a slave of the first.

    Args:
        home: Where the nodes run, and the commands.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.hub = free_address()
        self.slave = f"slave/one@{self.hub}"
        self.variables = {"AEMP_SECRET": "hush", "AEMP_SEEDS": self.hub, "AEMP_CONFIG": "/dev/null"}
        (home / "shop.py").write_text(SHOP)

    @property
    def nodes(self) -> list[str]:
        return [self.hub, "backend", self.slave]

    @contextlib.contextmanager
    def node(self, name: str, *args: str, seeds: str | None = None) -> Generator[subprocess.Popen[str], None, None]:
        """Run a node, and wait until it is ready."""
        ready = self.home / name.replace("/", "-")
        env = {**self.variables, "AEMP_SEEDS": self.hub if seeds is None else seeds}
        with (self.home / f"{ready.name}.log").open("w") as log:
            args = ("run", "--nodeid", name, "--ready-file", str(ready), *args)
            with running(self.home, *args, env=env, cwd=self.home, stdout=log, stderr=log) as process:
                shown = Path(log.name)
                wait_until(ready.exists, within=PATIENCE, show=shown.read_text)
                yield process

    def aemp(self, *args: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command; what it prints has the page's address for the seed's."""
        options.setdefault("input", "")
        done = aemp(self.home, *args, check=False, env=self.variables, cwd=self.home, **options)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        return done

    def refused(self, *args: str, code: int = 1) -> str:
        """Return the one line that says why a command failed."""
        done = self.aemp(*args, code=code)
        assert done.stdout == ""
        assert done.stderr.startswith("aemp")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.rstrip("\n")

    def environment(self) -> dict[str, str]:
        return environment(self.home, **self.variables)


@contextlib.contextmanager
def running_network(home: Path) -> Generator[Network, None, None]:
    """Run the three nodes."""
    made = Network(home)
    with contextlib.ExitStack() as stack:
        allowed = ("--set", "allow_eval=true", "--service", "shop.stock")
        stack.enter_context(made.node(made.hub, *allowed, seeds=""))
        stack.enter_context(made.node("backend", "--bind", "127.0.0.1:0", "--service", "shop.orders"))
        stack.enter_context(made.node("slave/one"))
        yield made
