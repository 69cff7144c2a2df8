# SPDX-License-Identifier: MIT
"""Files of Unix sockets, and folders of them, in which the nodes of one host find each other.

``unix:/run/chat/``, with a slash at its end, is a folder. As a bind it stands for a new socket in
it, as port 0 stands for a free port. As a seed it stands for all nodes that listen there, as a host
name does for all its addresses: the oldest first, so that new nodes change nothing for the
others.

A process that dies without closing its socket leaves a file on which no process listens. A node that
looks into the folder notices that without disturbing the living nodes, and removes the file. So the
folder always shows the living nodes, without a server that could be down or a list that could be wrong.
In the same way a node takes over the path of one that died.

A path may be used again, so files are removed under a lock of their folder: between the check and the removal, another
process could remove the file of a dead process and a living one could take its path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as std_socket
import stat
import sys
from collections.abc import Generator
from pathlib import Path
from time import time
from typing import Any

from gevent import monkey

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import Endpoint

MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path that fits into the system's ``sun_path``, with the zero byte behind it."""

_PRIVATE = 0o700

# The unpatched one: the holder of a folder's lock must not switch, or the next greenlet blocks the whole thread
# while it waits for the lock.
_Socket: Any = monkey.get_original("socket", "socket")


def new_socket_in(folder: str) -> str:
    """Return the path for a new socket in a folder, which is created for its owner alone if it does not exist.

    No other process ever gets the same path; paths sort by the time they were made.

    Raises:
        OSError: The folder cannot be made, or the path is too long for a socket.
    """
    # 2**44 ms is the year 2527.
    path = f"{folder}{int(time() * 1000):011x}-{ids.new_uniq()}"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        surplus = len(os.fsencode(path)) - MAX_PATH_BYTES
        why = f"the path of a Unix socket has at most {MAX_PATH_BYTES} bytes: choose a folder that is {surplus} shorter"
        raise OSError(errno.ENAMETOOLONG, why)
    make_folder(folder)
    return path


def make_folder(folder: str) -> None:
    """Create a folder for its owner alone, if it does not exist.

    Raises:
        OSError: It cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        Path(folder).mkdir(mode=_PRIVATE)


def sockets_in(folder: str) -> list[Endpoint]:
    """Return where the nodes in a folder listen, the oldest first; remove files of dead ones. Does not wait.

    Raises:
        OSError: There is no such folder, or it may not be read.
    """
    found: list[Endpoint] = []
    for path in sorted(os.listdir(folder)):  # noqa: PTH208  # plain strings: this is done every second
        endpoint = Endpoint("", 0, folder + path)
        if _is_alive(endpoint.path):
            found.append(endpoint)
    return found


def remove_dead(path: str) -> None:
    """Remove the file of a socket that no process has open; leave everything else as it is."""
    with contextlib.suppress(OSError), _locked(path):
        # Files that are not sockets refuse, too.
        if _probe(path) == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)  # noqa: PTH108


def file_of(path: str) -> tuple[int, int] | None:
    """Return the identity of the file at a path; None if there is no file. It is unique while the file is kept open."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_own(path: str, own: tuple[int, int] | None) -> None:
    """Remove a socket's file, unless its path now names another file."""
    with contextlib.suppress(OSError), _locked(path):
        if own is not None and file_of(path) == own:
            os.unlink(path)  # noqa: PTH108


@contextlib.contextmanager
def _locked(path: str) -> Generator[None, None, None]:
    """Lock the folder of a path, so that no other process removes files from it. Blocks for microseconds.

    Raises:
        OSError: There is no such folder.
    """
    import fcntl  # noqa: PLC0415  # Windows has none, and no Unix sockets

    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        # Closing would also unlock it, but gevent's os.close, which monkey-patching installs, closes later.
        fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def _is_alive(path: str) -> bool:
    """Return whether a process has a socket open; if none has, remove its file."""
    found = _probe(path)
    if found == errno.ECONNREFUSED:
        remove_dead(path)
    return found == errno.EPROTOTYPE


def _probe(path: str) -> int:
    """Return the error number of a connection that cannot be made.

    EPROTOTYPE: a process has the socket open; ECONNREFUSED: none has.
    """
    # Not by connecting: living nodes would see a stranger come and go every second. A datagram
    # socket is refused either way: for its wrong type if a process has the other socket, perhaps bound but not
    # listening yet, or because no process has it.
    with _Socket(std_socket.AF_UNIX, std_socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno or errno.EINVAL  # none: the path is too long for a socket
    return 0
