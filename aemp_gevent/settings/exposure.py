# SPDX-License-Identifier: MIT
"""Who else may read a file with a secret in it: one rule for keys, profile files and files of secrets."""

from __future__ import annotations

import os
import shlex
import stat

_OTHERS = 0o077
_OTHERS_THAN_THE_GROUP = 0o027
"""Of a file that is not ours: its owner may have chosen the group for us, as Kubernetes does with ``fsGroup``."""


def exposure_of(status: os.stat_result, path: object) -> str:
    """Return who else may read, or write, a file, and the cure; ``""``: nobody may. A pipe is as private as its maker.

    Args:
        status: Of the open file.
        path: The file's, for the cure.
    """
    if os.name != "posix" or not stat.S_ISREG(status.st_mode):
        return ""
    mode = stat.S_IMODE(status.st_mode)
    if not mode & (_OTHERS if status.st_uid == os.geteuid() else _OTHERS_THAN_THE_GROUP):
        return ""
    return f"others may read it (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"
