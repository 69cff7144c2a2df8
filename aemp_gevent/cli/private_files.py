# SPDX-License-Identifier: MIT
"""Files that only their owner can read, replaced atomically."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from aemp_gevent.settings.exposure import exposure_of

OURS_ALONE = 0o600


def read_private(path: Path) -> bytes:
    """Return the content of a file that only its owner can read.

    Raises:
        OSError: It cannot be read, or others can read it, too.
    """
    with path.open("rb") as file:
        exposure = exposure_of(os.fstat(file.fileno()), path)
        if exposure:
            raise PermissionError(errno.EACCES, f"it holds a secret, and {exposure}")
        return file.read()


def write_private(path: Path, text: bytes, owner: os.stat_result | None = None) -> None:
    """Write a file of mode 0600 atomically: next to ``path`` first, then moved there. It is on disk on return.

    A process that is killed meanwhile leaves the old file unchanged, and perhaps ``.name.new``, which is overwritten
    the next time. Two processes must not write the same file at the same time.

    Args:
        path: The file.
        text: Its new content.
        owner: The file's owner, which matters if root changes a user's file.

    Raises:
        OSError: It could not be written.
    """
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, OURS_ALONE), "wb") as file:
        os.fchmod(file.fileno(), OURS_ALONE)  # it may have existed already
        if owner is not None and owner.st_uid != os.geteuid():
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
