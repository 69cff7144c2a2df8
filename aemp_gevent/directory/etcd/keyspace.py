# SPDX-License-Identifier: MIT
"""The keys and values that nodes write to etcd.

They stand under the prefix, which is the path in the setting ``directory``
(:mod:`aemp_gevent.settings.directory_address`), with each part percent-encoded:

========================= ==============================================
``/db/FAMILY/KEY/OWNER``  the value of an entry, as msgpack
``/node/OWNER``           empty; attached to the owner's current lease
========================= ==============================================

Keys and values of any other form are skipped with a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from aemp_gevent.directory.etcd.client import EtcdClient, Json, decoded, encoded
from aemp_gevent.runtime.logs import Log
from aemp_gevent.wire.framing_msgpack import ERRORS, MsgpackDecoder, make_resting_encoder
from aemp_gevent.wire.limits import Limits

_PAGE = 500
"""How many keys are read at a time."""

_LOG_SECONDS = 60.0

_log = Log("aemp_gevent.etcd")


class StoredValue(NamedTuple):
    """The value of an entry in etcd.

    Attributes:
        encoded: Its bytes in etcd.
        content: What they decode to.
    """

    encoded: bytes
    content: Any


class Keyspace:
    """Translates between the entries of a directory and the keys and values in etcd.

    Args:
        prefix: The prefix of all keys.
        node: The ID of this node, the owner of its entries.
    """

    def __init__(self, prefix: str, node: str) -> None:
        self._prefix = prefix
        self._above_families = len(f"{prefix}/db/".encode())
        self._node = node
        self._skipped_at = -math.inf
        self.encode: Callable[[list[Any]], bytes] = make_resting_encoder()
        """Returns the msgpack of a list; a value is encoded as a list of one."""
        self.node_key = f"{prefix}/node/{_escaped(node)}".encode()
        """The key that is attached to the current lease of this node."""

    def range(self, family: str) -> tuple[bytes, bytes]:
        """Return the first key that a family can have, and the first one after the family."""
        begin = f"{self._prefix}/db/{_escaped(family)}/".encode()
        return begin, begin[:-1] + b"0"  # which comes after the slash

    def range_begin(self, path: bytes) -> bytes:
        """Return where the range of the family begins that etcd's key lies in; empty: it lies in none."""
        return path[: path.find(b"/", self._above_families) + 1]

    def key(self, family: str, key: str, owner: str | None = None) -> bytes:
        """Return etcd's key for an entry; the owner is this node by default."""
        parts = (family, key, self._node if owner is None else owner)
        return f"{self._prefix}/db/{'/'.join(map(_escaped, parts))}".encode()

    def place(self, path: bytes) -> tuple[str, str] | None:
        """Return the key and the owner that etcd's key stands for; None if it does not stand for an entry."""
        try:
            _, key, owner = (
                unquote(part, errors="surrogatepass")
                for part in path.decode().removeprefix(f"{self._prefix}/db/").split("/")
            )
        except ValueError:
            self._skip(path, "its name does not have the form FAMILY/KEY/OWNER")
            return None
        return key, owner

    def value(self, path: bytes, text: bytes) -> StoredValue | None:
        """Decode a value; return None if that is impossible.

        Args:
            path: etcd's key, for the log.
            text: The value's bytes.
        """
        decoder = MsgpackDecoder(Limits(max(len(text), 1)))
        decoder.feed(text)
        try:
            (packet,) = decoder
            (value,) = packet
        except ERRORS as error:  # also a value that holds more than one
            self._skip(path, f"its value cannot be decoded: {error}")
            return None
        return StoredValue(text, value)

    def read_family(self, client: EtcdClient, family: str, take: Callable[[str, str, StoredValue], object]) -> int:
        """Read a family at one revision, page by page. Switches.

        Args:
            client: The connection to read from.
            family: Its name.
            take: Called with the key, the owner and the value of each entry.

        Returns:
            The revision.
        """
        begin, end = self.range(family)
        revision = 0
        while True:
            page: Json = {"key": encoded(begin), "range_end": encoded(end), "limit": str(_PAGE)}
            answer = client.call("kv/range", {**page, **({"revision": str(revision)} if revision else {})})
            revision = revision or int(answer["header"]["revision"])
            path = b""
            for kv in answer.get("kvs", ()):
                path = decoded(kv["key"])
                place = self.place(path)
                value = None if place is None else self.value(path, decoded(kv.get("value")))
                if place is not None and value is not None:
                    take(*place, value)
            if not answer.get("more") or not path:
                return revision
            begin = path + b"\0"

    def _skip(self, path: bytes, why: str) -> None:
        now = monotonic()
        if now - self._skipped_at > _LOG_SECONDS:
            self._skipped_at = now
            text = "the key %s in etcd is skipped: %s (further ones are not logged for %d s)"
            _log.warning(text, path, why, int(_LOG_SECONDS))


def _escaped(part: str) -> str:
    return quote(part, safe="", errors="surrogatepass")
