# SPDX-License-Identifier: MIT
"""The entry point of the ``aemp`` command.

A package separate from ``aemp_gevent``, because importing that would make ``aemp --help`` slow. The commands
themselves are in :mod:`aemp_gevent.cli`, and each is imported only when it runs. :mod:`aemp_command.table` lists them.
"""

import os
import sys
from importlib.util import find_spec

_MISSING = "aemp: the command needs {}, which are not installed: run pip install '.[cli]' in a clone of aemp_gevent"
_NEEDED = ("click", "rich")


def main() -> None:
    """Run the command in ``sys.argv``, and exit with its exit code."""
    _open_what_is_closed()
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(_MISSING.format(" and ".join(_NEEDED)))
    # Not above: it needs click.
    from aemp_command.group import run_command  # noqa: PLC0415

    sys.exit(run_command())


def _open_what_is_closed() -> None:
    """Open standard files that are closed: Python has None for them, and sockets would get their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  # for as long as the program runs
