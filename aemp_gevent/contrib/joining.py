# SPDX-License-Identifier: MIT
"""URLs such as ``aemp://chat``, with which a program joins the nodes of a name when it first needs them.

For programs that have no better place to call :func:`~aemp_gevent.contrib.join_host`: scripts, and servers that
load the application before they fork their workers.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from gevent import Greenlet, monkey
from gevent.lock import RLock
from greenlet import getcurrent

from aemp_gevent import default_node
from aemp_gevent.contrib.hosts import join_host
from aemp_gevent.contrib.per_process import PerProcess
from aemp_gevent.errors import InvalidSettingError, PrivateNodeError, WrongThreadError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log

SCHEME = "aemp"

_FORM = "write 'aemp://', 'aemp://NAME' or 'aemp://NAME?seeds=HOST:PORT,HOST:PORT'"

_lock = PerProcess(RLock)
_warned: PerProcess[set[str]] = PerProcess(set)

_log = Log()


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
            WrongThreadError: It has not joined, and this is a native thread, in which its loop would not run.
            AempError: The same as :func:`~aemp_gevent.contrib.join_host`.
        """
        joined = default_node if node is None else node
        if joined.settings is None:
            with _lock.get():
                if joined.settings is None:  # again: another greenlet may have done it meanwhile
                    if not self.name:
                        raise PrivateNodeError(call)
                    if not (monkey.is_module_patched("threading") or _is_main_thread()):
                        raise WrongThreadError(call)
                    join_host(self.name, *self.seeds, folder=self.folder, node=joined)
        return joined

    def join_in_request(self, setting: str, node: Node | None = None) -> Node | None:
        """Join before a request is handled, if a loop of gevent's serves it; otherwise return None, and warn once.

        The node's loop would not run between the requests of other servers, such as those that Flask and Django have
        for development, and other nodes would take it for dead. So the process stays alone.
        """
        joined = default_node if node is None else node
        if joined.settings is not None or isinstance(getcurrent(), Greenlet):
            return self.join(setting, node)
        if setting not in _warned.get():
            _warned.get().add(setting)
            text = "%s: this process stays private, as its server does not run gevent's loop; use gunicorn -k gevent"
            _log.warning(text, setting)
        return None


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
