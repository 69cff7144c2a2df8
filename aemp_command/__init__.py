# SPDX-License-Identifier: MIT
"""Where the ``aemp`` command starts.

A package of its own, beside ``aemp_gevent``, because importing that takes longer than a
command may that only shows its help: the commands are in :mod:`aemp_gevent.cli`, and
imported when one of them runs. :mod:`aemp_command.table` says which there are.
"""

import os
import sys
from importlib.util import find_spec

_MISSING = "aemp: the command needs {}, which are not installed: run pip install '.[cli]' in a clone of aemp_gevent"
_NEEDED = ("click", "rich")


def main() -> None:
    """Run the command that ``sys.argv`` asks for, and end the program with its exit code."""
    _open_what_is_closed()
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(_MISSING.format(" and ".join(_NEEDED)))
    # Not above: it needs click.
    from aemp_command.group import run_command  # noqa: PLC0415

    sys.exit(run_command())


def _open_what_is_closed() -> None:
    """Open standard files that are closed: Python has None for them, and sockets would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  # for as long as the program runs
