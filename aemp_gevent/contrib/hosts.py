# SPDX-License-Identifier: MIT
"""The processes of one host that belong together, such as a web server's workers: one call for each.

They meet in a folder of Unix sockets (:mod:`aemp_gevent.addresses.socket_folders`) that only their user may
enter, and there they share a secret, too. So there is nothing to configure, no server to
start, and nobody who must be first or may not die.
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
from typing import TYPE_CHECKING

from aemp_gevent import default_node
from aemp_gevent.errors import InvalidSettingError, NoSecretError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Settings
from aemp_gevent.settings.sources import make_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from aemp_gevent.peers.network import Network
    from aemp_gevent.settings.given import ConfigureSettings, JoinSettings

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,39}")

_REFRESH_SECONDS = 3600.0
"""Systems remove files from /tmp that nobody has touched for days."""

_LOOK_SECONDS = 2.0
"""How often the secret's file is looked at."""

_FORMER_SECRETS = 8
"""So many are accepted beside the one in the file."""

_log = Log()


def join_host(
    name: str,
    *seeds: str,
    folder: str | os.PathLike[str] | None = None,
    node: Node | None = None,
    **settings: Unpack[JoinSettings],
) -> None:
    """Become a node among those of the same name, user and host: other programs, and other workers.

    Blocks until this node is linked to those that are there (or 5 seconds, if one is not quite alive), and knows what
    they have in the directory.

    To be called by each process that serves, after it was forked, in the native thread that runs its loop.
    The nodes find each other by themselves, whichever of them come and go; their groups and
    families are shared from then on. They listen on Unix sockets only, and share a secret that the first of
    them makes up, unless there are seeds: nodes at other hosts.

    The node's ID is ``name/host/%u`` unless the setting ``nodeid`` says otherwise.

    Args:
        name: Of all that belong together on this host: up to 40 letters, digits, ``_``, ``.`` and ``-``.
        seeds: Noderefs at other hosts, over TCP; none given: the setting ``seeds``. With any, the secret has
            to be given, and this node listens on a free TCP port of all interfaces as well.
        folder: Where sockets and secret are kept; it is made if it is not there, and must be this
            user's own, and closed to others. None: ``aemp-UID`` in the system's folder for temporary files.
        node: Which; None: the default node, that of the module functions.
        settings: See :class:`~aemp_gevent.Settings`. What is not given comes from the environment
            and the profile file, as with ``configure``. ``binds`` are those beside the Unix socket.

    Raises:
        InvalidSettingError: The name cannot be one, the folder is not private, or a setting is wrong.
        NoSecretError: There are seeds, and no secret.
        ListenError: The folder's path is too long for sockets in it, or a bind is taken.
        AlreadyInitialisedError: The node has its identity already.
        AempError: The same as ``configure()``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSettingError("name", name, "it has up to 40 letters, digits and the characters _ . -")
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
            raise  # other hosts have another folder
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
    """Return a folder that is this user's alone; it is made if need be.

    Raises:
        InvalidSettingError: It cannot be.
    """
    path = Path(tempfile.gettempdir(), f"aemp-{os.geteuid()}") if folder is None else Path(folder).absolute()
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        # Not what a link leads to: in /tmp anybody may have laid one.
        found = path.lstat()
    except OSError as error:
        raise InvalidSettingError("folder", str(path), f"it cannot be used ({error.strerror}); give another") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        why = "it has to be a folder of this user's own, closed to all others (mode 0700); make it so, or give another"
        raise InvalidSettingError("folder", str(path), why)
    return path


def _shared_secret(path: Path) -> str:
    """Return what stands in a file; whoever comes first writes it."""
    _write_first(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_first(path: Path, text: str) -> None:
    """Write a file, whole or not at all, unless there is one."""
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
    """Sees that all nodes of a name share what the secret's file holds, whatever happens to the file.

    If it is gone, it is written again. If it holds another secret, somebody came while it was gone: all
    take that over, and accept the former ones as well, until the others have done so, too.

    Args:
        node: Ours.
        path: The file.
        secret: What it held when this node started.
    """

    def __init__(self, node: Node, path: Path, secret: str) -> None:
        self._node = node
        self._path = path
        self._secrets: tuple[str, ...] = (secret,)
        self._complaint = ""

    def look(self) -> None:
        """Look at the file, now and every few seconds until the node shuts down."""
        network = self._node.network
        if network is None or network.is_closed:
            return
        try:
            self._take_over(network, self._read())
            self._complaint = ""
        except (OSError, UnicodeError, InvalidSettingError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("cannot keep the secret's file %s: %s", self._path, error)
        scheduler = self._node.scheduler

        def again() -> None:
            scheduler.end_timer(timer)
            self.look()

        timer = scheduler.start_timer(_LOOK_SECONDS, again)
        timer.ref = False  # the loop of a program that has shut down need not go on for this

    def _read(self) -> str:
        # Each time: in /tmp another user may have made a folder of this name since ours was removed.
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
            _log.warning("the secret's file %s had been removed: this node took over the new secret", self._path)
