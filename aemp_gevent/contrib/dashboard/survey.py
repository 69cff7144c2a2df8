# SPDX-License-Identifier: MIT
"""What the dashboard knows of the network: a row for each node and each link, taken again and again.

One survey serves all browsers. It asks the nodes only while somebody watches. What a node answers is cut to what the
page shows, because a node may send anything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import gevent
from gevent.event import Event

from aemp_gevent.addresses.ids import COMMAND_PREFIX, without_random_words
from aemp_gevent.errors import AempError, DirectoryUnavailableError, NodeShutDownError
from aemp_gevent.node.access import known_nodes, network_of
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.vocabulary import INSPECT

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

_MAX_TEXT = 300


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
        """Whether the node has shut down."""
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
        if self._work is None:
            self._guard = self._node.mon_nodes(self._link_changed)
            self._work = gevent.spawn(self._run)

    def leave(self) -> None:
        """Count one watcher less. After the last one nobody is asked any more."""
        self._watchers -= 1
        if not self._watchers and self._work is not None:
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
            self._gone.pop(name, None)
            rows = [_link(name, row) for row in answer["links"] if _is_link(row)]
            before = self._before.get(name)
            nodes[name] = _node(answer, before, rows)
            former = {row["b"]: row for row in before["rows"]} if before else {}
            for row in rows:
                if row["state"] != "down":
                    _join(links, row, former.get(row["b"]), answer["time"] - before["time"] if before else 0)
            self._before[name] = {**answer, "rows": rows}
        self._known = dict.fromkeys(nodes)
        self._before = {name: answer for name, answer in self._before.items() if name in nodes}
        self._show(nodes, links)

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self.take()
            except NodeShutDownError:
                self.is_over = True
                self._show(self.nodes, self.links)
                return
            gevent.sleep(max(self._interval, _REST * (time.monotonic() - began)))

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
            asked = {
                name: self._node.call_async(name, INSPECT, {"links": 1000}, timeout=ASK_SECONDS)
                for name in list(due)[: MAX_NODES - len(answers)]
            }
            gevent.wait(list(asked.values()))
            due = {}
            for name, result in asked.items():
                try:
                    answers[name] = found = _checked(result.get())
                except (AempError, ValueError) as error:
                    answers[name] = str(error)
                    continue
                for row in found["links"]:
                    if _is_link(row) and row["state"] == "up" and not _is_hidden(row["node"]):
                        due[row["node"]] = None
            due = {name: None for name in due if name not in answers}
        return answers

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
            why = "it has shut down" if reason[:1] == ("shutdown",) else " ".join(map(str, reason[2:])) or "it is gone"
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
        return _checked(node.call(other, INSPECT, what, timeout=timeout))
    except ValueError:  # it may run an older version, which has no trees
        del what["trees"]
        return _checked(node.call(other, INSPECT, what, timeout=timeout))


def is_known(node: Node, name: str) -> bool:
    """Return whether a node may be asked for a browser: it is this node, or one that it knows already."""
    network = network_of(node)
    return name == node.NODE() or (network is not None and network.known_peer(name) is not None)


_NUMBERS = ("time", "port_count", "messages", "deepest", "blocked", "cpu")


def _checked(answer: Any) -> Row:
    if not isinstance(answer, Mapping):
        raise ValueError("it sent an unexpected answer")  # noqa: TRY004  # a peer gave it
    if "error" in answer:
        raise ValueError(f"it refuses: {quoted(answer['error'], _MAX_TEXT)}")
    if not all(isinstance(answer.get(key), (int, float)) for key in _NUMBERS) or not isinstance(
        answer.get("links"), (list, tuple)
    ):
        raise ValueError("it runs another version, which sends other figures")
    return dict(answer)


def _is_link(row: Any) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("node"), str) and isinstance(row.get("state"), str)


def _is_hidden(name: str) -> bool:
    return name.startswith(COMMAND_PREFIX)


def _number(value: Any, factor: float = 1, digits: int = 0) -> float | None:
    return round(value * factor, digits) if isinstance(value, (int, float)) else None


def _text(value: Any) -> str:
    return str(value)[:_MAX_TEXT] if isinstance(value, str) else ""


def _rate(now: Any, before: Any, passed: float) -> float | None:
    if not isinstance(now, (int, float)) or not isinstance(before, (int, float)) or passed <= 0:
        return None
    return round((now - before if now >= before else now) / passed, 1)


def _link(name: str, row: Mapping[str, Any]) -> Row:
    return {
        "a": name,
        "b": _text(row["node"]),
        "state": _text(row["state"]),
        "via": _text(row.get("via")),
        "in": row.get("packets_in"),
        "out": row.get("packets_out"),
        "unsent": _number(row.get("unsent")),
        "rtt": row.get("round_trip"),
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


def _node(answer: Row, before: Row | None, links: Iterable[Row]) -> Row:
    passed = answer["time"] - before["time"] if before else 0
    own = [row for row in links if not row["via"]]
    former = before["rows"] if before else []
    seconds = _number(answer.get("seconds"))
    return {
        "id": _text(answer.get("node")),
        "group": without_random_words(_text(answer.get("node"))),
        "host": _text(answer.get("host")),
        "up": True,
        "error": "",
        "roles": " ".join(_text(role) for role in answer.get("roles", ()))[:_MAX_TEXT],
        "links": sum(row["state"] == "up" and not _is_hidden(row["b"]) for row in own),
        "ports": answer["port_count"],
        "messages": answer["messages"],
        "deepest": answer["deepest"],
        "blocked": answer["blocked"],
        "queue": _number(answer.get("queue")),
        "lag": _number(answer.get("worst_lag") or 0, 1000),
        "memory": _number(answer.get("memory") or 0, 2**-20),
        "cpu": _rate(answer["cpu"] * 100, before["cpu"] * 100 if before else None, passed),
        "in": _rate(_sum(own, "in"), _sum(former, "in"), passed) if before else None,
        "out": _rate(_sum(own, "out"), _sum(former, "out"), passed) if before else None,
        "unsent": sum(row["unsent"] or 0 for row in own),
        "since": None if seconds is None else round(answer["time"] - seconds),
    }


def _sum(rows: Iterable[Row], key: str) -> float:
    return sum(float(row[key]) for row in rows if isinstance(row[key], (int, float)))


def _missing(name: str, why: str, before: Row | None) -> Row:
    known = before or {"id": name, "group": without_random_words(name), "host": "", "roles": ""}
    return {**known, "up": False, "error": _text(why), "in": None, "out": None, "cpu": None}
