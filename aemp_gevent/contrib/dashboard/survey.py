# SPDX-License-Identifier: MIT
"""What the dashboard knows of the network: a row for each node and each link, taken again and again.

One survey serves all browsers. It asks the nodes only while somebody watches. A node may send anything: its answer is
shown only as its own, as far as it is of the right kinds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import gevent
from gevent.event import Event

from aemp_gevent.addresses.ids import COMMAND_PREFIX, master_of, without_random_words
from aemp_gevent.contrib.answers import MAX_TEXT, Sent, ask, ask_all, is_number, plain, short
from aemp_gevent.errors import DirectoryUnavailableError, NodeShutDownError
from aemp_gevent.node.access import known_nodes, network_of, tag_of
from aemp_gevent.node.node import Node

Row: TypeAlias = "dict[str, Any]"  # Any: what JSON has
Rows: TypeAlias = "dict[str, Row]"

ASK_SECONDS = 2.0
"""How long to wait for the answers of all nodes."""

_LOOK_AROUND_SECONDS = 5.0
"""How often the directory is searched for nodes without links."""

_REST = 4
"""How many times as long as a survey the pause after it is at least: large networks are asked less often."""

_FORGET_SECONDS = 60.0
"""How long a node that is gone is still shown."""

MAX_NODES = 5000

MAX_LINKS = 5000
"""Links that are shown: of more, those that carry most."""

_MOST_ENDS = 40_000
_FEWEST_ENDS = 20
"""Ends of links that all nodes together are asked for, and one node at least. A mesh of 1000 nodes has a million."""

_MOST_ENDS_OF_ONE = 1000
"""Ends of links that one node is asked for at most; of more, the first ones are taken."""


class Survey:
    """Takes the state of all nodes while somebody watches.

    Args:
        node: Asks the others, and is shown, too.
        interval: Seconds between two surveys.
    """

    def __init__(self, node: Node, interval: float = 1.0) -> None:
        self.nodes: Rows = {}
        """A row for each node, by its ID. Rows are replaced, never changed."""
        self.links: Rows = {}
        """A row for each link, by the IDs of both nodes."""
        self.is_over = False
        """Whether it has ended, because the node has shut down; a new watcher begins again."""
        self._node = node
        self._interval = interval
        self._changed = Event()
        self._watchers = 0
        self._work: gevent.Greenlet[..., None] | None = None
        self._guard: Any = None  # of mon_nodes()
        self._before: dict[str, Row] = {}  # the last answers
        self._gone: dict[str, float] = {}  # when nodes were missed first
        self._known: dict[str, None] = {}
        self._look_around_at = 0.0

    def watch(self) -> None:
        """Count one more watcher; call :meth:`leave` once for each."""
        self._watchers += 1
        if not self._work:
            self.is_over = False
            self._guard = self._node.mon_nodes(self._link_changed)
            self._work = gevent.spawn(self._run)

    def leave(self) -> None:
        """Count one watcher less. After the last one nobody is asked any more."""
        self._watchers -= 1
        if not self._watchers and self._work is not None:  # which may have ended
            self._guard.cancel()
            self._work.kill(block=False)
            self._work = None

    def wait(self, timeout: float) -> bool:
        """Wait until something has changed; return whether it has. Switches."""
        return self._changed.wait(timeout)

    def take(self) -> None:
        """Ask all nodes once. Switches."""
        began = time.monotonic()
        if began >= self._look_around_at:
            self._look_around_at = began + _LOOK_AROUND_SECONDS
            self._known |= dict.fromkeys(self._look_around())
        answers = self._ask_all()
        now = time.time()
        nodes: Rows = {}
        links: Rows = {}
        for name, answer in answers.items():
            if isinstance(answer, str):
                self._miss(nodes, name, answer, now)
                continue
            gevent.sleep(0)  # there may be a thousand of them, with many links each
            self._gone.pop(name, None)
            rows = [_link(name, row) for row in answer["links"]]
            before = self._before.get(name)
            nodes[name] = _node(name, answer, before, rows)
            former = {row["b"]: row for row in before["rows"]} if before else {}
            for row in rows:
                if row["state"] != "down":
                    _join(links, row, former.get(row["b"]), answer["time"] - before["time"] if before else 0)
            self._before[name] = {**answer, "links": (), "rows": rows}  # not what else the node sent of its links
        if len(links) > MAX_LINKS:
            most = sorted(links.items(), key=lambda item: item[1]["rate"] or 0, reverse=True)
            links = dict(most[:MAX_LINKS])
        self._known = dict.fromkeys(nodes)
        self._before = {name: answer for name, answer in self._before.items() if name in nodes}
        self._show(nodes, links)

    def _run(self) -> None:
        try:
            while True:
                began = time.monotonic()
                self.take()
                gevent.sleep(max(self._interval, _REST * (time.monotonic() - began)))
        except NodeShutDownError:
            pass
        finally:
            if self._work is gevent.getcurrent():  # the streams end, and browsers that come back begin again
                self._guard.cancel()
                self.is_over = True
                self._show(self.nodes, self.links)

    def _look_around(self) -> Iterable[str]:
        found = {self._node.NODE(): None}
        with contextlib.suppress(DirectoryUnavailableError):  # the nodes that are linked are shown
            found |= dict.fromkeys(known_nodes(self._node, ASK_SECONDS))
        return (name for name in found if not name.startswith(COMMAND_PREFIX))

    def _ask_all(self) -> dict[str, Row | str]:
        """Return the answers of all nodes, and of those that they are linked to; or why one did not answer."""
        answers: dict[str, Row | str] = {}
        due = dict.fromkeys(name for name in [*self._known, *self._node.up_nodes()] if not _is_hidden(name))
        while due and len(answers) < MAX_NODES:
            names = list(due)[: MAX_NODES - len(answers)]
            limit = min(max(_MOST_ENDS // len(names), _FEWEST_ENDS), _MOST_ENDS_OF_ONE)
            found, silent = ask_all(self._node, names, {"links": limit}, ASK_SECONDS)
            answers |= silent
            due = {}
            for name, sent in found.items():
                try:
                    answers[name] = answer = _checked(sent)
                except ValueError as error:
                    answers[name] = str(error)
                    continue
                due |= dict.fromkeys(row["node"] for row in answer["links"] if self._may_ask(row))
            due = {name: None for name in due if name not in answers}
        return answers

    def _may_ask(self, row: Row) -> bool:
        """Return whether to ask the node of a link that another node reports, which can name anything.

        Only a node that this one knows anyway is asked, or a slave of one, so that no address is dialled for it.
        """
        name = row["node"]
        if row["state"] != "up" or _is_hidden(name):
            return False
        return name in self._known or any(is_known(self._node, each) for each in (name, master_of(name)) if each)

    def _miss(self, nodes: Rows, name: str, why: str, now: float) -> None:
        gone = self._gone.setdefault(name, now)
        if now - gone <= _FORGET_SECONDS:
            nodes[name] = _missing(name, why, self.nodes.get(name))
        else:
            del self._gone[name]

    def _link_changed(self, name: str, is_up: bool, *reason: Any) -> None:
        """Show at once that a node is gone, without waiting for the next survey."""
        if is_up:
            self._known[name] = None
        elif name in self.nodes:
            self._gone.setdefault(name, time.time())
            why = "it has shut down" if tag_of(reason) == "shutdown" else " ".join(map(str, reason[2:])) or "it is gone"
            links = {key: row for key, row in self.links.items() if name not in (row["a"], row["b"])}
            self._show({**self.nodes, name: _missing(name, why, self.nodes[name])}, links)

    def _show(self, nodes: Rows, links: Rows) -> None:
        self.nodes, self.links = nodes, links
        changed, self._changed = self._changed, Event()
        changed.set()


def difference(before: Rows, now: Rows) -> dict[str, Row | None]:
    """Return the rows that are new or different, and None for those that are gone."""
    found: dict[str, Row | None] = {key: row for key, row in now.items() if before.get(key) != row}
    found.update(dict.fromkeys(before.keys() - now.keys()))
    return found


def look_at(node: Node, other: str, timeout: float = ASK_SECONDS) -> Row:
    """Return what one node says of itself, with ports and families. Switches.

    Raises:
        AempError, ValueError: It does not answer, or refuses.
    """
    what = {"links": 200, "ports": 200, "families": 200, "trees": 200}
    try:
        sent = ask(node, other, what, timeout)
    except ValueError:  # it may run an older version, which has no trees
        del what["trees"]
        sent = ask(node, other, what, timeout)
    _checked(sent)
    found: Row = plain(sent)
    return found


def is_known(node: Node, name: str) -> bool:
    """Return whether a node may be asked for a browser: it is this node, or one that it knows already."""
    network = network_of(node)
    return name == node.NODE() or (network is not None and network.known_peer(name) is not None)


_NUMBERS = ("time", "port_count", "messages", "deepest", "blocked", "cpu")


def _checked(sent: Sent) -> Row:
    """Return the part of an answer that rows are made of.

    Raises:
        ValueError: It is not such an answer.
    """
    links = sent.get("links")
    if not all(is_number(sent.get(key)) for key in _NUMBERS) or not isinstance(links, (list, tuple)):
        raise ValueError("it runs another version, which sends other figures")
    found: Row = plain({key: value for key, value in sent.items() if key != "links"}, 2)
    return {**found, "links": [row for row in links[:_MOST_ENDS_OF_ONE] if _is_link(row)]}


def _is_link(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return False
    name, state = row.get("node"), row.get("state")
    return isinstance(name, str) and isinstance(state, str) and _can_be_shown(name) and _can_be_shown(state)


def _can_be_shown(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isprintable()


def _is_hidden(name: str) -> bool:
    return name.startswith(COMMAND_PREFIX)


def _number(value: Any, factor: float = 1, digits: int = 0) -> float | None:
    return round(value * factor, digits) if is_number(value) else None


def _known_number(value: Any) -> float | None:
    return value if is_number(value) else None


def _text(value: Any) -> str:
    return short(value) if isinstance(value, str) else ""


def _rate(now: Any, before: Any, passed: float) -> float | None:
    if not is_number(now) or not is_number(before) or passed <= 0:
        return None
    return _number((now - before if now >= before else now) / passed, digits=1)  # None: hardly any time passed


def _link(name: str, row: Mapping[str, Any]) -> Row:
    return {
        "a": name,
        "b": row["node"],
        "state": row["state"],
        "via": _text(row.get("via")),
        "in": _known_number(row.get("packets_in")),
        "out": _known_number(row.get("packets_out")),
        "unsent": _number(row.get("unsent")),
        "rtt": _known_number(row.get("round_trip")),
        "tls": bool(row.get("tls")),
    }


def _join(links: Rows, row: Row, before: Row | None, passed: float) -> None:
    """Add one end of a link to the rows of links."""
    if _is_hidden(row["b"]):
        return
    key = " ".join(sorted((row["a"], row["b"])))
    rate = _rate(row["out"], before["out"], passed) if before else None
    rtt = _number(row["rtt"], 1000, 2)
    other = links.get(key)
    if other is None:
        links[key] = {
            "a": row["a"],
            "b": row["b"],
            "state": row["state"],
            "via": row["via"],
            "rate": rate,
            "unsent": row["unsent"] or 0,
            "rtt": rtt,
            "tls": row["tls"],
        }
    else:  # its other end
        other["unsent"] += row["unsent"] or 0
        other["rate"] = rate if other["rate"] is None else other["rate"] + (rate or 0)
        other["rtt"] = other["rtt"] if other["rtt"] is not None else rtt


def _node(name: str, answer: Row, before: Row | None, links: Iterable[Row]) -> Row:
    passed = answer["time"] - before["time"] if before else 0
    own = [row for row in links if not row["via"]]
    up = sum(row["state"] == "up" and not _is_hidden(row["b"]) for row in own)
    total = answer.get("link_count")
    rates = {
        key: _rate(answer.get(f"packets_{key}"), before.get(f"packets_{key}"), passed) if before else None
        for key in ("in", "out")
    }
    seconds = _number(answer.get("seconds"))
    return {
        "id": name,
        "group": without_random_words(name),
        "host": _text(answer.get("host")),
        "up": True,
        "error": "",
        "roles": short(" ".join(map(_text, roles if isinstance(roles := answer.get("roles"), list) else ()))),
        "links": total if is_number(total) and total > len(answer["links"]) else up,
        "ports": answer["port_count"],
        "messages": answer["messages"],
        "deepest": answer["deepest"],
        "blocked": answer["blocked"],
        "queue": _number(answer.get("queue")),
        "lag": _number(answer.get("worst_lag") or 0, 1000),
        "memory": _number(answer.get("memory") or 0, 2**-20),
        "cpu": _rate(answer["cpu"] * 100, before["cpu"] * 100 if before else None, passed),
        **rates,
        "unsent": sum(row["unsent"] or 0 for row in own),
        "since": None if seconds is None else round(answer["time"] - seconds),
    }


def _missing(name: str, why: str, before: Row | None) -> Row:
    known = before or {"id": name, "group": without_random_words(name), "host": "", "roles": ""}
    return {**known, "up": False, "error": _text(why), "in": None, "out": None, "cpu": None}
