# SPDX-License-Identifier: MIT
"""Rules that say what a peer may do besides sending messages, by its node ID.

A rule only takes rights away: it cannot allow what the other settings refuse to all peers
(``secure``, ``allow_spawn``, …). Of several rules, the first whose pattern matches the peer's
node ID counts; a peer that matches none may do everything.

**Proven IDs.** A rule protects only where a node cannot greet with another node's ID: where each
node proves its own with a certificate. With a secret that all nodes share, a peer
that knows it may use any ID, and rules only prevent mistakes.

**Slaves** are behind their master, which passes on what they send, and could invent it.
So a slave may do what its own rule *and* its master's allow; and a slave, which receives
everything through its own master, applies that node's rule, too.

The rights are checked where requests are handled: :mod:`aemp_gevent.node.requests` (with ``request_host`` and
``log_feed``), :mod:`aemp_gevent.peers.link_requests` and :mod:`aemp_gevent.peers.relaying`;
those of topics in :mod:`aemp_gevent.topics.broker`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Literal, cast

from aemp_gevent.runtime.quoting import quoted

Access = Literal["none", "read", "write"]

_LEVELS: tuple[Access, ...] = ("none", "read", "write")


@dataclass(frozen=True, kw_only=True)
class PeerRule:
    """What peers whose node ID matches a pattern may do; a right that is not mentioned is granted.

    Attributes:
        peer: A shell pattern for node IDs, such as ``web-*`` or ``10.0.0.?:*``; upper and lower
            case differ. A ``[`` of an IPv6 address is written ``[[]``.
        spawn: Whether they may run code here: spawn ports, call functions, and ``eval``. Only
            what is allowed to everybody: ``@spawnable``, ``allow_spawn``, ``allow_eval``.
        kill: Whether they may kill ports here, besides those that they spawned themselves, and those for
            the answers to questions: that is how these are refused.
        directory: ``"write"``: read the directory, and have entries in it. ``"read"``: their
            entries are left out, where they listen among them. ``"none"``: to them it is empty.
        relay: Whether anything is passed on from them to other nodes: by ``snd`` requests, by answers
            that another node is to get, and between slaves and the rest of the network.
        inspect: Whether they may look into this node: its links, its ports and their IDs, its log.
            Without it they learn its identity, and nothing else.
        publish: Whether ports here get what they publish; see :mod:`aemp_gevent.topics`.
        subscribe: Whether their ports get what is published here.

    Raises:
        ValueError, TypeError: A value is not valid; the text names its key.
    """

    peer: str
    spawn: bool = True
    kill: bool = True
    directory: Access = "write"
    relay: bool = True
    inspect: bool = True
    publish: bool = True
    subscribe: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.peer, str) or not self.peer:
            raise TypeError(f"'peer' must be a shell pattern for node IDs, not {quoted(self.peer)}")
        for name in ("spawn", "kill", "relay", "inspect", "publish", "subscribe"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"{quoted(name)} of the rule for {quoted(self.peer)} must be True or False, "
                    f"not {quoted(getattr(self, name))}"
                )
        if self.directory not in _LEVELS:
            text = f"'directory' of the rule for {quoted(self.peer)} must be one of {_LEVELS}, "
            raise ValueError(text + f"not {quoted(self.directory)}")

    @property
    def may_read(self) -> bool:
        """Whether they may read the directory."""
        return self.directory != "none"

    @property
    def may_write(self) -> bool:
        """Whether they may have entries in it."""
        return self.directory == "write"


EVERYTHING = PeerRule(peer="*")
"""The rights of a peer that no rule matches."""


def read_rule(rule: object) -> PeerRule:
    """Return the rule that a setting gives, as a rule or a mapping of its attributes.

    Raises:
        ValueError, TypeError: It is not one; the text says why.
    """
    if isinstance(rule, PeerRule):
        return rule
    if not isinstance(rule, Mapping):
        raise TypeError(f"a rule must be a mapping like {{'peer': 'web-*', 'spawn': False}}, not {quoted(rule)}")
    given = cast("Mapping[str, object]", rule)
    known = [described.name for described in fields(PeerRule)]
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {quoted(nearest[0])}?" if nearest else f"; it has {known}"
            raise ValueError(f"a rule has no key {quoted(name)}{hint}")
    if "peer" not in given:
        raise ValueError(f"the rule {quoted(rule)} has no 'peer'; write 'peer': '*' for all")
    return PeerRule(**given)  # type: ignore[arg-type]  # which it checks itself


def rights_of(rules: Iterable[PeerRule], *nodes: str) -> PeerRule:
    """Return the rights of a peer.

    Args:
        rules: The rules, of which the first that matches counts.
        nodes: Its node ID, and those of the nodes that pass on what it sends: it may do what all of them may.
    """
    rules = tuple(rules)
    rights = EVERYTHING
    for node in nodes if rules else ():
        rule = next((rule for rule in rules if fnmatchcase(node, rule.peer)), EVERYTHING)
        rights = replace(
            rule,
            spawn=rule.spawn and rights.spawn,
            kill=rule.kill and rights.kill,
            directory=min(rule.directory, rights.directory, key=_LEVELS.index),
            relay=rule.relay and rights.relay,
            inspect=rule.inspect and rights.inspect,
            publish=rule.publish and rights.publish,
            subscribe=rule.subscribe and rights.subscribe,
        )
    return rights
