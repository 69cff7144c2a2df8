# SPDX-License-Identifier: MIT
"""Asking nodes what they are: whom users mean, one node's answer, and the walk from node to node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

ANSWER_SECONDS = 5.0

_AT_ONCE = 50
"""Nodes that are asked at a time: each may cost a connection to be made."""

_OURS = "aemp_gevent-"

_NUMBER, _TEXT, _LIST = (int, float), str, (list, tuple)
_PERHAPS_NUMBER, _PERHAPS_TEXT = (int, float, type(None)), (str, type(None))

Kinds = dict[str, type | tuple[type, ...]]
_FIGURES: Kinds = {
    **dict.fromkeys(("node", "provider"), _TEXT),
    **dict.fromkeys(("time", "link_count", "port_count", "messages", "deepest", "blocked", "cpu"), _NUMBER),
    **dict.fromkeys(("seconds", "lag", "worst_lag", "memory"), _PERHAPS_NUMBER),
    "roles": _LIST,
    "rights": dict,
}
_LINK: Kinds = {"node": _TEXT, "state": _TEXT, "via": _PERHAPS_TEXT, "unsent": _NUMBER}
_PORT: Kinds = {
    **dict.fromkeys(("port", "kind", "state", "handler", "at"), _TEXT),
    **dict.fromkeys(("messages", "monitors"), _NUMBER),
    **dict.fromkeys(("names", "tags"), _LIST),
    "calls": _PERHAPS_TEXT,
}
"""What an answer has at least, and of what kind it is."""

COMMAND_PREFIX = "aemp/"
"""What the node IDs of commands begin with: they come and go, and are shown to nobody."""

timeout_option = click.option(
    "--timeout",
    metavar="SECONDS",
    type=Seconds(min=0, min_open=True),
    default=ANSWER_SECONDS,
    show_default=True,
    help="How long to wait for an answer.",
)


def node_id(node: Node, text: str) -> str:
    """Return the ID of the node that a user means: an ID as it is, or an address such as ``localhost:4040``.

    Raises:
        UsageError, ResolveError: It is not one.
    """
    from aemp_gevent.addresses import ids  # noqa: PLC0415
    from aemp_gevent.addresses.endpoints import is_resolved  # noqa: PLC0415
    from aemp_gevent.errors import InvalidNoderefError  # noqa: PLC0415

    if not text:
        raise click.UsageError("the node's name is missing")
    if "#" in text:
        raise click.UsageError(f"{text} is a port's ID: give a node's, which is {text.partition('#')[0]}")
    if is_resolved(text) or text.startswith(ids.SLAVE_PREFIX):
        return text
    try:
        return ids.check_node_name(text)
    except InvalidNoderefError:
        return node.resolve_node(text)


def port_id(node: Node, text: str) -> str:
    """Return the ID of the port that a user means: behind ``#`` its name, before that a node as for :func:`node_id`."""
    place, sign, name = text.partition("#")
    if not place:
        raise click.UsageError(f"the node's name is missing in {quoted(text)}")
    return node_id(node, place) + sign + name


def ask(node: Node, other: str, *request: Any, timeout: float) -> Any:  # whatever the other node answers
    """Return a node's answer to a node request.

    Raises:
        click.ClickException: There is none.
    """
    from aemp_gevent.errors import CallTimeout, PortDied  # noqa: PLC0415

    try:
        return node.call(other, *request, timeout=timeout)
    except CallTimeout:
        check_is_linked(node, other)
        program = program_of_linked(node, other)
        why = f"it runs {program}" if program else "is it busy? try a longer --timeout"
        raise click.ClickException(f"{other} did not answer within {timeout:g} s; {why}") from None
    except PortDied as error:
        raise unreachable(other, error.reason) from None


class OtherProgramError(click.ClickException):
    """A node does not understand a request of this library's.

    Args:
        node: Its ID.
        program: What it runs.
    """

    def __init__(self, node: str, program: str) -> None:
        super().__init__(f"{node} runs {program}, and not aemp_gevent: it cannot tell anything of itself")
        self.program = program


def other_program(node: Node, other: str, *, timeout: float) -> str:
    """Return the program of a node that is not of this library, as its greeting says; ``""``: it is. Makes the link.

    Raises:
        click.ClickException: There is no link.
    """
    if not node.node_is_up(other):
        ask(node, other, "time", timeout=timeout)
    return program_of_linked(node, other)


def program_of_linked(node: Node, other: str) -> str:
    """Return the same for a node to which there is a link."""
    peer = node.network.known_peer(other) if node.network is not None else None
    greeting = None if peer is None else peer.greeting
    if greeting is None or greeting.is_ours:
        return ""
    return greeting.provider or "a program that does not say its name"


def check_is_linked(node: Node, other: str) -> None:
    """Say so if there is no link to a node, after it has not answered.

    Raises:
        click.ClickException: There is none.
    """
    if not node.node_is_up(other):
        raise click.ClickException(f"there is no node {other}, or no way to it; see 'aemp nodes'") from None


def unreachable(other: str, reason: tuple[Any, ...]) -> click.ClickException:
    """Return the error which says that there is no link to a node, or no port."""
    if reason[:1] == ("no_such_port",):
        return click.ClickException(f"there is no port {other}; see 'aemp ports {other.partition('#')[0]}'")
    why = " ".join(map(str, reason[1:])).replace(other, "", 1).strip() or "it is gone"
    return click.ClickException(f"{other} cannot be reached: {why}")


def look(node: Node, other: str, what: object = (), *, timeout: float) -> dict[str, Any]:
    """Return what a node tells of itself: see the page *Looking into a node*.

    Raises:
        OtherProgramError: It cannot.
        click.ClickException: It tells nothing.
    """
    program = other_program(node, other, timeout=timeout)
    if program:
        raise OtherProgramError(other, program)
    found = ask(node, other, "inspect", list(what) if isinstance(what, tuple) else what, timeout=timeout)
    if isinstance(found, dict) and "error" in found:
        raise click.ClickException(f"{other} tells nothing: {found['error']}")
    if not _is_whole(found):
        raise click.ClickException(f"{other} tells something else than it is asked: is it of another version?")
    return dict(found)


def _is_whole(found: object) -> bool:
    """Return whether an answer has what this version's nodes tell."""
    if not has_kinds(found, _FIGURES) or "eval" not in found["rights"]:
        return False
    links, ports = found.get("links", ()), found.get("ports", ())
    if not (isinstance(links, _LIST) and isinstance(ports, _LIST)):
        return False
    if not all(has_kinds(row, _LINK) for row in links) or not all(has_kinds(row, _PORT) for row in ports):
        return False
    texts = [found["roles"], *(row[key] for row in ports for key in ("names", "tags"))]
    return all(isinstance(text, str) for each in texts for text in each)


def has_kinds(found: object, kinds: Kinds) -> TypeGuard[dict[str, Any]]:
    """Return whether something that another node has told is a map with these values, of these types."""
    return isinstance(found, dict) and all(
        name in found and isinstance(found[name], kind) for name, kind in kinds.items()
    )


@dataclass
class Seen:
    """A node that was met on a walk.

    Attributes:
        node: Its ID.
        parent: By whom it was met first; None: by us.
        provider: Its program, as far as is known.
        figures: What it told of itself; None: nothing.
        error: Why not.
    """

    node: str
    parent: str | None = None
    provider: str = ""
    figures: dict[str, Any] | None = None
    error: str = ""

    @property
    def is_of_another(self) -> bool:
        """Whether it is of another program, which cannot be asked."""
        return bool(self.provider) and not self.provider.startswith(_OURS)

    @property
    def links(self) -> list[dict[str, Any]]:
        """Its links that are up, commands' nodes apart."""
        rows = self.figures.get("links", []) if self.figures else []
        return [row for row in rows if row["state"] == "up" and not row["node"].startswith(COMMAND_PREFIX)]


@dataclass
class Walk:
    """A walk over the links, from node to node.

    Args:
        node: Ours.
        timeout: Seconds for each answer.
        what: What to ask for, besides links.
        heard: Called after each answer.
    """

    node: Node
    timeout: float
    what: dict[str, int] = field(default_factory=dict)
    heard: Callable[[Seen], object] = lambda _seen: None

    def go(self, start: Iterable[str]) -> dict[str, Seen]:
        """Ask these nodes, and whom they know, and so on; return all, in the order of meeting. Switches."""
        from gevent.pool import Pool  # noqa: PLC0415

        pool = Pool(_AT_ONCE)
        met = {name: Seen(name) for name in start}
        due = list(met.values())
        while due:
            pool.map(self._visit, due)
            fresh: list[Seen] = []
            for seen in due:
                for row in seen.links:
                    if row["node"] not in met:
                        found = met[row["node"]] = Seen(row["node"], seen.node, row.get("provider", ""))
                        fresh.append(found)
            due = fresh
        return met

    def _visit(self, seen: Seen) -> None:
        try:
            if seen.provider and not seen.provider.startswith(_OURS):
                raise OtherProgramError(seen.node, seen.provider)  # without making a link
            seen.figures = look(self.node, seen.node, {"links": 1000, **self.what}, timeout=self.timeout)
            seen.provider = seen.figures["provider"]
        except OtherProgramError as error:
            seen.provider = error.program
            seen.error = f"of another program: {error.program}"
        except click.ClickException as error:
            seen.error = error.format_message().removeprefix(f"{seen.node} ")
        self.heard(seen)


def known_nodes(node: Node, timeout: float) -> list[str]:
    """Return the nodes to begin a walk with: those linked to, and those in the directory. Switches."""
    from aemp_gevent.errors import DirectoryUnavailableError  # noqa: PLC0415

    known = dict.fromkeys(node.up_nodes())
    try:
        known |= dict.fromkeys(node.known_nodes(timeout))
    except DirectoryUnavailableError as error:
        click.echo(f"aemp: the directory does not answer, so nodes may be missing: {error}", err=True)
    return [name for name in known if name != node.NODE() and not name.startswith(COMMAND_PREFIX)]


def walk(node: Node, timeout: float, what: dict[str, int] | None = None) -> dict[str, Seen]:
    """Meet all nodes of the network that can be met. Switches."""
    return Walk(node, timeout, what or {}).go(known_nodes(node, timeout))
