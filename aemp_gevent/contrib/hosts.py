# SPDX-License-Identifier: MIT
# pyright: reportUnusedImport=false
"""Joining the processes of one host that belong together, such as a web server's workers.

They meet in a folder of Unix sockets (:mod:`aemp_gevent.addresses.socket_folders`) that only their user can
access, and in which they also share a secret. So you need no configuration and no server, and the processes can start
and end in any order.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

# What only nodes with links need is imported now, and not by the first call: so gunicorn's master, which reads its
# configuration, shares it with all workers, and they join in some milliseconds instead of 150.
import aemp_gevent.directory.embedded.engine
import aemp_gevent.node.node_listener
import aemp_gevent.node.requests  # noqa: F401
from aemp_gevent import default_node
from aemp_gevent.errors import InvalidSettingError, NoSecretError
from aemp_gevent.node.access import network_of
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.hub_calls import repeated
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import make_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from aemp_gevent.peers.network import Network
    from aemp_gevent.settings.given import ConfigureSettings, JoinSettings

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,39}")

_REFRESH_SECONDS = 3600.0
"""How often the files are touched, because systems remove files from /tmp that are some days old."""

_LOOK_SECONDS = 2.0
"""How often the secret's file is checked."""

_FORMER_SECRETS = 8
"""How many former secrets are accepted beside the one in the file."""

_log = Log()


def join_host(
    name: str,
    *seeds: str,
    folder: str | os.PathLike[str] | None = None,
    node: Node | None = None,
    **settings: Unpack[JoinSettings],
) -> None:
    """Become a node that links to all nodes of the same name, user and host, such as other workers.

    Blocks until this node is linked to the existing ones (up to 5 seconds if one of them does not answer), and knows
    their entries in the directory.

    Call this in each serving process, after it was forked, in the native thread that runs its loop.
    The nodes find each other, in whatever order they start and end, and share their groups and
    families. They listen on Unix sockets only, and share a secret that the first of
    them generates, unless there are seeds on other hosts.

    The node's ID is ``name/host/%u`` unless the setting ``nodeid`` is given.

    Args:
        name: The common name of the nodes: up to 40 letters, digits, ``_``, ``.`` and ``-``.
        seeds: Noderefs on other hosts, over TCP; if none are given, the setting ``seeds``. With seeds, the secret must
            be given, and this node also listens on a free TCP port of all interfaces.
        folder: The folder of the sockets and the secret. It is created if necessary, and must belong to this
            user and be closed to others. None: ``aemp-UID`` in the system's folder for temporary files.
        node: The node; None: the default node, which the module functions use.
        settings: See :class:`~aemp_gevent.Settings`. Other settings come from the environment
            and the profile file, as with ``configure``. ``binds`` are in addition to the Unix socket.

    Raises:
        InvalidSettingError: The name is invalid, the folder is not private, or a setting is wrong.
        NoSecretError: There are seeds, but no secret.
        ListenError: The folder's path is too long for sockets in it, or a bind is taken.
        AlreadyInitialisedError: The node has its identity already.
        AempError: The same as ``configure()``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSettingError("name", name, "it must have 1 to 40 letters, digits and the characters _ . -")
    joined = default_node if node is None else node
    given: ConfigureSettings = {**settings, "seeds": seeds} if seeds else {**settings}  # type: ignore[typeddict-item]
    private = _private_folder(folder)
    secret = None
    try:
        wanted = make_settings(given)
    except NoSecretError:
        given["secret"] = secret = _shared_secret(private / f"{name}.secret")
        wanted = make_settings(given)
        if wanted.seeds:
            raise  # nodes on other hosts cannot read this folder
    sockets = f"unix:{private}/{name}/"
    given["nodeid"] = wanted.nodeid or f"{name}/%n/%u"
    given["seeds"] = [sockets, *wanted.seeds]
    given["binds"] = [sockets, *_other_binds(wanted)]
    joined.configure(**given)
    if secret is not None:
        _Keeper(joined, private / f"{name}.secret", secret).look()
    joined.wait_for_seeds()


def _other_binds(wanted: Settings) -> tuple[str, ...]:
    if wanted.binds is not None:
        return wanted.binds
    return ("*:0",) if wanted.seeds else ()


def _private_folder(folder: str | os.PathLike[str] | None) -> Path:
    """Return a folder that only this user can access, and create it if necessary.

    Raises:
        InvalidSettingError: The folder cannot be created, or others can access it.
    """
    path = Path(tempfile.gettempdir(), f"aemp-{os.geteuid()}") if folder is None else Path(folder).absolute()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        # lstat(), because in /tmp any user may have made a symbolic link of this name.
        found = path.lstat()
    except OSError as error:
        raise InvalidSettingError("folder", str(path), f"it cannot be used ({error.strerror}); give another") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        why = "it must belong to this user and be closed to others; run 'chmod 700' on it, or give another folder"
        raise InvalidSettingError("folder", str(path), why)
    return path


def _shared_secret(path: Path) -> str:
    """Return the secret in a file, which the first process writes."""
    _write_first(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_first(path: Path, text: str) -> None:
    """Write a file atomically, unless it exists."""
    if path.exists():
        return
    descriptor, scratch = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(scratch)
    finally:
        Path(scratch).unlink()


class _Keeper:
    """Keep the secret's file, so that all nodes of a name share one secret even if the file is removed.

    A removed file is written again. If it contains another secret, a process started while it was gone: all nodes then
    adopt the new secret, and accept former ones as well until the others have adopted it, too.

    Args:
        node: Our node.
        path: The file.
        secret: Its content when this node started.
    """

    def __init__(self, node: Node, path: Path, secret: str) -> None:
        self._node = node
        self._path = path
        self._secrets: tuple[str, ...] = (secret,)
        self._complaint = ""

    def look(self) -> None:
        """Check the file, now and every few seconds until the node shuts down, or is abandoned in a forked child."""
        network = network_of(self._node)
        if network is None or network.is_closed:
            return
        self._check(network)
        hub: Any = self._node.scheduler.hub  # its stubs do not know the loop's timers
        # No reference: this must not keep the loop of a finished program running.
        timer = hub.loop.timer(_LOOK_SECONDS, _LOOK_SECONDS, ref=False)

        def again() -> None:  # on the hub
            if network.is_closed:
                timer.stop()
                timer.close()
            else:
                self._check(network)

        timer.start(repeated(hub, again))

    def _check(self, network: Network) -> None:
        try:
            self._take_over(network, self._read())
            self._complaint = ""
        except (OSError, UnicodeError, InvalidSettingError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("the secret's file %s cannot be maintained: %s", self._path, error)

    def _read(self) -> str:
        # Checked each time: if ours was removed from /tmp, another user may have created a folder of this name.
        _private_folder(self._path.parent)
        _write_first(self._path, self._secrets[0])
        if time() - self._path.stat().st_mtime > _REFRESH_SECONDS:
            os.utime(self._path)
        return self._path.read_text()

    def _take_over(self, network: Network, secret: str) -> None:
        if secret and secret != self._secrets[0]:
            former = [known for known in self._secrets if known != secret]
            self._secrets = (secret, *former[:_FORMER_SECRETS])
            network.reload(replace(network.settings, secret=self._secrets))
            _log.warning(
                "the secret's file %s was removed and written again by another process; adopted its new secret",
                self._path,
            )
