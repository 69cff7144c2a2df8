# SPDX-License-Identifier: MIT
"""URLs such as ``aemp://chat``, with which a program joins the nodes of a name when it first needs them.

For programs that have no better place to call :func:`~aemp_gevent.contrib.join_host`: scripts, and servers that
load the application before they fork their workers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from gevent.lock import RLock

from aemp_gevent import default_node
from aemp_gevent.contrib.hosts import join_host
from aemp_gevent.errors import InvalidSettingError, PrivateNodeError
from aemp_gevent.node.node import Node

SCHEME = "aemp"

_FORM = "write 'aemp://', 'aemp://NAME' or 'aemp://NAME?seeds=HOST:PORT,HOST:PORT'"

_locks: dict[int, RLock] = {}  # by process ID: a child that was forked meanwhile needs one of its own


@dataclass(frozen=True)
class MeshURL:
    """Where a program finds its nodes.

    Attributes:
        name: The nodes' name, for :func:`~aemp_gevent.contrib.join_host`; ``""``: the program joins by itself.
        seeds: Noderefs on other hosts; none: the setting ``seeds``.
        folder: The folder of the sockets; None: the default one.
    """

    name: str = ""
    seeds: tuple[str, ...] = ()
    folder: str | None = None

    def join(self, call: str, node: Node | None = None) -> Node:
        """Return the node, after it has joined the others, which it does at most once. Switches if it has not yet.

        Args:
            call: What needs the node, for the error's text.
            node: The node; None: the default node.

        Raises:
            PrivateNodeError: It has not joined, and the URL has no name.
            AempError: The same as :func:`~aemp_gevent.contrib.join_host`.
        """
        joined = default_node if node is None else node
        if joined.settings is None:
            with _locks.setdefault(os.getpid(), RLock()):
                if joined.settings is None:  # again: another greenlet may have done it meanwhile
                    if not self.name:
                        raise PrivateNodeError(call)
                    join_host(self.name, *self.seeds, folder=self.folder, node=joined)
        return joined


def parse_url(url: str) -> MeshURL:
    """Parse a URL.

    Raises:
        InvalidSettingError: It is not such a URL.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme != SCHEME or not url.startswith(f"{SCHEME}://"):
        raise InvalidSettingError("url", url, _FORM)
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(options) - {"seeds", "folder"})
    if unknown or parts.fragment or parts.path not in {"", "/"} or "@" in parts.netloc:
        # A secret in a URL would end up in logs and process listings.
        raise InvalidSettingError("url", url, f"{_FORM}; the secret is the setting AEMP_SECRET")
    if options and not parts.netloc:
        raise InvalidSettingError("url", url, f"it has seeds or a folder, but no name; {_FORM}")
    seeds = ",".join(options.get("seeds", ())).split(",")
    folder = options.get("folder", [""])[-1]
    return MeshURL(parts.netloc, tuple(seed for seed in seeds if seed), folder or None)
