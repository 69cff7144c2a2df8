# SPDX-License-Identifier: MIT
"""Checks whether other users may read a file with a secret: one rule for keys, profiles and files of secrets."""

from __future__ import annotations

import os
import shlex
import stat

_OTHERS = 0o077
_OTHERS_THAN_THE_GROUP = 0o027
"""For a file that another user owns: its group may be chosen for this process, as by ``fsGroup`` of Kubernetes."""


def exposure_of(status: os.stat_result, path: object) -> str:
    """Return that other users may read or write a file, and the remedy; ``""`` if they may not. Pipes are not checked.

    Args:
        status: The status of the open file.
        path: The path of the file, for the remedy.
    """
    if os.name != "posix" or not stat.S_ISREG(status.st_mode):
        return ""
    mode = stat.S_IMODE(status.st_mode)
    if not mode & (_OTHERS if status.st_uid == os.geteuid() else _OTHERS_THAN_THE_GROUP):
        return ""
    return f"others may read it (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"
