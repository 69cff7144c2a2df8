# SPDX-License-Identifier: MIT
"""Being a node of the network while a command runs.

The node's settings are those of the profile and the environment, as those of any other,
but its name is its own, it listens nowhere, and starts no services. Its seeds are the
profile's; of a profile that has none, the node that the profile describes.
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
from aemp_gevent.cli.completing import profile_names
from aemp_gevent.cli.private_files import read_private
from aemp_gevent.runtime.hints import ONCE

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node
    from aemp_gevent.settings.fields import Settings

R = TypeVar("R")

NODE_NAME = "aemp/%n/%u"
"""As AnyEvent::MP's ``aemp`` calls its nodes."""

CONNECT_SECONDS = 5.0

_STDIN = "-"

_HOME = "127.0.0.1:4040"
"""Who is asked where nobody has said anything: a node of this host, on the usual port."""


class SettingOptions:
    """The settings that the command line gives.

    Args:
        nodeid, seeds, secret, cert, ca: As they were given, or not.
        secret_file: Where the secret is to be read; "-" is the standard input.
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
            raise click.UsageError("--secret and --secret-file say the same: give one")
        self._given = {
            "nodeid": nodeid,
            "seeds": [part for seed in seeds for part in seed.split(",") if part] or None,
            "secret": secret,
            "cert": cert,
            "ca": ca,
        }
        self._secret_file = secret_file
        if secret_file == _STDIN:
            self._given["secret"] = _secret_in(sys.stdin.readline(), "the standard input")
            self._secret_file = None

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, by name; the secret's file is read again each time."""
        given = {name: value for name, value in self._given.items() if value is not None}
        if self._secret_file is not None:
            try:
                text = read_private(Path(self._secret_file)).decode()
            except (OSError, UnicodeError) as error:
                why = getattr(error, "strerror", None) or "it is not a text"
                raise click.UsageError(f"--secret-file {self._secret_file}: {why}") from error
            given["secret"] = _secret_in(text, self._secret_file)
        return given


def _secret_in(text: str, where: str) -> str:
    secret = text.strip()
    if not secret:
        raise click.UsageError(f"there is no secret in {where}")
    return secret


def setting_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that stand for settings of a node; it gets them as ``options``."""

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
            click.option("--secret-file", metavar="FILE", help="The file with the secret; - is the standard input."),
            click.option("--cert", metavar="FILE", help="The node's certificate and key."),
            click.option("--ca", metavar="FILE", help="Certificates of further CAs to believe."),
        ]
    ):
        decorated = option(decorated)
    return decorated


class NodeOptions(NamedTuple):
    """What the command line says of the node that a command is to be.

    Attributes:
        profile: The profile; None: the usual one.
        settings: The settings that were given.
        timeout: Seconds to wait for a link.
    """

    profile: str | None
    settings: SettingOptions
    timeout: float


def node_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options of its node; it gets them as ``options``, for :func:`connected`."""

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
    """Make the default node one of the network, linked to at least one other; shut it down in the end.

    Args:
        options: What the command line says of it.
        runs_code: Whether the user's code is run meanwhile, which Ctrl-C is to strike wherever it is.

    Raises:
        AempError: A setting is wrong, or there is no secret.
        click.ClickException: Nobody answered.
    """
    from aemp_gevent import default_node as node  # noqa: PLC0415

    _take_signals(node, runs_code=runs_code)
    with _log_lines(runs_code=runs_code) as lines, _linked(node, options):
        lines.show_held()
        yield node
        if lines.hints:  # the mistake that a hint is about is the command line's
            raise click.ClickException(lines.hints[0])


@contextmanager
def _linked(node: Node, options: NodeOptions) -> Generator[None, None, None]:
    """Link a node to the network, and shut it down in the end."""
    from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415

    ours = options.settings.given()
    given: dict[str, Any] = {"nodeid": NODE_NAME, **ours, "binds": (), "services": ()}
    if "seeds" not in given:
        # Without our own name and place: what is asked is who the profile's node is.
        wanted = {name: value for name, value in ours.items() if name != "nodeid"}
        given["seeds"] = _seeds(make_settings(wanted, profile=options.profile))
    node.configure(options.profile, **given)
    try:
        node.wait_for_seeds(options.timeout)
        if not node.up_nodes():
            why = reasons(node.seeds_down)
            raise click.ClickException(f"no link to the network (--seed names another node to dial): {why}")
        yield
    finally:
        node.shutdown()


def reasons(seeds_down: dict[str, str]) -> str:
    """Return why there are no links to seeds, as a text."""
    found = (f"{seed}: {why or 'no answer yet'}" for seed, why in seeds_down.items())
    return "; ".join(found) or "no seeds are set"


def _take_signals(node: Node, *, runs_code: bool) -> None:
    """Take leave of the network on SIGTERM, too, and print nothing of a Ctrl-C."""
    import gevent  # noqa: PLC0415

    # That is raised in the hub, which raises it in the main greenlet, and would print it besides.
    hub: Any = gevent.get_hub()  # its stubs do not say what it leaves out
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    if threading.current_thread() is not threading.main_thread():
        return
    node.shutdown_on_signal(signal.SIGTERM)  # which takes as long as an end otherwise may
    if not runs_code and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Python's would raise it in whatever runs just then: a callback, which dies of it, or a link.
        gevent.signal_handler(signal.SIGINT, _interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _seeds(settings: Settings) -> tuple[str, ...]:
    """Return whom to ask: the seeds, or else the node itself that the settings describe."""
    from aemp_gevent.addresses.endpoints import is_resolved, parse_bind  # noqa: PLC0415

    if settings.seeds:
        return settings.seeds
    if settings.nodeid and is_resolved(settings.nodeid):
        return (settings.nodeid,)
    ports = [bind.port for bind in map(parse_bind, settings.binds or ()) if bind.port]
    return (f"127.0.0.1:{ports[0]}",) if ports else (_HOME,)


class _LogLines(logging.Handler):
    """Shows what the node logs, one line each, where errors go.

    A command that fails prints one line. So nothing is shown before the node is linked, as the error that says that it
    is not may say the same; and hints, which are about mistakes of the code that calls the library, become the error.

    Args:
        runs_code: Whether that code is the user's: hints are shown then as they come.
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
            click.echo(self.format(record), err=True)

    def show_held(self, error: str = "") -> None:
        """Show what was held back, but for lines whose reason the command's error repeats; hold back nothing more."""
        held, self._held = self._held or [], None
        for record in held:
            why = record.getMessage().partition(": ")[2]
            if not why or why not in error:
                self.emit(record)


@contextmanager
def _log_lines(*, runs_code: bool) -> Generator[_LogLines, None, None]:
    """Show what the node logs meanwhile."""
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
