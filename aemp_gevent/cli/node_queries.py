# SPDX-License-Identifier: MIT
"""Requests to nodes: the node that a user means, one node's answer, and the walk from node to node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from aemp_gevent.addresses.ids import COMMAND_PREFIX
from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.output import complain
from aemp_gevent.node import access
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.vocabulary import INSPECT, TIME

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

ANSWER_SECONDS = 5.0

_AT_ONCE = 50
"""How many nodes are asked at a time: each may need a new connection."""

_OURS = "aemp_gevent-"

_NO_ADDRESS = "no known address"
"""What the reason why a node cannot be reached begins with if no node knows where it listens."""

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
_TREE: Kinds = {
    **dict.fromkeys(("port", "name", "strategy"), _TEXT),
    **dict.fromkeys(("child_count", "active"), _NUMBER),
    "children": _LIST,
}
_CHILD: Kinds = {
    **dict.fromkeys(("id", "state", "kind", "restart"), _TEXT),
    **dict.fromkeys(("port", "reason"), _PERHAPS_TEXT),
    "messages": _PERHAPS_NUMBER,
    "restarts": _NUMBER,
}
"""Keys that an answer must have, and the types of their values."""

timeout_option = click.option(
    "--timeout",
    metavar="SECONDS",
    type=Seconds(min=0, min_open=True),
    default=ANSWER_SECONDS,
    show_default=True,
    help="How long to wait for an answer.",
)


def node_id(node: Node, text: str) -> str:
    """Return the ID of the node that a user names: the ID itself, or an address such as ``localhost:4040``.

    Raises:
        UsageError, ResolveError: It is neither.
    """
    from aemp_gevent.addresses import ids  # noqa: PLC0415
    from aemp_gevent.addresses.endpoints import is_resolved  # noqa: PLC0415
    from aemp_gevent.errors import InvalidNoderefError  # noqa: PLC0415

    if not text:
        raise click.UsageError("the node's name is missing")
    if "#" in text:
        raise click.UsageError(f"{text} is the ID of a port; give the node's ID, {text.partition('#')[0]}")
    if is_resolved(text) or text.startswith(ids.SLAVE_PREFIX):
        return text
    try:
        return ids.check_node_name(text)
    except InvalidNoderefError:
        return node.resolve_node(text)


def port_id(node: Node, text: str) -> str:
    """Return the ID of the port that a user names: a node as for :func:`node_id`, ``#``, and the port's name."""
    place, sign, name = text.partition("#")
    if not place:
        raise click.UsageError(f"the node's name is missing in {quoted(text)}")
    return node_id(node, place) + sign + name


def ask(node: Node, other: str, *request: Any, timeout: float) -> Any:  # any answer of the other node
    """Return a node's answer to a request.

    Raises:
        click.ClickException: It did not answer in time, or cannot be reached.
    """
    from aemp_gevent.errors import CallTimeout, PortDied  # noqa: PLC0415

    try:
        return node.call(other, *request, timeout=timeout)
    except CallTimeout as error:
        check_is_linked(node, other)
        if error.blocked:
            raise click.ClickException(f"{other} is {error.blocked}, and did not answer within {timeout:g} s") from None
        program = program_of_linked(node, other)
        why = f"it runs {program}" if program else "is it busy? try a longer --timeout"
        raise click.ClickException(f"{other} did not answer within {timeout:g} s; {why}") from None
    except PortDied as error:
        raise unreachable(other, error.reason) from None


class OtherProgramError(click.ClickException):
    """A node runs another program, which does not understand this library's requests.

    Args:
        node: Its ID.
        program: What it runs.
    """

    def __init__(self, node: str, program: str) -> None:
        super().__init__(f"{node} runs {program}, not aemp_gevent, and cannot be inspected")
        self.program = program


def other_program(node: Node, other: str, *, timeout: float) -> str:
    """Return the program named in a node's greeting; ``""`` if it runs this library. Makes the link.

    Raises:
        click.ClickException: The node cannot be reached.
    """
    if not node.node_is_up(other):
        ask(node, other, TIME, timeout=timeout)
    return program_of_linked(node, other)


def program_of_linked(node: Node, other: str) -> str:
    """Return the program of a node to which there is a link; ``""`` if it runs this library."""
    network = access.network_of(node)
    peer = None if network is None else network.known_peer(other)
    greeting = None if peer is None else peer.greeting
    if greeting is None or greeting.is_ours:
        return ""
    return greeting.provider or "an unnamed program"


def check_is_linked(node: Node, other: str) -> None:
    """Raise an error if there is no link to a node, which has not answered.

    Raises:
        click.ClickException: There is no link.
    """
    if not node.node_is_up(other):
        raise click.ClickException(f"node {other} does not exist or cannot be reached; see 'aemp nodes'") from None


def unreachable(other: str, reason: tuple[Any, ...]) -> click.ClickException:
    """Return the error for a node that cannot be reached, or a port that does not exist."""
    if reason[:1] == ("no_such_port",):
        return click.ClickException(f"port {other} does not exist; see 'aemp ports {other.partition('#')[0]}'")
    why = " ".join(map(str, reason[1:])).replace(other, "", 1).strip() or "it is gone"
    return click.ClickException(f"{other} cannot be reached: {why}")


def look(node: Node, other: str, what: object = (), *, timeout: float) -> dict[str, Any]:
    """Return a node's answer to ``inspect``: see the page *Looking into a node*.

    Raises:
        OtherProgramError: The node runs another program.
        click.ClickException: It refuses, does not answer, or cannot be reached.
    """
    program = other_program(node, other, timeout=timeout)
    if program:
        raise OtherProgramError(other, program)
    found = ask(node, other, INSPECT, list(what) if isinstance(what, tuple) else what, timeout=timeout)
    if isinstance(found, dict) and "error" in found:
        raise click.ClickException(f"{other} refuses to be inspected: {found['error']}")
    if not _is_whole(found):
        raise click.ClickException(f"{other} sent an unexpected answer: does it run another version?")
    return dict(found)


def _is_whole(found: object) -> bool:
    """Return whether an answer has everything that nodes of this version send."""
    if not has_kinds(found, _FIGURES) or "eval" not in found["rights"]:
        return False
    links, ports = found.get("links", ()), found.get("ports", ())
    if not (isinstance(links, _LIST) and isinstance(ports, _LIST)):
        return False
    if not all(has_kinds(row, _LINK) for row in links) or not all(has_kinds(row, _PORT) for row in ports):
        return False
    trees = found.get("trees", ())
    if not isinstance(trees, _LIST) or not all(has_kinds(tree, _TREE) for tree in trees):
        return False
    if not all(has_kinds(row, _CHILD) for tree in trees for row in tree["children"]):
        return False
    texts = [found["roles"], *(row[key] for row in ports for key in ("names", "tags"))]
    return all(isinstance(text, str) for each in texts for text in each)


def has_kinds(found: object, kinds: Kinds) -> TypeGuard[dict[str, Any]]:
    """Return whether something that another node sent is a map with these keys, and values of these types."""
    return isinstance(found, dict) and all(
        name in found and isinstance(found[name], kind) for name, kind in kinds.items()
    )


@dataclass
class Seen:
    """A node that was found on a walk.

    Attributes:
        node: Its ID.
        parent: The node through which it was found first; None: the walk began with it.
        provider: Its program; ``""`` if that is not known.
        figures: Its answer to ``inspect``; None if it sent none.
        error: Why it sent none.
    """

    node: str
    parent: str | None = None
    provider: str = ""
    figures: dict[str, Any] | None = None
    error: str = ""

    @property
    def is_of_another(self) -> bool:
        """Whether it runs another program, which cannot be inspected."""
        return bool(self.provider) and not self.provider.startswith(_OURS)

    @property
    def links(self) -> list[dict[str, Any]]:
        """Its links that are up, except those to commands."""
        rows = self.figures.get("links", []) if self.figures else []
        return [row for row in rows if row["state"] == "up" and not row["node"].startswith(COMMAND_PREFIX)]


@dataclass
class Walk:
    """A walk over the links, from node to node.

    Args:
        node: Our node.
        timeout: Seconds to wait for each answer.
        what: What to ask for, besides links.
        heard: Called after each answer.
    """

    node: Node
    timeout: float
    what: dict[str, int] = field(default_factory=dict)
    heard: Callable[[Seen], object] = lambda _seen: None

    def go(self, start: Iterable[str]) -> dict[str, Seen]:
        """Ask these nodes, then the nodes they link to, and so on; return all in the order found. Switches."""
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
        _note_what_neighbours_know(met)
        return met

    def _visit(self, seen: Seen) -> None:
        try:
            if seen.provider and not seen.provider.startswith(_OURS):
                raise OtherProgramError(seen.node, seen.provider)  # without making a link
            seen.figures = look(self.node, seen.node, {"links": 1000, **self.what}, timeout=self.timeout)
            seen.provider = seen.figures["provider"]
        except OtherProgramError as error:
            seen.provider = error.program
            seen.error = f"runs another program: {error.program}"
        except click.ClickException as error:
            seen.error = error.format_message().removeprefix(f"{seen.node} ")
        self.heard(seen)


def _note_what_neighbours_know(met: dict[str, Seen]) -> None:
    """Note of nodes that did not answer that they are blocked, or do not listen, if their neighbours say so."""
    for seen, row in [(each, row) for each in met.values() for row in each.links]:
        silent, seconds, place = met.get(row["node"]), row.get("blocked"), row.get("blocked_in")
        if silent is None or silent.figures is not None:
            continue
        if isinstance(seconds, _NUMBER):
            where = f" in {place}" if place and isinstance(place, str) else ""
            silent.error = f"its event loop has been blocked for {seconds:.1f} s{where}"
        elif _NO_ADDRESS in silent.error:
            silent.error = f"cannot be asked: it does not listen, but has a link to {seen.node}"


def known_nodes(node: Node, timeout: float) -> list[str]:
    """Return the nodes from which a walk begins: linked ones, and those in the directory. Switches."""
    from aemp_gevent.errors import DirectoryUnavailableError  # noqa: PLC0415

    known = dict.fromkeys(node.up_nodes())
    try:
        known |= dict.fromkeys(access.known_nodes(node, timeout))
    except DirectoryUnavailableError as error:
        if not access.is_shut_down(node):  # otherwise this command is ending, which is not the directory's fault
            complain(f"the directory does not answer, so nodes may be missing: {error}")
    return [name for name in known if name != node.NODE() and not name.startswith(COMMAND_PREFIX)]


def walk(node: Node, timeout: float, what: dict[str, int] | None = None) -> dict[str, Seen]:
    """Find all nodes of the network that can be reached. Switches."""
    return Walk(node, timeout, what or {}).go(known_nodes(node, timeout))
