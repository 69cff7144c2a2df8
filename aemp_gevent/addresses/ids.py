# SPDX-License-Identifier: MIT
"""The grammar of IDs: the forms of port IDs, node IDs and noderefs.

Pure string work: nothing here resolves a host name or opens a socket (see
:mod:`aemp_gevent.addresses.resolve`), and nothing knows which ports exist. Endpoints are in
:mod:`aemp_gevent.addresses.endpoints`.

Grammar::

    port ID   = node ID "#" port name        (the node port's ID is the node ID)
    node ID   = resolved noderef | slave | "anon/" random | named node
    noderef   = endpoint *( "," endpoint )
    endpoint  = "host:port" | "[v6]:port" | "unix:/path" | shorter, unresolved forms

A path with a slash at its end is a folder, in which any socket may be
(:mod:`aemp_gevent.addresses.socket_folders`), as 0 is any port.

IDs are plain strings: they print, hash, travel and compare for free.
"""

from __future__ import annotations

import functools
import itertools
import operator
import os
import re
import string
from collections.abc import Callable
from numbers import Number
from types import FunctionType

from aemp_gevent.addresses.endpoints import MAX_PORT, is_port_number, is_resolved, parse_endpoint
from aemp_gevent.errors import InvalidNoderefError, InvalidPortError
from aemp_gevent.runtime.quoting import escaped, of_type, quoted
from aemp_gevent.wire.limits import MAX_NAME_BYTES, is_long

ANON_PREFIX = "anon/"
SLAVE_PREFIX = "slave/"
COMMAND_PREFIX = "aemp/"
"""How the IDs of nodes of the command ``aemp`` begin, which are short-lived and not shown."""

_ALPHABET = string.ascii_letters + string.digits

# 10 characters of 62: 59 bits. Among a million processes the chance that any two have the
# same word is under one in a million, and the IDs of ports fit into 80 bytes.
_UNIQ_LENGTH = 10

MAX_NAME = 255  # characters of this node's own names; a greeting line, which holds more than the name, has 4096 bytes
_NAMED_NODE = re.compile(r"[A-Za-z0-9_.:/-]+")
_NODE_ID = re.compile(r"[A-Za-z0-9_.:/-]+|slave/[A-Za-z0-9_.:/-]+@[A-Za-z0-9_.:/!\[\]%-]+")
_NEVER_A_PORT = (bytes, bytearray, list, tuple, dict)
_ENDS_IN_PORT = re.compile(r":\d+$")
_PORT_NUMBER = re.compile(r"(?:^|,)(?:[^,:]*|\[[^,\]]*\]):(\d+)(?=,|$)")

_SLAVE_ID = re.compile(r"slave/[A-Za-z0-9_.:/-]+@([A-Za-z0-9_.:/!\[\]%-]+)")


_LAST_DIGITS = [f"{number:02x}" for number in reversed(range(256))]

# Digits, small letters and capital letters, all three: so words of a language, and most names that people give, are
# not taken for random ones.
_UNIQ = r"(?=\w{0,9}[0-9])(?=\w{0,9}[a-z])(?=\w{0,9}[A-Z])[A-Za-z0-9]{10}"
_OWN_UNIQ = re.compile(_UNIQ)
_UNIQUE_NAME = re.compile(_UNIQ + "[0-9a-f]+")
_UNIQ_IN_NODE = re.compile(rf"(?<![A-Za-z0-9]){_UNIQ}(?![A-Za-z0-9])")


def new_uniq() -> str:
    """Return a random word that no process ever got before (59 bits from the operating system)."""
    while True:
        # Not the module secrets, which takes as long to import as a third of this package. 128 bits for 59.
        number = int.from_bytes(os.urandom(16), "big")
        word = "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(_UNIQ_LENGTH))
        if _OWN_UNIQ.fullmatch(word):
            return word


def port_names(uniq: str) -> Callable[[], str]:
    """Return a function that makes port names, never the same one twice.

    ``uniq`` makes them unique among processes, a counter within this one.
    """
    blocks = map(f"{uniq}%x".__mod__, itertools.count())
    left: list[str] = []
    take = left.pop

    # Other threads and finalizers may ask anywhere in here, and exceptions may strike, as at the recursion limit: then
    # names are left out, but none comes twice, and the next call finds more.
    def new_name() -> str:
        while True:
            try:
                return take()
            except IndexError:
                # Formatting a number costs several times as much as joining two texts.
                left.extend(map(operator.add, itertools.repeat(next(blocks)), _LAST_DIGITS))

    return new_name


def is_unique_name(name: str) -> bool:
    """Return whether a port name was made by :func:`port_names`, so that no other port will ever have it.

    All other names are chosen by programs: another port may have them later.
    """
    return _UNIQUE_NAME.fullmatch(name) is not None


def without_random_words(node: str) -> str:
    """Return a node ID with ``*`` for words of :func:`new_uniq`: the same for processes that replace each other."""
    return _UNIQ_IN_NODE.sub("*", node)


def split_port(port: object, max_name_bytes: int = MAX_NAME_BYTES) -> tuple[str, str]:
    """Return ``(node ID, port name)`` of a port ID; the name is ``""`` for a node port.

    Nodes of this library have plain names, but those of other programs may have any printable ones.

    Args:
        port: A port ID, or any object whose ``str()`` is one, of a node with a plain name.
        max_name_bytes: How long each of the two may be.

    Raises:
        InvalidPortError: It is not one, or its node part is a noderef that must be resolved first.
    """
    is_text = isinstance(port, str)
    if type(port) in _NEVER_A_PORT:  # and may be large, as it came with a message
        raise InvalidPortError(port, f"it is {of_type(port)}")
    text = str(port)
    node, _, name = text.partition("#")
    if is_long(node, max_name_bytes) or is_long(name, max_name_bytes):
        why = f"it has {len(text)} characters; a node ID and a port name have at most {max_name_bytes} bytes each"
        raise InvalidPortError(text[:40] + "…", why)
    if port is None or not node:
        raise InvalidPortError(port)
    if isinstance(port, Number):  # 5 would name a node "5" otherwise
        raise InvalidPortError(port, "it is a number")
    # Text with blanks before any '#' is a mistake far more often than a node of another program, and so are
    # objects with blanks in their str().
    if not text.isprintable() or " " in (node if is_text else text):
        if isinstance(port, FunctionType):
            raise InvalidPortError(port, "it is a function; call an @actor to get its port")
        raise InvalidPortError(port, "it holds blanks or unprintable characters")
    why = _fault_of(node, is_text)
    if why:
        raise InvalidPortError(port, why)
    return node, name


def _fault_of(node: str, may_be_odd: bool) -> str:
    """Return why messages cannot be sent to this node ID, or "" when they can."""
    # Peers choose what is cached, and it stays after they are gone.
    return (_find_fault if len(node) > MAX_NAME else _known_fault)(node, may_be_odd)


def _find_fault(node: str, may_be_odd: bool) -> str:
    is_noderef = "," in node or ("@" not in node and _ENDS_IN_PORT.search(node))
    for number in _PORT_NUMBER.findall(node) if is_noderef else ():
        if not is_port_number(number, 1):
            return f"the port number {escaped(number, 20)} is out of range 1-{MAX_PORT}"
    if is_resolved(node):
        return ""
    if is_noderef:
        return f"{quoted(node)} is an unresolved noderef: call resolve_node() on it first"
    is_odd_name = may_be_odd and not node.startswith(SLAVE_PREFIX)
    return "" if is_odd_name or _NODE_ID.fullmatch(node) else f"{quoted(node)} is not a node ID"


# Called for every new port of the same few nodes, and takes 10 microseconds.
_known_fault = functools.lru_cache(maxsize=1024)(_find_fault)


def node_of(port: object) -> str:
    """Return the node part of a port ID; a node ID is returned as it is.

    Raises:
        InvalidPortError: It is not a port ID.
    """
    return split_port(port)[0]


def is_node_id(node: str) -> bool:
    """Return whether messages can be sent to a node of this ID."""
    return bool(node) and node.isprintable() and " " not in node and not _fault_of(node, True)


def master_of(node: str) -> str | None:
    """Return the ID of a slave's master; None for all other nodes, and for what is not a node ID."""
    if not node.startswith(SLAVE_PREFIX):
        return None
    found = _SLAVE_ID.fullmatch(node)
    return found[1].replace("!", ",") if found else None


def slave_id(name: str, master: str) -> str:
    """Return the ID of a slave.

    Args:
        name: See :func:`slave_name`.
        master: The master's ID.

    Raises:
        InvalidNoderefError: The master's ID cannot be part of another.
    """
    node = f"{SLAVE_PREFIX}{name}@{master.replace(',', '!')}"
    if master_of(node) != master or is_long(node, MAX_NAME_BYTES):
        raise InvalidNoderefError(master, "a node of this ID cannot have slaves: their IDs would not be valid")
    return node


def slave_name(noderef: str) -> str:
    """Return the name in ``slave/name``, and for ``slave/`` one that no other process ever had.

    Raises:
        InvalidNoderefError: The name is malformed.
    """
    name = noderef.removeprefix(SLAVE_PREFIX) or new_uniq()
    if len(name) > MAX_NAME:
        raise InvalidNoderefError(noderef[:40] + "…", f"a slave's name has at most {MAX_NAME} characters")
    if not _NAMED_NODE.fullmatch(name):
        why = "a slave's name consists of letters, digits and the characters _ . : / -"
        if "@" in name:
            why = "write 'slave/name', and give the masters as seeds: the name becomes 'slave/name@master' by itself"
        raise InvalidNoderefError(noderef, why)
    return name


def check_noderef(noderef: object) -> None:
    """Check that a string could be resolved, as far as possible without asking the name service.

    Raises:
        InvalidNoderefError: It is malformed, or of a reserved kind.
    """
    if not isinstance(noderef, str):
        raise InvalidNoderefError(noderef, "a noderef must be a string")
    if noderef.startswith((ANON_PREFIX, SLAVE_PREFIX)):
        raise InvalidNoderefError(noderef, "names that begin like this are reserved, and have no endpoints")
    for component in noderef.split(","):
        word = component.strip()
        if word.isdigit():
            parse_endpoint(f"localhost:{word}")
        elif word:
            parse_endpoint(word)


def expand_node_id(nodeid: str, host: str, uniq: str) -> str:
    """Return a node ID in which ``%n`` is the host's name, ``%u`` a word of the process's own, and ``%%`` a ``%``.

    Raises:
        InvalidNoderefError: Another character follows a ``%``.
    """
    head, *parts = nodeid.replace("%%", "%\0").split("%")
    words = {"n": host, "u": uniq, "\0": "%"}
    for part in parts:
        if part[:1] not in words:
            raise InvalidNoderefError(nodeid, f"'%{part[:1]}' is not one of %n, %u and %%")
        head += words[part[0]] + part[1:]
    return head


def check_node_name(name: object) -> str:
    """Return the name of a named node, or a resolved noderef, unchanged.

    Raises:
        InvalidNoderefError: The name is reserved (``anon/…``, ``slave/…``) or malformed.
    """
    if not isinstance(name, str):
        raise InvalidNoderefError(name, "a node ID must be a string")
    if name.startswith((ANON_PREFIX, SLAVE_PREFIX)):
        raise InvalidNoderefError(name, "names that begin like this are reserved")
    if is_resolved(name):
        return name
    if len(name) > MAX_NAME:
        raise InvalidNoderefError(name[:40] + "…", f"a node name has at most {MAX_NAME} characters")
    if not _NAMED_NODE.fullmatch(name):
        raise InvalidNoderefError(name, "a node name consists of letters, digits and the characters _ . : / -")
    if _ENDS_IN_PORT.search(name):
        raise InvalidNoderefError(name, "a node name must not end in ':' and digits, as only resolved noderefs do")
    return name
