# SPDX-License-Identifier: MIT
"""The node of a command: it joins the network while the command runs.

The command's node takes its settings from the profile and the environment like any other node, but it has a name
of its own, does not listen, and starts no services. Its seeds are the profile's; if the profile has none, the seed is
the node that the profile describes.
"""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.completion import profile_names
from aemp_gevent.cli.interrupts import print_no_interrupts, take_interrupts
from aemp_gevent.cli.output import echo
from aemp_gevent.cli.private_files import read_private
from aemp_gevent.node.access import seeds_down
from aemp_gevent.runtime.hints import ONCE

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node
    from aemp_gevent.settings.fields import Settings

R = TypeVar("R")

NODE_NAME = "aemp/%n/%u"
"""The command's node ID, like those of AnyEvent::MP's ``aemp``."""

CONNECT_SECONDS = 5.0

_STDIN = "-"

_HOME = "127.0.0.1:4040"
"""The seed if nothing is configured: a node on this host, on the usual port."""


class SettingOptions:
    """The settings on the command line.

    Args:
        nodeid, seeds, secret, cert, ca: The options' values, if given.
        secret_file: The file with the secret; "-" is standard input.
    """

    def __init__(
        self,
        nodeid: str | None,
        seeds: tuple[str, ...],
        secret: str | None,
        secret_file: str | None,
        cert: str | None,
        ca: str | None,
    ) -> None:
        if secret is not None and secret_file is not None:
            raise click.UsageError("--secret and --secret-file both set the secret; give only one")
        self._given = {
            "nodeid": nodeid,
            "seeds": [part for seed in seeds for part in seed.split(",") if part] or None,
            "secret": secret,
            "cert": cert,
            "ca": ca,
        }
        self._secret_file = secret_file
        if secret_file == _STDIN:
            self._given["secret"] = _secret_in(sys.stdin.readline(), "standard input")
            self._secret_file = None

    def given(self) -> dict[str, Any]:
        """Return the given settings by name; the secret's file is read again each time."""
        given = {name: value for name, value in self._given.items() if value is not None}
        if self._secret_file is not None:
            try:
                text = read_private(Path(self._secret_file)).decode()
            except (OSError, UnicodeError) as error:
                why = getattr(error, "strerror", None) or "it is not a text file"
                raise click.UsageError(f"--secret-file {self._secret_file}: {why}") from error
            given["secret"] = _secret_in(text, self._secret_file)
        return given


def _secret_in(text: str, where: str) -> str:
    secret = text.strip()
    if not secret:
        raise click.UsageError(f"there is no secret in {where}")
    return secret


def setting_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options for a node's settings to a command, which gets them as ``options``."""

    @functools.wraps(command)
    def with_options(
        *args: Any,
        nodeid: str | None,
        seeds: tuple[str, ...],
        secret: str | None,
        secret_file: str | None,
        cert: str | None,
        ca: str | None,
        **others: Any,
    ) -> R:
        options = SettingOptions(nodeid, seeds, secret, secret_file, cert, ca)
        return command(*args, options=options, **others)

    decorated: Callable[..., R] = with_options
    for option in reversed(
        [
            click.option("--nodeid", metavar="ID", help="The node's ID."),
            click.option("--seed", "seeds", metavar="NODEREF", multiple=True, help="A node to link to; repeatable."),
            click.option("--secret", metavar="TEXT", help="The network's secret; visible in process listings."),
            click.option("--secret-file", metavar="FILE", help="The file with the secret; - is standard input."),
            click.option("--cert", metavar="FILE", help="The node's certificate and key."),
            click.option("--ca", metavar="FILE", help="Certificates of further CAs to trust."),
        ]
    ):
        decorated = option(decorated)
    return decorated


class NodeOptions(NamedTuple):
    """The options for a command's own node.

    Attributes:
        profile: The profile; None: the usual one.
        settings: The settings on the command line.
        timeout: Seconds to wait for a link.
    """

    profile: str | None
    settings: SettingOptions
    timeout: float


def node_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options for its own node to a command, which gets them as ``options``, for :func:`connected`."""

    @functools.wraps(command)
    def with_node(*args: Any, profile: str | None, options: SettingOptions, connect_timeout: float, **others: Any) -> R:
        return command(*args, options=NodeOptions(profile, options, connect_timeout), **others)

    waiting = click.option(
        "--connect-timeout",
        metavar="SECONDS",
        type=Seconds(min=0, min_open=True),
        default=CONNECT_SECONDS,
        show_default=True,
        help="How long to wait for a link to the network.",
    )
    profile = click.option(
        "-p", "--profile", metavar="NAME", shell_complete=profile_names, help="Take the settings of this profile."
    )
    return profile(setting_options(waiting(with_node)))


@contextmanager
def connected(options: NodeOptions, *, runs_code: bool = False) -> Generator[Node, None, None]:
    """Link the default node to the network for the duration of a ``with`` block, then shut it down.

    Args:
        options: The node's options.
        runs_code: Whether the block runs the user's code, which Ctrl-C must be able to interrupt anywhere.

    Raises:
        AempError: A setting is wrong, or the secret is missing.
        click.ClickException: No node of the network answered.
    """
    from aemp_gevent import default_node as node  # noqa: PLC0415

    _take_signals(node, runs_code=runs_code)
    with _log_lines(runs_code=runs_code) as lines, _linked(node, options):
        with lines.shown():
            yield node
        if lines.hints:  # the hint is about a mistake on the command line
            raise click.ClickException(lines.hints[0])


@contextmanager
def _linked(node: Node, options: NodeOptions) -> Generator[None, None, None]:
    """Link a node to the network for the duration of a ``with`` block, then shut it down."""
    from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415

    ours = options.settings.given()
    given: dict[str, Any] = {"nodeid": NODE_NAME, **ours, "binds": (), "services": ()}
    if "seeds" not in given:
        # Without our own name and binds, so that these are the settings of the profile's node.
        wanted = {name: value for name, value in ours.items() if name != "nodeid"}
        given["seeds"] = _seeds(make_settings(wanted, profile=options.profile))
    node.configure(options.profile, **given)
    try:
        node.wait_for_seeds(options.timeout)
        if not node.up_nodes():
            why = reasons(seeds_down(node))
            raise click.ClickException(f"no link to the network (--seed names another node to dial): {why}")
        yield
    finally:
        node.shutdown()


def reasons(seeds_down: dict[str, str]) -> str:
    """Return a text that says why there are no links to seeds."""
    found = (f"{seed}: {why or 'no answer yet'}" for seed, why in seeds_down.items())
    return "; ".join(found) or "no seeds are set"


def _take_signals(node: Node, *, runs_code: bool) -> None:
    """Shut the node down on SIGTERM, too, and print no traceback after Ctrl-C."""
    print_no_interrupts()
    if threading.current_thread() is not threading.main_thread():
        return
    node.shutdown_on_signal(signal.SIGTERM)  # takes no longer than any other shutdown
    if not runs_code:
        take_interrupts()


def _seeds(settings: Settings) -> tuple[str, ...]:
    """Return the seeds; if there are none, the node that the settings describe."""
    from aemp_gevent.addresses.endpoints import is_resolved, parse_bind  # noqa: PLC0415

    if settings.seeds:
        return settings.seeds
    if settings.nodeid and is_resolved(settings.nodeid):
        return (settings.nodeid,)
    ports = [bind.port for bind in map(parse_bind, settings.binds or ()) if bind.port]
    return (f"127.0.0.1:{ports[0]}",) if ports else (_HOME,)


class _LogLines(logging.Handler):
    """Show the node's log on standard error, one line for each record.

    A command that fails should print one line. So records are held back until the node is linked, and after the command
    failed, while the node shuts down, because the error repeats them. Hints, which are about mistakes in code that
    calls the library, replace the error.

    Args:
        runs_code: Whether the user's code runs: hints are shown at once then.
    """

    def __init__(self, *, runs_code: bool) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("aemp: %(message)s"))
        self.hints: list[str] = []
        self._runs_code = runs_code
        self._held: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.endswith(ONCE) and not self._runs_code:
            self.hints.append(text.removesuffix(ONCE).rstrip())
        elif self._held is not None:
            self._held.append(record)
        else:
            echo(self.format(record), "\n\t", err=True)  # a traceback has lines

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        """Show records for the duration of a ``with`` block; if it fails, hold back what follows: the error says it."""
        self.show_held()
        try:
            yield
        except Exception:
            self._held = []
            raise

    def show_held(self, error: str = "") -> None:
        """Show the held records, except those whose reason the command's error repeats; stop holding records."""
        held, self._held = self._held or [], None
        for record in held:
            why = record.getMessage().partition(": ")[2]
            if not why or why not in error:
                self.emit(record)


@contextmanager
def _log_lines(*, runs_code: bool) -> Generator[_LogLines, None, None]:
    """Show the node's log for the duration of a ``with`` block."""
    lines = _LogLines(runs_code=runs_code)
    root = logging.getLogger()
    root.addHandler(lines)
    try:
        yield lines
    except Exception as error:
        lines.show_held(error.format_message() if isinstance(error, click.ClickException) else str(error))
        raise
    finally:
        root.removeHandler(lines)
