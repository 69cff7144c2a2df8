# SPDX-License-Identifier: MIT
"""Files that nobody else may read, put in their places whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from aemp_gevent.settings.exposure import exposure_of

OURS_ALONE = 0o600


def read_private(path: Path) -> bytes:
    """Return what is in a file that nobody else may read.

    Raises:
        OSError: It cannot be read, or others may read it.
    """
    with path.open("rb") as file:
        exposure = exposure_of(os.fstat(file.fileno()), path)
        if exposure:
            raise PermissionError(errno.EACCES, f"it holds a secret, and {exposure}")
        return file.read()


def write_private(path: Path, text: bytes, owner: os.stat_result | None = None) -> None:
    """Write a file of mode 0600 beside ``path``, and then move it there; on the disk when this returns.

    Whoever is killed meanwhile leaves the old file as it was, and perhaps ``.name.new``, which
    the next one writes over. Two must not write the same file at the same time.

    Args:
        path: Where it is to be.
        text: What is to be in it.
        owner: Whose it is to be: root may change a user's file.

    Raises:
        OSError: It could not be written.
    """
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, OURS_ALONE), "wb") as file:
        os.fchmod(file.fileno(), OURS_ALONE)  # it may have been there
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
